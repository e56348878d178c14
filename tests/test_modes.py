"""The values of a method or test are the same whatever mode of PyTorch it is called in, or it says that it refuses; and
nothing of the process changes by being used for the first time."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.core.trees import tensors_in
from apportion.errors import InputError
from apportion.names import INTERACTIONS, METHODS, TESTS
from test_every_method import method
from test_every_test import made_test

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS, LABELS = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 0, 1])


@cache
def pictures() -> nn.Module:
    torch.manual_seed(0)
    pooled = nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *pooled).eval()


# What is computed of small differences, and how far it is off under autocast, of the largest value.
ROUNDED = {"vargrad": 0.2, "taylor": 0.15, "infidelity": 0.1}


@contextmanager
def default_float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES = {"inference mode": torch.inference_mode, "no gradients": torch.no_grad, "float64": default_float64}


def values_of(name: str) -> list[Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name in TESTS:
            map_ = ap.InputXGradient()(pictures(), X, 1)
            return [made_test(name)(pictures(), X, map_, labels=LABELS).values]
        return [*tensors_in(method(name, "cnn")(pictures(), X, 1).values)]


@cache
def plain(name: str) -> list[Tensor] | str:
    try:
        return values_of(name)
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*METHODS, *INTERACTIONS, *TESTS])
def test_values_do_not_depend_on_a_mode(name: str, mode: str) -> None:
    wanted: Any = plain(name)
    if isinstance(wanted, str):
        with MODES[mode](), pytest.raises(InputError):
            values_of(name)
        return
    with MODES[mode]():
        found = values_of(name)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", [*METHODS, *INTERACTIONS, *TESTS])
def test_autocast_gives_the_same_but_for_its_rounding_or_a_clear_refusal(name: str) -> None:
    wanted = plain(name)
    with torch.autocast("cpu", torch.bfloat16):
        if isinstance(wanted, str):
            with pytest.raises(InputError):
                values_of(name)
            return
        found = values_of(name)
    # Of the largest value: bfloat16 has 8 bits, and scores that differ little leave fewer of them.
    share = ROUNDED.get(name, 0.05)
    for ours, theirs in zip(found, wanted, strict=True):
        scale = float(theirs.double().nan_to_num().abs().max())
        torch.testing.assert_close(
            ours.double(), theirs.double(), rtol=0, atol=share * scale + 1e-12, equal_nan=True
        )


@pytest.mark.parametrize("name", [*METHODS, *INTERACTIONS, *TESTS])
def test_two_threads_at_once_give_what_one_gives(name: str) -> None:
    wanted = plain(name)
    if isinstance(wanted, str):
        return
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(values_of, [name, name]))
    for found in both:
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, equal_nan=True)


FIRST_USE = """
import os, random, warnings; warnings.simplefilter("ignore")
import numpy as np, torch, matplotlib, apportion as ap
from apportion.core.registry import from_repr
model, x = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)).eval(), torch.ones(2, 3)
def state():
    chance = random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()
    return {"chance": chance, "environment": dict(os.environ), "rcParams": dict(matplotlib.rcParams),
            "dtype": torch.get_default_dtype(), "threads": torch.get_num_threads(), "errors": np.geterr()}
before = state()
made = from_repr(NAME)(model, x, 1)
now = state()
print([name for name in before if before[name] != now[name]])
"""


@pytest.mark.parametrize("name", ["auto", "lrp", "kernelshap", "shapleyinteractions"])
def test_nothing_of_the_process_changes_on_first_use(name: str) -> None:
    if name == "shapleyinteractions":
        pytest.importorskip("shapiq")
    code = FIRST_USE.replace("NAME", repr(name))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
