"""From explanations to what is stored: maps, and one row of the table for each input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from apportion.bulk import _shards as shards
from apportion.bulk._batches import Failure
from apportion.bulk._manifest import Manifest
from apportion.bulk._shards import Map
from apportion.bulk.sources import Source
from apportion.core.features import ImageFeatures, TabularFeatures
from apportion.core.trees import tensors_in
from apportion.errors import InputError, first_line
from apportion.results.explanation import Explanation
from apportion.results.interactions import Interactions


def maps_of_samples(explanation: Explanation | Interactions, manifest: Manifest) -> list[Map]:
    """What is kept of each sample's values."""
    values: Any = explanation.values
    parts = {"": values} if isinstance(values, Tensor) else dict(
        values.items() if isinstance(values, dict) else enumerate(values)
    )  # fmt: skip
    found: list[Map] = [{} for _ in range(len(explanation))]
    for key, tensor in parts.items():
        reduced = shards.map_to_store(tensor, manifest.precision, manifest.pool, manifest.channels)
        for name, tensors in reduced.items():
            called = name if key == "" else f"{key}.{name}"
            for one, value in zip(found, tensors.unbind(), strict=True):
                one[called] = value
    return found


def table_rows(
    explanation: Explanation | Interactions, numbers: Sequence[int], source: Source, manifest: Manifest
) -> list[dict[str, Any]]:
    """One row for each sample, the inputs of these numbers, as it goes into the table."""
    many = len(explanation)

    def listed(tensor: Tensor | None) -> list[Any]:
        return [None] * many if tensor is None else tensor.tolist()

    targets = None if isinstance(explanation.target, str) else explanation.target
    classes = listed(targets)
    named: list[Any] = [
        explanation.class_name(each) if isinstance(each, int) else explanation.label(i)
        for i, each in enumerate(classes if targets is None or explanation.labels else ())
    ]
    chooses = "chosen" in explanation.notes  # a method that chooses another one, which is told then
    features, relevance = _named(explanation)
    columns = {
        "id": map(source.id, numbers),
        "index": numbers,
        "target": classes,
        "target_label": named or [None] * many,
        "prediction": listed(explanation.output.argmax(1)),
        "output": listed(explanation.output.float()),
        "total": listed(explanation.total),
        "sum": listed(explanation.apportioned),
        "remainder": listed(explanation.remainder),
        "features": features,
        "relevance": relevance,
        "warnings": map(list, explanation.warnings_of_each),
        "method": [repr(explanation[i].method) for i in range(many)] if chooses else [manifest.method] * many,
        "model": [manifest.model_fingerprint] * many,
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def row_of_parts(
    explanation: Explanation | Interactions, numbers: Sequence[int], source: Source, manifest: Manifest
) -> tuple[dict[str, Any], Map]:
    """The row and the map of an answer of which each part was explained: the row has their sums and says what they
    are, the map a line for each, with a column for each feature and a last one for all else."""
    if not isinstance(explanation, Explanation):
        raise InputError("each part is explained of pairs of features; accepted: each=False")
    sums, total = explanation.apportioned, explanation.total
    values: Any = explanation.values
    said, labels = explanation.notes["answer"], explanation.labels or ()
    begin, end = said["spans"][0][0], said["spans"][-1][1]
    whole = replace(
        explanation,
        values=values.sum(0, keepdim=True),
        total=None if total is None else total.sum(0, keepdim=True),
        output=explanation.output[:1],
        target=torch.tensor([0]),
        labels=(labels[0] if len(labels) == 1 else "".join(said["pieces"][begin:end]).strip(),),
        features=explanation.features and explanation.features[:1],
    )
    (row,) = table_rows(whole, numbers, source, manifest)
    if row["features"] is not None:
        named = torch.stack([explanation.relevance(i)[1] for i in range(len(explanation))])
        values = torch.cat([named, sums.to(named)[:, None] - named.sum(1, keepdim=True)], 1)
    totals = [None] * len(explanation) if total is None else total.tolist()
    row["parts"] = [{"name": name, "total": own} for name, own in zip(labels, totals, strict=True)]
    stored = shards.map_to_store(values[None], manifest.precision, manifest.pool, manifest.channels)
    return row, {name: tensor[0] for name, tensor in stored.items()}


def _named(explanation: Explanation | Interactions) -> tuple[list[Any], list[Any]]:
    """The words or columns of each sample and the value of each; None for pictures and bare tensors."""
    many, features = len(explanation), explanation.features
    if isinstance(explanation, Interactions):
        return [list(explanation.names_of(i)) for i in range(many)], explanation.main.tolist()
    names: list[Any] = [None] * many
    values: list[Any] = [None] * many
    if features is None:
        return names, values
    rows = [each for each in features if isinstance(each, TabularFeatures)]
    if len(rows) == many and (sums := _column_sums(explanation, rows)) is not None:
        return [list(each.names) for each in rows], sums.tolist()
    entries = next(tensors_in(explanation.values))[0].numel()
    for i, each in enumerate(features):
        # Those of an inner layer are no features.
        if not isinstance(each, ImageFeatures) and entries == len(each.groups):
            called, of_one = explanation.relevance(i)
            names[i], values[i] = list(called), of_one.tolist()
    return names, values


def _column_sums(explanation: Explanation, rows: Sequence[TabularFeatures]) -> Tensor | None:
    """What each column of the rows of a table has, (batch, columns), as `feature_sums` has it of one; None where the
    values are those of a layer, or rows are cut differently."""
    values, groups = explanation.values, rows[0].groups
    if not isinstance(values, Tensor) or values.shape[1:] != (len(groups),):
        return None
    if getattr(explanation.method, "at", None) is not None or any(each.groups != groups for each in rows):
        return None
    column = torch.tensor(groups)
    sums = values.new_zeros(len(values), len(rows[0].columns))
    return sums.index_add(1, column[column >= 0].to(sums.device), values[:, column >= 0])


def error_row(failure: Failure, source: Source) -> dict[str, Any]:
    error = failure.error
    return {
        "id": _id(source, failure.number),
        "index": failure.number,
        "stage": failure.stage,
        "error": type(error).__name__,
        "message": first_line(error),
    }


def _id(source: Source, index: int) -> str:
    try:
        return source.id(index)
    except Exception:  # an id in a row that cannot be read
        return str(index)
