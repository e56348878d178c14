"""The engine for a cluster: Ray Data gives shards to actors that hold the model.

What was measured with Ray 2.60 and shapes this: with every CPU taken by actors `map_batches` waits for ever
without a word, so one is left free; small inputs are merged into one block unless their number is given; and
its own checkpoints can lose finished rows, so ours count.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apportion.bulk._meter import Stop
from apportion.bulk._shard_work import Job, run_shard
from apportion.bulk._shards import Done
from apportion.errors import InputError, first_line


def run(
    job: Job, todo: Sequence[int], workers: int | None, address: str | None, stop: Stop
) -> Iterator[Done]:
    """Make these shards on the cluster at `address` (None: one that is started here).

    `workers` is the number of actors; default: one for each GPU, or for each CPU but one. The folder of the
    run, the model and the data have to be reachable under the same paths from all nodes.
    """
    ray: Any = import_module("ray")
    data: Any = import_module("ray.data")
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, workers, address)
    flag = job.folder / f".stop-{uuid.uuid4().hex[:8]}"
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        data.DataContext.get_current().enable_progress_bars = False
        found = ray.cluster_resources()
        gpus, cpus = int(found.get("GPU", 0)), int(found.get("CPU", 0))
        on_gpu = gpus > 0 and job.device != "cpu"
        actors = min(workers or (gpus if on_gpu else cpus - 1), len(todo))
        if actors < 1 or (not on_gpu and actors > cpus - 1):
            raise InputError(
                f"the cluster has {cpus} CPUs, too few for {max(actors, 1)} workers: one has to stay free for "
                "Ray's own work"
            )
        shards = data.from_items([{"shard": shard} for shard in todo], override_num_blocks=len(todo))
        results = shards.map_batches(
            Worker,
            fn_constructor_args=(job, str(flag)),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=actors),
            num_cpus=1,
            num_gpus=1 if on_gpu else 0,
        )
        for row in results.iter_rows():
            if row["problem"]:
                raise InputError(row["problem"])
            if row["rows"] >= 0:
                yield Done(row["shard"], row["rows"], row["errors"])
            if stop.asked and not flag.exists():
                flag.touch()
    except ray.exceptions.RayError as error:
        raise InputError(f"Ray stopped: {first_line(error):.300}; what is finished stays") from error
    finally:
        flag.unlink(missing_ok=True)
        if ours:
            ray.shutdown()


def _connect(ray: Any, workers: int | None, address: str | None) -> None:
    from apportion.bulk.local import cores

    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address is None:
        # One CPU more than there are workers is declared, whatever the machine has: see above.
        ray.init("local", num_cpus=(workers or cores()) + 1, include_dashboard=False, **quiet)
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if port.isdigit():  # Ray itself would wait for minutes
            socket.create_connection((host, int(port)), 10).close()
        ray.init(address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        first = first_line(error) or type(error).__name__
        raise InputError(f"cannot reach a Ray cluster at {address}: {first:.200}") from error


class Worker:
    """An actor: it loads the model once, then makes shards. What a person can mend is handed back as text,
    since Ray would try again; once `flag` exists, shards are passed over."""

    def __init__(self, job: Job, flag: str) -> None:
        torch.set_num_threads(1)
        self.job, self.flag, self.model = job, Path(flag), job.load()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        shard, done, problem = int(batch["shard"][0]), None, ""
        if not self.flag.exists():
            try:
                done = run_shard(self.job, self.model, shard)
            except InputError as error:
                problem = str(error)
        return {
            "shard": np.array([shard]),
            "rows": np.array([-1 if done is None else done.rows]),
            "errors": np.array([0 if done is None else done.errors]),
            "problem": np.array([problem], dtype=object),
        }
