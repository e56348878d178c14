"""Whether tests, or data sets, rank the methods alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from apportion.errors import InputError

Numbers = npt.NDArray[np.float64]


def kendall_tau(ratings: npt.ArrayLike) -> Numbers:
    """Kendall's τ-b (Kendall 1945) between each two raters: 1 the same order, −1 the opposite, 0 unrelated.

    `ratings` is (raters, items), larger meaning better, NaN where a rater has none; only items that both
    have count. τ is NaN where one of the two gives all of them the same number.

    >>> kendall_tau([[1, 2, 3], [10, 20, 30], [3, 2, 1]]).round(2).tolist()
    [[1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]
    """
    data = _matrix(ratings)
    first, second = np.triu_indices(data.shape[1], 1)
    with np.errstate(invalid="ignore"):
        signs = np.sign(data[:, first] - data[:, second])
    known = (~np.isnan(signs)).astype(np.float64)
    signs = np.nan_to_num(signs)
    # Pairs of items that the row rater orders, among those that the column rater knows.
    ordered = (signs**2) @ known.T
    with np.errstate(invalid="ignore", divide="ignore"):
        tau: Numbers = signs @ signs.T / np.sqrt(ordered * ordered.T)
    return tau


def krippendorff_alpha(
    ratings: npt.ArrayLike, level: Literal["nominal", "ordinal", "interval"] = "ordinal"
) -> float:
    """Krippendorff's α (2011): `1 − observed / expected disagreement` of all raters together.

    1 is agreement, 0 what chance gives, below 0 is systematic disagreement. `ratings` is (raters, items), NaN
    where a rater has none; items rated once are left out. To ask whether tests rank methods alike, give the
    ranks of the methods (items) by each test (raters) and `level="ordinal"`. NaN if all ratings are equal.

    >>> round(krippendorff_alpha([[1, 2, 3, 3], [1, 2, 3, 4]], "nominal"), 3)
    0.696
    """
    if level not in ("nominal", "ordinal", "interval"):
        raise InputError(f"level is {level!r}; accepted: 'nominal', 'ordinal', 'interval'")
    data = _matrix(ratings)
    known = ~np.isnan(data)
    many = known.sum(0)
    data, known, many = data[:, many > 1], known[:, many > 1], many[many > 1]
    if not data.size:
        return float("nan")
    categories, index = np.unique(data[known], return_inverse=True)
    # How often each item was given each category, and from that which categories met.
    items = np.broadcast_to(np.arange(data.shape[1]), data.shape)[known]
    counts = np.zeros((data.shape[1], len(categories)))
    np.add.at(counts, (items, index), 1)
    weighted = counts / (many - 1)[:, None]
    coincidences = counts.T @ weighted - np.diag(weighted.sum(0))
    totals = coincidences.sum(0)
    n = float(totals.sum())
    distance = _distances(categories, totals, level)
    expected = float((np.outer(totals, totals) * distance).sum()) / (n - 1)
    return 1 - float((coincidences * distance).sum()) / expected if expected else float("nan")


def tau_table(scores: Mapping[str, Mapping[str, float]]) -> tuple[list[str], Numbers]:
    """Kendall's τ between tests (or data sets), from test → method → a number that is better the larger.

    >>> names, tau = tau_table({"flip": {"a": 1, "b": 2}, "delete": {"a": 3, "b": 4}})
    >>> names, tau[0, 1].item()
    (['flip', 'delete'], 1.0)
    """
    methods = list(dict.fromkeys(method for row in scores.values() for method in row))
    rows = [[row.get(method, float("nan")) for method in methods] for row in scores.values()]
    return list(scores), kendall_tau(np.asarray(rows, dtype=np.float64).reshape(len(rows), len(methods)))


def _distances(categories: Numbers, totals: Numbers, level: str) -> Numbers:
    """The squared difference of each two categories."""
    if level == "nominal":
        return 1.0 - np.eye(len(categories))
    if level == "interval":
        return np.asarray((categories[:, None] - categories[None]) ** 2)
    # Ordinal: how many ratings lie between the middles of the two categories.
    middle = np.cumsum(totals) - totals / 2
    return np.asarray((middle[:, None] - middle[None]) ** 2)


def _matrix(ratings: npt.ArrayLike) -> Numbers:
    data = np.asarray(ratings, dtype=np.float64)
    if data.ndim != 2:
        raise InputError(f"ratings have shape {data.shape}; accepted: (raters, items)")
    return data
