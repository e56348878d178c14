"""From explanations to what is stored: maps, and one row of the table for each input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from apportion.bulk import _shards as shards
from apportion.bulk._batches import Failure, Sample
from apportion.bulk._manifest import Manifest
from apportion.bulk._shards import Map
from apportion.bulk.sources import Source
from apportion.core.features import ImageFeatures
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
            for one, value in zip(found, tensors, strict=True):
                one[name if key == "" else f"{key}.{name}"] = value
    return found


def table_rows(
    explanation: Explanation | Interactions, batch: Sequence[Sample], source: Source, manifest: Manifest
) -> list[dict[str, Any]]:
    """One row a sample, as it goes into the table."""

    def listed(tensor: Tensor | None) -> list[Any]:
        return [None] * len(batch) if tensor is None else tensor.tolist()

    targets = None if isinstance(explanation.target, str) else explanation.target
    columns = zip(
        batch,
        listed(targets),
        listed(explanation.output.argmax(1)),
        listed(explanation.output.float()),
        listed(explanation.total),
        listed(explanation.apportioned),
        listed(explanation.remainder),
        strict=True,
    )
    rows, chooses, silent = [], "chosen" in explanation.notes, explanation.is_silent
    for place, (sample, target, prediction, output, total, sum_, remainder) in enumerate(columns):
        names, relevance = _named(explanation, place)
        one = explanation if silent and not chooses else explanation[place]
        rows.append(
            {
                "id": source.id(sample.number),
                "index": sample.number,
                "target": target,
                "target_label": _label(explanation, place),
                "prediction": prediction,
                "output": output,
                "total": total,
                "sum": sum_,
                "remainder": remainder,
                "features": names,
                "relevance": relevance,
                "warnings": list(one.warnings),
                # Of a method that chooses another one, the chosen one.
                "method": repr(one.method) if chooses else manifest.method,
                "model": manifest.model_fingerprint,
            }
        )
    return rows


def row_of_parts(
    explanation: Explanation | Interactions, sample: Sample, source: Source, manifest: Manifest
) -> tuple[dict[str, Any], Map]:
    """The row and the map of one answer of which each part was explained: the row has their sums and says what they
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
    (row,) = table_rows(whole, [sample], source, manifest)
    if row["features"] is not None:
        named = torch.stack([explanation.relevance(i)[1] for i in range(len(explanation))])
        values = torch.cat([named, sums.to(named)[:, None] - named.sum(1, keepdim=True)], 1)
    totals = [None] * len(explanation) if total is None else total.tolist()
    row["parts"] = [{"name": name, "total": own} for name, own in zip(labels, totals, strict=True)]
    stored = shards.map_to_store(values[None], manifest.precision, manifest.pool, manifest.channels)
    return row, {name: tensor[0] for name, tensor in stored.items()}


def _label(explanation: Explanation | Interactions, place: int) -> str | None:
    return explanation.label(place) if explanation.labels or isinstance(explanation.target, str) else None


def _named(
    explanation: Explanation | Interactions, place: int
) -> tuple[list[str] | None, list[float] | None]:
    """The words or columns of a sample and the value of each; nothing for pictures and bare tensors."""
    if isinstance(explanation, Interactions):
        return list(explanation.names_of(place)), explanation.main[place].tolist()
    feature = None if explanation.features is None else explanation.features[place]
    if feature is None or isinstance(feature, ImageFeatures):
        return None, None
    if next(tensors_in(explanation.values))[place].numel() != len(feature.groups):  # of an inner layer
        return None, None
    names, values = explanation.relevance(place)
    return list(names), values.tolist()


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
