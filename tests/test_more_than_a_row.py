"""Models whose scores are not a function of one row: they draw numbers, keep something from call to call, or look at
the other rows of the batch. What a method can know of that without another pass it tells; what it cannot is declared."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import apportion as ap
import small
from apportion.names import INTERACTIONS
from test_every_method import every_method, method, suited


class Unsteady(nn.Module):
    """A network whose scores are changed after it."""

    def __init__(self, network: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        output = self.network(*args, **kwargs)
        return self.change(getattr(output, "logits", output))


def drawing(draw: Callable[[], float]) -> Callable[[Tensor], Tensor]:
    return lambda scores: scores + 0.3 * draw()


def counting() -> Callable[[Tensor], Tensor]:
    calls: list[int] = []

    def change(scores: Tensor) -> Tensor:
        calls.append(len(scores))
        return scores + 0.1 * len(calls)

    return change


def of_generator() -> Callable[[Tensor], Tensor]:
    generator = np.random.default_rng(0)
    return drawing(generator.standard_normal)


# The change, and what is told of it.
SEEN: dict[str, tuple[Callable[[], Callable[[Tensor], Tensor]], str]] = {
    "NumPy": (lambda: drawing(np.random.standard_normal), "drew random numbers"),
    "Python": (lambda: drawing(random.random), "drew random numbers"),
    "batch norm": (
        lambda: nn.BatchNorm1d(3, track_running_stats=False).double().eval(),
        "a batch norm in 'change' takes the statistics of the batch",
    ),
}
COMPARED: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "generator": of_generator,
    "stateful": counting,
    "batch": lambda: lambda scores: scores * (1 + scores.detach().norm(dim=1, keepdim=True).cumsum(0)),
}

# Methods that know no two scores which must agree, by what they are blind to. The values of those with a total leave
# what they cannot explain in the remainder.
ONE_PASS = "it runs the input once"
NO_PAIR = "it runs the input once, and other points of which none is met twice"
CANNOT_KNOW: dict[str, tuple[str, str]] = {}


def explained(name: str, change: Callable[[Tensor], Tensor]) -> Any:
    model = suited(name, "cnn", "mlp")
    network, inputs = small.SMALL[model]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return method(name, model)(Unsteady(network, change).eval(), inputs, 1)


@every_method
@pytest.mark.parametrize("kind", SEEN)
def test_what_can_be_seen_in_any_pass_is_told_by_every_method(name: str, kind: str) -> None:
    made, text = SEEN[kind]
    before = np.random.get_state()[1].copy(), random.getstate()
    assert any(text in warning for warning in explained(name, made()).warnings)
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert random.getstate() == before[1]


@every_method
@pytest.mark.parametrize("kind", COMPARED)
def test_scores_that_must_agree_are_compared(name: str, kind: str) -> None:
    found = explained(name, COMPARED[kind]())
    told = any(
        text in warning for warning in found.warnings for text in ("differently each time", "not within tolerance",
        "add up to")
    )
    print(name, kind, told, found.total is not None, found.warnings)
    assert told
