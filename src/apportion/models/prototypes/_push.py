"""The nearest training patches of every prototype: to push it there, to prune it, to show it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.models.prototypes._network import PrototypeNet
from apportion.models.prototypes.settings import Pruning


@dataclass(frozen=True)
class Nearest:
    """The k nearest images of every prototype, each at its best patch: all tensors are (prototypes, k).

    `image` numbers the images, `place` the patches of an image row by row; `similarity` is −∞ where there are
    fewer than k images. `vector` (prototypes, channels) is the very nearest patch.
    """

    image: Tensor
    place: Tensor
    similarity: Tensor
    vector: Tensor


@torch.no_grad()
def find_nearest(
    net: PrototypeNet,
    batches: Iterator[tuple[Tensor, Tensor]],
    k: int = 1,
    labels: Tensor | None = None,
    similarities: Tensor | None = None,
) -> Nearest:
    """One pass over the images; with `labels` each prototype looks at images of its own class only.

    `similarities` (images, prototypes), if given, receives the largest similarity of each image to each
    prototype.
    """
    many = len(net.prototypes)
    at = net.prototypes.device
    image = torch.full((many, 0), -1, device=at)
    place, best = image.clone(), torch.empty(many, 0, dtype=net.prototypes.dtype, device=at)
    vector = net.prototypes.detach().clone()
    for numbers, patches in batches:
        found = net.similarities(patches).flatten(2).max(2)  # (batch, prototypes): value, place
        values, numbers = found.values.t(), numbers.to(at)  # (prototypes, batch)
        if similarities is not None:
            similarities[numbers] = found.values
        if labels is not None:
            values = values.masked_fill(labels[numbers][None] != net.class_of[:, None], -torch.inf)
        pool = torch.cat([best, values], 1)  # (prototypes, k + batch)
        top = pool.topk(min(k, pool.shape[1]), 1)
        first = top.indices[:, 0] - best.shape[1]  # (prototypes,): below 0 where an earlier one is nearest
        better = (first >= 0) & (top.values[:, 0] > -torch.inf)
        chosen = found.indices[first[better], better.nonzero().flatten()]
        vector[better] = patches.flatten(2)[first[better], :, chosen]
        image = torch.cat([image, numbers.expand(many, -1)], 1).gather(1, top.indices)
        place = torch.cat([place, found.indices.t()], 1).gather(1, top.indices)
        best = top.values
    return Nearest(image, place, best, vector)


def push(net: PrototypeNet, batches: Iterator[tuple[Tensor, Tensor]], labels: Tensor) -> Nearest:
    """Every prototype becomes the nearest patch of a training image of its class (section 2.3), in one pass."""
    found = find_nearest(net, batches, 1, labels)
    with torch.no_grad():
        net.prototypes.copy_(found.vector)
    return found


def duplicates(class_of: Tensor, image: Tensor, place: Tensor) -> Tensor:
    """For each prototype the number of the first of its class that is the same patch (itself, if it is the first).

    >>> duplicates(torch.tensor([0, 0, 1]), torch.tensor([4, 4, 4]), torch.tensor([2, 2, 2])).tolist()
    [0, 0, 2]
    """
    key = torch.stack([class_of, image, place], 1)
    same = (key[:, None] == key[None]).all(2)  # (prototypes, prototypes)
    return same.int().argmax(1)


def merge_duplicates(net: PrototypeNet, first: Tensor) -> Tensor:
    """Give the weights of duplicates to the first of them, which changes no score; the numbers to keep."""
    with torch.no_grad():
        weight = torch.zeros_like(net.last.weight).index_add_(1, first, net.last.weight)
        net.last.weight.copy_(weight)
    kept: Tensor = first.unique()
    return kept


def own_neighbours(net: PrototypeNet, found: Nearest, labels: Tensor) -> Tensor:
    """(prototypes,): how many of the nearest images are of the prototype's class."""
    return (labels[found.image] == net.class_of[:, None]).sum(1)


def worth_keeping(class_of: Tensor, own: Tensor, pruning: Pruning) -> Tensor:
    """The numbers of the prototypes that pruning keeps: those with enough neighbours of their class, and of a
    class that would be left without any, the one with most.

    >>> worth_keeping(torch.tensor([0, 0, 1, 1]), torch.tensor([6, 2, 0, 1]), Pruning()).tolist()
    [0, 3]
    """
    kept = own >= pruning.own
    for label in class_of.unique():
        members = (class_of == label).nonzero().flatten()
        if not bool(kept[members].any()):
            kept[members[own[members].argmax()]] = True
    return kept.nonzero().flatten()
