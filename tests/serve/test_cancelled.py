"""Work that nobody waits for ends: between two calls of the model, and in loops of our own, which are stopped."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("fastapi")
import apportion as ap
from apportion.core.progress import model_called, progress, watched
from apportion.core.registry import from_repr
from apportion.evaluation.case import Case
from apportion.names import TESTS
from apportion.serve._jobs import CancelledError
from apportion.serve.server import _free


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 3)
    ).eval()


MODEL, SMALL = network(), nn.Sequential(nn.Linear(40, 40), nn.Softplus(), nn.Linear(40, 3)).eval()
PICTURE = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
ROW = torch.rand(1, 40, generator=torch.Generator().manual_seed(0))
# About as much as the workbench takes of each, which is hours of work for some.
METHODS_OF_PICTURES = (
    "Saliency()", "SmoothGrad(samples=100000)", "VarGrad(samples=100000)", "IntegratedGradients(nodes=4096)", "LRP()",
    "GuidedBackprop()", "DeepLIFT()", "Taylor()", "LayerCAM()", "Occlusion(patch=1)", "RISE(samples=100000)",
    "Owen(samples=100000)", "LIME(samples=100000, partition=Patches(2))", "LIME(partition=Superpixels())",
    "KernelSHAP(samples=20000, partition=Pixels())", "KernelSHAP(samples=100000, partition=Patches(2))",
)  # fmt: skip
METHODS_OF_ROWS = (
    "IntegratedHessians(nodes=200)", "InputHessian()", "ShapleyInteractions(budget=100000)",
    "KernelSHAP(samples=100000)",
)  # fmt: skip
OF_OTHER_INPUTS = ("shuffle-tvd", "roar", "kar", "idsds")  # of attention, and of pictures of several classes
MOMENTS = 4
LATEST = 1.5


def explained(method: str, model: nn.Module, x: torch.Tensor) -> Any:
    return from_repr(method)(model, x, 1)


def scored(test: str) -> Any:
    case = Case(MODEL, PICTURE, target=1, labels=torch.tensor([1]))
    return case.score(from_repr(test, "test"), ap.Saliency()(MODEL, PICTURE, 1))


WORK: dict[str, Callable[[], Any]] = {
    **{name: partial(explained, name, MODEL, PICTURE) for name in METHODS_OF_PICTURES},
    **{f"{name} of a row": partial(explained, name, SMALL, ROW) for name in METHODS_OF_ROWS},
    **{name: partial(scored, name) for name in TESTS if name not in OF_OTHER_INPUTS},
}


def wait_after(work: Callable[[], Any], seconds: float) -> float | None:
    """How long work goes on that is cancelled so late, as the server cancels it; None if it was done before."""
    cancelled, ended, raised = threading.Event(), threading.Event(), []

    def check() -> None:
        if cancelled.is_set():
            raise CancelledError

    def run() -> None:
        try:
            with warnings.catch_warnings(), watched(lambda *_: None, check):
                warnings.simplefilter("ignore")
                work()
        except CancelledError:
            pass
        except BaseException as error:
            raised.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    if ended.wait(seconds):
        assert not raised, raised
        return None
    begin = time.perf_counter()
    cancelled.set()

    async def free() -> None:
        slots = asyncio.Semaphore(1)
        await slots.acquire()
        await _free(thread, slots, {thread})

    asyncio.run(free())
    assert not raised, raised
    return time.perf_counter() - begin


@pytest.mark.slow
@pytest.mark.parametrize("name", WORK)
def test_work_ends_soon_after_it_is_cancelled_at_any_moment(name: str) -> None:
    """By the workbench's own hand. A machine that is busy takes longer than the second that is meant."""
    work, draw = WORK[name], random.Random(0)
    first = wait_after(work, LATEST)  # imports included
    begin = time.perf_counter()
    waits = [first, wait_after(work, LATEST)]
    last = min(LATEST, time.perf_counter() - begin)
    waits += [wait_after(work, draw.uniform(0, last)) for _ in range(MOMENTS)]
    found = [wait for wait in waits if wait is not None]
    print(f"{name}: {len(found)} times cancelled, longest wait {max(found, default=0.0):.2f} s")
    assert max(found, default=0.0) < 60


def test_work_ends_before_the_next_call_of_the_model_also_inside_a_counted_batch() -> None:
    calls = 0

    def work() -> None:
        nonlocal calls
        for _ in progress([range(100)], 100, "numbers"):
            for _ in range(100):
                model_called()
                calls += 1

    def check() -> None:
        if calls == 3:
            raise CancelledError

    with pytest.raises(CancelledError), watched(lambda *_: None, check), watched(lambda *_: None):
        work()
    assert calls == 3


def test_a_loop_that_asks_nobody_is_stopped() -> None:
    def work() -> None:
        while True:
            time.sleep(0.01)

    waited = wait_after(work, 0.1)
    assert waited is not None


def test_what_is_being_imported_is_imported_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a package would be left for all that follows."""
    (tmp_path / "slow_to_import.py").write_text(
        "import time\nfor _ in range(200):\n    time.sleep(0.01)\nwhole = 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def work() -> None:
        import_module("slow_to_import")
        while True:
            time.sleep(0.01)

    waited = wait_after(work, 0.2)
    assert waited is not None
    assert sys.modules.pop("slow_to_import").whole == 1
