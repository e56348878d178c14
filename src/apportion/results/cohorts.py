"""Cohorts of rows: how they are made, and whether their means differ."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np

from apportion.results.partners import Cells
from apportion.results.statistics import Numbers, bootstrap_means

COHORTS = 6  # more values of a column than this are put together
_OTHERS = "others"
_SHUFFLES = 5000


def cohorts_of(cells: Cells) -> tuple[list[str], tuple[str, ...]]:
    """The cohort of each row, and all of them in order: its value, of many numbers the quarter, of many other values
    those that are frequent.

    >>> cohorts_of(("b", "a", "b"))
    (['b', 'a', 'b'], ('b', 'a'))
    """
    if isinstance(cells, tuple):
        many = Counter(cells)
        kept = [name for name, _ in many.most_common(COHORTS if len(many) <= COHORTS else COHORTS - 1)]
        found = [cell if cell in kept else _OTHERS for cell in cells]
        order = [*kept, _OTHERS]
    else:
        known = cells[~np.isnan(cells)]
        if len(np.unique(known)) <= COHORTS:
            order = [f"{v:g}" for v in np.unique(known)]
            places = np.searchsorted(np.unique(known), cells)
        else:
            edges = np.unique(np.quantile(known, [0.25, 0.5, 0.75], method="inverted_cdf"))
            ends = [f"{edge:.4g}" for edge in edges]
            order = [f"≤ {ends[0]}", *(f"{a} to {b}" for a, b in pairwise(ends)), f"> {ends[-1]}"]
            places = np.searchsorted(edges, cells)
        order.append("missing")
        found = ["missing" if math.isnan(v) else order[i] for v, i in zip(cells, places, strict=True)]
    there = set(found)
    return found, tuple(dict.fromkeys(name for name in order if name in there))


def permutation_ps(sizes: Numbers, inside: np.ndarray, seed: int = 0) -> Numbers:
    """For each column how often means of cohorts drawn by lot are as far apart (the observed cohorts counted among
    them)."""
    many, n = int(inside.sum()), len(inside)
    total = sizes.sum(0)

    def apart(sums: Numbers) -> Numbers:
        found: Numbers = np.abs(sums / many - (total - sums) / (n - many))
        return found

    observed = apart(sizes[inside].sum(0))
    random, as_far = np.random.default_rng(seed), np.ones(sizes.shape[1])
    at_once = max(1, (1 << 22) // n)
    for begin in range(0, _SHUFFLES, at_once):
        some = min(at_once, _SHUFFLES - begin)
        drawn = random.random((some, n)).argpartition(many - 1, axis=1)[:, :many]
        chosen = np.zeros((some, n))
        np.put_along_axis(chosen, drawn, 1.0, axis=1)
        as_far += (apart(chosen @ sizes) >= observed - 1e-12 * total / n).sum(0)
    found: Numbers = as_far / (_SHUFFLES + 1)
    return found


def interval_of_difference(sizes: Numbers, inside: np.ndarray) -> tuple[Numbers, Numbers]:
    """The 95 % bootstrap interval of the difference of means, each cohort drawn anew by itself."""
    apart = bootstrap_means(sizes[inside], seed=0) - bootstrap_means(sizes[~inside], seed=1)
    low, high = np.quantile(apart, [0.025, 0.975], axis=0)
    return low, high
