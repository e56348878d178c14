"""The prototypes of a class, each with the patches nearest to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from apportion import looks
from apportion.files import written
from apportion.models.prototypes.grids import Grids
from apportion.models.prototypes.images import Images
from apportion.models.prototypes.matches import Patch, patches_of
from apportion.models.prototypes.network import PrototypeNet
from apportion.models.prototypes.push import Nearest, nearest
from apportion.models.prototypes.settings import check_whole
from apportion.results.words import number, signed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Row:
    """One prototype: its own patch, its connection to its class, and the nearest patches in each set of images."""

    prototype: int
    source: Patch
    connection: float
    nearest: dict[str, tuple[Patch, ...]]


@dataclass(frozen=True, eq=False)
class Gallery:
    """Every prototype of a class."""

    label: str
    rows: tuple[Row, ...]

    @property
    def looks(self) -> looks.Rows:
        """All of it for drawing: a row for each prototype, its own patch and those nearest to it."""
        return looks.Rows(f"Prototypes of {self.label}", tuple(map(_drawable, self.rows)))

    def plot(self) -> Figure:
        from apportion.models.prototypes.pictures import draw

        return draw(self.looks)

    def to_html(self, path: str | Path | None = None) -> str:
        """One self-contained page; also written to `path` if given."""
        from apportion.sheet import rows_page

        return written(rows_page(self.looks), path)

    def _repr_html_(self) -> str:
        from apportion.markup import framed

        return framed(self.to_html(), self.looks.title)


def _drawable(row: Row) -> looks.Row:
    near = (
        (f"Nearest in {name}", tuple(p.look(f"{number(p.similarity)} {p.label}".rstrip()) for p in patches))
        for name, patches in row.nearest.items()
    )
    own = ("", (row.source.look("the prototype"),))
    return looks.Row(f"Prototype {row.prototype}, connection {signed(row.connection)}", (own, *near))


def gallery(
    net: PrototypeNet, number: int, label: str, sources: Sequence[Patch], sets: Mapping[str, Images], k: int
) -> Gallery:
    """The gallery of class `number`, with the k nearest patches of each prototype in each set of images."""
    check_whole("k", k)
    chosen = (net.class_of == number).nonzero().flatten()
    columns = {}
    for name, images in sets.items():
        found = nearest(net, Grids(images, net.backbone).patches(net, f"nearest in {name}"), k)
        columns[name] = _patches(net, images, found, chosen)
    weights = net.last.weight[number, chosen].tolist()
    rows = [
        Row(j, sources[j], weight, {name: column[i] for name, column in columns.items()})
        for i, (j, weight) in enumerate(zip(chosen.tolist(), weights, strict=True))
    ]
    return Gallery(label, tuple(rows))


def _patches(
    net: PrototypeNet, images: Images, found: Nearest, prototypes: Tensor
) -> list[tuple[Patch, ...]]:
    """What `nearest` found, as patches: a tuple for each of these prototypes, the nearest first."""
    numbers = found.image[prototypes]
    flat = patches_of(net, images, numbers.flatten(), prototypes.repeat_interleave(numbers.shape[1]))
    k = numbers.shape[1]
    return [tuple(flat[begin : begin + k]) for begin in range(0, len(flat), k)]
