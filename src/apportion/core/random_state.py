"""The random states of the process, PyTorch's, NumPy's and Python's: what a model draws from them is noticed and put
back."""

from __future__ import annotations

import ctypes
import pickle
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class NumpyState:
    """The state of NumPy's global generator: whole, and the words that any draw changes, empty where there are none.

    Reading the whole takes as long as a small network; the words, by the address that the generator tells, a hundredth.
    Only the second of two normal numbers, which is kept from the first, changes no word: with one kept there are none.
    """

    whole: dict[str, Any]
    words: bytes

    @classmethod
    def now(cls) -> NumpyState:
        whole: Any = np.random.get_state(legacy=False)
        words = _words()
        numbers = whole["state"]
        told = "key" in numbers and numbers["key"].tobytes() + np.int32(numbers["pos"]).tobytes() == words
        return cls(whole, words if told and not whole.get("has_gauss", 1) else b"")

    def is_now(self) -> bool:
        if self.words:
            return _words() == self.words
        return pickle.dumps(np.random.get_state(legacy=False)) == pickle.dumps(self.whole)


def _words() -> bytes:
    """The numbers of the Mersenne twister and its place among them; empty for another generator."""
    generator: Any = np.random.get_bit_generator()  # type: ignore[attr-defined]
    if not isinstance(generator, np.random.MT19937):
        return b""
    return ctypes.string_at(generator.ctypes.state_address, 625 * 4)


class RandomState:
    """The random states as they are now; `numpy` spares reading NumPy's if it is still that."""

    def __init__(self, devices: Iterable[torch.device] = (), numpy: NumpyState | None = None) -> None:
        self.torch = torch.get_rng_state()
        self.devices: dict[torch.device, Tensor] = {d: torch.cuda.get_rng_state(d) for d in devices}
        self.numpy = numpy if numpy is not None and numpy.is_now() else NumpyState.now()
        self.python = random.getstate()

    def put_back(self) -> bool:
        """Put back what has changed, and say whether anything had."""
        drew = not torch.equal(self.torch, torch.get_rng_state())
        if drew:
            torch.set_rng_state(self.torch)
        for device, state in self.devices.items():
            if not torch.equal(state, torch.cuda.get_rng_state(device)):
                torch.cuda.set_rng_state(state, device)
                drew = True
        if not self.numpy.is_now():
            np.random.set_state(self.numpy.whole)
            drew = True
        if random.getstate() != self.python:
            random.setstate(self.python)
            drew = True
        return drew
