"""An interrupt may come between any two steps of Python: what a call changed for itself is put back nevertheless."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import apportion as ap
from apportion.core import as_it_was
from apportion.core.private_torch import (
    function_modes,
    functions_are_seen,
    hooks_of,
    no_saved_hooks,
    set_grad_enabled,
)


class Interrupt(BaseException):
    pass


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).eval()


MODEL, X = network(), torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
SMALL = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
ROW, MAP = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), torch.randn(2, 1, 8, 8)
LABELS = torch.tensor([0, 1])
# One of each family, small enough for hundreds of calls.
CALLS: dict[str, Callable[[], Any]] = {
    "gradients": lambda: ap.Saliency()(MODEL, X, 1),
    "noise": lambda: ap.SmoothGrad(samples=2)(MODEL, X, 1),
    "rectified": lambda: ap.GuidedBackprop()(MODEL, X, 1),
    "layers": lambda: ap.GradCAM()(MODEL, X, 1),
    "paths": lambda: ap.IntegratedGradients(nodes=2)(MODEL, X, 1),
    "taylor": lambda: ap.Taylor()(MODEL, X, 1),
    "lrp": lambda: ap.LRP(ledger=True)(MODEL, X, 1),
    "deeplift": lambda: ap.DeepLIFT()(MODEL, X, 1),
    "hiding": lambda: ap.Occlusion(patch=4)(MODEL, X, 1),
    "regressions": lambda: ap.KernelSHAP(samples=8, partition=ap.Patches(4))(MODEL, X, 1),
    "rise": lambda: ap.RISE(samples=16, cells=2)(MODEL, X, 1),
    "interactions": lambda: ap.IntegratedHessians(nodes=2)(SMALL, ROW, 1),
    "curves": lambda: ap.PixelFlipping(steps=3, partition=ap.Patches(4))(MODEL, X, MAP, 1),
    "sensitivity": lambda: ap.MaxSensitivity(samples=2)(SMALL, ROW, ap.Saliency()(SMALL, ROW, 1)),
    "randomisation": lambda: ap.ParameterRandomisation()(SMALL, ROW, ap.Saliency()(SMALL, ROW, 1)),
    "retraining": lambda: ap.FFidelity(epochs=1)(SMALL, ROW, ap.Saliency()(SMALL, ROW, 1), labels=LABELS),
}


def state() -> dict[str, Any]:
    modules = [module for model in (MODEL, SMALL) for module in model.modules()]
    return {
        "gradient mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "function modes": (functions_are_seen(), *function_modes()),
        "saved tensors": no_saved_hooks(),
        "NumPy's errors": np.geterr(),
        "threads": torch.get_num_threads(),
        "hooks": [list(hooks) for module in (None, *modules) for hooks in hooks_of(module)],
        "training": [module.training for module in modules],
        "requires_grad": [p.requires_grad for model in (MODEL, SMALL) for p in model.parameters()],
        "weights": [t.tolist() for model in (MODEL, SMALL) for t in model.state_dict().values()],
        "chance": (torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()),
    }


@contextmanager
def traced(step: Callable[[], None], file: str = "") -> Iterator[None]:
    """Inside, `step` is called before every bytecode of the package, or of this file of it."""

    def trace(frame: Any, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if "apportion" not in name or "tests" in name or not name.endswith(file):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            step()
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)


def steps_of(call: Callable[[], Any]) -> int:
    many = 0

    def count() -> None:
        nonlocal many
        many += 1

    with traced(count):
        call()
    return many


def interrupted(call: Callable[[], Any], at: int, file: str = "") -> BaseException | None:
    left = at

    def step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Interrupt

    try:
        with traced(step, file):
            call()
    except BaseException as error:
        return error.with_traceback(None)
    return None


def check_interrupts(family: str, many: int, seed: int) -> None:
    call = CALLS[family]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()
        steps = steps_of(call)
        before, draw = state(), random.Random(seed)
        for at in sorted(draw.randrange(1, steps) for _ in range(many)):
            kept = random.getstate()
            raised = interrupted(call, at)
            assert raised is None or isinstance(raised, Interrupt), f"step {at} of {steps}: {raised!r}"
            now = state()
            changed = [name for name, value in before.items() if now[name] != value]
            assert not changed, f"{family}: {changed} after step {at} of {steps}"
            assert random.getstate() == kept


@pytest.mark.parametrize("family", CALLS)
def test_an_interrupt_at_some_steps_leaves_all_as_it_was(family: str) -> None:
    check_interrupts(family, 6, 0)


@pytest.mark.slow
@pytest.mark.parametrize("family", CALLS)
def test_an_interrupt_at_any_step_leaves_all_as_it_was(family: str) -> None:
    check_interrupts(family, 500, 1)


def test_an_interrupt_of_what_puts_back_is_no_exception() -> None:
    """Else the next calls would be taken for parts of this one, after which nothing is put back."""
    call, guard = CALLS["gradients"], as_it_was.__file__

    def interrupted_itself() -> None:
        with pytest.raises(KeyboardInterrupt):
            ap.Saliency()(Interrupting(), X, 1)

    before = state()
    for ends in (call, interrupted_itself):
        at = 1
        while interrupted(ends, at, guard):
            assert not as_it_was._inside.get(), f"step {at}"
            assert state() == before, f"step {at}"
            at += 1
        assert at > 100


class Interrupting(nn.Module):
    """Leaves its gradient mode as an interrupt between the steps of a `with` would."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        set_grad_enabled(not torch.is_grad_enabled())
        raise KeyboardInterrupt
