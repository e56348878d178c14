"""DeepLIFT's rules: the values add up through whatever the rules know, and what they do not know is named."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import apportion as ap
from apportion.errors import InputError

SMOOTH = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8)).double().eval()
KINKED = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8)).double().eval()
with torch.no_grad():
    generator = torch.Generator().manual_seed(0)
    for parameter in (*SMOOTH.parameters(), *KINKED.parameters()):
        parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
X = 2 * torch.randn(4, 6, generator=generator).double()

Function = Callable[[Tensor], Tensor]


def normed_by_hand(z: Tensor) -> Tensor:
    return (z - z.mean(1, keepdim=True)) / (z.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()


ADDS_UP: dict[str, Function] = {
    "softmax": lambda x: F.softmax(SMOOTH(x), -1)[:, 1],
    "softmax of scores of 1000": lambda x: F.softmax(1000 * SMOOTH(x), -1)[:, 1],
    "log_softmax": lambda x: F.log_softmax(SMOOTH(x), -1)[:, 1],
    "logsumexp": lambda x: SMOOTH(x).logsumexp(1),
    "masked softmax": lambda x: SMOOTH(x).masked_fill(torch.arange(8) > 4, -torch.inf).softmax(1)[:, 1],
    "largest": lambda x: SMOOTH(x).max(1).values,
    "largest of all, kept": lambda x: SMOOTH(x).amax(1, keepdim=True)[:, 0],
    "smallest": lambda x: SMOOTH(x).min(1).values,
    "quotient": lambda x: SMOOTH(x)[:, 0] / (1.5 + KINKED(x)[:, 1].abs()),
    "norm": lambda x: SMOOTH(x).norm(dim=1),
    "vector_norm": lambda x: torch.linalg.vector_norm(SMOOTH(x), dim=1),
    "norm of absolute values": lambda x: SMOOTH(x).norm(p=1, dim=1),
    "std": lambda x: SMOOTH(x).std(1),
    "std of all, kept": lambda x: SMOOTH(x).std(1, unbiased=False, keepdim=True)[:, 0],
    "var": lambda x: SMOOTH(x).var(1, correction=0),
    "normalize": lambda x: F.normalize(SMOOTH(x), dim=1)[:, 0],
    "cosine": lambda x: F.cosine_similarity(SMOOTH(x), KINKED(x)),
    "group norm": lambda x: F.group_norm(SMOOTH(x), 2)[:, 0],
    "instance norm": lambda x: F.instance_norm(SMOOTH(x)[:, None])[:, 0, 0],
    "layer norm by hand": lambda x: normed_by_hand(SMOOTH(x))[:, 0],
    "RMS norm by hand": lambda x: (z := SMOOTH(x)).mul(torch.rsqrt(z.pow(2).mean(1, keepdim=True) + 1e-6))[
        :, 0
    ],
    "absolute value of complex numbers": lambda x: torch.complex(SMOOTH(x)[:, 0], SMOOTH(x)[:, 1]).abs(),
    "spectrum": lambda x: torch.fft.rfft(SMOOTH(x)).abs().sum(1),
}

NAMED: dict[str, Function] = {
    "topk": lambda x: SMOOTH(x).topk(2, 1).values.sum(1),
    "prod": lambda x: SMOOTH(x)[:, :3].prod(1),
    "cdist": lambda x: torch.cdist(SMOOTH(x), torch.ones(3, 8).double())[:, 0],
    "einsum": lambda x: torch.einsum("bi,bi,bi->b", SMOOTH(x), KINKED(x), SMOOTH(x)),
    "exp": lambda x: torch.complex(SMOOTH(x)[:, 0], SMOOTH(x)[:, 1]).exp().real,
}


@pytest.mark.parametrize("function", ADDS_UP.values(), ids=ADDS_UP)
def test_values_add_up(function: Function) -> None:
    found = ap.DeepLIFT()(function, X, 0)
    torch.testing.assert_close(found.apportioned, function(X) - function(0 * X), rtol=1e-9, atol=1e-9)
    assert found.warnings == ()


@pytest.mark.parametrize(("name", "function"), NAMED.items(), ids=NAMED)
def test_a_function_without_a_rule_is_named(name: str, function: Function) -> None:
    warning, *others = ap.DeepLIFT()(function, X, 0).warnings
    assert all(told.startswith("left over: ") for told in others)
    assert warning.startswith(f"no rule for '{name}' in 'the model': its gradient was used")


@pytest.mark.parametrize("shift", [0.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softmax_is_blind_to_what_is_added_to_all_scores(shift: float, dtype: torch.dtype) -> None:
    """An input that is added to every score alike is a dummy: the model does not depend on it."""

    def model(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0] + x[:, 1], x[:, 0] - x[:, 1], x[:, 0] + 0.3 * x[:, 1]], 1).softmax(1)

    x = torch.tensor([[shift, 1.0]], dtype=dtype)
    found = ap.DeepLIFT()(model, x, 0)
    here, there = model(x)[0, 0], model(0 * x)[0, 0]
    close = 1e-5 + 1e-7 * shift  # what is left of a sum with the shift in single precision
    torch.testing.assert_close(found.values[0], torch.stack([0 * here, here - there]), rtol=1e-4, atol=close)


@pytest.mark.parametrize("gain", [1.0, 4.0, 8.0])
def test_attention_with_large_scores_stays_bounded(gain: float) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    with torch.no_grad():
        attention.in_proj_weight.mul_(gain)
    x = torch.randn(2, 6, 16)
    found = ap.DeepLIFT()(lambda x: attention(x, x, x)[0].mean(1), x, 0)
    assert float(found.remainder.abs().max()) < 1e-4 * float(found.total.abs().max()) + 1e-5
    assert float(found.values.abs().max()) < 10 * gain


def test_an_rms_norm_from_a_baseline_of_zero_does_not_explode() -> None:
    class Norm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    torch.manual_seed(0)
    blocks = [m for _ in range(6) for m in (Norm(), nn.Linear(8, 8, bias=False), nn.SiLU())]
    x = torch.randn(3, 8)
    found = ap.DeepLIFT()(nn.Sequential(*blocks), x, 0)
    torch.testing.assert_close(found.apportioned.float(), found.total, rtol=1e-3, atol=1e-5)
    assert float(found.values.abs().max()) < 10


def test_several_baselines_are_the_mean_over_them() -> None:
    baselines = torch.randn(5, 1, 6).double()
    found = ap.DeepLIFT()(SMOOTH, X, 1, baseline=baselines)
    each = [ap.DeepLIFT()(SMOOTH, X, 1, baseline=b.expand_as(X)) for b in baselines]
    torch.testing.assert_close(found.values, torch.stack([e.values for e in each]).mean(0))
    torch.testing.assert_close(found.total, (SMOOTH(X) - SMOOTH(baselines[:, 0]).mean(0))[:, 1].detach())


def test_a_baseline_of_each_of_several_inputs() -> None:
    def model(a: Tensor, b: Tensor) -> Tensor:
        return SMOOTH(a * torch.sigmoid(b))

    given = torch.randn(1, 6).double(), torch.randn(1, 6).double()
    found = ap.DeepLIFT()(model, (X, 2 * X), 0, baseline=given)
    torch.testing.assert_close(found.total, (model(X, 2 * X) - model(*given))[:, 0].detach())
    torch.testing.assert_close(found.apportioned, found.total)


def test_the_baseline_of_a_layer_is_an_input_of_the_model() -> None:
    baseline = torch.randn(1, 6).double()
    for method in (ap.DeepLIFT(at="0"), ap.IntegratedGradients(at="0", tolerance=1e-6)):
        found = method(SMOOTH, X, 1, baseline=baseline)
        torch.testing.assert_close(found.total, (SMOOTH(X) - SMOOTH(baseline))[:, 1].detach())
    with pytest.raises(InputError, match=r"baseline has shape \(1, 16\); accepted: \(4, 6\) as the input"):
        ap.DeepLIFT(at="0")(SMOOTH, X, 1, baseline=torch.zeros(1, 16).double())


def written(z: Tensor) -> Tensor:
    z[z > 0.5] = 7.0
    return z


W = torch.randn(6, 3, generator=generator).double()
# What no gradient leads through, and the function that is given it.
CONSTANT: dict[str, tuple[Function, str]] = {
    "condition": (lambda x: torch.where(x > 0.3, 2 * x, x - 1) @ W, "where"),
    "comparison as a factor": (lambda x: (x * (x > 0.1).double()) @ W, "mul"),
    "mask": (lambda x: x.masked_fill(x < 0.2, 5.0) @ W, "masked_fill"),
    "written under a mask": (lambda x: written(x.clone()) @ W, "setitem"),
    "index of a gather": (lambda x: (torch.arange(6) * x).gather(1, (3 * x).argsort(1)) @ W, "gather"),
    "one-hot": (lambda x: x @ W + F.one_hot(x.argmax(1), 6).double() @ W, "add"),
    "embedding of computed ids": (lambda x: x @ W + F.embedding(x.argmax(1), W), "add"),
    "rounding passed straight through": (lambda x: (x + (x.round() - x).detach()) @ W, "add"),
    "detached size": (lambda x: (x / (1 + x.norm(dim=1, keepdim=True).detach())) @ W, "div"),
    "number of Python": (lambda x: (x * float(x.detach().norm())) @ W, "mul"),
    "place of the largest": (lambda x: (x[:, int(x[0].argmax())][:, None] * torch.ones(6)) @ W, "getitem"),
    "largest first, by its index": (
        lambda x: x.gather(1, x.detach().sort(1, descending=True).indices) @ W,
        "gather",
    ),
}


@pytest.mark.parametrize(("function", "operation"), CONSTANT.values(), ids=CONSTANT)
@pytest.mark.parametrize("baseline", [0.4, -1.0])
def test_what_no_gradient_leads_through_is_named_with_its_amount(
    function: Function, operation: str, baseline: float
) -> None:
    """All else is linear, so that the amount is all of the remainder."""
    reference = torch.full_like(X, baseline) + torch.arange(6) * 0.01  # whose order is known
    found = ap.DeepLIFT()(function, X, 1, baseline=reference)
    warning, *others = found.warnings
    assert all(told.startswith("left over: ") for told in others)
    assert warning.startswith(f"at {operation!r} in 'the model' a condition, an index or another number")
    amount = float(re.findall(r"what that changes \((\S+) of the scores\)", warning)[0])
    assert amount == pytest.approx(float(found.remainder.sum()), rel=1e-3)


@pytest.mark.parametrize("name", ["round", "floor", "ceil", "trunc", "sign"])
def test_steps_pass_their_difference_on(name: str) -> None:
    found = ap.DeepLIFT(baseline=0.3)(lambda x: getattr(torch, name)(3 * x) @ W, X, 1)
    assert found.warnings == ()
    torch.testing.assert_close(found.remainder, torch.zeros(4, dtype=torch.float64))
    steps = getattr(torch, name)(3 * X) - getattr(torch, name)(torch.tensor(0.9))
    torch.testing.assert_close(found.values, steps * W[:, 1])


def test_what_is_added_on_another_way_is_told() -> None:
    found = ap.DeepLIFT()(lambda x: x @ W + 1 if bool(x[0, 0] != 0) else x @ W, X, 1)
    warning, *others = found.warnings
    assert all(told.startswith("left over: ") for told in others)
    assert warning.startswith("at 'add' in 'the model' the model took another way for the reference")
    torch.testing.assert_close(found.remainder, torch.ones(4, dtype=torch.float64))


def test_constants_that_change_nothing_are_not_told() -> None:
    """A weight made anew in each pass, and a mask of the model's own."""
    mask = torch.arange(6) > 2
    found = ap.DeepLIFT(baseline=0.4)(lambda x: torch.where(mask, x, 0.0) @ (W * 2).tanh(), X, 1)
    assert found.warnings == ()


def test_values_that_do_not_add_up_although_all_functions_have_rules_are_told() -> None:
    found = ap.DeepLIFT()(lambda x: (x - x.mean(0)) @ W, X, 1)
    warning, *others = found.warnings
    assert all(told.startswith("left over: ") for told in others)
    worst = int(found.remainder.abs().argmax())
    assert f"add up to {found.apportioned[worst]:.4g} and not to {found.total[worst]:.4g}" in warning


@pytest.mark.parametrize("function", [F.relu, F.relu6, F.hardtanh], ids=lambda function: function.__name__)
def test_a_clip_has_the_slope_between_two_points_and_its_derivative_where_they_are_one(
    function: Function,
) -> None:
    points = torch.tensor([-2.0, -1.0, -1e-30, 0.0, 1e-30, 0.5, 1.0, 3.0, 6.0, 7.0, 1e30])
    x, start = (grid.reshape(1, -1) for grid in torch.meshgrid(points, points, indexing="ij"))
    leaf = x.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(function(leaf).sum(), leaf)
    slope = (function(x) - function(start)) / (x - start)
    expected = torch.where(x == start, derivative, slope)
    found = ap.DeepLIFT(multiply_by_inputs=False)(lambda z: function(z).sum(1), x, baseline=start).values
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
