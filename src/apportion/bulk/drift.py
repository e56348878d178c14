"""How the explanations of the same inputs differ between two runs: of two models, two methods, two versions."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from apportion.bulk._shards import pool_map
from apportion.bulk.reading import Run
from apportion.errors import InputError

COMPARED = ("model_fingerprint", "method", "target", "data_fingerprint", "column", "precision", "pool")


@dataclass(frozen=True)
class Changed:
    """One input in both runs: the `cosine` between its two maps (None where their shapes do not fit), how much
    the model's largest score `moved`, and whether its prediction `flipped`."""

    id: str
    cosine: float | None
    moved: float
    flipped: bool


@dataclass(frozen=True, eq=False)
class Drift:
    """`inputs` are those in both runs, the least alike first; `only_first` and `only_second` count the others;
    `settings` are those that differ, as (first, second)."""

    inputs: tuple[Changed, ...]
    only_first: int
    only_second: int
    settings: dict[str, tuple[Any, Any]]

    @property
    def cosines(self) -> Tensor:
        """Of the inputs whose maps can be compared."""
        return torch.tensor(
            [one.cosine for one in self.inputs if one.cosine is not None], dtype=torch.float64
        )

    @property
    def flipped(self) -> float:
        """The share of inputs whose prediction changed."""
        return sum(one.flipped for one in self.inputs) / len(self.inputs)


def drift(first: Run, second: Run) -> Drift:
    """Compare two runs input by input, by id.

    Maps of pictures that were summed to different numbers of cells are summed to the smaller. Raises InputError for
    runs without an input in common, of models with other classes, or whose ids do not say which inputs are the same.

    Args:
        first (Run): The run before.
        second (Run): The run after.
    """
    mine, theirs = _places(first), _places(second)
    shared = [name for name in mine if name in theirs]
    if not shared:
        raise InputError(f"{first.folder} and {second.folder} have no input in common, by id")
    _refuse_unrelated(first, second, shared[0])
    found = []
    decided = ("target_label",) if first.of_answers else ("prediction",)
    for row, values in first.maps():
        place = theirs.get(row["id"])
        if place is None:
            continue
        other = second[place]
        found.append(
            Changed(
                id=row["id"],
                cosine=_cosine(values, other["values"]),
                moved=max(other["output"]) - max(row["output"]),
                flipped=any(row[what] != other[what] for what in decided),
            )
        )
    found.sort(key=lambda one: 2.0 if one.cosine is None else one.cosine)
    return Drift(
        inputs=tuple(found),
        only_first=len(first) - len(found),
        only_second=len(second) - len(found),
        settings={
            field.name: pair
            for field in fields(first.manifest)
            if field.name in COMPARED
            and (pair := (getattr(first.manifest, field.name), getattr(second.manifest, field.name)))
            and pair[0] != pair[1]
        },
    )


def _places(run: Run) -> dict[str, int]:
    """Where each input is in the run, by id."""
    found = {row["id"]: place for place, row in enumerate(run.rows())}
    if len(found) < len(run):
        raise InputError(
            f"{run.folder} has {len(found)} ids for {len(run)} inputs; accepted: another for each"
        )
    return found


def _refuse_unrelated(first: Run, second: Run, shared: str) -> None:
    """Raises InputError for models that have other classes, and for an id that says nothing of other data."""
    one, other = first.manifest, second.manifest
    for what, pair in (("domains", (one.domain, other.domain)), ("classes", (one.labels, other.labels))):
        if pair[0] != pair[1]:
            raise InputError(
                f"{first.folder} and {second.folder} are of models with other {what}: {reprlib.repr(pair[0])} and "
                f"{reprlib.repr(pair[1])}; accepted: runs that give the same inputs the same kind of answer"
            )
    numbers = [run.id_column is None and shared.rpartition(":")[2].isdigit() for run in (one, other)]
    if any(numbers) and not (all(numbers) and one.data_fingerprint == other.data_fingerprint):
        raise InputError(
            f"{first.folder} and {second.folder} are of other data or have other ids, and row {shared} need not be the "
            "same input in both; accepted: runs of the same data, or with a column of ids (apportion bulk … --id "
            "COLUMN)"
        )


def _cosine(one: Any, other: Any) -> float | None:
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return None
    if one.dim() >= 2 and one.dim() == other.dim() and one.shape != other.shape:
        side = min(*one.shape[-2:], *other.shape[-2:])
        one, other = pool_map(one, side), pool_map(other, side)
    if one.shape != other.shape:
        return None
    return float(torch.cosine_similarity(one.double().flatten(), other.double().flatten(), dim=0))
