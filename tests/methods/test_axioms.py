"""What is true of methods for every model of a kind, on models that hypothesis makes up."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import apportion as ap

few = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**31 - 1)
widths = st.lists(st.integers(1, 6), min_size=2, max_size=4)
activations = st.sampled_from([nn.ReLU, nn.Tanh, nn.Softplus, nn.GELU])


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network(seed: int, widths: list[int], activation: type[nn.Module], bias: bool = True) -> nn.Sequential:
    """A multilayer perceptron from `widths[0]` inputs to two classes."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias=bias), activation()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 2, bias=bias)).double()


def convolutional(seed: int) -> nn.Sequential:
    """A ReLU network with convolutions, pooling and no bias."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 2, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 2, bias=False),
    ).double()  # fmt: skip


# ---- completeness ----


@few
@given(seeds, widths, st.sampled_from([nn.Tanh, nn.Softplus, nn.GELU]))
def test_integrated_gradients_are_complete(seed, widths, activation):
    model, x, start = (
        network(seed, widths, activation),
        drawn(seed + 1, 2, widths[0]),
        drawn(seed + 2, widths[0]),
    )
    found = ap.IntegratedGradients(tolerance=1e-6)(model, x, target=1, baseline=start)
    total = model(x)[:, 1] - model(start)[1]
    torch.testing.assert_close(found.total, total)
    span = total.abs() + 0.01 * (model(x).abs().max() + model(start).abs().max())
    assert bool((found.remainder.abs() <= 1e-6 * span + 1e-10).all())


@few
@given(seeds, widths, activations)
def test_deeplift_is_complete(seed, widths, activation):
    model, x = network(seed, widths, activation), drawn(seed + 1, 2, widths[0])
    found = ap.DeepLIFT()(model, x, target=0)
    assert float(found.remainder.abs().max()) < 1e-8 * (1 + float(found.total.abs().max()))


# ---- linear models ----


@few
@given(seeds, st.integers(1, 6))
def test_linear_models_have_a_closed_form(seed, width):
    torch.manual_seed(seed)
    model, x = nn.Linear(width, 3).double(), drawn(seed + 1, 2, width)
    weight = model.weight.detach()[2]
    for method in (ap.InputXGradient(), ap.IntegratedGradients(), ap.DeepLIFT(), ap.LRP(zero())):
        found = method(model, x, target=2)
        torch.testing.assert_close(found.values, x * weight)
    torch.testing.assert_close(ap.Saliency()(model, x, target=2).values, weight.abs().expand(2, -1))
    torch.testing.assert_close(ap.SmoothGrad(samples=3)(model, x, target=2).values, weight.expand(2, -1))
    torch.testing.assert_close(ap.Occlusion()(model, x, target=2).values, x * weight)
    remainder = ap.InputXGradient()(model, x, target=2).remainder
    torch.testing.assert_close(remainder, model.bias.detach()[2].expand(2))


@few
@given(seeds, widths, activations, st.floats(-3, 3), st.floats(-3, 3))
def test_linear_in_the_model(seed, widths, activation, a, b):
    """The explanation of `a f + b g` is a times that of f plus b times that of g."""
    one, other = network(seed, widths, activation), network(seed + 1, widths, activation)
    x = drawn(seed + 2, 2, widths[0])
    for method in (ap.InputXGradient(), ap.IntegratedGradients(nodes=8)):
        of_sum = method(lambda x: a * one(x) + b * other(x), x, target=0).values
        sum_of = a * method(one, x, target=0).values + b * method(other, x, target=0).values
        torch.testing.assert_close(of_sum, sum_of, rtol=1e-7, atol=1e-9)


# ---- the same function, written otherwise ----


class Otherwise(nn.Module):
    """The function of a perceptron in other operations: matrix products, slices, in-place steps."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for module in self.model:
            if isinstance(module, nn.Linear):
                halves = [
                    part @ w.T
                    for part, w in zip(y.tensor_split(2, 1), module.weight.tensor_split(2, 1), strict=True)
                ]
                y = torch.stack(halves).sum(0)
                y += module.bias
            elif isinstance(module, nn.ReLU):
                y = torch.where(y > 0, y, 0.0)
            elif isinstance(module, nn.Tanh):
                y = 2 / (1 + torch.exp(-2 * y)) - 1
            else:
                y = module(y)
        return y


@few
@given(seeds, widths, activations)
def test_gradient_methods_depend_on_the_function_only(seed, widths, activation):
    model, x = network(seed, widths, activation), drawn(seed + 1, 2, widths[0])
    for method in (
        ap.Saliency(),
        ap.InputXGradient(),
        ap.IntegratedGradients(nodes=8),
        ap.SmoothGrad(samples=2),
    ):
        one, other = method(model, x, target=0), method(Otherwise(model), x, target=0)
        torch.testing.assert_close(one.values, other.values, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(one.output, other.output)


@few
@given(seeds, widths, activations)
def test_an_input_that_does_not_count_gets_nothing(seed, widths, activation):
    model, x = network(seed, widths, activation), drawn(seed + 1, 2, widths[0])
    wider = torch.cat([x, drawn(seed + 2, 2, 1)], 1)
    for method in (ap.Saliency(), ap.InputXGradient(), ap.IntegratedGradients(nodes=4), ap.LRP("epsilon")):
        assert bool((method(lambda x: model(x[:, :-1]), wider, target=0).values[:, -1] == 0).all())


# ---- conservation: nothing is absorbed where there is no bias ----


@few
@given(seeds, widths)
def test_lrp_conserves_on_relu_networks_without_bias(seed, widths):
    model, x = network(seed, widths, nn.ReLU, bias=False), drawn(seed + 1, 3, widths[0])
    check_conservation(model, x)


@few
@given(seeds)
def test_lrp_conserves_on_convolutional_relu_networks_without_bias(seed):
    check_conservation(convolutional(seed), drawn(seed + 1, 2, 2, 8, 8))


def check_conservation(model: nn.Module, x: Tensor) -> None:
    f = model(x).detach()[:, 1]
    small = epsilon(1e-9)
    found = ap.LRP(small)(model, x, target=1)
    assert bool((found.remainder.abs() <= 1e-4 * f.abs() + 1e-12).all())
    plain = ap.InputXGradient()(model, x, target=1)
    torch.testing.assert_close(ap.LRP(zero())(model, x, target=1).values, plain.values, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(plain.apportioned, f)


def epsilon(eps: float):
    from apportion.methods.propagation.composites import Composite
    from apportion.methods.propagation.rules import Epsilon

    return Composite(convolution=Epsilon(eps), linear=Epsilon(eps), matmul=Epsilon(eps))


def zero():
    from apportion.methods.propagation.composites import Composite
    from apportion.methods.propagation.rules import Zero

    return Composite(convolution=Zero(), linear=Zero(), matmul=Zero())


@few
@given(seeds, widths, st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU]), st.sampled_from([1e-6, 0.1]))
def test_the_ledger_accounts_for_the_remainder(seed, widths, activation, eps):
    from dataclasses import replace

    model, x = network(seed, widths, activation), drawn(seed + 1, 2, widths[0])
    found = replace(ap.LRP(epsilon(eps)), ledger=True)(model, x, target=0)
    absorbed = sum(found.ledger.absorbed.values())
    assert absorbed == pytest.approx(float(found.remainder.sum()), rel=1e-6, abs=1e-9)


@few
@given(seeds, widths, activations)
def test_shifting_the_score_shifts_nothing_but_the_remainder(seed, widths, activation):
    model, x = network(seed, widths, activation), drawn(seed + 1, 2, widths[0])
    for method in (ap.InputXGradient(), ap.LRP("epsilon")):
        one, other = method(model, x, target=0), method(lambda x: model(x) + 5, x, target=0)
        torch.testing.assert_close(one.values, other.values, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(
            other.remainder - one.remainder, torch.full((2,), 5.0, dtype=torch.float64)
        )
