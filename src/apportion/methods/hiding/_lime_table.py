"""Rows near a row of a table as the package `lime` draws them, number for number (Ribeiro et al. 2016, `lime_tabular`).

A column of numbers is cut at its quartiles, each draw is of a bin as often as it has rows, and of a normal inside that
bin; a category is drawn as often as it is there. A feature counts as kept where the bin, or category, is the row's own.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from typing import Any

import numpy as np

from apportion.errors import InputError
from apportion.methods.hiding._coalitions import Masks, Numbers


def draw(
    row: Numbers, data: Numbers, categorical: Collection[int], bins: int, samples: int, seed: int
) -> tuple[Masks, Numbers]:
    """What is kept, and the rows themselves, both (samples, columns); the first is the row as it is. The random numbers
    are those of `LimeTabularExplainer(data, random_state=seed)`."""
    try:
        normal = import_module("scipy.stats").truncnorm
    except ImportError:
        raise InputError("sampling='lime' needs SciPy: pip install 'apportion[tabular]'") from None
    random = np.random.RandomState(seed)
    kept, drawn = np.ones((samples, len(row)), bool), np.empty((samples, len(row)))
    edges = [None if j in categorical else _edges(data[:, j], bins) for j in range(len(row))]
    # First the bins of all columns, then what is in them: the order of the draws.
    for j, cut in enumerate(edges):
        column = data[:, j] if cut is None else np.searchsorted(cut, data[:, j])
        own = row[j] if cut is None else np.searchsorted(cut, row[j])
        values, counts = np.unique(column, return_counts=True)
        drawn[:, j] = random.choice(values, size=samples, replace=True, p=counts / counts.sum())
        kept[1:, j] = drawn[1:, j] == own
    for j, cut in enumerate(edges):
        if cut is not None:
            drawn[1:, j] = _inside(drawn[1:, j].astype(int), data[:, j], cut, normal, random)
    drawn[0] = row
    return kept, drawn


def _edges(column: Numbers, bins: int) -> Numbers:
    edges: Numbers = np.unique(np.percentile(column, np.arange(1, bins) * 100 / bins))
    return edges


def _inside(bins: Any, column: Numbers, edges: Numbers, normal: Any, random: Any) -> Numbers:
    """A draw from each of these bins, from a normal with the mean and deviation of its rows, cut off at its ends."""
    places = np.searchsorted(edges, column)
    inside = [column[places == b] for b in range(len(edges) + 1)]
    means = np.array([here.mean() if len(here) else 0.0 for here in inside])[bins]
    deviations = np.array([here.std() if len(here) else 0.0 for here in inside])[bins] + 1e-11
    low = np.append(column.min(), edges)[bins]
    high = np.append(edges, column.max())[bins]
    found: Numbers = low.copy()  # of a bin with one value, where lime puts a zero
    wide = low != high
    ends = (low - means) / deviations, (high - means) / deviations
    found[wide] = normal.rvs(
        ends[0][wide], ends[1][wide], loc=means[wide], scale=deviations[wide], random_state=random
    )
    return found
