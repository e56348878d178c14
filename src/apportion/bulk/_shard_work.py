"""One shard: read its inputs ahead, explain them in batches of one shape, and write what comes out.

An engine calls `run_shard` and nothing else. It may call it twice for the same shard, or be killed in it.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apportion.bulk import _shards as shards
from apportion.bulk._batches import Failure, Samples, batches, read, read_ahead, weight_of
from apportion.bulk._folders import Files
from apportion.bulk._manifest import Manifest
from apportion.bulk._rows import error_row, maps_of_samples, row_of_parts, table_rows
from apportion.bulk._shards import Done, Map
from apportion.bulk.sources import Source
from apportion.core.classifier import Classifier
from apportion.core.progress import watched
from apportion.core.trees import map_tensors
from apportion.domains.language import LanguageModel
from apportion.errors import InputError
from apportion.methods.explain import explain, explain_encoded
from apportion.results.explanation import Explanation
from apportion.results.interactions import Interactions

READERS = 4  # threads that read pictures ahead; other sources have one, since their code may not allow more


@dataclass(frozen=True)
class Job:
    """All that a worker has to know: where the shards go, what is explained, and how.

    `model` is a name for `apportion.load`, a classifier or a model; `device` is where a model that is loaded
    by name goes; `asked` is how a language model is asked.
    """

    folder: Path
    manifest: Manifest
    source: Source
    model: Any
    method: Any
    target: Any = None
    device: str | None = None
    strict: bool = False
    asked: Mapping[str, Any] = field(default_factory=dict)

    def load(self, device: str | None = None) -> Any:
        """The model, on its device."""
        return load_model(self.model, device or self.device)


def load_model(model: Any, device: str | None) -> Any:
    """A model by name, moved to the device (default: CUDA where there is one); any other as it is."""
    if not isinstance(model, str | Path):
        return model
    from apportion.models import load

    return load(model, device=device or ("cuda" if torch.cuda.is_available() else "cpu"))


def run_shard(job: Job, model: Any, shard: int) -> Done:
    """Make a shard unless it is there. Raises InputError for the first failure of a strict run, and for a
    folder that cannot be written to."""
    run = job.manifest.fingerprint
    if (there := shards.find_finished(job.folder, shard, run, whole=True)) is not None:
        return there
    rows: dict[int, tuple[dict[str, Any], Map]] = {}
    errors: dict[int, dict[str, Any]] = {}

    def fail(failure: Failure) -> None:
        errors[failure.number] = error_row(failure, job.source)
        if job.strict:
            found = errors[failure.number]
            raise InputError(
                f"{found['id']}: {found['stage']}: {found['error']}: {found['message']} (--strict)"
            )

    batch_size = job.manifest.batch or 1

    def samples() -> Iterator[Samples]:
        files = isinstance(job.source, Files)
        together, threads = (1, min(READERS, os.cpu_count() or 1)) if files else (batch_size, 1)
        indices = job.manifest.span(shard)
        for found in read_ahead(partial(read, job.source, model), indices, together, threads):
            if isinstance(found, Failure):
                fail(found)
            else:
                yield found

    with watched(lambda *_: None):  # the run as a whole has a bar, not each batch
        for batch in batches(samples(), batch_size):
            for found in explain_or_halve(job, model, batch):
                if isinstance(found, Failure):
                    fail(found)
                else:
                    rows[found[0]["index"]] = found
    ordered = [rows[index] for index in sorted(rows)]
    try:
        return shards.write(
            job.folder,
            shard,
            run,
            job.manifest.table or "jsonl",
            [map_ for _, map_ in ordered],
            [row for row, _ in ordered],
            [errors[index] for index in sorted(errors)],
        )
    except OSError as error:
        why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or error
        raise InputError(
            f"cannot write shard {shard} into {job.folder}: {why}; what is finished stays, and the same "
            "command goes on from there"
        ) from error


def explain_or_halve(job: Job, model: Any, batch: Samples) -> Iterator[tuple[dict[str, Any], Map] | Failure]:
    """A row and a map for each sample of a batch. A batch that fails is halved, down to the samples that fail."""
    try:
        explanation = explain_batch(model, batch, job.method, job.target, job.asked)
        if getattr(job.target, "each", False):
            done = [row_of_parts(explanation, batch.numbers, job.source, job.manifest)]
        else:
            rows = table_rows(explanation, batch.numbers, job.source, job.manifest)
            done = list(zip(rows, maps_of_samples(explanation, job.manifest), strict=True))
    except Exception as error:  # whatever a method or the user's model raises
        if len(batch) == 1:
            yield Failure(batch.numbers[0], "explain", error)
            return
        half = len(batch) // 2
        yield from explain_or_halve(job, model, batch.at(range(half)))
        yield from explain_or_halve(job, model, batch.at(range(half, len(batch))))
        return
    for row, map_ in done:
        if math.isfinite(row["sum"]):
            yield row, map_
        else:
            yield Failure(row["index"], "explain", InputError(f"the values add up to {row['sum']}"))


def explain_batch(
    model: Any, batch: Samples, method: Any, target: Any, asked: Mapping[str, Any]
) -> Explanation | Interactions:
    """Explain samples at once, on the model's device."""
    inputs: Any = batch.inputs
    if isinstance(model, LanguageModel):  # of which each has a batch of its own
        if inputs.get("contrast") is not None:
            target = replace(target, rather_than=inputs["contrast"])
        given = {name: inputs[name] for name in ("answer", "context") if inputs.get(name) is not None}
        how = asked if "answer" not in given else {k: v for k, v in asked.items() if k == "unit"}
        answered: Explanation = explain(model, inputs["prompt"], method, target, **given, **how)
        return answered
    if isinstance(target, Tensor):  # one class for each input of the data set
        target = target[list(batch.numbers)]
    weight = weight_of(model)
    if weight is not None:
        inputs = map_tensors(inputs, lambda t: t.to(weight.device))
    if not isinstance(model, Classifier):
        found: Explanation | Interactions = explain(model, inputs, method, target)
        return found
    return explain_encoded(model, inputs, batch.features, method, target)
