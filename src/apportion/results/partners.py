"""Which other column a column's values depend on, without a call of the model."""

from __future__ import annotations

from collections import Counter

import numpy as np

from apportion.results.statistics import Numbers

Cells = Numbers | tuple[str, ...]
"""A column of a table: numbers, NaN where one is missing, or texts."""

LEAST = 0.02  # share of the residual below which nobody is a partner


def _codes(cells: Cells, most: int) -> np.ndarray:
    """A number from 0 for each row: its value, or the stretch of as many rows that it is in."""
    if isinstance(cells, tuple):
        kept = {name: i for i, (name, _) in enumerate(Counter(cells).most_common(most - 1))}
        return np.array([kept.get(cell, len(kept)) for cell in cells])
    known = cells[~np.isnan(cells)]
    values = np.unique(known)
    edges = values if len(values) <= most else np.unique(np.quantile(known, np.arange(1, most) / most))
    found = np.searchsorted(edges, cells, side="left")
    found[np.isnan(cells)] = len(edges) + 1
    return np.unique(found, return_inverse=True)[1]


def residual_over(values: Numbers, cells: Cells) -> Numbers:
    """What is left of values when their course over the cells is taken off: a line in each of twenty stretches."""
    left = np.array(values, dtype=np.float64)
    for code in np.unique(codes := _codes(cells, min(20, max(2, len(values) // 10)))):
        here = codes == code
        x = np.zeros(int(here.sum())) if isinstance(cells, tuple) else np.nan_to_num(cells[here])
        x = x - x.mean()
        slope = float(x @ left[here] / (x @ x)) if x @ x > 0 else 0.0
        left[here] -= left[here].mean() + slope * x
    return left


def explained(residual: Numbers, own: Cells, other: Cells) -> float:
    """The share of a residual's variance that lies between the cells of a grid of two columns, less what as many cells
    would explain of noise (adjusted R²). The grid is of both, as a partner may turn the sign of a column."""
    grid = _codes(own, 4) * 1000 + _codes(other, 4)
    _, groups, many = np.unique(grid, return_inverse=True, return_counts=True)
    whole = float(residual @ residual)
    n, k = len(residual), len(many)
    if whole <= 1e-18 * n or n <= k:
        return 0.0
    sums = np.bincount(groups, residual)
    within = whole - float((sums**2 / many).sum())
    return 1 - (within / (n - k)) / (whole / (n - 1))
