"""What a person leaves open is settled by trying a few inputs: do they work at all, and how many at once?"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch

from apportion.bulk import _shards as shards
from apportion.bulk._batches import Failure, Sample, read
from apportion.bulk._manifest import Manifest
from apportion.bulk._rows import maps_of_samples
from apportion.bulk._shard_work import Job, explain_batch
from apportion.bulk.local import cores
from apportion.core.memory import room
from apportion.core.trees import tensors_in
from apportion.errors import InputError

TRIED = 16
SHARD_BYTES = 1 << 28  # of maps that wait in memory until their shard is written
SHARD_ROWS = 1024
SHARD_SECONDS = 2.0  # of work at least, up to that many rows: forcing a shard to the disk takes 10 to 50 ms
LARGEST_BATCH = 512


def settle_by_trial(job: Job, model: Any, workers: int) -> Manifest:
    """The manifest with batch, shard and table. If none of the inputs tried can be explained, then the
    settings are wrong rather than the inputs: InputError, and nothing is written."""
    asked, many = job.manifest, job.manifest.inputs
    places = sorted({round(i * (many - 1) / (TRIED - 1)) for i in range(TRIED)})
    samples, size = list[Sample](), 0
    first: Failure | None = None
    with _threads(max(1, cores() // workers) if workers > 1 else torch.get_num_threads()):
        tried = [read(job.source, model, place) for place in places] if asked.batch is None else []
        together = _work_together(job, model, tried)
        for i, place in enumerate(places):
            found = tried[i] if tried else read(job.source, model, place)
            if isinstance(found, Sample):
                try:
                    if samples and together:  # as all of them do
                        samples.append(found)
                        continue
                    explanation = explain_batch(model, [found], job.method, job.target, job.asked)
                    size = max(size, sum(t.nbytes for t in maps_of_samples(explanation, asked)[0].values()))
                    samples.append(found)
                except Exception as error:  # whatever a method or the user's model raises
                    found = Failure(place, "explain", error)
            if isinstance(found, Failure):
                first = first or found
            elif asked.batch is not None:  # nothing has to be measured
                break
        if first is not None and not samples and len(places) >= TRIED // 2:
            raise InputError(
                f"none of the {len(places)} inputs that were tried can be explained; the first of them "
                f"({job.source.id(first.number)}): {first.error}"
            )
        batch = asked.batch or (best_batch(job, model, samples, workers) if samples else 1)
        seconds = math.inf
        if samples and asked.shard is None:
            few = min(batch, TRIED)
            seconds = _fastest(job, model, samples[:1] * few) / few
    rows = min(
        SHARD_ROWS, max(32, many // 64, int(SHARD_SECONDS / seconds)), max(1, SHARD_BYTES // max(1, size))
    )
    shard = asked.shard or min(many, math.ceil(rows / batch) * batch)
    return replace(asked, batch=batch, shard=shard, table=asked.table or shards.default_table())


def _work_together(job: Job, model: Any, tried: Sequence[Sample | Failure]) -> bool:
    """Whether all that were read, if they are of one shape, can be explained at once: what takes a method long for each
    call is then paid once."""
    samples = [found for found in tried if isinstance(found, Sample)]
    if len(samples) < 2 or not _alike(samples):
        return False
    try:
        explain_batch(model, samples, job.method, job.target, job.asked)
    except Exception:  # which of them it is, and why, is found one by one
        return False
    return True


def _alike(samples: Sequence[Sample]) -> bool:
    return len({tuple(t.shape for t in tensors_in(sample.inputs)) for sample in samples}) == 1


def best_batch(job: Job, model: Any, samples: Sequence[Sample], workers: int, seconds: float = 8.0) -> int:
    """The smallest batch within 5 % of the best time an input. It is doubled until that gets no better twice,
    a batch takes 2 seconds, the memory will not hold the next, or the time for this is used up; where twice as many
    take no longer, as where reading the model is what takes long, eight times as many are next."""
    start, found, size, last = time.perf_counter(), dict[int, float](), 1, math.inf
    alike = _alike(samples)
    while size <= LARGEST_BATCH and time.perf_counter() - start < seconds:
        batch = [samples[i % len(samples) if alike else 0] for i in range(size)]
        before = _peak()
        try:
            took = _fastest(job, model, batch)
        except (MemoryError, torch.OutOfMemoryError):
            break
        found[size] = took / size
        best = min(found, key=lambda size: found[size])
        flat, last = took < 1.25 * last, took
        if took > 2 * (2 if flat else 1) or size >= 4 * best or size == LARGEST_BATCH:
            break
        step = 8 if flat and size > 1 else 2
        if step * (_peak() - before) * workers > room():
            break
        size = min(size * step, LARGEST_BATCH)
    return min((size for size in found if found[size] <= 1.05 * min(found.values())), default=1)


def _fastest(job: Job, model: Any, batch: Sequence[Sample]) -> float:
    """The seconds that a batch takes: the best of three times, or once where it is slow."""
    took = math.inf
    for _ in range(3):
        begin = time.perf_counter()
        explain_batch(model, batch, job.method, job.target, job.asked).output.sum().item()  # waits for a GPU
        took = min(took, time.perf_counter() - begin)
        if took > 0.2:
            break
    return took


@contextmanager
def _threads(many: int) -> Iterator[None]:
    """Torch with as many threads as a worker will have."""
    before = torch.get_num_threads()
    torch.set_num_threads(many)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _peak() -> int:
    """The most bytes that this process has held, 0 where the system does not say."""
    with suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return 0
