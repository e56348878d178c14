"""Pictures of many explained rows, and how one row gets from the start to its score: Axes in, Axes out.

Orange speaks for the explained class and blue against it, as everywhere; what stands in a column goes from purple
(small) to gold (large).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from apportion.display.pictures.style import INK, MUTED, shorten, unit_colour
from apportion.display.views import AGAINST, FOR, view
from apportion.errors import InputError
from apportion.results.interactions import Interactions
from apportion.results.overview import SURE, Overview
from apportion.results.result import Result
from apportion.results.words import describe_method, format_number, format_signed

ROWS = 12  # columns of a table that are drawn, the largest
STEPS = 10  # of a waterfall
CELLS = ("#7a5cc9", "#c7568f", "#f0a830")
GREY = "#a3a8b0"
# Of cohorts, told apart by every kind of colour vision (Okabe & Ito 2008), without those that speak for and against.
COHORT = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#a39a2a", "#7d6fb3", "#777d88")
NAME = 44  # letters of a name that are drawn

Numbers = npt.NDArray[np.float64]


def bars(of: Overview, ax: Axes | None = None) -> Axes:
    """The mean |value| of each column with its interval; what the others do together, and what is left over."""
    shown = of.features[:ROWS]
    lines = [(one.name, one.size, one.low, one.high) for one in shown]
    if rest := _rest(of):
        lines.append(rest)
    ax = _axes(ax, 8.0, len(lines) + (of.remainder is not None))
    names, sizes = [line[0] for line in lines], [line[1] for line in lines]
    places = list(range(len(lines)))
    ax.barh(
        places,
        sizes,
        height=0.64,
        color=[MUTED if name == (rest or ("",))[0] else "#4a5a78" for name in names],
    )
    scale = max(sizes, default=1.0) or 1.0
    if of.remainder is not None:
        left = float(np.abs(of.remainder).mean())
        places.append(len(lines))
        names.append("left over")
        ax.barh([len(lines)], [left], height=0.64, color="none", edgecolor=MUTED, hatch="////", linewidth=0.6)
        lines.append(("left over", left, left, left))
    for place, (_, size, low, high) in zip(places, lines, strict=True):
        if high > low:
            ax.plot([low, high], [place, place], color=INK, linewidth=1.4, solid_capstyle="butt")
        ax.annotate(
            format_number(size, scale), (max(size, high), place), (5, 0), textcoords="offset points", va="center",
            fontsize=8, color=MUTED,
        )  # fmt: skip
    _names(ax, names)
    ax.set_xlim(0, 1.12 * max(max(line[1], line[3]) for line in lines) or 1.0)
    ax.set_xlabel(f"mean |value| ({of.unit}), with its 95 % interval", color=MUTED, fontsize=9)
    _title(ax, shorten(of.title, 90))
    return ax


def beeswarm(of: Overview, ax: Axes | None = None) -> Axes:
    """A point for each row, in a line for each column, coloured by what stands there."""
    shown = of.features[:ROWS]
    lines: list[tuple[str, Numbers, Any]] = [
        (one.name, of.values[:, of.place(one.name)], None if of.cells is None else of.of(one.name))
        for one in shown
    ]
    if rest := _rest(of):
        smaller = [of.place(one.name) for one in of.features[ROWS:]]
        lines.append((rest[0], of.values[:, smaller].sum(1), None))
    if of.remainder is not None:
        lines.append(("left over", of.remainder, None))
    ax = _axes(ax, 8.0, 1.25 * len(lines))
    low, high = (min(float(v.min()) for _, v, _ in lines), max(float(v.max()) for _, v, _ in lines))
    span, coloured = (high - low) or 1.0, False
    for place, (_, values, cells) in enumerate(lines):
        ax.axhline(place, color=GREY, linewidth=0.5, alpha=0.5, zorder=0)
        shares = None if cells is None else shares_of(cells)
        coloured |= shares is not None
        up = jitter((values - low) / span)
        colours: Any = (
            GREY if shares is None else [GREY if math.isnan(s) else _cell_colour(s) for s in shares]
        )
        ax.scatter(
            values, place + 0.8 * up, s=_dot(len(values)), c=colours, linewidths=0, alpha=0.85, zorder=2
        )
    ax.axvline(0, color=INK, linewidth=0.8, zorder=1)
    _names(ax, [name for name, _, _ in lines])
    ax.set_ylim(len(lines) - 0.4, -0.6)
    grey = "; grey: texts, and what is not known" if coloured else ""
    ax.set_xlabel(f"value ({of.unit}){grey}", color=MUTED, fontsize=9)
    if coloured:
        _scale(ax, "what stands in the column", "small", "large")
    _title(ax, shorten(of.title, 90))
    return ax


def dependence(
    of: Overview,
    ax: Axes | None = None,
    *,
    column: str,
    partner: str | None = None,
    interactions: Interactions | None = None,
) -> Axes:
    """The values of a column over its cells, coloured by the cells of a partner."""
    if partner is not None:
        of.place(partner)
    named, why = (partner, "given") if partner is not None else of.partner(column, interactions)
    cells, values = of.of(column), of.values[:, of.place(column)]
    ax = _axes(ax, 6.4, 11)
    if isinstance(cells, tuple):
        order = sorted(set(cells), key=lambda name: -float(np.mean(values[[c == name for c in cells]])))[
            :ROWS
        ]
        kept = np.array([cell in order for cell in cells])
        x = np.array([order.index(cell) if cell in order else 0 for cell in cells], float)
        span = float(np.ptp(values)) or 1.0
        for i in range(len(order)):
            here = (x == i) & kept
            x[here] += 0.8 * jitter((values[here] - values.min()) / span)
        ax.set_yticks([])
        ax.set_xticks(
            range(len(order)), [shorten(name, NAME) for name in order], rotation=30, ha="right", fontsize=8
        )
        if len(set(cells)) > len(order):
            _note(ax, f"{len(set(cells)) - len(order)} rarer values are not drawn")
    else:
        kept, x = ~np.isnan(cells), cells
        if missing := int((~kept).sum()):
            _note(ax, f"{missing} rows without a value are not drawn")
    other = None if named is None else of.of(named)
    _paint(ax, x[kept], values[kept], None if other is None else _only(other, kept), named)
    ax.axhline(0, color=INK, linewidth=0.8, zorder=1)
    ax.set_xlabel(shorten(column, 60), color=INK, fontsize=9)
    ax.set_ylabel(f"value of {shorten(column, NAME)} ({of.unit})", color=MUTED, fontsize=9)
    ax.yaxis.set_major_locator(_ticks())
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=INK, labelsize=8)
    said = f"partner: {shorten(named, NAME)} ({why})" if named is not None else f"no partner: {why}"
    _title(ax, shorten(of.title, 90) if partner is not None else f"{shorten(of.title, 90)}\n{said}")
    return ax


def side_by_side(of: Overview, ax: Axes | None = None) -> Axes:
    """The mean |value| of each column in each cohort, with intervals."""
    if of.cohorts is None:
        raise InputError("there are no cohorts; accepted: apportion.summary(…, by=…) or (…, truth=…)")
    shown, names = of.features[:ROWS], of.cohort_names
    ax = _axes(ax, 8.0, len(shown) * (0.55 + 0.32 * len(names)))
    high, step = 0.8 / len(names), np.arange(len(names))
    sure = {(d.column, d.cohort) for d in of.differences if d.corrected < SURE}
    most = 0.0
    for i, name in zip(step, names, strict=True):
        found, many = of.cohort(name)[: len(shown)], sum(cohort == name for cohort in of.cohorts)
        places = np.arange(len(shown)) - 0.4 + high * (i + 0.5)
        colour = COHORT[i % len(COHORT)]
        ax.barh(
            places,
            [one.size for one in found],
            height=0.86 * high,
            color=colour,
            label=f"{name} ({many} rows)",
        )
        for place, one in zip(places, found, strict=True):
            ax.plot([one.low, one.high], [place, place], color=INK, linewidth=1.2, solid_capstyle="butt")
            most = max(most, one.high)
            if (one.name, name) in sure:
                ax.annotate(
                    "*", (one.high, place), (4, -2), textcoords="offset points", va="center", color=INK
                )
    _names(ax, [one.name for one in shown])
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlim(0, 1.1 * most or 1.0)
    ax.set_xlabel(
        f"mean |value| ({of.unit}), with its 95 % interval; * surely another mean than in the other rows\n"
        "(permutation test, Holm-corrected p < 0.05)",
        color=MUTED,
        fontsize=8.5,
    )
    ax.legend(frameon=False, fontsize=8, loc="lower right", title=shorten(of.by, NAME), title_fontsize=8)
    _title(ax, shorten(of.title, 90))
    return ax


def waterfall(of: Result, index: int = 0, ax: Axes | None = None) -> Axes:
    """The steps from the start to the score of one row: its largest values, the others together, what is left over."""
    steps, begin, end = steps_of(of, index)
    ax = _axes(ax, 8.0, len(steps) + 2)
    scale = max(abs(begin[1]), abs(end[1]), *(abs(value) for _, value in steps), 1e-300)
    at, places = begin[1], range(1, len(steps) + 1)
    edges = [at]
    for place, (name, value) in zip(places, steps, strict=True):
        left = name == "left over"
        colour: Any = "none" if left else unit_colour(FOR if value >= 0 else AGAINST)
        ax.barh([place], [value], left=at, height=0.62, color=colour, **(_HATCHED if left else {}))
        ax.plot(
            [at, at], [place - 1.31 if place > 1 else place - 1, place + 0.31], color=MUTED, linewidth=0.7
        )
        at += value
        edges.append(at)
    last = len(steps) + 1
    ax.plot([at, at], [last - 1.31, last], color=MUTED, linewidth=0.7)
    span = (max(edges) - min(edges)) or abs(at) or 1.0
    for place, (_, value), begun in zip(places, steps, edges[:-1], strict=True):
        far = max(begun, begun + value)
        ax.annotate(format_signed(value, scale), (far, place), (5, 0), textcoords="offset points", va="center",
                    fontsize=8, color=MUTED)  # fmt: skip
    for place, (_, value) in ((0, begin), (last, end)):
        ax.plot([value], [place], marker="D", markersize=6, color=INK, zorder=3)
        ax.annotate(format_number(value, scale), (value, place), (9, 0), textcoords="offset points", va="center",
                    fontsize=9, fontweight="bold", color=INK)  # fmt: skip
    _names(ax, [begin[0], *(name for name, _ in steps), end[0]])
    ax.set_ylim(last + 0.6, -0.6)
    ax.set_xlim(min(edges) - 0.06 * span, max(edges) + 0.16 * span)
    label, called = shorten(of.label(index), 40), of.notes.get("scores")
    of_what = "score" if label == "score" else f"score of {label}"  # of what has no classes
    ax.set_xlabel(of_what + (f" ({called})" if called else ""), color=MUTED, fontsize=9)
    _title(ax, f"{describe_method(of.method).partition('(')[0]} of {label}")
    return ax


_HATCHED: dict[str, Any] = {"edgecolor": MUTED, "hatch": "////", "linewidth": 0.6}


def steps_of(of: Result, index: int) -> tuple[list[tuple[str, float]], tuple[str, float], tuple[str, float]]:
    """The steps of a waterfall with their names, where it starts, and where it ends."""
    start, named = of.start, view(of, index).top(10**6)
    begin = 0.0 if start is None else float(start[index])
    steps = named[:STEPS]
    if rest := named[STEPS:]:
        steps = [*steps, (f"{len(rest)} smaller ones", sum(value for _, value in rest))]
    if of.total is None:
        return steps, ("zero", 0.0), ("sum of values", sum(value for _, value in named))
    total = float(of.total[index])
    left = total - sum(value for _, value in named)
    steps = [*steps, ("left over", 0.0 if of.left_over is None or not float(of.left_over[index]) else left)]
    return (
        steps,
        ("start" if begin else "zero", begin),
        ("score" if start is not None else "total", begin + total),
    )


# ---- what the pictures share with the page ----


def shares_of(cells: Numbers | tuple[str, ...]) -> Numbers | None:
    """Where each cell stands between the small and the large ones of its column, 0 to 1 by rank, NaN where it is
    missing; of two texts the rarer is 1, and of more there is no order (None)."""
    if isinstance(cells, tuple):
        return None
    known = np.unique(cells[~np.isnan(cells)])
    if len(known) < 2:
        return None
    ranks = np.searchsorted(np.sort(cells[~np.isnan(cells)]), cells, "left").astype(float)
    ranks += np.searchsorted(np.sort(cells[~np.isnan(cells)]), cells, "right")
    shares: Numbers = (ranks - ranks[~np.isnan(cells)].min()) / (np.ptp(ranks[~np.isnan(cells)]) or 1.0)
    shares[np.isnan(cells)] = math.nan
    return shares


def jitter(at: Numbers, bins: int = 80) -> Numbers:
    """How far each point of a line moves aside, −0.5 to 0.5, so that as many stand on one another as there are: `at`
    are the places along the line, 0 to 1."""
    cell = np.minimum((at * bins).astype(int), bins - 1)
    counts = np.bincount(cell, minlength=bins)
    found, most = np.zeros(len(at)), max(int(counts.max(initial=1)), 12)
    # So that colours are not sorted by the order of the rows.
    order = np.random.default_rng(0).permutation(len(at))
    met = np.zeros(bins, int)
    for i in order:
        nth = met[cell[i]]
        met[cell[i]] += 1
        found[i] = (1 if nth % 2 else -1) * ((nth + 1) // 2) / most
    return found


def _rest(of: Overview) -> tuple[str, float, float, float] | None:
    """The columns that are not drawn, together."""
    smaller = [of.place(one.name) for one in of.features[ROWS:]]
    if not smaller:
        return None
    size = float(np.abs(of.values[:, smaller].sum(1)).mean())
    return f"{len(smaller)} smaller ones", size, size, size


def _only(cells: Numbers | tuple[str, ...], kept: npt.NDArray[np.bool_]) -> Numbers | tuple[str, ...]:
    if isinstance(cells, tuple):
        return tuple(cell for cell, keep in zip(cells, kept, strict=True) if keep)
    return cells[kept]


def _paint(
    ax: Axes, x: Numbers, y: Numbers, cells: Numbers | tuple[str, ...] | None, name: str | None
) -> None:
    """Points in the colours of the partner's cells: a scale for numbers, a legend for texts."""
    size = 1.6 * _dot(len(x))
    if isinstance(cells, tuple):
        common = sorted(set(cells), key=lambda cell: -cells.count(cell))
        for i, cell in enumerate([*common[:5], None] if len(common) > 6 else common):
            here = np.array([c == cell if cell is not None else c not in common[:5] for c in cells])
            label = shorten("others" if cell is None else cell, NAME)
            colour = GREY if cell is None else COHORT[i % len(COHORT)]
            ax.scatter(x[here], y[here], s=size, color=colour, linewidths=0, alpha=0.8, label=label, zorder=2)
        ax.legend(
            frameon=False, fontsize=8, title=shorten(name or "", NAME), title_fontsize=8, markerscale=1.5
        )
        return
    shares = None if cells is None else shares_of(cells)
    colours: Any = GREY if shares is None else [GREY if math.isnan(s) else _cell_colour(s) for s in shares]
    ax.scatter(x, y, s=size, c=colours, linewidths=0, alpha=0.8, zorder=2)
    if shares is not None and cells is not None:
        low, high = (f"{float(edge):.4g}" for edge in (np.nanmin(cells), np.nanmax(cells)))
        _scale(ax, name or "", low, high)


def _cell_colour(share: float) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("cells", CELLS)(share)


def _scale(ax: Axes, name: str, low: str, high: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    colours = ScalarMappable(Normalize(0, 1), LinearSegmentedColormap.from_list("cells", CELLS))
    bar = ax.figure.colorbar(colours, ax=ax, fraction=0.022, pad=0.02, aspect=38, ticks=[0, 1])
    bar.ax.set_yticklabels([low, high], fontsize=8)
    bar.set_label(shorten(name, NAME), fontsize=8, color=MUTED, labelpad=-8)
    bar.outline.set_visible(False)


def _axes(ax: Axes | None, wide: float, lines: float) -> Axes:
    if ax is not None:
        return ax
    return Figure(figsize=(wide, 1.3 + 0.32 * lines), layout="constrained").subplots()


def _names(ax: Axes, names: list[str]) -> None:
    ax.set_yticks(range(len(names)), [shorten(name, NAME) for name in names], fontsize=9)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", left=False, colors=INK)
    ax.tick_params(axis="x", colors=INK, labelsize=8)


def _ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(6)


def _title(ax: Axes, text: str) -> None:
    ax.set_title(text, fontsize=9.5, color=INK, loc="left")


def _note(ax: Axes, text: str) -> None:
    ax.annotate(text, (1, 1), xycoords="axes fraction", ha="right", va="bottom", fontsize=8, color=MUTED)


def _dot(many: int) -> float:
    return float(np.clip(2400 / max(many, 1), 3, 16))
