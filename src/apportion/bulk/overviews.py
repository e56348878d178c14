"""The rows of a run summed up, class by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from apportion.bulk.reading import Run
from apportion.bulk.sources import open_source
from apportion.errors import InputError
from apportion.results.overview import Overview
from apportion.results.summing import summary


def overviews(
    run: Run, target: str | None = None, by: str | None = None, truth: str | None = None, data: Any = None
) -> list[Overview]:
    """Sum up a run over a table, a class at a time, the one with most rows first.

    Args:
        run (Run): The run.
        target (str, default None): The class whose explanations are summed up; None: each.
        by (str, default None): A column whose values, or quarters, are the cohorts.
        truth (str, default None): A column of the run's data with the right classes: the cohorts are the rows that the
            model got right and wrong.
        data (DataFrame, default None): The run's data, where they were given in memory; None: those that it names.
    """
    found = [run.explanation(i) for i in range(len(run))]
    right = None if truth is None else _column(run, truth, data)
    labels = [one.label() for one in found]
    wanted = sorted(set(labels), key=lambda name: -labels.count(name)) if target is None else [target]
    if target is not None and target not in labels:
        raise InputError(f"target is {target!r}; accepted: {', '.join(sorted(set(labels))) or 'nothing'}")
    parts = []
    for label in wanted:
        kept = [i for i, name in enumerate(labels) if name == label]
        known = None if right is None else [right[i] for i in kept]
        parts.append(summary([found[i] for i in kept], by=by, truth=known))
    return parts


def is_of_rows(run: Run) -> bool:
    """True if the run is of rows of a table, with a value for each column."""
    if run.manifest.domain != "tabular" or not len(run):
        return False
    values = run.map(0)
    return isinstance(values, Tensor) and values.dim() == 1


def _column(run: Run, name: str, data: Any) -> list[Any]:
    """What stands in a column of the data of a run, for each input that was explained."""
    made = run.manifest
    if data is None and not made.data:
        raise InputError(
            "the data of this run were given in memory; accepted: --data FILE, with --sep, --no-header … as for the "
            "run, or apportion.summary(run, truth=[…])"
        )
    source = open_source(made.data if data is None else data, made.domain, made.column, made.id_column)
    if source.fingerprint != made.data_fingerprint:
        raise InputError(
            f"{made.data or 'the data'} are not as they were for the run; accepted: those of the run"
        )
    found = []
    for row in run.rows():
        cells = source.read(row["index"])
        named = {str(key): cell for key, cell in cells.items()} if isinstance(cells, Mapping) else {}
        if name not in named:
            there = ", ".join(named) or "none that are named"
            raise InputError(f"the data have no column {name!r}; there are: {there}")
        found.append(named[name])
    return found
