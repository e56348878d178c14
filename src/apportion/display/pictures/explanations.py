"""Explanations as matplotlib pictures: Axes in, Axes out, without pyplot's global state."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import bidirectional

import numpy as np
import numpy.typing as npt

from apportion.core.files import path_of, write_whole
from apportion.display.answers import answer_of
from apportion.display.pictures.style import INK, MUTED, colours, shorten, unit_colour
from apportion.display.views import AGAINST, FOR, BarsView, HeatView, Piece, TextView, View, view
from apportion.results.explanation import Explanation
from apportion.results.interactions import Interactions
from apportion.results.ledger import Ledger
from apportion.results.result import Result, decision
from apportion.results.words import describe_method, format_number, format_signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BARS = 15
TYPE, SMALLEST, LINE = 14.0, 4.0, 2.2  # points, and the height of a row of words in type sizes
LONGEST = 40  # letters of one word that are drawn
ACCOUNT_LINE = 0.16  # inches
FAINT = 0.05  # share of the largest value below which a word's value is not written


def plot(explanation: Result, index: int = 0, ax: Axes | None = None) -> Axes:
    """Draw one sample: a photo under its heat map, a text in coloured words, or bars. Orange speaks for the
    explained class and blue against it.

    Without `ax` a new figure is made (`plot(e).figure.savefig(...)`); it belongs to no window and no pyplot
    state.

    >>> import apportion as ap, torch
    >>> ax = ap.Saliency()(torch.nn.Linear(2, 1), torch.ones(1, 2)).plot()
    >>> ax.get_xlabel()
    'value (no unit)'
    """
    shown, unit = view(explanation, index), explanation.unit or "no unit"
    ax = _figure(shown).add_subplot() if ax is None else ax
    if isinstance(shown, HeatView):
        _heat(shown, ax, unit)
    elif isinstance(shown, TextView):
        _words(shown, ax)
    else:
        assert isinstance(shown, BarsView)  # only interactions are shown as pairs, and they draw themselves
        _bars(shown, ax, unit)
    return ax


def png(explanation: Result, path: str | Path, index: int = 0) -> Path:
    """Write one sample as a PNG with its title, colour scale and balance; a photo also as it was, and
    what looks like what where prototypes are explained. Of an answer whose tokens are explained each, all are drawn."""
    if isinstance(explanation, Interactions):
        return _write_png(explanation.plot(index).figure, path)
    if isinstance(explanation, Explanation) and answer_of(explanation) is not None and len(explanation) > 1:
        from apportion.display.pictures.answers import draw_answer

        return _write_png(draw_answer(explanation), path)
    if explanation.notes.get("panels", {}).get("rows"):
        from apportion.display.pictures.panels import draw_panels

        figure = draw_panels(explanation.notes["panels"])
        _entitle(figure, explanation, index)
    else:
        figure = _draw_beside_photo(explanation, index)
    return _write_png(figure, path)


def _entitle(figure: Figure, explanation: Result, index: int) -> None:
    """Write the title and, below, the balance."""
    figure.suptitle(_title(explanation, index), x=0.02, ha="left", fontsize=11, fontweight="bold", color=INK)
    account = explanation.account(index).replace("; ", "\n")
    # A figure has room for one line; what is drawn keeps its own.
    figure.set_figheight(figure.get_figheight() + ACCOUNT_LINE * account.count("\n"))
    figure.supxlabel(account, x=0.02, ha="left", fontsize=9, color=INK)


def _draw_beside_photo(explanation: Result, index: int) -> Figure:
    shown = view(explanation, index)
    figure = _figure(shown)
    _entitle(figure, explanation, index)  # first, since words are laid into what is left
    if isinstance(shown, HeatView) and shown.photo is not None:
        left, ax = figure.subplots(1, 2)
        left.imshow(shown.photo)
        left.set_title(shorten(shown.note, 60), fontsize=8, color=MUTED, loc="left")
        _remove_axes(left)
    else:
        ax = figure.add_subplot()
    plot(explanation, index, ax)
    if isinstance(shown, HeatView):
        ax.set_title(shorten(shown.legend, 90), fontsize=8, color=MUTED, loc="left")
    return figure


def _write_png(figure: Figure, path: str | Path) -> Path:
    data = io.BytesIO()
    with _no_glyph_warnings():
        figure.savefig(data, format="png", dpi=160, facecolor="white")
    return write_whole(path_of("path", path), data.getvalue())


def colour_map(shown: HeatView) -> npt.NDArray[np.uint8]:
    """The map as (h, w, 4) uint8: the colour says the sign, the opacity |value| over the scale, so that zero
    is transparent."""
    values, scale = shown.drawn, shown.scale
    rgba = np.empty((*values.shape, 4), np.uint8)
    rgba[..., :3] = np.where((values >= 0)[..., None], FOR, AGAINST)
    rgba[..., 3] = (np.clip(np.abs(values) / scale, 0, 1) * 255).round()
    return rgba


def fade_photo(photo: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The photo in light grey, so that only the heat map has colour."""
    grey = photo.astype(np.float64) @ (0.299, 0.587, 0.114)
    light: npt.NDArray[np.uint8] = (160 + grey * (95 / 255)).round().astype(np.uint8)
    return np.repeat(light[..., None], 3, 2)


def _heat(shown: HeatView, ax: Axes, unit: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    height, width = shown.shape
    extent = (0, width, height, 0)
    if shown.photo is not None:
        ax.imshow(fade_photo(shown.photo), extent=extent)
    # A coarse map (of an inner layer) is drawn as the blocks that it is.
    ax.imshow(colour_map(shown), extent=extent, interpolation="nearest")
    _remove_axes(ax)
    figure = ax.figure
    scale = ScalarMappable(Normalize(-shown.scale, shown.scale), colours())
    bar = figure.colorbar(scale, ax=ax, fraction=0.046, pad=0.03, ticks=[-shown.scale, 0, shown.scale])
    bar.ax.set_yticklabels(
        [format_number(-shown.scale, shown.scale), "0", f"+{format_number(shown.scale, shown.scale)}"],
        fontsize=8,
    )
    bar.outline.set_visible(False)
    bar.set_label(unit, fontsize=8, color=MUTED, labelpad=-6)


def _words(shown: TextView, ax: Axes) -> None:
    """Words in rows, each on its colour with its value beneath, in the largest type that fits."""
    _remove_axes(ax)
    figure: Any = ax.figure
    figure.draw_without_rendering()  # settles the layout: the width in points is known only then
    box = ax.get_window_extent()
    wide, high = (length * 72 / ax.figure.dpi for length in (box.width, box.height))
    size = TYPE
    placed, rows = _lay(shown, wide, size)
    while rows * LINE * size > high + 1 and size > SMALLEST:
        size *= 0.9
        placed, rows = _lay(shown, wide, size)
    leftward = _from_right("".join(piece.text for piece in shown.pieces))
    for piece, x, row, width in placed:
        x = wide - x - width if leftward else x
        strength = abs(piece.value or 0) / shown.scale
        middle = 1 - (row + 0.35) * LINE * size / high
        where: Any = {"transform": ax.transAxes, "ha": "center", "va": "center", "in_layout": False}
        ground = (*unit_colour(FOR if (piece.value or 0) >= 0 else AGAINST), 0.75 * strength)
        ax.text(
            (x + width / 2) / wide,
            middle,
            shorten(piece.text, LONGEST),
            color=INK,
            fontsize=size * (0.65 if piece.special else 1),
            bbox={"boxstyle": "round,pad=0.15", "linewidth": 0, "facecolor": ground},
            **where,
        )
        if strength >= FAINT and piece.value is not None:
            value = format_signed(piece.value, shown.scale)
            below = middle - 0.52 * LINE * size / high
            ax.text((x + width / 2) / wide, below, value, color=MUTED, fontsize=size / 2, **where)


def _lay(shown: TextView, wide: float, size: float) -> tuple[list[tuple[Piece, float, int, float]], int]:
    """Each piece with its x, row and width in points, broken at `wide`; and the number of rows."""
    placed, x, row = [], 0.0, 0
    for piece in shown.pieces:
        if piece.value is None and piece.text.isspace():
            x, row = (0.0, row + 1) if "\n" in piece.text and x else (x + (0.25 * size if x else 0), row)
            continue
        width = _width(shorten(piece.text, LONGEST), size * (0.65 if piece.special else 1)) + 0.4 * size
        if piece.value is not None and abs(piece.value) >= FAINT * shown.scale:
            width = max(width, _width(format_signed(piece.value, shown.scale), size / 2) + 0.3 * size)
        if x and x + width > wide:
            x, row = 0.0, row + 1
        placed.append((piece, x, row, width))
        x += width
    return placed, row + 1


def _from_right(text: str) -> bool:
    """True if the first letter that has a direction is one of a script that is read from the right."""
    directions = (bidirectional(letter) for letter in text)
    return next((d for d in directions if d in ("L", "R", "AL")), "L") != "L"


def _width(text: str, size: float) -> float:
    return size * _width_at_one_point(text)


@lru_cache(10_000)
def _width_at_one_point(text: str) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    with _no_glyph_warnings():
        width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=100), False)
    return float(width) / 100


@contextmanager
def _no_glyph_warnings() -> Iterator[None]:
    """Letters that matplotlib's font lacks are drawn as boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        yield


def _bars(shown: BarsView, ax: Axes, unit: str) -> None:
    rows = shown.top(BARS)[::-1]
    names, values = [shorten(name, 40) for name, _ in rows], [value for _, value in rows]
    colours = [unit_colour(FOR if value >= 0 else AGAINST) for value in values]
    ax.barh(range(len(rows)), values, color=colours, height=0.7)
    ax.set_yticks(range(len(rows)), [name.replace("$", r"\$") for name in names], fontsize=9)
    ax.axvline(0, color=INK, linewidth=0.8)
    for place, value in enumerate(values):
        side = 1 if value >= 0 else -1
        style: Any = {"ha": "left" if side > 0 else "right", "va": "center", "fontsize": 8, "color": MUTED}
        text = format_signed(value, shown.scale)
        ax.annotate(text, (value, place), (4 * side, 0), textcoords="offset points", **style)
    ax.margins(x=0.18)
    ax.set_xlabel(f"value ({unit})", color=MUTED)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(left=False, colors=INK)
    left_out = len(shown.names) - len(rows)
    if left_out:
        ax.set_title(f"{left_out} smaller not drawn", fontsize=8, color=MUTED, loc="right")


def _figure(shown: View) -> Figure:
    from matplotlib.figure import Figure

    if isinstance(shown, HeatView):
        height, width = shown.shape
        wide = 4.2 * (2 if shown.photo is not None else 1) * min(2.0, max(0.5, width / height))
        size = (wide + 0.8, 5.1)
    elif isinstance(shown, TextView):
        rows = _lay(shown, 8.0 * 72 - 16, TYPE)[1]
        size = (8.0, 0.65 + min(10.0, rows * LINE * TYPE / 72))
    else:
        size = (8.0, 1.6 + 0.3 * min(BARS, len(shown.names)))
    return Figure(figsize=size, layout="constrained")


def _remove_axes(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def _title(explanation: Result, index: int) -> str:
    noted, target = answer_of(explanation), explanation.label(index)
    if noted is not None:  # its classes are parts of the answer, of which none is decided for
        return f"{noted['score']} of “{shorten(target, 60)}” · {shorten(describe_method(explanation.method), 60)}"
    made = decision(explanation, index)
    chance = "" if made.probability is None else f" {made.probability:.1%}"
    explained = "" if target == made.label else f" of “{shorten(target, 40)}”"
    decided = f"{shorten(made.label, 40)}{chance}"
    room = max(16, 76 - len(decided) - len(explained))  # letters that fit into the width of a picture
    return f"{decided} · {shorten(describe_method(explanation.method), min(60, room))}{explained}"


def ledger_bars(ledger: Ledger, ax: Any = None, k: int = 12) -> Any:
    """Bars of the rows that absorbed most, by cause, on matplotlib Axes."""
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(7, 0.35 * min(k, len(ledger)) + 1.2), layout="constrained").subplots()
    most = max((abs(row.lost) for row in ledger.rows), default=0.0)
    rows = [row for row in ledger.largest(k) if abs(row.lost) > 1e-3 * most][::-1]
    left_plus, left_minus = [0.0] * len(rows), [0.0] * len(rows)
    colours = {"bias": "#4477aa", "stabiliser": "#ccbb44", "unruled": "#ee6677", "softmax": "#aa3377"}
    for cause, colour in colours.items():
        widths = [getattr(row, cause) for row in rows]
        starts = [p if w >= 0 else m for p, m, w in zip(left_plus, left_minus, widths, strict=True)]
        ax.barh(range(len(rows)), widths, left=starts, color=colour, label=cause)
        left_plus = [p + max(w, 0) for p, w in zip(left_plus, widths, strict=True)]
        left_minus = [m + min(w, 0) for m, w in zip(left_minus, widths, strict=True)]
    ax.set_yticks(range(len(rows)), [f"{row.module or '(model)'} · {row.operation}" for row in rows])
    ax.axvline(0, color="0.3", lw=0.8)
    ax.set_xlabel("taken out of the score")
    ax.legend(frameon=False)
    return ax
