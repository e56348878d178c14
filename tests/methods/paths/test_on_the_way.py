"""Conductance, internal influence, mean gradients, and what passes through one neuron, against their definitions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import apportion as ap
import small


class Split(nn.Module):
    """Two branches side by side, of which only the first has a name that is asked for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b, self.head = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 2)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.a(x).tanh() * self.b(x).sigmoid())


def rows(many: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(many, 6, dtype=torch.float64), torch.randn(many, 6, dtype=torch.float64)


def written_out(
    model: nn.Sequential, upto: int, x: Tensor, start: Tensor, cells: int
) -> tuple[Tensor, Tensor]:
    """`∫ ∂f/∂y dy` and `∫ ∂f/∂y dα` of what the first layers return, cell by cell at the middle of each."""
    conductance = influence = torch.zeros(())
    for i in range(cells):
        y = model[:upto](torch.lerp(start, x, (i + 0.5) / cells)).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model[upto:](y)[:, 1].sum(), y)
        ends = [model[:upto](torch.lerp(start, x, (i + end) / cells)) for end in (0, 1)]
        conductance = conductance + gradient * (ends[1] - ends[0]).detach()
        influence = influence + gradient / cells
    return conductance, influence


def test_conductance_is_its_definition_and_adds_up_at_every_layer() -> None:
    model, (x, start) = small.perceptron().double(), rows()
    total = (model(x) - model(start))[:, 1].detach()
    for layer in range(4):
        method = ap.IntegratedGradients(at=str(layer), path="inputs", max_nodes=4096, tolerance=1e-3)
        found = method(model, x, 1, baseline=start)
        torch.testing.assert_close(found.total, total)
        torch.testing.assert_close(found.apportioned, total, rtol=2e-3, atol=1e-6)
        assert not found.warnings
        wanted, _ = written_out(model, layer + 1, x, start, 400)
        torch.testing.assert_close(found.values, wanted, rtol=1e-2, atol=2e-3)


def test_conductance_of_a_linear_head_is_its_weights_times_the_change() -> None:
    """f = w · y, so that ∂f/∂y is w everywhere: w (y(x) − y(x′)), whatever y does on the way and with any nodes."""
    model, (x, start) = small.perceptron().double(), rows()
    found = ap.IntegratedGradients(at="3", path="inputs", nodes=1)(model, x, 1, baseline=start)
    wanted = model[4].weight[1] * (model[:4](x) - model[:4](start))
    torch.testing.assert_close(found.values, wanted.detach())


def test_internal_influence_is_its_definition() -> None:
    model, (x, start) = small.perceptron().double(), rows()
    method = ap.IntegratedGradients(
        at="1", path="inputs", nodes=60, rule="midpoint", multiply_by_inputs=False
    )
    found = method(model, x, 1, baseline=start)
    torch.testing.assert_close(found.values, written_out(model, 2, x, start, 60)[1])
    assert found.total is None


def test_the_conductance_of_token_models_goes_along_the_embeddings() -> None:
    model, ids = small.lstm()
    found = ap.IntegratedGradients(at="lstm", path="inputs", tolerance=1e-3)(model, ids, 1)
    assert found.values.shape == model.lstm(model.embedding(ids))[0].shape
    whole = ap.IntegratedGradients(tolerance=1e-3)(model, ids, 1)
    torch.testing.assert_close(found.total, whole.total)
    torch.testing.assert_close(found.apportioned, whole.apportioned, rtol=5e-3, atol=1e-3)


def test_what_passes_beside_a_layer_is_in_the_remainder_and_no_node_is_wasted_on_it() -> None:
    model = Split()
    x = torch.randn(2, 4, dtype=torch.float64)
    alone = ap.IntegratedGradients(at="a", path="inputs", tolerance=1e-3)(model, x, 1)
    assert alone.notes["nodes"] < 512
    assert not alone.warnings
    both = ap.IntegratedGradients(at=["a", "b"], path="inputs", tolerance=1e-3)(model, x, 1)
    torch.testing.assert_close(both.values["a"], alone.values, rtol=1e-2, atol=1e-4)
    torch.testing.assert_close(both.apportioned, both.total, rtol=1e-2, atol=1e-4)


def test_layers_on_one_way_each_add_up_by_themselves() -> None:
    model, (x, start) = small.perceptron().double(), rows()
    found = ap.IntegratedGradients(at=["1", "3"], path="inputs", tolerance=1e-4)(model, x, 1, baseline=start)
    assert found.total is None
    assert "'3' is computed from another" in found.warnings[-1]
    total = (model(x) - model(start))[:, 1].detach()
    for values in found.values.values():
        torch.testing.assert_close(values.sum(1), total, rtol=1e-2, atol=1e-3)


def test_what_passes_through_all_neurons_of_a_layer_is_everything() -> None:
    model, (x, start) = small.perceptron().double(), rows()
    layer = ap.IntegratedGradients(at="1", path="inputs", nodes=200)(model, x, 1, baseline=start)
    each = [
        ap.IntegratedGradients(through=ap.Neuron("1", i), nodes=200)(model, x, 1, baseline=start)
        for i in range(8)
    ]
    assert all(one.total is None for one in each)
    whole = ap.IntegratedGradients(nodes=200)(model, x, 1, baseline=start)
    torch.testing.assert_close(torch.stack([one.values for one in each]).sum(0), whole.values)
    # And the sum of one over the inputs is the conductance of that neuron.
    sums = torch.stack([one.values.sum(1) for one in each], 1)
    torch.testing.assert_close(sums, layer.values, rtol=1e-2, atol=1e-3)


def test_mean_gradients_are_those_of_the_path() -> None:
    """f = x₀² x₁: the mean of (2 x₀ x₁, x₀²) over α x is (2/3 x₀ x₁, 1/3 x₀²)."""
    x = torch.tensor([[2.0, 3.0]], dtype=torch.float64)
    found = ap.IntegratedGradients(multiply_by_inputs=False)(lambda x: (x[:, 0] ** 2 * x[:, 1])[:, None], x)
    torch.testing.assert_close(found.values, torch.tensor([[4.0, 4 / 3]], dtype=torch.float64))
    assert found.total is None


def test_multipliers_are_slopes_between_the_reference_and_the_input() -> None:
    """y = tanh(2 x): DeepLIFT's multiplier is (y − y′) / (x − x′)."""
    x, start = torch.tensor([[0.7]], dtype=torch.float64), torch.tensor([[-0.4]], dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        return (2 * x).tanh()

    found = ap.DeepLIFT(multiply_by_inputs=False)(model, x, baseline=start)
    torch.testing.assert_close(found.values, (model(x) - model(start)) / (x - start))
    assert found.total is None


def test_many_baselines_at_a_layer_are_the_mean_over_them() -> None:
    model, (x, _) = small.perceptron().double(), rows()
    data = torch.randn(4, 6, dtype=torch.float64)
    for method in (
        ap.DeepLIFT(at="1"),
        ap.DeepLIFT(at="1", multiply_by_inputs=False),
        ap.IntegratedGradients(at="1", nodes=30),
        ap.IntegratedGradients(at="1", path="inputs", nodes=30),
        ap.IntegratedGradients(at="1", path="inputs", nodes=30, multiply_by_inputs=False),
    ):
        together = method(model, x, 1, baseline=data[:, None])
        each = [method(model, x, 1, baseline=one[None]).values for one in data]
        torch.testing.assert_close(together.values, torch.stack(each).mean(0))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"path": "inputs"}, "path is 'inputs', but at names no layer"),
        ({"path": "input", "at": "1"}, "path is 'input'; accepted: 'layer', 'inputs'"),
        ({"through": "1"}, "through is '1'; accepted: a Neuron, or None"),
        ({"through": ap.Neuron("1", 0), "at": "1"}, "through and at are both given"),
    ],
)
def test_settings_that_make_no_path_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ap.InputError, match=said):
        ap.IntegratedGradients(**settings)


def test_settings_that_came_later_are_told_only_where_they_are_set() -> None:
    from apportion.core.registry import from_repr

    for method in (ap.IntegratedGradients(), ap.DeepLIFT(), ap.KernelSHAP()):
        assert "multiply" not in repr(method)
        assert "link" not in repr(method)
        assert from_repr(repr(method)) == method
    for method in (
        ap.IntegratedGradients(at="1", path="inputs", multiply_by_inputs=False),
        ap.IntegratedGradients(through=ap.Neuron("1", (0, 2))),
        ap.KernelSHAP(link="logit"),
    ):
        assert from_repr(repr(method)) == method
