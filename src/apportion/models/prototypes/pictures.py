"""Pictures side by side as a matplotlib figure: prototypes with what looks like them, and the gallery of a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from apportion.looks import Box, Look, Pixels, Row, Rows, product
from apportion.markup import opened
from apportion.results.words import number, signed
from apportion.views import FOR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE, BESIDE = 1.5, 1.6  # inches: a picture, and the words beside a row
ROWS = 10


def drawn(look: Look) -> Pixels:
    """The picture with its box or its map on it."""
    if look.heat is not None:
        return heated(look.picture, look.heat)
    return look.picture if look.box is None else framed(look.picture, look.box)


def framed(picture: Pixels, box: Box) -> Pixels:
    """The picture with the box drawn around its patch, a 64th of the picture wide; where there is room a
    thin white line is around it, so that it is seen on its own colour too."""
    shown = picture.copy()
    wide = max(1, min(shown.shape[:2]) // 64)
    line = wide // 2
    patch = _inside(shown, box, line + wide).copy()
    _inside(shown, box, 0)[:] = 255
    _inside(shown, box, line)[:] = FOR
    _inside(shown, box, line + wide)[:] = patch
    return shown


def _inside(picture: Pixels, box: Box, by: int) -> Pixels:
    """What of the picture is in the box and at least `by` pixels from its edge."""
    top, bottom, left, right = box
    return picture[top + by : max(0, bottom - by), left + by : max(0, right - by)]


def heated(picture: Pixels, heat: npt.NDArray[np.float64]) -> Pixels:
    """The picture in grey with the map over it: the more activated, the fuller the colour."""
    grey = picture.astype(np.float64).mean(2, keepdims=True)
    share = 0.8 * heat[..., None] ** 2
    mixed: Pixels = ((1 - share) * grey + share * np.array(FOR)).round().astype(np.uint8)
    return mixed


def draw(rows: Rows) -> Figure:
    """A row of pictures each, beside its words; what is above the first picture of a group is its heading."""
    many = max((sum(len(looks) for _, looks in row.groups) for row in rows.rows), default=1)
    beside = BESIDE if any(row.words for row in rows.rows) else 0.0
    figure, axes = _table(max(1, len(rows.rows)), many, beside)
    for ax in axes.flat:
        ax.axis("off")
    for line, row in zip(axes, rows.rows, strict=False):
        places = iter(line)
        for number_of_group, (heading, looks) in enumerate(row.groups):
            above = heading if number_of_group else row.title
            for i, look in enumerate(looks):
                _show(last := next(places), look, above if i == 0 else "")
        if row.words:
            _beside(last, [*row.words, "", looks[-1].name])
    said = " · ".join(filter(None, (rows.about, rows.end)))
    figure.suptitle(_plain(f"{rows.title}\n{said}".rstrip()), fontsize=10)
    return figure


def draw_panels(found: Mapping[str, Any]) -> Figure:
    """Reasons without maps, from what a page is given: the `picture`, and `rows` as `panels` makes them."""
    return draw(Rows("", tuple(_panel(row, opened(found["picture"])) for row in found["rows"][:ROWS])))


def _panel(row: Mapping[str, Any], picture: Pixels) -> Row:
    source, theirs = row["source"], opened(row["source"]["picture"])
    looks = (
        Look("this", picture, _box(row["box"], picture)),
        Look("looks like that", theirs, _box(source["box"], theirs), name=source["name"]),
    )
    words = product(number(row["similarity"]), number(row["weight"]), signed(row["contribution"]))
    return Row(row["name"], (("", looks),), words)


def _box(shares: Sequence[float], picture: Pixels) -> Box:
    height, width = picture.shape[:2]
    top, bottom, left, right = (
        round(s * n) for s, n in zip(shares, (height, height, width, width), strict=True)
    )
    return top, bottom, left, right


def _table(rows: int, columns: int, beside: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    size = (columns * SIDE * 1.1 + beside, rows * SIDE * 1.3 + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _show(ax: Any, look: Look, above: str) -> None:
    ax.imshow(drawn(look), interpolation="nearest" if look.picture.shape[0] < 64 else None)
    ax.set_title(_plain(f"{above}\n{look.caption}".strip()), fontsize=7, loc="left")


def _beside(ax: Any, lines: Sequence[str]) -> None:
    text = _plain("\n".join(lines))
    ax.annotate(text, (1.05, 0.5), xycoords="axes fraction", fontsize=8, va="center")


def _plain(text: str) -> str:
    """Names of files and classes may hold what matplotlib takes for mathematics."""
    return text.replace("$", r"\$")
