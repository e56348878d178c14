"""Each rule against its matrix form, written from the layer's Jacobian, slowly and obviously."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import apportion as ap
from apportion.methods.propagation.composites import COMPOSITES, Composite
from apportion.methods.propagation.rules import (
    AlphaBeta,
    Box,
    Epsilon,
    Flat,
    Gamma,
    Layer,
    Proportional,
    WSquare,
    Zero,
    stabilised,
)

EPS = 1e-6
RULES = [
    Zero(),
    Epsilon(0.25),
    Gamma(0.5),
    AlphaBeta(1, 0),
    AlphaBeta(2, 1),
    AlphaBeta(0.5, -0.5),
    AlphaBeta(0, -1),
    WSquare(),
    Flat(),
    Box(-3.0, 3.0),
]


def shares(rule: Any, x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`share[i, j]`: the part of R_j that input i gets; `w` is (inputs, outputs)."""
    z = x[:, None] * w
    plus, minus = np.clip(z, 0, None), np.clip(z, None, 0)
    bp, bm = np.clip(b, 0, None), np.clip(b, None, 0)
    total = z.sum(0) + b

    def away(v: np.ndarray, eps: float = EPS) -> np.ndarray:
        return v + eps * np.where(v >= 0, 1, -1)

    match rule:
        case Zero():
            return z / total
        case Epsilon():
            return z / away(total, rule.eps)
        case Gamma():
            positive = (z + rule.gamma * plus) / away((z + rule.gamma * plus).sum(0) + b + rule.gamma * bp)
            negative = (z + rule.gamma * minus) / away((z + rule.gamma * minus).sum(0) + b + rule.gamma * bm)
            return np.where(total > 0, positive, np.where(total < 0, negative, 0))
        case AlphaBeta():
            p, n = plus.sum(0) + bp, minus.sum(0) + bm
            return rule.alpha * plus / (p + EPS) - rule.beta * minus / (n - EPS)
        case WSquare():
            return w**2 / away((w**2).sum(0))
        case Flat():
            return np.ones_like(w) / away(np.full(len(b), float(len(x))))
        case Box():
            low, high = np.full_like(x, rule.low)[:, None], np.full_like(x, rule.high)[:, None]
            boxed = z - low * np.clip(w, 0, None) - high * np.clip(w, None, 0)
            return boxed / away(boxed.sum(0))
    raise AssertionError(rule)


def first(rule: Any) -> Composite:
    return Composite(first=rule, linear=Zero(), convolution=Zero(), matmul=Zero())


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("signs", ["mixed", "positive", "zeros"])
def test_linear_layer_is_the_papers_formula(rule: Any, biased: bool, signs: str) -> None:
    layer = nn.Linear(6, 4, bias=biased).double()
    x = torch.randn(3, 6, dtype=torch.float64)
    x = x.abs() if signs == "positive" else torch.where(x > 0, x, 0) if signs == "zeros" else x
    for output in range(4):
        found = ap.LRP(first(rule))(layer, x, target=output).values
        for sample in range(3):
            row, w = x[sample].numpy(), layer.weight.detach().T.numpy()
            b = layer.bias.detach().numpy() if biased else np.zeros(4)
            relevance = row @ w[:, output] + b[output]
            expected = shares(rule, row, w, b)[:, output] * relevance
            np.testing.assert_allclose(found[sample].numpy(), expected, rtol=1e-9, atol=1e-12)


CONVOLUTIONS: list[tuple[Any, tuple[int, ...]]] = [
    (nn.Conv1d(4, 6, 3, padding=1, groups=2), (4, 7)),
    (nn.Conv2d(3, 4, 3, stride=2, padding=1), (3, 6, 5)),
    (nn.Conv2d(4, 4, 3, dilation=2, padding="same", groups=4), (4, 5, 5)),
    (nn.Conv2d(2, 3, 4, padding="same"), (2, 5, 5)),
    (nn.Conv3d(2, 3, 2), (2, 3, 3, 3)),
    (nn.ConvTranspose1d(3, 4, 3, stride=2), (3, 5)),
    (nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, groups=2), (4, 3, 3)),
]


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS, ids=[type(c).__name__ for c, _ in CONVOLUTIONS])
def test_convolutions_are_their_matrix(rule: Any, layer: Any, shape: tuple[int, ...]) -> None:
    layer = layer.double()
    x = torch.randn(1, *shape, dtype=torch.float64)
    flat = x.flatten()
    # The layer is affine, so its Jacobian is what it makes of the unit vectors, less its bias.
    units = torch.eye(flat.numel(), dtype=torch.float64).view(-1, *shape)
    jacobian = (layer(units) - layer(torch.zeros_like(x))).flatten(1).T.detach()
    b = layer(torch.zeros_like(x)).flatten().detach().numpy()
    weights = torch.randn(len(b), dtype=torch.float64)
    found = ap.LRP(first(rule))(
        lambda v: layer(v).flatten(1) @ weights[:, None], x, target=0
    ).values.flatten()
    relevance = layer(x).flatten().detach().numpy() * weights.numpy()
    w = jacobian.T.numpy()
    if isinstance(rule, Flat):  # every connection counts once, the padding's missing ones not at all
        w = (w != 0).astype(float)
        expected = (w / (w.sum(0) + EPS)) @ relevance
    else:
        expected = shares(rule, flat.numpy(), w, b) @ relevance
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("rule", [WSquare(), Flat(), Box()], ids=repr)
def test_relevance_where_the_input_is_zero(rule: Any) -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
    ).double()
    x = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    x[0, 0, 1, 1] = 1.0
    e = ap.LRP(Composite(first=rule), ledger=True)(net, x, target=0)
    assert int((e.values != 0).sum()) > 4  # also where the input is zero
    assert abs(e.ledger.residual) < 1e-12


def test_bias_shared_out_keeps_all_relevance() -> None:
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    kept = ap.LRP(Composite(linear=Epsilon(1e-12, spread_bias=True)))(net, x, target=1)
    lost = ap.LRP(Composite(linear=Epsilon(1e-12)))(net, x, target=1)
    assert kept.remainder is not None
    assert lost.remainder is not None
    assert float(kept.remainder.abs().max()) < 1e-9
    assert float(lost.remainder.abs().max()) > 1e-3


def test_bias_share_of_alpha_beta_is_equation_21() -> None:
    # What z⁺ leaves of R_j is 1 − b⁺ / z⁺, the positive half of eq. 21.
    layer = nn.Linear(5, 1).double()
    x = torch.randn(1, 5, dtype=torch.float64)
    z = x * layer.weight
    positive, bias = z.clamp(min=0).sum().item(), layer.bias.clamp(min=0).item()
    e = ap.LRP(first(AlphaBeta(1, 0, eps=0)))(layer, x, target=0)
    assert float(e.apportioned) == pytest.approx(layer(x).item() * (1 - bias / (positive + bias)))


@pytest.mark.parametrize("rule", [AlphaBeta(2, 1, eps=0), AlphaBeta(0.5, -0.5, eps=0)], ids=repr)
def test_what_arrives_below_is_equation_21(rule: AlphaBeta) -> None:
    """`R (1 − α b⁺/z⁺ + β b⁻/z⁻)`, with α = ½ and β = −½ as the paper prints it."""
    for bias in (0.7, -0.7):
        layer = nn.Linear(5, 1).double()
        nn.init.constant_(layer.bias, bias)
        x = torch.randn(1, 5, dtype=torch.float64)
        parts = torch.cat([x * layer.weight.detach(), layer.bias.detach()[None]], 1)
        plus, minus = parts.clamp(min=0).sum(), parts.clamp(max=0).sum()
        expected = layer(x).detach() * (
            1 - rule.alpha * max(bias, 0) / plus + rule.beta * min(bias, 0) / minus
        )
        e = ap.LRP(first(rule))(layer, x, target=0)
        assert float(e.apportioned) == pytest.approx(float(expected))


@pytest.mark.parametrize("rule", [AlphaBeta(2, 1), AlphaBeta(0.5, -0.5)], ids=repr)
@pytest.mark.parametrize("tiny", [1e-1, 1e-3, 1e-4])
@pytest.mark.parametrize("negative_input", [False, True])
def test_a_side_that_is_tiny_beside_the_other_is_exact_in_float32(
    rule: AlphaBeta, tiny: float, negative_input: bool
) -> None:
    """Many large positive contributions and one small negative one: by the same numbers in float64."""
    layer = nn.Linear(785, 1)
    nn.init.uniform_(layer.weight, 0, 0.1)
    x = 255 * torch.rand(1, 785)
    x[0, 0] = -1.0 if negative_input else 1.0
    with torch.no_grad():
        layer.weight[0, 0] = tiny if negative_input else -tiny
        layer.bias.fill_(0.3)
    single = ap.LRP(first(rule))(layer, x, target=0)
    double = ap.LRP(first(rule))(copy.deepcopy(layer).double(), x.double(), target=0)
    torch.testing.assert_close(single.values.double(), double.values, rtol=1e-5, atol=1e-5)


def test_the_negative_side_costs_no_third_evaluation_of_ordinary_layers() -> None:
    calls = []

    for scale in (1.0, 1e-7):
        layer = nn.Linear(200, 30)
        with torch.no_grad():
            layer.weight[layer.weight < 0] *= scale
        x, rule = torch.rand(4, 200), AlphaBeta(2, 1)
        runs = []

        def forward(x: Tensor, w: Tensor, b: Tensor | None, runs: list[int] = runs) -> Tensor:
            runs.append(1)
            return F.linear(x, w, b)

        z = layer(x).detach()
        rule(Layer(forward, layer.weight.detach(), layer.bias.detach()), x, z, torch.rand_like(z))
        calls.append(len(runs))
    assert calls[1] == calls[0] + 1


def merged(conv: Any, norm: Any) -> Any:
    if isinstance(conv, nn.Conv2d):
        return nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
    whole, scale = copy.deepcopy(conv), norm.weight / torch.sqrt(norm.running_var + norm.eps)
    with torch.no_grad():
        whole.bias.sub_(norm.running_mean).mul_(scale).add_(norm.bias)
        for part, s in zip(whole.weight.chunk(conv.groups), scale.chunk(conv.groups), strict=True):
            part.mul_(s.view(-1, 1, 1))
    return whole


@pytest.mark.parametrize("conv", [nn.Conv2d(4, 4, 3), nn.ConvTranspose2d(4, 4, 2, groups=2)], ids=str)
@pytest.mark.parametrize("name", sorted(COMPOSITES))
def test_batch_norm_is_part_of_the_layer_before_it(name: str, conv: nn.Module) -> None:
    norm = nn.BatchNorm2d(4)
    dense, norm1 = nn.Linear(4, 5), nn.BatchNorm1d(5)
    for n in (norm, norm1):
        n.running_mean.normal_()
        n.running_var.uniform_(0.5, 2)
        nn.init.normal_(n.weight)
        nn.init.normal_(n.bias)
    tail = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    split = nn.Sequential(conv, norm, *tail, dense, norm1, nn.ReLU(), nn.Linear(5, 2)).double().eval()
    dense1 = nn.utils.fusion.fuse_linear_bn_eval(dense, norm1)
    whole = nn.Sequential(merged(conv, norm), *tail, dense1, nn.ReLU(), split[-1]).eval()
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(split(x), whole(x))
    for ledger in (False, True):
        a, b = (ap.LRP(name, ledger=ledger)(m, x, target=0) for m in (split, whole))
        torch.testing.assert_close(a.values, b.values, rtol=1e-9, atol=1e-12)


def test_pooling_in_proportion() -> None:
    x = torch.rand(1, 1, 4, 4, dtype=torch.float64)
    e = ap.LRP(Composite(pooling="proportional"))(
        lambda v: F.max_pool2d(v, 2).flatten(1).sum(1, keepdim=True), x
    )
    blocks = F.avg_pool2d(x, 2) * 4
    expected = x / F.interpolate(blocks, scale_factor=2) * F.interpolate(F.max_pool2d(x, 2), scale_factor=2)
    torch.testing.assert_close(e.values, expected, rtol=1e-5, atol=1e-7)


def test_the_users_own_rule_is_a_few_lines() -> None:
    def largest(layer: Any, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
        """All relevance to the weights above their mean."""
        chosen = layer.weight * (layer.weight > layer.weight.mean())
        return layer.pull(x, chosen, R / stabilised(layer(x, chosen), 1e-6))  # type: ignore[no-any-return]

    layer, x = nn.Linear(4, 2), torch.ones(1, 4)
    e = ap.LRP(Composite(linear=largest), ledger=True)(layer, x, target=0)
    assert bool((e.values[0][layer.weight[0] <= layer.weight.mean()] == 0).all())
    assert e.remainder is not None
    assert float(e.remainder.abs()) < 1e-5
    assert "largest" in e.ledger.rows[0].rule


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AlphaBeta(2, 0), "alpha − beta"),
        (lambda: AlphaBeta(-0.5, -1.5), "alpha ≥ 0, beta ≥ -1 with alpha − beta = 1"),
        *[(partial(rule, eps=-1), "eps is -1") for rule in (Epsilon, WSquare, Flat, Box, Proportional)],
        (lambda: AlphaBeta("2", 1), "alpha is '2'"),  # type: ignore[arg-type]
        (lambda: Box("low", 1), "low below high"),  # type: ignore[arg-type]
        (lambda: Box(2, 1), "low below high"),
        (lambda: Box((0, 0), (1, 0)), "low below high"),
        (lambda: Box((0, 0), (1, 1, 1)), "low below high"),
        (lambda: Gamma(-1), "gamma"),
        (lambda: Composite(softmax="no"), "softmax is 'no'; accepted: 'taylor', 'constant', 'difference'"),  # type: ignore[arg-type]
        (lambda: Composite(bias="no"), "bias is 'no'; accepted: 'absorb', 'spread', 'ignore', 'place'"),  # type: ignore[arg-type]
        (lambda: ap.LRP(bias="zero"), "bias is 'zero'"),  # type: ignore[arg-type]
        (lambda: ap.LRP("epsilonn"), "unknown composite"),
    ],
)
def test_wrong_settings_are_named(make: Any, words: str) -> None:
    with pytest.raises(ap.InputError, match=words):
        make()


def test_a_box_of_other_channels_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Flatten())
    with pytest.raises(ap.InputError, match="2 bounds for 3 channels"):
        ap.LRP(first(Box((0.0, 0.0), (1.0, 1.0))))(model, torch.rand(1, 3, 2, 2), target=0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), depth=st.integers(1, 4), width=st.integers(2, 9))
def test_relevance_is_conserved_without_biases(seed: int, depth: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width, bias=False), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(width, 3, bias=False)).double()
    for p in net.parameters():
        p.data.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    x = torch.randn(2, width, generator=generator, dtype=torch.float64)
    e = ap.LRP(Composite(linear=Epsilon(1e-9)))(net, x, target=1)
    assert e.remainder is not None
    assert bool((e.remainder.abs() <= 1e-4 * e.total.abs() + 1e-9).all())
    torch.testing.assert_close(e.values, ap.InputXGradient()(net, x, target=1).values, rtol=1e-4, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(sorted(COMPOSITES)))
def test_the_ledger_accounts_for_the_remainder(seed: int, name: str) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.GELU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Flatten(), nn.LayerNorm(4), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2),
    ).double().eval()  # fmt: skip
    x = torch.randn(3, 2, 6, 6, dtype=torch.float64)
    e, plain = ap.LRP(name, ledger=True)(net, x, target=0), ap.LRP(name)(net, x, target=0)
    torch.testing.assert_close(e.values, plain.values, rtol=1e-9, atol=1e-12)
    size = max(abs(row.arrived) + abs(row.passed_on) for row in e.ledger)
    assert abs(e.ledger.residual) <= 1e-9 * max(1.0, size)
    for row in e.ledger:
        lost = row.bias + row.stabiliser + row.unruled + row.softmax + row.placed
        assert row.arrived - row.passed_on == pytest.approx(lost, abs=1e-9 * max(1.0, size))


@pytest.mark.parametrize("rule", [WSquare(), Flat(), Box(), Box(-3.0, 3.0)], ids=repr)
@pytest.mark.parametrize(
    "layer", [nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(4, 6, 3)], ids=repr
)
def test_each_sample_of_a_batch_has_a_first_layer_of_its_own(rule: Any, layer: nn.Module) -> None:
    model = nn.Sequential(layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    together = ap.LRP(first(rule))(model, x, target=0).values
    alone = [ap.LRP(first(rule))(model, x[i : i + 1], target=0).values for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))
    if isinstance(rule, Flat) and isinstance(layer, nn.Conv2d):  # the inputs of an output get the same
        inputs = 4 // layer.groups
        torch.testing.assert_close(together[:, :inputs], together[:, :1].expand(-1, inputs, -1, -1))
