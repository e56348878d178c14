"""From explanations of rows to the whole: how much each column counts, how surely, and for whom."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from apportion.core.files import written
from apportion.core.visible import visible
from apportion.errors import InputError, nearest
from apportion.results.cohorts import interval_of_difference, permutation_ps
from apportion.results.display import display
from apportion.results.explanation import Explanation
from apportion.results.interactions import Interactions
from apportion.results.partners import LEAST, Cells, explained, residual_over
from apportion.results.statistics import Numbers, band_of_mean, holm
from apportion.results.words import format_number, write_share

SURE = 0.05


@dataclass(frozen=True)
class Column:
    """A column over all rows: the mean of |value| with its 95 % bootstrap interval, and the mean of its value."""

    name: str
    size: float
    low: float
    high: float
    mean: float


@dataclass(frozen=True)
class Difference:
    """A column in one cohort and in all others: the means of |value| in both, the difference with its 95 % bootstrap
    interval, and how often one as large arises if cohorts are drawn by lot (`p`; `corrected` for the number of
    differences after Holm)."""

    column: str
    cohort: str
    size: float
    others: float
    interval: tuple[float, float]
    p: float
    corrected: float

    @property
    def difference(self) -> float:
        return self.size - self.others


@dataclass(frozen=True, eq=False)
class Overview:
    """What explanations of rows have in common. `apportion.summary` makes it.

    `values` are the (rows, columns) values, `cells` the (rows, columns) cells as text where they are known, `total` and
    `remainder` those of each row (None where the method does not add up), `cohorts` the cohort of each row, if any,
    and `cohort_names` the cohorts in order.
    """

    columns: tuple[str, ...]
    values: Numbers
    target: str
    unit: str
    method: str
    cells: tuple[tuple[str, ...], ...] | None = None
    total: Numbers | None = None
    remainder: Numbers | None = None
    cohorts: tuple[str, ...] | None = None
    cohort_names: tuple[str, ...] = ()
    by: str = ""
    samples: tuple[tuple[Explanation, int], ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def features(self) -> tuple[Column, ...]:
        """The columns, largest mean |value| first."""
        return tuple(sorted(self._columns(np.abs(self.values), self.values), key=lambda one: -one.size))

    def cohort(self, name: str) -> tuple[Column, ...]:
        """The columns within one cohort, in the order of `features`."""
        inside = self._inside(name)
        found = {one.name: one for one in self._columns(np.abs(self.values[inside]), self.values[inside])}
        return tuple(found[one.name] for one in self.features)

    @cached_property
    def differences(self) -> tuple[Difference, ...]:
        """Each column in each cohort against all others, surest first; of two cohorts the first against the second."""
        if len(self.cohort_names) < 2:
            return ()
        sizes, found = np.abs(self.values), []
        names = self.cohort_names[:1] if len(self.cohort_names) == 2 else self.cohort_names
        for name in names:
            inside = self._inside(name)
            ps = permutation_ps(sizes, inside)
            low, high = interval_of_difference(sizes, inside)
            means = sizes[inside].mean(0), sizes[~inside].mean(0)
            for j, column in enumerate(self.columns):
                found.append((column, name, means[0][j], means[1][j], (low[j], high[j]), ps[j]))
        corrected = holm([one[-1] for one in found])
        made = [
            Difference(column, name, float(a), float(b), (float(ends[0]), float(ends[1])), float(p), c)
            for (column, name, a, b, ends, p), c in zip(found, corrected, strict=True)
        ]
        return tuple(sorted(made, key=lambda one: (one.corrected, -abs(one.difference))))

    def partner(self, column: str, interactions: Interactions | None = None) -> tuple[str | None, str]:
        """The column that a column's value depends on most beside its own cell, and how that was found: by the
        `interactions` of the same rows if they are given, and else by what it explains of the residual, which is left
        of the values when their course over the column's own cells is taken off. None if nothing is explained."""
        place = self.place(column)
        if interactions is not None:
            strength = self._strengths(interactions)[place]
            best = int(np.argmax(strength))
            if not strength[best]:
                return None, "interacts with no column"
            return self.columns[
                best
            ], f"largest mean |interaction|, {format_number(strength[best], strength[best])}"
        residual = residual_over(self.values[:, place], self.of(column))
        shares = [
            -1.0 if j == place else explained(residual, self.of(column), self.of(name))
            for j, name in enumerate(self.columns)
        ]
        best = int(np.argmax(shares))
        if shares[best] < LEAST:
            return None, "no column explains the residual"
        return self.columns[best], f"explains {write_share(shares[best])} of the residual"

    def _strengths(self, interactions: Interactions) -> Numbers:
        """The mean |pair| of each two columns."""
        names = [name.partition(" = ")[0] for name in interactions.names_of(0)]
        if sorted(names) != sorted(self.columns):
            raise InputError(
                f"the interactions are of {', '.join(names[:4])}, …; accepted: of the columns of the explanations"
            )
        order = [names.index(column) for column in self.columns]
        pairs = 2 * np.nan_to_num(np.asarray(interactions, dtype=np.float64))[:, order][:, :, order]
        strength: Numbers = np.abs(pairs).mean(0)
        np.fill_diagonal(strength, 0.0)
        return strength

    def of(self, column: str) -> Cells:
        """The cells of a column: numbers, NaN where one is missing, or texts where some are no numbers."""
        place = self.place(column)
        if self.cells is None:
            raise InputError(
                "the explanations do not say what stands in the columns; accepted: of rows of a table, or with "
                "feature_names="
            )
        cells = tuple(row[place] for row in self.cells)
        try:
            return np.array([math.nan if cell == "missing" else float(cell) for cell in cells])
        except ValueError:
            return cells

    def place(self, column: str) -> int:
        """The number of a column."""
        if column not in self.columns:
            near = nearest(column, self.columns) or self.columns[:3]
            raise InputError(f"there is no column {column!r}; nearest: {', '.join(near)}")
        return self.columns.index(column)

    def _inside(self, cohort: str) -> np.ndarray:
        if cohort not in self.cohort_names:
            raise InputError(
                f"there is no cohort {cohort!r}; accepted: {', '.join(self.cohort_names) or 'by= or truth='}"
            )
        return np.array([name == cohort for name in self.cohorts or ()])

    def _columns(self, sizes: Numbers, values: Numbers) -> list[Column]:
        low, high = band_of_mean(sizes)
        means = zip(self.columns, sizes.mean(0), low, high, values.mean(0), strict=True)
        return [Column(name, *map(float, numbers)) for name, *numbers in means]

    # ---- in words ----

    @property
    def title(self) -> str:
        many = f"{len(self)} row{'' if len(self) == 1 else 's'}"
        return f"{self.method} of {self.target}, {many}"

    @property
    def told(self) -> str:
        """What is left over, in one line."""
        if self.remainder is None or self.total is None:
            return "this method does not claim to add up"
        mean, whole = float(np.abs(self.remainder).mean()), float(np.abs(self.total).mean())
        if mean <= 1e-9 * whole:  # what adding floats leaves, where a total is small beside its parts
            return "nothing left over"
        share = "" if not whole else f" ({write_share(mean / whole)} of the mean |total|)"
        return f"left over: {format_number(mean, whole)} a row on average{share}"

    def __repr__(self) -> str:
        scale = max((one.size for one in self.features), default=1.0)
        wide = max(len(one.name) for one in self.features)
        lines = [f"{self.title}: mean |value| with its 95 % bootstrap interval ({self.unit})"]
        for one in self.features[:12]:
            size, low, high = (format_number(v, scale) for v in (one.size, one.low, one.high))
            lines.append(f"{one.name:>{wide}}  {size} [{low}, {high}]")
        if len(self.features) > 12:
            lines.append(f"{'':>{wide}}  … and {len(self.features) - 12} more")
        lines.append(self.told)
        if self.cohorts is not None:
            many = Counter(self.cohorts)
            said = ", ".join(f"{name} ({many[name]})" for name in self.cohort_names)
            sure = [d for d in self.differences if d.corrected < SURE]
            told = f"{len(sure)} of {len(self.differences)} differences are sure"
            told = told if self.differences else "all in one, nothing to compare"
            lines.append(f"cohorts by {self.by}: {said}; {told}")
            for d in sure[:6]:
                size, others = (format_number(v, scale) for v in (d.size, d.others))
                rest = self.cohort_names[1] if len(self.cohort_names) == 2 else "the others"
                lines.append(
                    f"  {d.column}: {size} in {d.cohort}, {others} in {rest} (p = {d.corrected:.2g})"
                )
        return visible("\n".join(lines))

    def to_frame(self) -> Any:
        """A pandas frame with a line for each column, also of each cohort: `cohort` (empty: all rows), `feature`,
        `size` (mean |value|) from `low` to `high`, `mean` (of the value), and `rows`."""
        many = Counter(self.cohorts or ())
        parts = [("", self.features, len(self))]
        parts += [(name, self.cohort(name), many[name]) for name in self.cohort_names]
        names = ("cohort", "feature", "size", "low", "high", "mean", "rows")
        lines = [
            (name, c.name, c.size, c.low, c.high, c.mean, n) for name, columns, n in parts for c in columns
        ]
        return import_module("pandas").DataFrame(lines, columns=names)

    # ---- as pictures ----

    def plot(self, ax: Any = None) -> Any:
        """Draw the beeswarm on matplotlib Axes (made if not given) and return them."""
        return self.beeswarm(ax)

    def bars(self, ax: Any = None) -> Any:
        """Draw the mean |value| of each column with its interval, and what is left over."""
        return display().overview("bars", self, ax)

    def beeswarm(self, ax: Any = None) -> Any:
        """Draw a point for each row in a line for each column, coloured by what stands in the column."""
        return display().overview("beeswarm", self, ax)

    def dependence(
        self,
        column: str,
        partner: str | None = None,
        interactions: Interactions | None = None,
        ax: Any = None,
    ) -> Any:
        """Draw the values of a column over its cells, coloured by the cells of a partner; None: the strongest, as
        `partner` finds it."""
        return display().overview(
            "dependence", self, ax, column=column, partner=partner, interactions=interactions
        )

    def side_by_side(self, ax: Any = None) -> Any:
        """Draw the mean |value| of each column in each cohort, with intervals; a star is where one surely differs from
        the others."""
        return display().overview("side_by_side", self, ax)

    def waterfall(self, row: int = 0, ax: Any = None) -> Any:
        """Draw how one row gets from the start to its score."""
        explanation, place = self.samples[row]
        return explanation.waterfall(place, ax)

    def to_html(self, path: str | Path | None = None) -> str:
        """One self-contained HTML page with all of these; also written to `path` if given."""
        return written(display().overview_page(self), path)

    def _repr_html_(self) -> str:
        html: str = display().frame_page(self.to_html(), self.title)
        return html
