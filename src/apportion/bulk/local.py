"""The engine for one machine: this process, or several that are started afresh with a model each."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, connection, get_context, parent_process
from typing import Any

import torch

from apportion.bulk._meter import Stop
from apportion.bulk._shard_work import Job, run_shard
from apportion.bulk._shards import Done
from apportion.errors import InputError

ATTEMPTS = 3  # times that a shard may take its worker down


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usual_workers(device: str | None) -> int:
    """One for each GPU that is used, else one for each core."""
    if device == "cpu" or not torch.cuda.is_available():
        return cores()
    return torch.cuda.device_count() if device in (None, "cuda") else 1


def run(job: Job, model: Any, todo: Sequence[int], workers: int, stop: Stop) -> Iterator[Done]:
    """Make these shards with one worker (`model`, in this process) or more; `stop` ends it after the shards
    that are being made."""
    if workers > 1:
        yield from _processes(job, todo, workers, stop)
        return
    for shard in todo:
        if stop.asked:
            return
        yield run_shard(job, model, shard)


def _processes(job: Job, todo: Sequence[int], workers: int, stop: Stop) -> Iterator[Done]:
    """A pool that is built anew when a worker dies. What was being made then is made again at the end, one
    shard at a time, so that it is known which shard kills its worker."""
    packed, waiting, deaths = _pack(job), deque(todo), Counter[int]()
    given_up: list[int] = []
    while waiting and not stop.asked:
        running: dict[Future[Done], int] = {}
        before = set(active_children())
        pool = _pool(packed, workers)
        try:
            while running or (waiting and not stop.asked):
                while waiting and not stop.asked and len(running) < workers:
                    alone = deaths[waiting[0]] or any(deaths[shard] for shard in running.values())
                    if alone and running:
                        break
                    shard = waiting.popleft()
                    running[pool.submit(_run, shard)] = shard
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    done = future.result()
                    del running[future]
                    yield done
            pool.shutdown()
        except BrokenProcessPool:
            deaths.update(running.values())
            waiting.extend(shard for shard in running.values() if deaths[shard] < ATTEMPTS)
            given_up += [shard for shard in running.values() if deaths[shard] >= ATTEMPTS]
        finally:  # also when the caller gave up: nothing is lost but the shards in the making
            for child in set(active_children()) - before:
                child.kill()
            pool.shutdown(cancel_futures=True)
    if given_up:
        spans = [job.manifest.span(shard) for shard in given_up]
        inputs = ", ".join(f"{span[0]} to {span[-1]}" for span in spans)
        raise InputError(
            f"a worker died {ATTEMPTS} times over the inputs numbered {inputs}: there is too little memory (try "
            "fewer --workers), an input crashes the model, or a script starts workers outside of `if __name__ "
            '== "__main__":`; all else that was asked for is finished'
        )


def _pack(job: Job) -> bytes:
    try:
        return pickle.dumps(job)
    except Exception as error:  # whatever the user's objects raise
        raise InputError(
            f"the model or the data cannot be sent to worker processes ({error}); give the model by name "
            "(pkg.module:factory), or use one worker"
        ) from error


def _pool(packed: bytes, workers: int) -> ProcessPoolExecutor:
    context = get_context("spawn")  # a fork would copy locks of torch's threads
    numbers = context.SimpleQueue()
    for number in range(workers):
        numbers.put(number)
    threads = max(1, cores() // workers)
    return ProcessPoolExecutor(workers, context, _start, (packed, threads, numbers))


# ---- in a worker ----

_job: Job
_number: int
_model: Any = None


def _start(packed: bytes, threads: int, numbers: Any) -> None:
    global _job, _number
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    torch.set_num_threads(threads)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _job, _number = pickle.loads(packed), numbers.get()


def _die_with_parent() -> None:
    """A killed parent cannot say that there is no more to do."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _run(shard: int) -> Done:
    global _model
    if _model is None:  # not in _start, where an error would only break the pool
        device = _job.device
        if device in (None, "cuda") and torch.cuda.is_available():
            device = f"cuda:{_number % torch.cuda.device_count()}"
        _model = _job.load(device)
    return run_shard(_job, _model, shard)
