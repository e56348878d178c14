"""This looks like that: the patches of an image that prototypes found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from apportion.display.drawn import DrawnBySheet
from apportion.display.page_data import Article, Figure, Sheet
from apportion.display.sheet import Corners, figure, paint_heat, product_in_words
from apportion.models.prototypes._backbone_features import CHUNK, device_of
from apportion.models.prototypes._images import Images
from apportion.models.prototypes._network import PrototypeNet
from apportion.models.prototypes.methods import enlarge
from apportion.results.words import format_number, format_signed

PERCENTILE = 95  # of the enlarged map, inside the box of the most activated patch (the authors' value)


@dataclass(frozen=True, eq=False)
class Patch:
    """A patch of an image: `picture` (height, width, 3) uint8 with a box in it; `label` is the image's class."""

    name: str
    label: str
    picture: Tensor = field(repr=False)
    box: Corners
    similarity: float

    def figure(self, caption: str) -> Figure:
        """The picture with its box, as data for drawing."""
        return figure(caption, self.picture.cpu().numpy(), name=self.name, box=self.box)


@dataclass(frozen=True, eq=False)
class Match:
    """One prototype in an image: `similarity` · `connection` = `contribution` to the explained score.

    `box` is the most activated patch of the image and `heat` (height, width) in [0, 1] its map; `source` is the
    patch of a training image that the prototype is.
    """

    prototype: int
    label: str
    similarity: float
    connection: float
    contribution: float
    box: Corners
    heat: Tensor = field(repr=False)
    source: Patch


@dataclass(frozen=True, eq=False)
class Reasons(DrawnBySheet):
    """Why an image has its score for a class: the prototypes that contribute most, and `others` for the rest.

    `score` = Σ `contribution` + `others`.
    """

    name: str
    picture: Tensor = field(repr=False)
    label: str
    score: float
    probability: float
    matches: tuple[Match, ...]
    others: float

    @property
    def sheet(self) -> Sheet:
        """All of it as data for drawing: of each match the patch, its map and the patch that it looks like."""
        return {
            "kind": "sheet",
            "title": f"{self.name} looks like {self.label}",
            "about": f"Score {format_number(self.score)}, probability {self.probability:.1%}",
            "layout": "list",
            "chapters": [{"articles": [self._article(match) for match in self.matches]}],
            "end": f"All other prototypes: {format_signed(self.others)}",
        }

    def _article(self, match: Match) -> Article:
        picture = self.picture.cpu().numpy()
        figures = [
            figure("this", picture, box=match.box),
            figure("similarity map", paint_heat(picture, match.heat.double().cpu().numpy())),
            match.source.figure("looks like that"),
        ]
        return {
            "title": f"Prototype {match.prototype} of {match.label}",
            "groups": [{"figures": figures}],
            "words": product_in_words(match.similarity, match.connection, match.contribution),
        }


def boxes(maps: Tensor, space: Sequence[int]) -> list[Corners]:
    """The smallest box around the enlarged map's values from its 95th percentile on, for (k, rows, columns) maps.

    >>> boxes(torch.tensor([[[0.0, 0.0], [0.0, 1.0]]]), (8, 8))
    [(6, 8, 6, 8)]
    """
    fine = enlarge(maps[:, None], space)[:, 0]
    flat = fine.flatten(1)
    rank = math.ceil((flat.shape[1] - 1) * PERCENTILE / 100) + 1
    high = fine >= flat.kthvalue(rank, 1).values[:, None, None]
    (top, bottom), (left, right) = _ends(high.any(2)), _ends(high.any(1))
    return [tuple(box) for box in torch.stack([top, bottom, left, right], 1).tolist()]


def _ends(some: Tensor) -> tuple[Tensor, Tensor]:
    """The first of each row that is True, and the first beyond the last."""
    number = some.int()
    return number.argmax(1), some.shape[1] - number.flip(1).argmax(1)


@torch.no_grad()
def patches_of(net: PrototypeNet, images: Images, numbers: Tensor, prototypes: Tensor) -> list[Patch]:
    """The best patch of image `numbers[i]` for prototype `prototypes[i]`, one forward pass for each image."""
    unique, where = numbers.unique(return_inverse=True)
    maps, space = [], images.read(unique[:1].cpu()).shape[2:]
    for begin in range(0, len(unique), CHUNK):
        x = images.read(unique[begin : begin + CHUNK].cpu()).to(device_of(net))
        found = net.similarities(net.features(x))
        here = ((where >= begin) & (where < begin + CHUNK)).nonzero().flatten()
        maps.append((here, found[where[here] - begin, prototypes[here]]))
    order = torch.cat([here for here, _ in maps]).argsort()
    wanted = torch.cat([found for _, found in maps])[order]
    labels = [
        "" if images.labels is None else str(images.classes[int(images.labels[n])]) for n in numbers.tolist()
    ]
    pictures = {number: images.show(number) for number in unique.tolist()}
    best = wanted.amax((1, 2)).tolist()
    return [
        Patch(images.names[number], label, pictures[number], box, similarity)
        for number, label, box, similarity in zip(
            numbers.tolist(), labels, boxes(wanted, space), best, strict=True
        )
    ]


@torch.no_grad()
def reasons(
    net: PrototypeNet,
    x: Tensor,
    picture: Tensor,
    name: str,
    target: int | None,
    classes: Sequence[str],
    sources: Sequence[Patch],
    top: int,
) -> Reasons:
    """The `top` prototypes by |contribution| to the score of a class of one image x (1, channels, height, width)."""
    maps = net.similarities(net.features(x))[0]
    similar = maps.amax((1, 2))
    scores = net.last(similar[None])[0]
    label = int(scores.argmax()) if target is None else target
    connection = net.last.weight[label]
    contribution = connection * similar
    chosen = contribution.abs().argsort(descending=True, stable=True)[:top]
    space = tuple(x.shape[2:])
    fine = enlarge(maps[chosen][:, None], space)[:, 0]
    low, high = fine.amin((1, 2), keepdim=True), fine.amax((1, 2), keepdim=True)
    heat = (fine - low) / (high - low).clamp(min=1e-12)
    matches = tuple(
        Match(
            j,
            classes[int(net.class_of[j])],
            float(similar[j]),
            float(connection[j]),
            float(contribution[j]),
            box,
            heat[i],
            sources[j],
        )
        for i, (j, box) in enumerate(zip(chosen.tolist(), boxes(maps[chosen], space), strict=True))
    )
    score = float(contribution.double().sum())
    others = score - sum(match.contribution for match in matches)
    return Reasons(name, picture, classes[label], score, float(scores.softmax(0)[label]), matches, others)
