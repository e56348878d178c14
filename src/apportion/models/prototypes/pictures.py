"""Prototypes as matplotlib pictures: reasons for one image, and the gallery of a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from apportion.markup import opened
from apportion.models.prototypes.gallery import Gallery
from apportion.models.prototypes.matches import Box, Patch, Reasons
from apportion.results.words import number, signed
from apportion.views import FOR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = npt.NDArray[np.uint8]

SIDE, BESIDE = 1.5, 1.6  # inches: a picture, and the words beside a row
ROWS = 10


def framed(picture: Tensor | Picture, box: Box) -> Picture:
    """The picture with the box drawn around its patch, a 64th of the picture wide; where there is room a
    thin white line is around it, so that it is seen on its own colour too."""
    shown: Picture = np.array(picture.cpu().numpy() if isinstance(picture, Tensor) else picture)
    wide = max(1, min(shown.shape[:2]) // 64)
    line = wide // 2
    patch = _inside(shown, box, line + wide).copy()
    _inside(shown, box, 0)[:] = 255
    _inside(shown, box, line)[:] = FOR
    _inside(shown, box, line + wide)[:] = patch
    return shown


def _inside(picture: Picture, box: Box, by: int) -> Picture:
    """What of the picture is in the box and at least `by` pixels from its edge."""
    top, bottom, left, right = box
    return picture[top + by : max(0, bottom - by), left + by : max(0, right - by)]


def heated(picture: Tensor, heat: Tensor) -> Picture:
    """The picture in grey with the map over it: the more activated, the fuller the colour."""
    grey = picture.cpu().numpy().astype(np.float64).mean(2, keepdims=True)
    share = 0.8 * heat.cpu().numpy().astype(np.float64)[..., None] ** 2
    mixed: Picture = ((1 - share) * grey + share * np.array(FOR)).round().astype(np.uint8)
    return mixed


def draw_reasons(reasons: Reasons) -> Figure:
    """One row for each match: where in this image, how much, and the patch that it looks like."""
    rows = reasons.matches[:ROWS]
    figure, axes = _table(len(rows), 3, BESIDE)
    for (left, middle, right), match in zip(axes, rows, strict=True):
        _show(left, framed(reasons.picture, match.box), "this")
        _show(middle, heated(reasons.picture, match.heat), "similarity map")
        _show(
            right,
            framed(match.source.picture, match.source.box),
            f"prototype {match.prototype}: {match.label}",
        )
        _beside(right, match.similarity, match.connection, match.contribution, match.source.name)
    shown = sum(match.contribution for match in rows)
    figure.suptitle(
        f"{_plain(reasons.name)} looks like {_plain(reasons.label)}: {number(reasons.score)} = "
        f"{number(shown)} {'+' if reasons.score >= shown else '−'} {number(abs(reasons.score - shown))} from others",
        fontsize=10,
    )
    return figure


def draw_panels(found: Mapping[str, Any]) -> Figure:
    """The same without the maps, from what a page is given: the `picture`, and `rows` as `panels` makes them."""
    rows, picture = found["rows"][:ROWS], opened(found["picture"])
    figure, axes = _table(len(rows), 2, BESIDE)
    for (left, right), row in zip(axes, rows, strict=True):
        source = row["source"]
        theirs = opened(source["picture"])
        _show(left, framed(picture, _box(row["box"], picture)), "this")
        _show(right, framed(theirs, _box(source["box"], theirs)), row["name"])
        _beside(right, row["similarity"], row["weight"], row["contribution"], source["name"])
    return figure


def _box(shares: Sequence[float], picture: Picture) -> Box:
    height, width = picture.shape[:2]
    top, bottom, left, right = (
        round(s * n) for s, n in zip(shares, (height, height, width, width), strict=True)
    )
    return top, bottom, left, right


def draw_gallery(gallery: Gallery) -> Figure:
    """One row for each prototype: its own patch, and the nearest in each set of images."""
    columns = [name for row in gallery.rows[:1] for name, found in row.nearest.items() for _ in found]
    figure, axes = _table(len(gallery.rows), 1 + len(columns))
    for line, row in zip(axes, gallery.rows, strict=True):
        title = f"prototype {row.prototype} ({signed(row.connection)})"
        _show(line[0], framed(row.source.picture, row.source.box), title)
        patches: list[Patch] = [patch for found in row.nearest.values() for patch in found]
        for ax, name, patch in zip(line[1:], columns, patches, strict=True):
            _show(ax, framed(patch.picture, patch.box), f"{name} {number(patch.similarity)} {patch.label}")
    figure.suptitle(
        f"The prototypes of {_plain(gallery.label)}, and the patches nearest to them", fontsize=10
    )
    return figure


def _table(rows: int, columns: int, beside: float = 0.0) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    size = (columns * SIDE * 1.1 + beside, rows * SIDE * 1.2 + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _show(ax: Any, picture: Picture, title: str) -> None:
    ax.imshow(picture, interpolation="nearest" if picture.shape[0] < 64 else None)
    ax.set_title(_plain(title), fontsize=7)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def _beside(ax: Any, similarity: float, connection: float, contribution: float, source: str) -> None:
    text = f"{number(similarity)} similarity\n× {number(connection)} connection\n= {signed(contribution)}\n\n{source}"
    ax.annotate(_plain(text), (1.05, 0.5), xycoords="axes fraction", fontsize=8, va="center")


def _plain(text: str) -> str:
    """Names of files and classes may hold what matplotlib takes for mathematics."""
    return text.replace("$", r"\$")
