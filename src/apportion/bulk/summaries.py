"""What the explanations of a run have in common: words, columns, pairs of features, or mean maps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from apportion.bulk._shards import on_one_grid, pool_map
from apportion.bulk.reading import Run

SIDE = 56  # cells of a mean map


@dataclass(frozen=True)
class MeanRelevance:
    """A feature (or a pair of them): in how many inputs it is, the mean of its relevance in them, and that of
    its |relevance|. What stands in an input more than once has the sum of its relevances there."""

    name: str
    count: int
    mean: float
    size: float


@dataclass(frozen=True, eq=False)
class Summary:
    """Of each explained class, or of all answers of a language model: `counts` is how many inputs there are,
    `remainder` the mean of |remainder| over that of |total| (None where the method does not add up), `features` the
    means by feature, largest mean |relevance| first, `maps` the (height, width) mean maps (of pictures of several sizes
    on the largest grid), `pairs` the interactions."""

    counts: dict[str, int]
    remainder: dict[str, float | None]
    features: dict[str, list[MeanRelevance]]
    pairs: dict[str, list[MeanRelevance]]
    maps: dict[str, Tensor]


def summarise(run: Run, least: int = 1) -> Summary:
    """Summarise a run, which is read once, in constant memory but for one entry a feature and class.

    Columns of a table count as one whatever their cells, words whatever their case.

    Args:
        run (Run): The run.
        least (int, default 1): Inputs below which a feature is left out.
    """
    counts: dict[str, int] = defaultdict(int)
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    features, pairs = _sums(), _sums()
    maps: dict[str, dict[Any, Tensor]] = defaultdict(dict)  # the sum of those of each size
    for row, values in run.maps():
        label = "answers" if run.of_answers else row["target_label"] or f"class {row['target']}"
        counts[label] += 1
        if row["total"] is not None:
            totals[label][0] += abs(row["remainder"])
            totals[label][1] += abs(row["total"])
        names = None if row["features"] is None else [_plain(name, run) for name in row["features"]]
        if names is not None:
            _add(features[label], zip(names, row["relevance"], strict=True))
        if not isinstance(values, Tensor):
            continue
        if names is not None and values.shape == (len(names), len(names)):
            _add(pairs[label], _pairs(names, values))
        elif names is None and values.dim() in (2, 3):
            small = pool_map((values.sum(0) if values.dim() == 3 else values).double(), SIDE)
            maps[label][small.shape] = maps[label].get(small.shape, 0.0) + small
    return Summary(
        counts=dict(sorted(counts.items(), key=lambda item: -item[1])),
        remainder={
            label: totals[label][0] / totals[label][1] if totals[label][1] else None for label in counts
        },
        features={label: _means(found, least) for label, found in features.items()},
        pairs={label: _means(found, least) for label, found in pairs.items()},
        maps={
            label: torch.stack(on_one_grid(list(sums.values()))).sum(0) / counts[label]
            for label, sums in maps.items()
        },
    )


def _plain(name: str, run: Run) -> str:
    return name.partition(" = ")[0] if run.manifest.domain == "tabular" else name.lower()


Sums = dict[str, dict[str, list[float]]]


def _sums() -> Sums:
    return defaultdict(lambda: defaultdict(lambda: [0, 0.0, 0.0]))


def _add(found: dict[str, list[float]], named: Iterable[tuple[str, float]]) -> None:
    """Count one input, with the relevances of what is in it."""
    inside: dict[str, float] = defaultdict(float)
    for name, value in named:
        inside[name] += value
    for name, value in inside.items():
        entry = found[name]
        entry[0] += 1
        entry[1] += value
        entry[2] += abs(value)


def _pairs(names: list[str], values: Tensor) -> Iterator[tuple[str, float]]:
    rows, columns = torch.triu_indices(len(names), len(names), 1)
    both = (2 * values[rows, columns]).tolist()  # a pair stands in the matrix twice
    for i, j, value in zip(rows.tolist(), columns.tolist(), both, strict=True):
        if value == value:  # those that were not asked for are NaN
            yield " × ".join(sorted((names[i], names[j]))), value


def _means(found: dict[str, list[float]], least: int) -> list[MeanRelevance]:
    kept = [
        MeanRelevance(name, int(count), total / count, size / count)
        for name, (count, total, size) in found.items()
        if count >= least
    ]
    return sorted(kept, key=lambda mean: -mean.size)
