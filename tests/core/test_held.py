"""Inputs that are held constant by a mark, and models that return one number a call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.errors import InputError

X = torch.randn(6, 36, generator=torch.Generator().manual_seed(0)).double()
W = torch.randn(6, 36, generator=torch.Generator().manual_seed(1)).double()


def weighted(x: Tensor, w: Tensor) -> Tensor:
    assert type(x) is type(w) is Tensor  # the model sees no mark
    return (x * w).sum(1)


METHODS = [
    ap.InputXGradient(),
    ap.LRP(),
    ap.IntegratedGradients(),
    ap.DeepLIFT(),
    ap.Occlusion(),
    ap.Occlusion(chunk=6),
    ap.KernelSHAP(chunk=6, samples=300),
]


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("form", ["second", "first", "dict"])
def test_a_held_input_goes_along_with_its_sample(method: Any, form: str) -> None:
    """The exact effects of x are x · w, in chunks and in whole batches."""
    inputs, model = {
        "second": ((X, ap.held(W)), weighted),
        "first": ((ap.held(W), X), lambda w, x: weighted(x, w)),
        "dict": ({"x": X, "w": ap.held(W)}, weighted),
    }[form]
    values = method(model, inputs).values
    if form == "dict":
        assert list(values) == ["x"]
        torch.testing.assert_close(values["x"], X * W)
    else:
        own = 0 if form == "second" else 1
        torch.testing.assert_close(values[own], X * W)
        assert not bool(values[1 - own].any())


def test_a_held_input_is_not_moved_to_the_baseline() -> None:
    for method in (ap.IntegratedGradients(baseline=1.0), ap.DeepLIFT(baseline=1.0)):
        torch.testing.assert_close(method(weighted, (X, ap.held(W))).values[0], (X - 1) * W)
    for method in (ap.IntegratedGradients(), ap.DeepLIFT()):
        given = method(weighted, (X, ap.held(W)), baseline=(torch.ones(36), W))
        torch.testing.assert_close(given.values[0], (X - 1) * W)
        with pytest.raises(InputError, match="baseline names input 1, which is held"):
            method(weighted, (X, ap.held(W)), baseline=(torch.ones(36), 2 * W))


def test_one_row_is_held_for_all_samples_and_arrays_are_taken() -> None:
    found = ap.Occlusion()(weighted, (X, ap.held(W[:1].numpy())))
    torch.testing.assert_close(found.values[0], X * W[:1])


def test_a_held_picture_and_held_ids_are_no_ambiguity() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 3)).double()
    x, other = torch.randn(2, 1, 6, 6).double(), torch.randn(2, 1, 6, 6).double()

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, other: Tensor, ids: Tensor) -> Tensor:
            return self.net(x) + other.mean((1, 2, 3))[:, None] + ids.double()

    inputs = (x, ap.held(other), ap.held(torch.tensor([[3], [5]])))
    for method in (ap.GradCAM(layer="net.0"), ap.Occlusion(patch=3), ap.RISE(samples=64, cells=2)):
        same = {"layer": "0"} if isinstance(method, ap.GradCAM) else {}
        alone = ap.GradCAM(**same) if same else method
        torch.testing.assert_close(method(Pair(), inputs, 1).values[0], alone(net, x, 1).values)


@pytest.mark.parametrize("test", [ap.MaxSensitivity(samples=2), ap.PixelFlipping(), ap.Infidelity(samples=4)])
def test_tests_hold_it_too(test: Any) -> None:
    """One weight for all samples is the same as a model with that weight inside."""
    inside, x = lambda x: weighted(x, W[:1].expand(len(x), -1)), X[:3]
    marked = (x, ap.held(W[:1]))
    ours = test(weighted, marked, ap.InputXGradient()(weighted, marked)).values
    torch.testing.assert_close(ours, test(inside, x, ap.InputXGradient()(inside, x)).values)


def test_what_cannot_be_held_is_refused() -> None:
    for given, came in ((3.0, "float"), (torch.tensor(1.0), "a number"), ([1.0], "list")):
        with pytest.raises(InputError, match=f"held got {came}; accepted: a tensor or an array"):
            ap.held(given)  # type: ignore[arg-type]


# ---- the mask token of a call ----


def test_the_mask_token_of_the_call_is_kept_with_the_explanation() -> None:
    ids = torch.tensor([[1, 2, 3, 4]])

    def model(ids: Tensor) -> Tensor:
        return (ids.double() ** 2).sum(1)

    found = ap.Occlusion()(model, ids, mask=9)
    assert found.method == ap.Occlusion(mask=9) != ap.Occlusion()
    assert torch.equal(found.method(model, ids).values, found.values)
    assert found.values.tolist() == [[1 - 81, 4 - 81, 9 - 81, 16 - 81]]
    assert repr(found.method).endswith("mask=9, patch=None, stride=None, partition=None)")
    assert "mask" not in repr(ap.Occlusion())


# ---- one number a call ----

NET = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
ONE = torch.randn(1, 4, generator=torch.Generator().manual_seed(2)).double()
NUMBERS = {
    "tensor": lambda x: NET(x).sum(),
    "Python": lambda x: float(NET(x).detach().sum()),
    "NumPy": lambda x: np.float64(float(NET(x).detach().sum())),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_a_model_that_returns_one_number_is_run_row_by_row(kind: str) -> None:
    whole = ap.Occlusion()(NET, ONE)
    found = ap.Occlusion()(NUMBERS[kind], ONE)
    torch.testing.assert_close(found.values, whole.values)
    assert (found.cost.forwards, found.output.shape) == (5, (1, 1))
    rows = ONE.numpy()
    of_arrays = ap.KernelSHAP()(lambda a: NUMBERS[kind](torch.from_numpy(a)), rows)
    torch.testing.assert_close(of_arrays.values, ap.KernelSHAP()(NET, ONE).values)


@pytest.mark.parametrize(
    "method", [ap.IntegratedGradients(), ap.DeepLIFT(), ap.SmoothGrad(), ap.LRP()], ids=repr
)
def test_gradients_of_one_number_are_those_of_its_row(method: Any) -> None:
    torch.testing.assert_close(method(NUMBERS["tensor"], ONE).values, method(NET, ONE).values)
    with pytest.raises(InputError, match="does not depend differentiably"):
        method(NUMBERS["NumPy"], ONE)


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("method", [ap.Saliency(), ap.Occlusion()], ids=repr)
def test_one_number_for_a_batch_is_refused(method: Any, kind: str) -> None:
    with pytest.raises(
        InputError, match=r"one number for a batch of 3; accepted: one for each sample, \(3,\)"
    ):
        method(NUMBERS[kind], ONE.repeat(3, 1))


def test_one_number_for_token_ids_needs_a_row_at_a_time() -> None:
    table = nn.Embedding(9, 3).double()
    ids = torch.tensor([[1, 2, 3]])
    model = lambda ids: table(ids).tanh().sum()  # noqa: E731
    with pytest.raises(InputError, match="accepted: chunk=1, or a model that returns one for each row"):
        ap.IntegratedGradients()(model, ids)
    one, whole = (
        ap.IntegratedGradients(chunk=1)(m, ids) for m in (model, lambda ids: table(ids).tanh().sum((1, 2)))
    )
    torch.testing.assert_close(one.values, whole.values)
