"""How good prototypes are: purity, place in the object, stability under noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.display.sheet import Corners
from apportion.errors import InputError, check_whole
from apportion.models.prototypes._backbone_features import CHUNK, Grids, device_of
from apportion.models.prototypes._images import Images, labels_of
from apportion.models.prototypes._network import PrototypeNet
from apportion.models.prototypes._push import Nearest, duplicates, find_nearest, own_neighbours


@dataclass(frozen=True, eq=False)
class Quality:
    """How pure and how stable prototypes are on a set of images.

    `purity` (prototypes,) is the share of the k nearest images that are of the prototype's class, which cannot be
    1 where a class has fewer than k images. `stability` (images,) is the share of the prototypes of an image's class
    that stay at their place under noise. `duplicates` counts the prototypes whose nearest patch is that of another
    of their class.
    """

    purity: Tensor
    stability: Tensor
    duplicates: int

    def __str__(self) -> str:
        means = f"purity {self.purity.mean():.0%}, stability {self.stability.mean():.0%}"
        return f"{means}, {self.duplicates} duplicates among {len(self.purity)} prototypes"


def quality(net: PrototypeNet, images: Images, k: int, noise: float) -> Quality:
    """The quality of prototypes on images with labels, by the k nearest of these and noise of such a share."""
    check_whole(1, k=k)
    labels = labels_of(images).to(device_of(net))
    found = find_nearest(net, Grids(images, net.backbone).patches(net, "nearest images"), k)
    first = duplicates(net.class_of, found.image[:, 0], found.place[:, 0])
    steady = stability(net, images, noise)
    return Quality(purity(net, found, labels), steady, len(first) - len(first.unique()))


def purity(net: PrototypeNet, found: Nearest, labels: Tensor) -> Tensor:
    """(prototypes,): the share of the nearest images that are of the prototype's class."""
    return own_neighbours(net, found, labels) / found.image.shape[1]


def inside(patches: Sequence[Corners], objects: Sequence[Corners]) -> Tensor:
    """The share of each patch's box that lies in the box of the object.

    >>> inside([(0, 4, 0, 4), (0, 4, 0, 4)], [(0, 4, 2, 8), (9, 10, 9, 10)]).tolist()
    [0.5, 0.0]
    """
    a, b = torch.tensor(patches), torch.tensor(objects)
    begin, end = torch.maximum(a[:, ::2], b[:, ::2]), torch.minimum(a[:, 1::2], b[:, 1::2])
    return (end - begin).clamp(min=0).prod(1) / (a[:, 1::2] - a[:, ::2]).prod(1)


@torch.no_grad()
def stability(net: PrototypeNet, images: Images, noise: float = 0.1, seed: int = 0) -> Tensor:
    """(images,): the share of the prototypes of an image's class whose most similar patch stays where it is, give
    or take one place, when Gaussian noise is added (after Huang et al. 2023).

    `noise` is the deviation as a share of that of the first 256 model inputs.
    """
    if not noise >= 0:
        raise InputError(f"noise is {noise}; accepted: zero or a positive number")
    labels = labels_of(images)
    random, own, shares = torch.Generator().manual_seed(seed), net.own_class(), []
    scale = noise * float(images.read(torch.arange(min(256, len(images)))).std())
    for numbers, part in images.batches(CHUNK, "images with noise"):
        clean = part.to(device_of(net))
        noisy = clean + scale * torch.randn(part.shape, generator=random, dtype=torch.float32).to(clean)
        (row, column), (row_after, column_after) = _place(net, clean), _place(net, noisy)
        near = ((row - row_after).abs() <= 1) & ((column - column_after).abs() <= 1)
        mine = own[labels[numbers].to(own.device)]
        shares.append((near & mine).sum(1) / mine.sum(1))
    return torch.cat(shares)


def _place(net: PrototypeNet, x: Tensor) -> tuple[Tensor, Tensor]:
    maps = net.similarities(net.features(x))
    best = maps.flatten(2).argmax(2)
    return best // maps.shape[3], best % maps.shape[3]
