"""How many rows run at once, and what is kept in memory between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# How many numbers the largest tensor of a chunk may hold, by device. On a CPU small chunks stay in the cache: one
# core takes 21 ms an image for EfficientNet-Lite0 in chunks of 2, 48 ms in chunks of 16 (`benchmarks/run.py chunks`).
# What one row needs is counted in the first run, not timed, so that the same call gives the same bits.
_NUMBERS_A_CHUNK = {"cpu": 1 << 20}
_NUMBERS_ELSEWHERE = 1 << 28
_MOST_ROWS = 1 << 12
# A forest needs as long for one row as for hundreds; what an array model holds inside is not seen, so there is a bound.
_MOST_ROWS_OF_ARRAYS = 1 << 14


class Largest(TorchFunctionMode):
    """Remembers the size of the largest tensor that any torch function returns."""

    numbers = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


def rows_a_chunk(numbers: int, device: torch.device, arrays: bool = False) -> int:
    """How many rows run at once when the largest tensor of one row holds so many numbers; `arrays` for a NumPy model.

    >>> rows_a_chunk(2**18, torch.device("cpu"))
    4
    """
    most = _MOST_ROWS_OF_ARRAYS if arrays else _MOST_ROWS
    return max(2, min(most, _NUMBERS_A_CHUNK.get(device.type, _NUMBERS_ELSEWHERE) // max(numbers, 1)))
