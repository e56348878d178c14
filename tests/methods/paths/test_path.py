"""Integrated Gradients against closed forms, its axioms, and Captum."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import apportion as ap
from apportion.errors import InputError
from apportion.methods.paths.integrated_gradients import IntegratedGradients
from small import Words


def mlp(inputs=6, classes=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 16), nn.Softplus(), nn.Linear(16, classes)).double()


def batch(rows=4, inputs=6, seed=1):
    return torch.randn(rows, inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3), st.lists(st.floats(-3, 3), min_size=3, max_size=3))
@settings(max_examples=25, deadline=None)
def test_quadratics_have_a_closed_form(x, start):
    # f = xᵀ A x / 2: the mean gradient is that of the midpoint, exact for two Gauss nodes.
    matrix = torch.tensor([[2.0, 1.0, 0.0], [1.0, -1.0, 3.0], [0.0, 3.0, 0.5]], dtype=torch.float64)
    x, start = (torch.tensor([v], dtype=torch.float64) for v in (x, start))
    found = IntegratedGradients(nodes=2)(lambda t: ((t @ matrix) * t).sum(1) / 2, x, baseline=start)
    torch.testing.assert_close(found.values, (x - start) * ((x + start) / 2 @ matrix), atol=1e-9, rtol=1e-9)
    assert found.remainder.abs() < 1e-9


@pytest.mark.parametrize("rule", ["midpoint", "riemann", "trapezoid"])
def test_the_other_rules_converge_to_the_same(rule):
    model, x = mlp(), batch()
    exact = IntegratedGradients(nodes=40)(model, x, target=0).values
    found = IntegratedGradients(rule=rule, nodes=400)(model, x, target=0).values
    torch.testing.assert_close(found, exact, atol=5e-3, rtol=0)


def test_against_captum():
    captum = pytest.importorskip("captum.attr")
    model, x, start = mlp(), batch(), batch(seed=2)
    theirs = captum.IntegratedGradients(model).attribute(
        x, start, target=1, n_steps=32, method="gausslegendre"
    )
    mine = IntegratedGradients(nodes=32)(model, x, target=1, baseline=start)
    torch.testing.assert_close(mine.values, theirs, atol=1e-8, rtol=0)


def test_several_baselines_are_the_mean_over_each():
    model, x, starts = mlp(), batch(), batch(5, seed=2)
    several = IntegratedGradients(nodes=16)(model, x, target=1, baseline=starts[:, None])
    each = [IntegratedGradients(nodes=16)(model, x, target=1, baseline=start) for start in starts]
    torch.testing.assert_close(several.values, sum(e.values for e in each) / 5)
    torch.testing.assert_close(several.total, sum(e.total for e in each) / 5)
    assert several.notes["baselines"] == 5
    assert several.remainder.abs().max() < 1e-9


def test_nodes_are_added_until_the_remainder_is_small():
    def steep(x):
        return torch.tanh(8 * x.sum(1, keepdim=True))

    x = torch.full((1, 4), 0.7, dtype=torch.float64)
    rough = IntegratedGradients(nodes=8)(steep, x)
    fine = IntegratedGradients(tolerance=1e-4)(steep, x)
    assert rough.remainder.abs() > 1e-4 * rough.total.abs() > fine.remainder.abs()
    assert fine.notes["nodes"] > 8
    assert not fine.warnings
    short = IntegratedGradients(tolerance=1e-9, max_nodes=12)(steep, x)
    assert "not within tolerance after max_nodes=12" in short.warnings[0]


@pytest.mark.parametrize("method", [IntegratedGradients, ap.IntegratedHessians])
def test_a_number_format_that_is_too_coarse_is_said(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    x = batch(32).float()
    found = method()(model.bfloat16(), x.bfloat16(), target=0)
    apart = (found.remainder.abs() > 2e-2 * found.total.abs()).nonzero().flatten().tolist()
    assert apart
    assert "not within tolerance in torch.bfloat16" in found.warnings[0]
    assert not method()(model.float(), x, target=0).warnings


def test_a_total_of_zero_converges():
    x = torch.tensor([[1.0, 1.0]])
    found = IntegratedGradients()(lambda t: (t[:, 0] * (1 - t[:, 1]))[:, None], x)  # f(x) = f(0) = 0
    assert not found.warnings
    assert found.remainder.abs() < 1e-4


@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_chunk_changes_memory_only(chunk):
    model, x, starts = mlp(), batch(), batch(3, seed=2)[:, None]
    whole = IntegratedGradients()(model, x, target=1, baseline=starts)
    parts = IntegratedGradients(chunk=chunk)(model, x, target=1, baseline=starts)
    torch.testing.assert_close(parts.values, whole.values)


def test_token_ids_with_token_id_and_embedding_baselines():
    model, ids = Words().eval(), torch.tensor([[1, 2, 3], [4, 5, 6]])
    masked = torch.zeros_like(ids)
    by_id = IntegratedGradients(tolerance=1e-3)(model, ids, target=0, baseline=masked)
    by_row = IntegratedGradients(tolerance=1e-3)(
        model, ids, target=0, baseline=model.embedding.weight[0].detach()
    )
    torch.testing.assert_close(by_id.values, by_row.values)
    torch.testing.assert_close(by_id.total.float(), (model(ids) - model(masked))[:, 0].detach())
    assert by_id.values.shape == ids.shape
    assert by_id.remainder.abs().max() < 2e-3


def test_at_a_layer_the_baseline_passes_through_the_model():
    model, x, start = mlp(), batch(), batch(seed=2)
    inside = IntegratedGradients(at="1", nodes=4)(model, x, target=0, baseline=start)
    # From layer 1 on the model is linear: the attribution is weight times the difference of activations.
    steps = model[:2](x) - model[:2](start)
    torch.testing.assert_close(inside.values, (steps * model[2].weight[0]).detach())
    torch.testing.assert_close(inside.total, (model(x) - model(start))[:, 0].detach())


def test_several_inputs_each_with_a_baseline():
    x, y = batch(2), batch(2, seed=5)
    found = IntegratedGradients(nodes=4)(
        lambda a, b: (a * b).sum(1), (x, y), baseline=(torch.ones(6), torch.zeros(6))
    )
    torch.testing.assert_close(found.total, (x * y).sum(1))
    assert found.remainder.abs().max() < 1e-12
    named = IntegratedGradients(nodes=4)(lambda a, b: (a * b).sum(1), {"a": x, "b": y}, baseline={"a": x})
    assert named.values["a"].abs().max() == 0  # and b, which is not named, stays as it is
    assert named.values["b"].abs().max() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "midpiont"}, "did you mean 'midpoint'"),
        ({"rule": "trapezoid", "nodes": 1}, "at least 2"),
        ({"nodes": 0}, "nodes is 0"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
        ({"chunk": 0}, "chunk is 0"),
        ({"tolerance": "low"}, "tolerance is 'low'"),
        ({"nodes": 2.5}, "nodes is 2.5; accepted: a whole number"),
        ({"chunk": "many"}, "chunk is 'many'; accepted: a whole number"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ap.InputError, match=message):
        IntegratedGradients(**settings)


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (torch.zeros(3, 7), r"baseline has shape \(3, 7\); accepted: \(4, 6\) as the input"),
        (torch.full((6,), torch.nan), "NaN"),
        ({"y": torch.zeros(6)}, "names input 'y'"),
        ((0.0,), "baseline names input 0; the inputs are"),
        ("mean", "baseline is 'mean'; accepted: a finite number, or tensors"),
        ([0.0, 1.0], r"baseline is \[0.0, 1.0\]; accepted"),
        (torch.nan, "baseline is nan; accepted: a finite number"),
        (torch.zeros(0, 4, 6), "accepted"),
    ],
)
def test_bad_baselines(baseline, message):
    with pytest.raises(ap.InputError, match=message):
        IntegratedGradients()(mlp(), batch(), baseline=baseline)


def test_the_model_is_untouched_also_when_interrupted():
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    calls = 0

    def stop(*_):
        nonlocal calls
        calls += 1
        if calls > 2:
            raise KeyboardInterrupt

    handle = model[1].register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        IntegratedGradients(at="0")(model, batch())
    handle.remove()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_a_baseline_is_not_cut_to_the_format_of_the_inputs():
    x = torch.ones(1, 2)
    for baseline in (1e300, torch.tensor([[20240121.0, 0.0]], dtype=torch.float64)):
        with pytest.raises(InputError, match="baseline has numbers"):
            ap.IntegratedGradients(baseline=baseline)(lambda x: x.sum(1), x)
