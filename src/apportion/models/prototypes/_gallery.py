"""The prototypes of a class, each with the patches nearest to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from apportion.display.drawn import DrawnBySheet
from apportion.display.page_data import Article, Group, Sheet
from apportion.errors import check_whole
from apportion.models.prototypes._backbone_features import Grids
from apportion.models.prototypes._images import Images
from apportion.models.prototypes._network import PrototypeNet
from apportion.models.prototypes._push import Nearest, find_nearest
from apportion.models.prototypes._reasons import Patch, patches_of
from apportion.results.words import format_number, format_signed


@dataclass(frozen=True, eq=False)
class GalleryRow:
    """One prototype: its own patch, its connection to its class, and the nearest patches in each set of images."""

    prototype: int
    source: Patch
    connection: float
    nearest: dict[str, tuple[Patch, ...]]


@dataclass(frozen=True, eq=False)
class Gallery(DrawnBySheet):
    """Every prototype of a class."""

    label: str
    rows: tuple[GalleryRow, ...]

    @property
    def sheet(self) -> Sheet:
        """All of it as data for drawing: of each prototype its own patch and those nearest to it."""
        articles = [_article(row) for row in self.rows]
        title = f"Prototypes of {self.label}"
        return {"kind": "sheet", "title": title, "layout": "list", "chapters": [{"articles": articles}]}


def _article(row: GalleryRow) -> Article:
    groups: list[Group] = [{"figures": [row.source.figure("the prototype")]}]
    for name, patches in row.nearest.items():
        figures = [
            patch.figure(f"{format_number(patch.similarity)} {patch.label}".rstrip()) for patch in patches
        ]
        groups.append({"heading": f"Nearest in {name}", "figures": figures})
    return {
        "title": f"Prototype {row.prototype}, connection {format_signed(row.connection)}",
        "groups": groups,
    }


def gallery(
    net: PrototypeNet, number: int, label: str, sources: Sequence[Patch], sets: Mapping[str, Images], k: int
) -> Gallery:
    """The gallery of class `number`, with the k nearest patches of each prototype in each set of images."""
    check_whole(1, k=k)
    chosen = (net.class_of == number).nonzero().flatten()
    columns = {}
    for name, images in sets.items():
        found = find_nearest(net, Grids(images, net.backbone).patches(net, f"nearest in {name}"), k)
        columns[name] = _patches(net, images, found, chosen)
    weights = net.last.weight[number, chosen].tolist()
    rows = [
        GalleryRow(j, sources[j], weight, {name: column[i] for name, column in columns.items()})
        for i, (j, weight) in enumerate(zip(chosen.tolist(), weights, strict=True))
    ]
    return Gallery(label, tuple(rows))


def _patches(
    net: PrototypeNet, images: Images, found: Nearest, prototypes: Tensor
) -> list[tuple[Patch, ...]]:
    """What `find_nearest` found, as patches: a tuple for each of these prototypes, the nearest first."""
    numbers = found.image[prototypes]
    flat = patches_of(net, images, numbers.flatten(), prototypes.repeat_interleave(numbers.shape[1]))
    k = numbers.shape[1]
    return [tuple(flat[begin : begin + k]) for begin in range(0, len(flat), k)]
