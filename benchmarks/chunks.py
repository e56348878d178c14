"""How many rows run at once, and what is kept in memory between them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

import apportion as ap
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import Patches
from gradient import frozen
from masking import Amounts
from subjects import photo, stroke, text


def rows() -> Iterator[Amounts]:
    """Microseconds a row by the number of rows that run at once, and the number that is chosen."""
    model, picture, _ = photo()
    bert, ids = text()
    digits = frozen(ap.load("digits").model)
    for name, network, x, most in (
        ("EfficientNet-Lite0", model, picture, 16),
        ("BERT of 2 layers", bert, ids, 64),
        ("digits", digits, stroke(), 1024),
    ):
        chosen = Masking(network, x).chunk
        runs = {
            f"{rows} rows": lambda network=network, x=x, rows=rows: _microseconds(network, x, rows)
            for rows in sorted({2**i for i in range(most.bit_length())} | {chosen})
        }
        yield name, f"{chosen} rows", runs, "µs a row"


def _microseconds(network: nn.Module, x: Tensor, rows: int) -> float:
    batch, found = x.expand(rows, *x.shape[1:]).contiguous(), []
    with torch.no_grad():
        for _ in range(4):
            start = time.perf_counter()
            network(batch)
            found.append(time.perf_counter() - start)
    return 1e6 * min(found) / rows


def freed_memory() -> Iterator[Amounts]:
    """LIME in a process of its own whose C library keeps what a chunk frees, or gives it back at once."""
    for case in ("digits", "EfficientNet-Lite0"):
        runs = {
            name: lambda case=case, keep=keep: _milliseconds(case, keep)
            for name, keep in (("given back", ""), ("kept", "keep"))
        }
        yield case, "given back", runs, "ms"


def _milliseconds(case: str, keep: str) -> float:
    command = [sys.executable, str(Path(__file__)), case, keep]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment).stdout)


def main(case: str, keep: str) -> None:
    from apportion.core.memory import keep_freed_memory

    if keep:
        keep_freed_memory()
    torch.set_num_threads(1)
    if case == "digits":
        model, x, lime = frozen(ap.load("digits").model), stroke(), ap.LIME(samples=1000)
    else:
        model, x, _ = photo()
        lime = ap.LIME(samples=32, partition=Patches(32))
    found = []
    for _ in range(4):
        start = time.perf_counter()
        lime(model, x)
        found.append(time.perf_counter() - start)
    print(1000 * min(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
