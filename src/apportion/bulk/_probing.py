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
from apportion.bulk._batches import Failure, Samples, read, weight_of
from apportion.bulk._manifest import Manifest
from apportion.bulk._rows import maps_of_samples
from apportion.bulk._shard_work import Job, explain_batch
from apportion.bulk.local import cores
from apportion.core.memory import room
from apportion.errors import InputError

TRIED = 16
SHARD_BYTES = 1 << 28  # of maps and scores that wait in memory until their shard is written
SHARD_ROWS = 1024
# A shard has as much work, up to so many rows: the disk takes 10 to 50 ms for each.
SHARD_SECONDS, FAST_ROWS = 2.0, 8192
LARGEST_BATCH = 1 << 14
QUICK = 1.0  # seconds
TRYING = 1 / 16  # of the time that the run will take
LONGEST = 8.0  # seconds: of the trying, and of a batch that was not tried
FIXED = 1 / 16  # of the time of a batch that may be what each call takes, however large it is
_OF_SCORE = 32  # bytes that one takes in a row that waits


def settle_by_trial(job: Job, model: Any, workers: int) -> Manifest:
    """The manifest with batch, shard and table. If none of the inputs tried can be explained, then the
    settings are wrong rather than the inputs: InputError, and nothing is written."""
    asked, many = job.manifest, job.manifest.inputs
    places = sorted({round(i * (many - 1) / (TRIED - 1)) for i in range(TRIED)})
    good, size, begin = list[Samples](), 0.0, time.perf_counter()
    first: Failure | None = None
    with _threads(max(1, cores() // workers) if workers > 1 else torch.get_num_threads()):
        # Where a batch is given nothing has to be measured, and one that works is enough.
        for some in [places] if asked.batch is None else [[place] for place in places]:
            as_one = _as_one(read(job.source, model, some))
            for found in (tried for each in as_one for tried in _try(job, model, each)):
                if isinstance(found, Failure):
                    first = first or found
                else:
                    good.append(found[0])
                    size = max(size, found[1])
            if good:
                break
        if first is not None and not good and len(places) >= TRIED // 2:
            raise InputError(
                f"none of the {len(places)} inputs that were tried can be explained; the first of them "
                f"({job.source.id(first.number)}): {first.error}"
            )
        batch, seconds = asked.batch or 1, math.inf
        if good and asked.batch is None:
            batch, seconds = best_batch(job, model, good, workers, time.perf_counter() - begin)
        elif good and asked.shard is None:
            few = min(batch, TRIED)
            seconds = _fastest(job, model, good[0].at([0] * few)) / few
    rows = max(32, min(many // 64, SHARD_ROWS), min(int(SHARD_SECONDS / seconds), FAST_ROWS))
    rows = min(rows, max(1, int(SHARD_BYTES / max(1.0, size))))
    shard = asked.shard or min(many, math.ceil(rows / batch) * batch)
    return replace(asked, batch=batch, shard=shard, table=asked.table or shards.default_table())


def _as_one(found: Sequence[Samples | Failure]) -> list[Samples | Failure]:
    """Those of one shape as one, where all have it."""
    samples = [some for some in found if isinstance(some, Samples)]
    if len({some.shape for some in samples}) != 1:
        return list(found)
    return [*(some for some in found if isinstance(some, Failure)), Samples.joined(samples)]


def _try(job: Job, model: Any, found: Samples | Failure) -> Iterator[tuple[Samples, float] | Failure]:
    """Samples that can be explained, with the bytes that one of them leaves: at once, so that what takes a method long
    for each call is paid once, or else one by one."""
    if isinstance(found, Failure):
        yield found
        return
    try:
        explanation = explain_batch(model, found, job.method, job.target, job.asked)
        kept = sum(t.nbytes for t in maps_of_samples(explanation, job.manifest)[0].values())
        yield found, kept + _OF_SCORE * explanation.output.shape[1]
    except Exception as error:  # whatever a method or the user's model raises
        if len(found) == 1:
            yield Failure(found.numbers[0], "explain", error)
            return
        for place in range(len(found)):
            yield from _try(job, model, found.at([place]))


def best_batch(
    job: Job, model: Any, good: Sequence[Samples], workers: int, first: float
) -> tuple[int, float]:
    """The smallest batch within 5 % of the best time an input, and this time; `first`: the seconds that `good` took.

    Where the largest size tried is best, its multiples are taken on trust until what each call takes is little. Not of
    networks: they are slower where a cache is too small for a batch."""
    network = weight_of(model) is not None
    found, most, added = _time_sizes(job, model, good, workers, first, network)
    tried = max(found, default=1)
    size = next((size for size in sorted(found) if found[size] <= 1.05 * min(found.values())), 1)
    if len(found) < 2 or size < tried or network:
        return size, found.get(size, math.inf)
    call, each = _call_and_each(found)
    while (
        size < min(most, 64 * tried)
        and call > FIXED * each * size
        and call + each * 2 * size < LONGEST
        and 2 * size / tried * added * workers < room()
    ):
        size = min(2 * size, most)
    return size, each + call / size


def _time_sizes(
    job: Job, model: Any, good: Sequence[Samples], workers: int, first: float, network: bool
) -> tuple[dict[int, float], int, int]:
    """The seconds an input by the size of the batch, the largest size that there is room for, and the bytes that the
    last one added.

    Sizes double, from all that were tried together where these took less than a second, until that gets no better
    twice, a batch takes two seconds, the memory will not hold the next, or the time for this is used up; where twice as
    many take little longer, as where reading the model is what takes long, eight times as many are next."""
    begin, inputs = time.perf_counter(), job.manifest.inputs / workers
    most = min(LARGEST_BATCH, max(1, int(inputs)))
    alike = Samples.joined(good) if len({some.shape for some in good}) == 1 else good[0].at([0])
    together = len(good) == 1
    size, found = len(alike) if together and first < QUICK else 1, dict[int, float]()
    if size > 1 and not network:  # that it was the first call does not matter as much as to networks
        found[size] = first / size
        size = min(8 * size, most)
    last, added = math.inf, 0
    while max(found, default=0) < most:
        before = _peak()
        try:
            took = _fastest(job, model, alike.at([i % len(alike) for i in range(size)]))
        except (MemoryError, torch.OutOfMemoryError):
            return found, size // 2, added
        added, found[size] = _peak() - before, took / size
        flat, last = took < 1.25 * last, took
        if took > 2 * (2 if flat else 1) or size >= 4 * min(found, key=lambda size: found[size]):
            break
        step = 8 if flat and size > 1 else 2
        if step * added * workers > room():
            return found, size, added
        if time.perf_counter() - begin > min(LONGEST, TRYING * inputs * _call_and_each(found)[1]):
            if together and len(found) == 1:  # a short run: as many as have been run together
                return {min(len(alike), most): found[size]}, most, added
            break
        size = min(size * step, most)
    return found, most, added


def _call_and_each(found: dict[int, float]) -> tuple[float, float]:
    """The seconds that each call takes, and each input in it, by the two largest sizes that were tried; an input at
    least an eighth of what it took."""
    *_, few, tried = 0, *sorted(found)
    less = found.get(few, 0.0) * few
    each = max((found[tried] * tried - less) / (tried - few), found[tried] / 8)
    return (found[tried] - each) * tried, each


def _fastest(job: Job, model: Any, batch: Samples) -> float:
    """The seconds that a batch takes: the best of three times, or once where it is slow."""
    took = math.inf
    for _ in range(3):
        begin = time.perf_counter()
        explain_batch(model, batch, job.method, job.target, job.asked).output.sum().item()  # waits for a GPU
        took = min(took, time.perf_counter() - begin)
        if took > 0.05:
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
