"""What a call made is freed with its result, and not kept until Python's collector comes: activations are large, and
the collector counts objects, not what they hold."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import apportion as ap
import small
from apportion.names import TESTS
from small_language_models import causal, tokenizer
from test_every_method import able_or_skip, every_method, made, method
from test_every_test import able as able_to_test
from test_every_test import scored


@contextmanager
def kept() -> Iterator[list[Tensor]]:
    """Without the collector: fills a list with the tensors that only it would have freed."""
    found: list[Tensor] = []
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found.extend(each for each in gc.garbage if isinstance(each, Tensor))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def shapes_kept(call: Callable[[], Any]) -> list[torch.Size]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()  # what is made once and kept
        with kept() as found:
            call()
    return [tensor.shape for tensor in found]


def test_a_cycle_is_found() -> None:
    def cycle() -> None:
        held: list[Any] = [torch.ones(3)]
        held.append(held)

    assert shapes_kept(cycle) == [torch.Size([3])]


@pytest.mark.parametrize("model", ["cnn", "lstm", "bert"])
@every_method
def test_methods(name: str, model: str) -> None:
    able_or_skip(name, model)
    network, inputs = made(model)
    how = method(name, model)
    assert shapes_kept(lambda: how(network, inputs, target=1)) == []


@pytest.mark.parametrize("model", list(small.SMALL))
@pytest.mark.parametrize(
    "how",
    [
        ap.LRP(bias="place"),
        ap.LRP(bias="place", ledger=True),
        ap.LRP("epsilon-gamma-box"),
        ap.LRP(ap.Composite(softmax="difference", bias="place")),
        ap.IntegratedGradients(),
    ],
    ids=repr,
)
def test_settings(how: Any, model: str) -> None:
    network, inputs = made(model)
    assert shapes_kept(lambda: how(network, inputs, target=1)) == []


@pytest.mark.parametrize("name", [name for name in TESTS if able_to_test(name, "cnn")])
def test_tests(name: str) -> None:
    network, inputs = made("cnn")
    explanation = ap.InputXGradient()(network, inputs)
    assert shapes_kept(lambda: scored(name, network, inputs, explanation)) == []


@pytest.mark.parametrize("how", [ap.LRP(bias="place"), ap.DeepLIFT(), ap.KernelSHAP(samples=16)], ids=repr)
def test_answers(how: Any) -> None:
    lm = ap.LanguageModel(causal(), tokenizer(), "llama")
    assert shapes_kept(lambda: ap.explain(lm, "the cat sat", method=how, max_new_tokens=2)) == []
