"""From explanations, or a run of them, to their overview."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.core.features import TabularFeatures
from apportion.errors import InputError, check, shown
from apportion.results.cohorts import cohorts_of
from apportion.results.explanation import Explanation, feature_sums
from apportion.results.interactions import Interactions
from apportion.results.overview import Overview
from apportion.results.partners import Cells
from apportion.results.words import describe_method


def summary(
    explanations: Any,
    *,
    target: str | int | None = None,
    by: str | Sequence[Any] | None = None,
    truth: Sequence[Any] | None = None,
) -> Overview:
    """Sum up explanations of rows of a table: how much each column counts, how surely, and for whom.

    Args:
        explanations (Explanation, list of Explanation, or run): Of rows with the same columns, of one method; also what
            `explain_dataset` or `open_run` gives.
        target (str or int, default None): The explained class whose explanations are kept; None: all are of one class.
        by (str or sequence, default None): Cohorts: the values of a column, of many numbers their quarters, or a value
            for each explanation; None: no cohorts.
        truth (sequence, default None): The right class of each explanation, by name or number: the cohorts are those
            that the model got right and wrong.

    >>> import torch, apportion as ap
    >>> rows = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 1.0]])
    >>> e = ap.explain(lambda x: x @ torch.tensor([2.0, 1.0]), rows, "inputxgradient", feature_names=["age", "mass"])
    >>> [(one.name, round(one.size, 2)) for one in ap.summary(e).features]
    [('age', 3.0), ('mass', 1.33)]
    """
    found = _samples(explanations)
    if by is not None and truth is not None:
        raise InputError("by and truth are both given; accepted: one of them makes the cohorts")
    for name, given in (("by", None if isinstance(by, str) else by), ("truth", truth)):
        check(name, given, lambda v: v is None or len(v) >= 0, "a value for each explanation")
        if given is not None and len(given) != len(found):
            raise InputError(
                f"{name} has {len(given)} values for {len(found)} explanations; accepted: one for each"
            )
    kept = _of_target(found, target)
    one = [found[i] for i in kept]
    columns, rows = _rows(one)
    values = np.array([row[1] for row in rows], dtype=np.float64)
    cells = (
        None if any(row[0] is None for row in rows) else tuple(row[0] for row in rows if row[0] is not None)
    )
    (first, place), adds_up = one[0], all(e.total is not None for e, _ in one)
    left = {id(e): _left_over(e) for e, _ in one} if adds_up else {}
    made = Overview(
        columns=columns,
        values=values,
        target=first.label(place),
        unit=units.pop() if len(units := {e.unit for e, _ in one}) == 1 else "units of the score",
        method=describe_method(first.method).partition("(")[0],
        cells=cells,
        total=np.array([float(e.total[i]) for e, i in one if e.total is not None]) if adds_up else None,
        remainder=np.array([left[id(e)][i] for e, i in one]) if adds_up else None,
        samples=tuple(one),
    )
    if by is None and truth is None:
        return made
    order: tuple[str, ...]
    if truth is not None:
        cohorts = ["right" if _is_right(*found[i], truth[i]) else "wrong" for i in kept]
        order, said = (
            tuple(name for name in ("right", "wrong") if name in cohorts),
            "right and wrong predictions",
        )
    elif isinstance(by, str):
        (cohorts, order), said = cohorts_of(made.of(by)), by
    else:
        assert by is not None
        (cohorts, order), said = cohorts_of(_as_cells([by[i] for i in kept])), "the given values"
    return replace(made, cohorts=tuple(cohorts), cohort_names=order, by=said)


def _as_cells(given: Sequence[Any]) -> Cells:
    numbers = all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in given)
    return np.array(given, np.float64) if numbers else tuple(map(str, given))


One = tuple[Explanation, int]
"""A sample: the explanation that it is in, and its number there."""


def _samples(given: Any) -> list[One]:
    """All samples of what was given."""
    if isinstance(given, Interactions):
        raise InputError(
            "these are interactions; accepted: explanations (of interactions: dependence(interactions=…))"
        )
    if isinstance(given, Explanation):
        return [(given, i) for i in range(len(given))]
    if callable(explanation := getattr(given, "explanation", None)):  # a run
        return [(explanation(i), 0) for i in range(len(given))]
    parts = (
        list(given)
        if isinstance(given, Iterable) and not isinstance(given, str | Tensor | np.ndarray)
        else [given]
    )
    wrong = [type(part).__name__ for part in parts if not isinstance(part, Explanation)]
    if wrong or not parts:
        came = wrong[0] if wrong else "an empty list"
        raise InputError(f"explanations is {came}; accepted: an Explanation, a list of them, or a run")
    return [(part, i) for part in parts for i in range(len(part))]


def _of_target(found: Sequence[One], target: str | int | None) -> list[int]:
    """Which explanations are of the target; of one class all."""
    if not found:
        raise InputError("there are no explanations to sum up; accepted: at least one")
    labels = [e.label(i) for e, i in found]
    many = Counter(labels)
    said = ", ".join(f"{name} ({number})" for name, number in many.most_common(5))
    if target is None:
        if len(many) > 1:
            first = next(iter(many))
            raise InputError(
                f"the explanations are of several classes: {said}; what speaks for one speaks against another; "
                f"accepted: of one class, as explain(…, target={first!r}), or target={first!r} here to keep those of it"
            )
        return list(range(len(found)))
    name = found[0][0].class_name(target) if isinstance(target, int) else target
    if not isinstance(name, str) or name not in many:
        raise InputError(f"target is {shown(target)}, but the explanations are of: {said}")
    return [i for i, label in enumerate(labels) if label == name]


def _rows(
    found: Sequence[One],
) -> tuple[tuple[str, ...], list[tuple[tuple[str, ...] | None, list[float]]]]:
    """The columns, and the cells (None where they are not known) and values of each row."""
    rows: list[tuple[tuple[str, ...] | None, list[float]]] = []
    columns: tuple[str, ...] | None = None
    for e, i in found:
        parts = e.parts(i)
        _, values, features = parts[0]
        if isinstance(features, TabularFeatures) and len(parts) == 1:
            names: tuple[str, ...] = features.columns
            rows.append((features.cells, feature_sums(features, values).tolist()))
        elif features is None and len(parts) == 1 and values.dim() == 1:
            names, _ = e.relevance(i)
            rows.append((None, values.tolist()))
        else:
            raise InputError(
                "these are no explanations of rows of a table; accepted: rows with the same columns (of texts and "
                "pictures: `apportion runs summary`)"
            )
        if columns is not None and names != columns:
            other = next(iter(set(names) ^ set(columns)), "their order")
            raise InputError(f"the explanations have other columns ({other!r}); accepted: the same in all")
        columns = names
    assert columns is not None
    return columns, rows


def _left_over(one: Explanation) -> list[float]:
    """The remainder of each sample, zero where it is no more than rounding."""
    assert one.remainder is not None
    assert one.left_over is not None
    found: list[float] = torch.where(one.left_over == 0, 0.0, one.remainder).tolist()
    return found


def _is_right(one: Explanation, place: int, truth: Any) -> bool:
    classes = one.output.shape[1]
    if classes < 2:
        raise InputError(
            "truth is of classes, but the model has one score; accepted: by=, a value for each explanation"
        )
    number = int(one.output[place].argmax())
    names = [one.class_name(i) for i in range(classes)]
    text = str(truth).strip()
    if text in names:
        return text == names[number]
    whole = isinstance(truth, int | np.integer | float | np.floating) and not isinstance(truth, bool)
    if whole and float(truth).is_integer() and 0 <= int(truth) < classes:
        return int(truth) == number
    raise InputError(
        f"truth has {truth!r}, which is no class; accepted: {', '.join(names[:5])}, or their numbers from 0"
    )
