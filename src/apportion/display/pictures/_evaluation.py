"""Pictures of tests: scores with intervals, curves with bands, agreement of tests.

Each function draws on the matplotlib Axes that it is given, or on new ones, and returns them; no global figure is
touched. Methods have the colours of Okabe & Ito (2008), which every kind of colour vision tells apart, and
dashes for where there is no colour; what is no method is grey.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from apportion.errors import InputError
from apportion.results.statistics import band_of_mean

if TYPE_CHECKING:
    from apportion.results.table import Table

COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", "--", ":", "-.")
GREY = "#767c88"


def scores(table: Table, test: str, ax: Axes | None = None) -> Axes:
    """One test: the mean of each row with its 95 % bootstrap interval, methods above references.

    >>> import apportion as ap
    >>> model, x = torch.nn.Linear(4, 1), torch.randn(8, 4)
    >>> table = ap.compare(model, x, ["inputxgradient", "saliency"], ["pixel-flipping"])
    >>> scores(table, "pixel-flipping").get_xlabel()
    'pixel-flipping (higher is better)'
    """
    if test not in table.tests:
        raise InputError(f"there is no test {test!r}; accepted: {', '.join(table.tests)}")
    rows = [row for row in table.scores if table.scores[row][test].n]
    if not rows:
        raise InputError(f"{test} is undefined for every method")
    ax = _axes(ax, (6.4, 1.2 + 0.32 * len(rows)))
    for place, row in enumerate(reversed(rows)):
        found = table.scores[row][test]
        low, high = found.interval()
        colour = GREY if row in table.references else COLOURS[1]
        ax.plot([low, high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
        ax.plot(found.mean, place, "o" if colour != GREY else "s", color=colour, markersize=6)
    ax.set_yticks(range(len(rows)), rows[::-1])
    ax.set_xlabel(f"{test} ({table.scores[rows[0]][test].direction})")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(left=False)
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    return ax


def curves(
    values: Mapping[str, npt.ArrayLike],
    share: npt.ArrayLike,
    ax: Axes | None = None,
    references: Collection[str] = (),
    seed: int = 0,
) -> Axes:
    """Perturbation curves: the mean over samples of each method's (samples, steps) values at the (steps,) share of
    hidden features, with its 95 % bootstrap band; `references` are drawn grey and without one.

    >>> curves({"lrp": [[0.9, 0.4], [0.8, 0.2]]}, [0.0, 1.0]).get_xlabel()
    'share of features hidden'
    """
    x = np.asarray(share, dtype=np.float64)
    ax = _axes(ax, (7.0, 3.8))
    methods = [name for name in values if name not in references]
    for name, given in values.items():
        y = np.asarray(given, dtype=np.float64)
        if y.ndim != 2 or y.shape[1:] != x.shape:
            raise InputError(f"the values of {name!r} have shape {y.shape}; accepted: (samples, {len(x)})")
        if name in references:
            dash = DASHES[1 + list(references).index(name) % 3]
            ax.plot(x, y.mean(0), color=GREY, linestyle=dash, linewidth=1.2, label=name)
            continue
        i = methods.index(name)
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
        low, high = band_of_mean(y, seed=seed)
        ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        ax.plot(x, y.mean(0), color=colour, linestyle=dash, linewidth=1.8, label=name)
    ax.set_xlabel("share of features hidden")
    ax.set_ylabel("probability")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def agreement(names: Sequence[str], tau: npt.ArrayLike, ax: Axes | None = None) -> Axes:
    """Kendall's τ (or any number from −1 to 1) between each two names, as a matrix with its numbers.

    >>> agreement(["flip", "delete"], [[1, 0.5], [0.5, 1]]).get_title()
    ''
    """
    matrix = np.asarray(tau, dtype=np.float64)
    if matrix.shape != (len(names), len(names)):
        raise InputError(f"the matrix has shape {matrix.shape}; accepted: ({len(names)}, {len(names)})")
    side = 1.8 + 0.62 * len(names)
    ax = _axes(ax, (side + 0.8, side))
    image = ax.imshow(matrix, cmap="PuOr_r", vmin=-1, vmax=1)
    for (row, column), value in np.ndenumerate(matrix):
        text = "–" if np.isnan(value) else f"{value:.2f}".replace("-", "−")
        dark = not np.isnan(value) and abs(value) > 0.7
        style: Any = {"ha": "center", "va": "center", "fontsize": 8, "color": "white" if dark else "black"}
        ax.text(column, row, text, **style)
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.figure.colorbar(image, ax=ax, shrink=0.8, ticks=[-1, 0, 1])
    return ax


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    return Figure(figsize=size, layout="constrained").add_subplot() if ax is None else ax
