"""Integrated Hessians against closed forms, the paper's double integral, its axioms, and real models."""

import copy
import itertools
import math
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import apportion as ap
from apportion import InputError, IntegratedGradients, IntegratedHessians
from apportion.engines.substitution import Substitution
from apportion.methods.interactions.smoothing import TWICE
from small import Words

numbers = st.lists(st.floats(-2, 2), min_size=3, max_size=3)


def mlp(inputs=6, seed=0, act=nn.Softplus):
    torch.manual_seed(seed)
    return (
        nn.Sequential(nn.Linear(inputs, 12), act(), nn.Linear(12, 12), act(), nn.Linear(12, 3))
        .double()
        .eval()
    )


def batch(rows=3, inputs=6, seed=1):
    return torch.randn(rows, inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def double_integral(score, x, start, steps=400):
    """Eq. 5 and 6 of the paper, literally: a midpoint grid over alpha and beta, and torch's own Hessian."""
    places = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    features, dx = len(x), x - start
    result = torch.zeros(features, features, dtype=torch.float64)
    hessian = torch.func.vmap(torch.func.hessian(score))
    gradient = torch.func.vmap(torch.func.grad(score))
    for alpha in places:
        points = start + (alpha * places)[:, None] * dx
        second, first = hessian(points), gradient(points)
        result += dx[:, None] * dx * ((alpha * places)[:, None, None] * second).mean(0) / steps  # (5)
        result += torch.diag(dx * first.mean(0)) / steps  # (6)
    return result


def test_the_single_integral_is_the_papers_double_integral():
    model, x, start = mlp(inputs=4), batch(1, 4), batch(1, 4, seed=3)
    slow = double_integral(lambda p: model(p)[1], x[0], start[0], steps=40)
    fast = IntegratedHessians(nodes=24)(model, x, target=1, baseline=start)
    torch.testing.assert_close(fast.values[0], slow, atol=3e-3, rtol=3e-3)


@given(numbers, numbers)
@settings(max_examples=10, deadline=None)
def test_quadratics_have_a_closed_form(x, start):
    # f = xᵀ A x / 2 + bᵀ x: ∫ −ln u u du = 1/4 of dx A dx, and the gradient term on the diagonal.
    matrix = torch.tensor([[2.0, 1.0, 0.0], [1.0, -1.0, 3.0], [0.0, 3.0, 0.5]], dtype=torch.float64)
    slope = torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)
    x, start = (torch.tensor([v], dtype=torch.float64) for v in (x, start))
    dx = (x - start)[0]
    found = IntegratedHessians(nodes=3)(
        lambda t: ((t @ matrix) * t).sum(1) / 2 + t @ slope, x, baseline=start
    )
    expected = dx[:, None] * dx * matrix / 4 + torch.diag(dx * (matrix @ start[0] + slope + matrix @ dx / 4))
    torch.testing.assert_close(found.values[0], expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_a_product_is_shared_as_its_exponents_say(power):
    # f = x₀ᵖ x₁: along the path u^(p+1); Γ₀₁ = p / (p + 1)² of the product.
    x = torch.tensor([[1.5, 2.0]], dtype=torch.float64)
    found = IntegratedHessians(nodes=6)(lambda t: t[:, 0] ** power * t[:, 1], x)
    assert found.values[0, 0, 1] == pytest.approx(power / (power + 1) ** 2 * 1.5**power * 2)
    assert found.remainder.abs() < 1e-12


def test_xor_is_a_negative_interaction():
    # The ReLU network of x₀ + x₁ − 2 ReLU(x₀ + x₁ − 1): 0 for both off and for both on.
    def xor(x):
        total = x.sum(1)
        return (total - 2 * F.relu(total - 1))[:, None]

    on = torch.ones(1, 2, dtype=torch.float64)
    assert IntegratedGradients(nodes=400)(xor, on).values.abs().max() < 1e-2  # as for both off
    found = IntegratedHessians(beta=20.0)(xor, on)
    assert found.values[0, 0, 1] < -0.2
    assert found.values[0, 0, 0] > 0.2
    plain = IntegratedHessians(smooth=False)(xor, on)
    assert plain.values[0, 0, 1] == 0  # a ReLU has no second derivative to find
    assert plain.remainder.abs() > 0.4
    assert "relu: no second derivative" in plain.warnings[0]


@given(st.integers(0, 200))
@settings(max_examples=4, deadline=None)
def test_axioms(seed):
    model, x, start = mlp(seed=seed), batch(2, seed=seed), batch(1, seed=seed + 1)
    method = IntegratedHessians(nodes=32)
    found = method(model, x, target=0, baseline=start)
    gradients = IntegratedGradients(nodes=32)(model, x, target=0, baseline=start)
    torch.testing.assert_close(found.values, found.values.mT)  # symmetry
    assert found.remainder.abs().max() < 1e-8  # interaction completeness
    torch.testing.assert_close(found.values.sum(2), gradients.values, atol=1e-8, rtol=0)  # self completeness
    torch.testing.assert_close(found.attributions, gradients.values, atol=1e-8, rtol=0)
    other = mlp(seed=seed + 7)
    both = method(lambda t: 2 * model(t) - 3 * other(t), x, target=0, baseline=start)
    alone = method(other, x, target=0, baseline=start)
    torch.testing.assert_close(both.values, 2 * found.values - 3 * alone.values)  # linearity
    again = method(lambda t: (model(t) + 1) * 1.0 - 1, x, target=0, baseline=start)
    torch.testing.assert_close(again.values, found.values)  # implementation invariance


def test_a_feature_that_does_nothing_interacts_with_nothing():
    found = IntegratedHessians()(lambda x: (x[:, :1] * x[:, 1:2]).exp(), batch(2, 4))
    assert found.values[:, 2:].abs().max() == 0


def test_several_baselines_are_the_mean_over_each():
    model, x, starts = mlp(), batch(), batch(4, seed=2)
    several = IntegratedHessians(nodes=12)(model, x, target=1, baseline=starts[:, None])
    each = [IntegratedHessians(nodes=12)(model, x, target=1, baseline=start) for start in starts]
    torch.testing.assert_close(several.values, sum(e.values for e in each) / 4)
    assert several.remainder.abs().max() < 1e-6
    assert several.row_gaps.abs().max() < 1e-6


@pytest.mark.parametrize("chunk", [1, 5])
@pytest.mark.parametrize("vectorize", [1, 4])
def test_chunk_and_vectorize_change_memory_only(chunk, vectorize):
    model, x = mlp(), batch()
    whole = IntegratedHessians(tolerance=1e-4)(model, x, target=1)
    parts = IntegratedHessians(tolerance=1e-4, chunk=chunk, vectorize=vectorize)(model, x, target=1)
    torch.testing.assert_close(parts.values, whole.values)


def test_a_sample_is_the_same_alone_and_in_a_batch():
    model, x = mlp(act=nn.ReLU), batch(4)
    together = IntegratedHessians()(model, x, target=1)
    alone = IntegratedHessians()(model, x[2:3], target=1)
    torch.testing.assert_close(together[2].values, alone.values)


def test_nodes_are_put_where_the_path_is_steep():
    def steep(x):  # LayerNorm from near zero: all of the change is in the first thousandth of the path
        return F.layer_norm(x + 1e-3, (4,), eps=1e-7) @ torch.arange(4.0, dtype=torch.float64)

    x = torch.tensor([[1.0, -2.0, 0.5, 1.5]], dtype=torch.float64)
    start = torch.tensor([[1e-3, 0.0, -1e-3, 0.0]], dtype=torch.float64)
    fixed = IntegratedHessians(nodes=64)(steep, x, baseline=start)
    adaptive = IntegratedHessians(tolerance=1e-3)(steep, x, baseline=start)
    assert adaptive.remainder.abs() < 1e-3 * adaptive.total.abs()
    assert adaptive.notes["nodes"] < 128
    assert fixed.remainder.abs() > 3 * adaptive.remainder.abs()
    # The error of single entries may be more than that of their sum: here it is below 1 %.
    exact = IntegratedHessians(tolerance=1e-8)(steep, x, baseline=start).values
    assert (adaptive.values - exact).norm() < 1e-2 * exact.norm()
    short = IntegratedHessians(tolerance=1e-8, max_nodes=16)(steep, x, baseline=start)
    assert "not within tolerance after max_nodes=16" in short.warnings[0]


def test_a_kink_without_a_stand_in_is_said():
    def kinked(x):
        return torch.where(x > 0.3, x, 0.3 + 0 * x).sum(1)

    found = IntegratedHessians()(kinked, torch.ones(1, 1))
    assert "not within tolerance after max_nodes=512 nodes, or for a kink" in found.warnings[0]
    assert found.remainder > 0.1


class SmallCNN(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.act, self.pool, self.head = nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.pool(self.act(self.second(self.pool(self.act(self.first(x)))))).flatten(1))


def test_a_network_with_kinks_is_smoothed_by_itself():
    model = SmallCNN().double().eval()
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = IntegratedHessians(groups=4, drift=0.5)(model, x, target=0)
    assert found.notes["smoothed"] == ["max_pool2d", "relu"]
    assert found.values.shape == (1, 4, 4)
    integration = found.remainder - found.smoothing
    assert (integration.abs() < 2e-2 * found.total.abs()).all()
    fixed = IntegratedHessians(groups=4, beta=10.0)(model, x, target=0)
    smooth = ap.smooth(model, beta=10)
    by_hand = IntegratedHessians(groups=4)(smooth, x, target=0)
    torch.testing.assert_close(fixed.values, by_hand.values)
    assert by_hand.smoothing is None


def test_groups_in_every_form_and_their_sums():
    model, x = mlp(), batch()
    alone = IntegratedHessians(nodes=16)(model, x, target=0)
    lists = IntegratedHessians(nodes=16, groups=((0, 3), (1, 2, 4), (5,)))(model, x, target=0)
    tensor = IntegratedHessians(nodes=16)(model, x, target=0, groups=torch.tensor([0, 1, 1, 0, 1, 2]))
    torch.testing.assert_close(lists.values, tensor.values)
    member = torch.zeros(6, 3, dtype=torch.float64)
    member[range(6), [0, 1, 1, 0, 1, 2]] = 1
    # A group's entry is the sum over its members, so grouping first changes the cost only.
    torch.testing.assert_close(lists.values, member.T @ alone.values @ member)
    each = torch.stack([torch.arange(6), torch.zeros(6).long(), torch.arange(6)])
    mixed = IntegratedHessians(nodes=16)(model, x, target=0, groups=each)
    torch.testing.assert_close(mixed.values[0], alone.values[0])
    torch.testing.assert_close(mixed.values[1, 0, 0], alone.values[1].sum())


def test_pairs_cost_their_rows_alone():
    model, x = mlp(), batch()
    whole = IntegratedHessians(nodes=16, vectorize=1)(model, x, target=0)
    some = IntegratedHessians(nodes=16, vectorize=1, pairs=((0, 4), (2, 4)))(model, x, target=0)
    torch.testing.assert_close(some.values[:, 4], whole.values[:, 4])
    torch.testing.assert_close(some.values[:, 0, 4], whole.values[:, 0, 4])
    assert some.values[:, 0, 2].isnan().all()
    assert some.total is None
    assert some.row_gaps[:, 4].abs().max() < 1e-6
    assert some.cost.backwards < whole.cost.backwards / 2
    one = IntegratedHessians(nodes=16, pairs=(3,))(model, x, target=0)
    torch.testing.assert_close(one.values[:, 3], whole.values[:, 3])


def test_tokens_of_an_lstm():
    found = IntegratedHessians(tolerance=1e-3)(
        Words().eval(), torch.tensor([[1, 2, 3, 4], [4, 5, 6, 7]]), target=0
    )
    assert found.values.shape == (2, 4, 4)
    assert (found.remainder.abs() <= 2e-3 * found.total.abs() + 1e-5).all()
    assert found.row_gaps.abs().max() < 1e-3


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_tokens_of_bert(attention):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        attn_implementation=attention, initializer_range=0.5,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config).eval()
    inputs = {
        "input_ids": torch.tensor([[1, 7, 9, 2], [1, 5, 2, 3]]),
        "attention_mask": torch.tensor([[1] * 4, [1, 1, 1, 0]]),
    }
    found = IntegratedHessians()(model, inputs, target=1)
    assert found.values.shape == (2, 4, 4)
    assert (found.remainder.abs() <= 2e-2 * found.total.abs() + 1e-5).all()
    assert found.values[1, 3].abs().max() < 1e-6  # a masked token does nothing
    torch.testing.assert_close(found.output, model(**inputs).logits.detach())


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"scale": 0.3}, {"is_causal": True}, {"attn_mask": torch.eye(4)},
        {"attn_mask": torch.tensor([[True] * 4, [False] * 4, [True, False, True, False], [True] * 4])},
        {"attn_mask": torch.tensor([True, True, True, False]).expand(2, 1, 4, 4)},
    ],
)  # fmt: skip
def test_attention_with_a_second_derivative_is_the_models_attention(settings):
    x = torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(0)).requires_grad_() * 1
    expected = F.scaled_dot_product_attention(x, 2 * x, 3 * x, **settings)
    with Substitution(TWICE):
        found = F.scaled_dot_product_attention(x, 2 * x, 3 * x, **settings)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    assert gradient.isfinite().all()
    assert second.isfinite().all()


def test_attention_modules_and_exported_programs():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 2)).eval()
    x = torch.randn(2, 3, 8)
    method = IntegratedHessians(tolerance=1e-3)
    rows = torch.arange(3)[:, None].expand(3, 8)
    found = method(model, x, target=0, groups=rows)
    assert (found.remainder.abs() <= 2e-3 * found.total.abs() + 1e-5).all()
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
    torch.testing.assert_close(
        method(program, x, target=0, groups=rows).values, found.values, atol=1e-4, rtol=1e-3
    )


def test_saved_and_loaded_they_are_the_same(tmp_path):
    found = IntegratedHessians(pairs=((0, 1),), groups=((0, 1), (2, 3), (4, 5)))(mlp(), batch(), target=0)
    found = found.named(["a", "b", "c"])
    assert ap.Interactions.load(found.save(tmp_path / "found.safetensors")) == found
    (tmp_path / "other").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="is not an apportion interactions"):
        ap.Interactions.load(tmp_path / "other")
    with pytest.raises(InputError, match="no interactions file"):
        ap.Interactions.load(tmp_path / "missing")


def test_top_names_the_pairs_with_both_entries_together():
    x = torch.tensor([[2.0, 3.0, 1.0]])
    found = IntegratedHessians()(lambda t: t[:, 0] * t[:, 1] - t[:, 2], x).named(["a", "b", "c"])
    name, other, value = found.top(1)[0]
    assert (name, other) == ("a", "b")
    assert value == pytest.approx(3.0)
    assert found.main[0].tolist() == pytest.approx([1.5, 1.5, -1.0])
    assert "(alone 2.00, in pairs 3.00)" in found.summary()


def test_comparison_methods_have_closed_forms():
    x = torch.tensor([[2.0, 3.0, 1.0]])

    def score(t):
        return t[:, 0] * t[:, 1] + 5 * t[:, 2]

    plain = ap.InputHessian()(score, x)
    assert plain.values[0].tolist() == [[0, 6, 0], [6, 0, 0], [0, 0, 0]]
    twice = ap.InputHessian(gradient=True)(score, x)
    assert twice.values[0].tolist() == [[6, 6, 0], [6, 6, 0], [0, 0, 5]]
    assert plain.total is None


def test_the_input_hessian_looks_at_the_input_alone():
    x = torch.tensor([[2.0, 3.0, 1.0]])
    logarithms = ap.InputHessian(gradient=True)(lambda t: t.log().sum(1), x)  # not finite at zero
    assert logarithms.values[0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0]]  # x² · (−1/x²) + x · 1/x
    assert (logarithms.cost.forwards, logarithms.cost.backwards) == (2, 1 + 3)


def test_groups_can_be_a_tensor():
    x = torch.tensor([[2.0, 3.0, 1.0]])
    groups = torch.tensor([[0, 0, 1]])
    found = ap.InputHessian()(lambda t: t.prod(1), x, groups=groups)
    assert found.values[0].tolist() == [[12, 12], [12, 0]]
    if find_spec("shapiq"):
        game = ap.ShapleyInteractions()(lambda t: t.prod(1), x, groups=groups)
        torch.testing.assert_close(game.values[0], torch.tensor([[0.0, 3.0], [3.0, 0.0]]))


def test_shapley_interactions_need_their_package_or_work():
    x = torch.tensor([[2.0, 3.0, 1.0]])
    try:
        import shapiq  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match="pip install 'apportion"):
            ap.ShapleyInteractions()(lambda t: t[:, 0] * t[:, 1] + t[:, 2], x)
    else:
        found = ap.ShapleyInteractions(index="STII")(lambda t: t[:, 0] * t[:, 1] + t[:, 2], x)
        torch.testing.assert_close(found.values[0], torch.tensor([[0.0, 3.0, 0], [3, 0, 0], [0, 0, 1]]))


@pytest.mark.slow  # the first sparse transform of a process compiles for half a minute
def test_few_planted_interactions_of_many_features_are_found_exactly():
    pytest.importorskip("shapiq")
    draw = torch.Generator().manual_seed(0)
    alone = torch.zeros(60).index_fill(0, torch.randperm(60, generator=draw)[:6], 1) * torch.randn(
        60, generator=draw
    )
    pairs = torch.zeros(60, 60)
    for i, j in torch.randperm(60, generator=draw)[:12].view(6, 2).tolist():
        pairs[i, j] = pairs[j, i] = 0.5 + float(torch.rand((), generator=draw))
    x = torch.ones(1, 60)
    method = ap.ShapleyInteractions(index="STII", sparse=True)
    found = method(lambda t: (t @ alone + torch.einsum("bi,ij,bj->b", t, pairs, t))[:, None], x, 0)
    torch.testing.assert_close(found.values[0], alone.diag() + pairs, atol=1e-3, rtol=0)
    assert found.cost.forwards < 2100
    with pytest.raises(InputError, match="budget is 100; a sparse transform of 60 features takes more"):
        replace(method, budget=100)(lambda t: t.sum(1), x)


def test_shapley_taylor_interactions_are_their_definition():
    """Sundararajan, Dhamdhere & Agarwal 2020, eq. 2 for pairs, over all coalitions."""
    pytest.importorskip("shapiq")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    x = torch.randn(1, 5, dtype=torch.float64)
    found = ap.ShapleyInteractions(index="STII", budget=32)(net, x, target=0).values[0]

    def worth(*present: int) -> float:
        kept = torch.zeros(5, dtype=torch.float64)
        kept[list(present)] = 1
        return float(net(x * kept).detach())

    for i, j in itertools.combinations(range(5), 2):
        others = [k for k in range(5) if k not in (i, j)]
        index = 0.0
        for size in range(4):
            for T in itertools.combinations(others, size):
                delta = worth(*T, i, j) - worth(*T, i) - worth(*T, j) + worth(*T)
                index += 2 / 5 * delta / math.comb(4, size)
        assert float(found[i, j]) == pytest.approx(index / 2, abs=1e-9)
        assert float(found[i, i]) == pytest.approx(worth(i) - worth(), abs=1e-9)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.ReLU(inplace=True), (2, 4)), (nn.ReLU6(), (2, 4)), (nn.LeakyReLU(0.2), (2, 4)),
        (nn.PReLU(3), (2, 3, 4)),
        (nn.Hardtanh(-0.5, 0.3), (2, 4)), (nn.Hardswish(), (2, 4)), (nn.Hardsigmoid(), (2, 4)),
        (nn.SELU(), (2, 4)), (nn.ELU(2.0), (2, 4)), (nn.Softshrink(), (2, 4)), (torch.abs, (2, 4)),
        (nn.MaxPool1d(3, 2, 1), (2, 2, 8)), (nn.MaxPool2d(3, 2, 1, ceil_mode=True), (1, 2, 5, 6)),
        (nn.MaxPool2d(2, dilation=2), (1, 1, 5, 5)), (nn.MaxPool3d(2), (1, 1, 4, 4, 4)),
        (nn.AdaptiveMaxPool2d((3, None)), (1, 2, 5, 3)), (lambda x: x.clamp(-0.2, 0.4), (2, 4)),
        (lambda x: x.clamp_min(0.1), (2, 4)), (lambda x: x.max(1).values, (2, 4)),
        (lambda x: torch.min(x, x.flip(0)), (2, 4)), (lambda x: x.amax(1), (2, 4)),
    ],
)  # fmt: skip
def test_stand_ins_become_the_function_as_beta_grows(layer, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ap.smooth(layer, beta=1e4)(x.clone()), layer(x.clone()), atol=1e-3, rtol=1e-3)
    if isinstance(layer, nn.Module):
        layer.double()
    x = x.double().requires_grad_()
    rough = ap.smooth(layer, beta=4.0)
    assert torch.autograd.gradgradcheck(lambda t: rough(t.clone()), x, atol=1e-3, fast_mode=True)


@pytest.mark.parametrize("pool", [nn.MaxPool2d, nn.AdaptiveMaxPool2d])
def test_pools_that_return_their_places_are_smooth_too(pool):
    x = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth, places = ap.smooth(pool(2, return_indices=True), beta=2.0)(x)
    torch.testing.assert_close(smooth, ap.smooth(pool(2), beta=2.0)(x))
    assert torch.equal(places, pool(2, return_indices=True)(x)[1])


def test_smooth_shares_parameters_and_keeps_their_gradients():
    layer = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    ap.smooth(layer, beta=2.0)(torch.ones(1, 2)).sum().backward()
    assert layer[0].weight.grad.abs().min() > 0
    assert ap.smooth(nn.ReLU(), 2.0)(torch.zeros(1)).item() == pytest.approx(math.log(2) / 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "beta is 0.0; accepted: a positive number"),
        ({"beta": -1.0}, "beta is -1.0"),
        ({"drift": 0.0}, "drift is 0.0"),
        ({"nodes": 1000}, "nodes is 1000; accepted: 1 to 200"),
        ({"tolerance": -1.0}, "tolerance is -1.0"),
        ({"vectorize": 0}, "vectorize is 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        IntegratedHessians(**settings)


@pytest.mark.parametrize(
    ("settings", "given", "message"),
    [
        ({"groups": ((0, 1, 2), (2, 3, 4, 5))}, {}, "groups 0 and 1 overlap at feature 2"),
        ({"groups": ((0, 1, 2), (3, 4))}, {}, "feature 5 is in no group"),
        ({"groups": ((0, 1, 2), (3, 4, 9))}, {}, "group 1 names feature 9; there are features 0 to 5"),
        ({"groups": ((0, 1, 2), (), (3, 4, 5))}, {}, r"groups \[1\] hold no feature"),
        ({"groups": 2}, {}, "square patches"),
        ({"pairs": ((0, 6),)}, {}, "pairs names feature 6"),
        ({}, {"groups": torch.zeros(4).long()}, "one number for each feature"),
        ({}, {"groups": torch.zeros(6)}, "whole numbers"),
        ({}, {"baseline": torch.zeros(3, 7)}, r"baseline has shape \(3, 7\); accepted: \(3, 6\)"),
        ({}, {"baseline": torch.full((6,), torch.nan)}, "NaN"),
    ],
)
def test_bad_input(settings, given, message):
    with pytest.raises(InputError, match=message):
        IntegratedHessians(**settings)(mlp(), batch(), target=0, **given)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda x: x.sort(1).values[:, :2], "not twice differentiable: sort has no smooth stand-in"),
        (lambda x: F.threshold(x, 0.1, 5.0), "jumps"),
        (lambda x: Once.apply(x).exp(), "not twice differentiable"),
        (lambda x: x.abs().pow(2.5).sum(1) * torch.nan, "NaN"),
        (lambda x: (x - x.detach()[:, :1] * 0).pow(2).sum(1).sqrt(), "derivatives are NaN or infinite"),
    ],
)
def test_models_without_a_second_derivative(score, message):
    with pytest.raises(InputError, match=message):
        IntegratedHessians()(score, batch())


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


def test_too_many_features_are_refused_with_a_way_out():
    with pytest.raises(InputError, match="groups=16"):
        IntegratedHessians()(lambda x: x.flatten(1).sum(1), torch.zeros(1, 3, 100, 100))


def test_a_linear_model_has_main_effects_only():
    model, x = nn.Linear(3, 1), torch.randn(2, 3)
    found = IntegratedHessians()(model, x)
    torch.testing.assert_close(found.main, (x * model.weight).detach())
    assert (found.values - torch.diag_embed(found.main)).abs().max() == 0


def test_the_model_is_untouched_also_when_interrupted():
    model = SmallCNN()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    calls = 0

    def stop(*_):
        nonlocal calls
        calls += 1
        if calls > 4:
            raise KeyboardInterrupt

    handle = model.act.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        IntegratedHessians(groups=4)(model, torch.rand(1, 1, 8, 8, generator=torch.Generator()))
    handle.remove()
    IntegratedHessians(groups=4, beta=5.0)(model, torch.rand(1, 1, 8, 8, generator=torch.Generator()))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.overrides._get_current_function_mode_stack()
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("method", [ap.IntegratedHessians(nodes=8), ap.InputHessian()], ids=repr)
def test_under_autocast_the_values_keep_the_number_format_of_the_input(method):
    def model(x):
        with torch.autocast("cpu", torch.bfloat16):
            return torch.tanh(x @ torch.ones(3, 2))

    found = method(model, torch.tensor([[0.1, 0.2, 0.3]]), 0)
    assert (found.values.dtype, found.output.dtype) == (torch.float32, torch.bfloat16)


def test_a_linear_convolution_has_no_interactions_and_the_modulus_of_complex_numbers_no_kink():
    weight, x = torch.randn(2, 1, 2, 2).double(), torch.randn(2, 1, 3, 3).double()
    found = IntegratedHessians()(lambda x: F.conv2d(x, weight).mean((2, 3)), x, 0)
    torch.testing.assert_close(found.values, torch.diag_embed(found.attributions))
    assert found.remainder.abs().max() < 1e-12
    spectrum = IntegratedHessians(baseline=0.5)(lambda x: torch.fft.rfft(x.flatten(1)).abs()[:, 1:], x, 0)
    assert spectrum.remainder.abs().max() < 0.01 * spectrum.total.abs().max()
    assert spectrum.notes["smoothed"] == []
