"""How good prototypes are: purity, place in the object, stability under noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.models.prototypes.grids import CHUNK, device_of
from apportion.models.prototypes.matches import Box
from apportion.models.prototypes.network import PrototypeNet
from apportion.models.prototypes.push import Nearest, own_neighbours


def purity(net: PrototypeNet, found: Nearest, labels: Tensor) -> Tensor:
    """(prototypes,): the share of the nearest images that are of the prototype's class."""
    return own_neighbours(net, found, labels) / found.image.shape[1]


def inside(patches: Sequence[Box], objects: Sequence[Box]) -> Tensor:
    """The share of each patch's box that lies in the box of the object.

    >>> inside([(0, 4, 0, 4), (0, 4, 0, 4)], [(0, 4, 2, 8), (9, 10, 9, 10)]).tolist()
    [0.5, 0.0]
    """
    a, b = torch.tensor(patches), torch.tensor(objects)
    begin, end = torch.maximum(a[:, ::2], b[:, ::2]), torch.minimum(a[:, 1::2], b[:, 1::2])
    return (end - begin).clamp(min=0).prod(1) / (a[:, 1::2] - a[:, ::2]).prod(1)


@torch.no_grad()
def stability(net: PrototypeNet, x: Tensor, labels: Tensor, noise: float = 0.1, seed: int = 0) -> Tensor:
    """(images,): the share of the prototypes of an image's class whose most similar patch stays where it is, give
    or take one place, when Gaussian noise is added (after Huang et al. 2023).

    `noise` is the deviation as a share of that of the inputs `x` (images, channels, height, width).
    """
    if not noise >= 0:
        raise InputError(f"noise is {noise}; accepted: zero or a positive number")
    random = torch.Generator().manual_seed(seed)
    scale, shares = noise * x.std(), []
    own = net.own_class()
    for part, label in zip(x.split(CHUNK), labels.split(CHUNK), strict=True):
        clean = part.to(device_of(net))
        noisy = clean + scale.to(clean) * torch.randn(part.shape, generator=random).to(clean)
        (row, column), (row_after, column_after) = _place(net, clean), _place(net, noisy)
        near = ((row - row_after).abs() <= 1) & ((column - column_after).abs() <= 1)
        mine = own[label.to(own.device)]
        shares.append((near & mine).sum(1) / mine.sum(1))
    return torch.cat(shares)


def _place(net: PrototypeNet, x: Tensor) -> tuple[Tensor, Tensor]:
    maps = net.similarities(net.features(x))
    best = maps.flatten(2).argmax(2)
    return best // maps.shape[3], best % maps.shape[3]
