"""What is explained, and where: neurons, places of dense outputs, inputs of layers, layers with several tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import apportion as ap
import small

METHODS = {
    "saliency": ap.Saliency(),
    "ig": ap.IntegratedGradients(nodes=8),
    "deeplift": ap.DeepLIFT(),
    "lrp": ap.LRP("epsilon"),
    "smoothgrad": ap.SmoothGrad(samples=4),
    "guided": ap.GuidedBackprop(),
    "occlusion": ap.Occlusion(patch=2),
    "kernelshap": ap.KernelSHAP(samples=64, partition=ap.Patches(2)),
    "taylor": ap.Taylor(),
}


def dense() -> nn.Sequential:
    """(batch, 1, 5, 5) to (batch, 3, 5, 5)."""
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1)).double().eval()
    )


def pictures(many: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(many, 1, 5, 5, dtype=torch.float64)


# ---- dense outputs ----


@pytest.mark.parametrize("name", METHODS)
def test_a_class_at_a_place_is_what_a_function_that_reads_it_gives(name: str) -> None:
    model, x, method = dense(), pictures(), METHODS[name]
    found = method(model, x, target=(1, 2, 3))
    if name != "lrp":  # its composite is chosen by the layers, which a function has not
        wanted = method(lambda x: model(x)[:, :, 2, 3], x, target=1)
        torch.testing.assert_close(found.values, wanted.values)
    torch.testing.assert_close(found.output, model(x)[:, :, 2, 3].detach())
    assert found.target.tolist() == [[1, 2, 3]] * 2
    assert found.label() == "class 1 at (2, 3)"


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("form", ["list", "tensor"])
def test_each_sample_may_have_a_place_of_its_own(name: str, form: str) -> None:
    model, x, method = dense(), pictures(3), METHODS[name]
    places = [(1, 2, 3), (0, 0, 4), (2, -1, 1)]
    found = method(model, x, target=places if form == "list" else torch.tensor(places))
    each = [method(model, x[i : i + 1], target=place) for i, place in enumerate(places)]
    torch.testing.assert_close(found.values, torch.cat([one.values for one in each]))


def test_a_tuple_is_one_class_a_sample_where_the_model_returns_classes() -> None:
    model, x = small.perceptron().double(), torch.randn(2, 6, dtype=torch.float64)
    assert ap.Saliency()(model, x, target=(1, 2)).target.tolist() == [1, 2]


def test_a_place_is_kept_in_files_and_by_tests(tmp_path: Any) -> None:
    model, x = dense(), pictures(3)
    places = torch.tensor([(1, 2, 3), (0, 0, 4), (2, 4, 1)])
    found = ap.InputXGradient()(model, x, target=places)
    assert ap.Explanation.load(found.save(tmp_path / "e")) == found
    assert found[1].target.tolist() == [[0, 0, 4]]
    tests = (
        ap.PixelFlipping(partition=ap.Patches(2)), ap.Infidelity(samples=20), ap.RandomLogit(),
        ap.MaxSensitivity(samples=2),
    )  # fmt: skip
    alone = [ap.InputXGradient()(model, x[i : i + 1], target=tuple(p)) for i, p in enumerate(places.tolist())]
    for test in tests:
        each = [test(model, x[i : i + 1], one).values for i, one in enumerate(alone)]
        torch.testing.assert_close(test(model, x, found).values, torch.cat(each))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (None, r"or as the target a class and its place, \(class, row, column\)"),
        (1, r"or as the target a class and its place, \(class, row, column\)"),
        ((1, 2), r"target is \(1, 2\), .*accepted: a class and its place in \(5, 5\)"),
        ((1, 2, 5), r"target is \(1, 2, 5\), .*accepted: a class and its place in \(5, 5\)"),
        ((3, 2, 2), "target is class 3, but the model has 3 classes"),
    ],
)
def test_a_target_that_names_no_place_of_a_dense_output_is_refused(target: Any, said: str) -> None:
    for method in (ap.Saliency(), ap.Occlusion(patch=2)):
        with pytest.raises(ap.InputError, match=said):
            method(dense(), pictures(), target)


# ---- neurons ----


@pytest.mark.parametrize("name", METHODS)
def test_a_neuron_is_the_score_of_the_part_of_the_model_up_to_it(name: str) -> None:
    model, x, method = dense(), pictures(), METHODS[name]
    found = method(model, x, target=ap.Neuron("1", (2, 1, 0)))
    wanted = method(model[:2], x, target=(2, 1, 0))
    torch.testing.assert_close(found.values, wanted.values)
    torch.testing.assert_close(found.output[:, 0], model[:2](x)[:, 2, 1, 0].detach())
    assert found.target == "Neuron(layer='1', index=(2, 1, 0))"


def test_the_neurons_that_a_layer_is_given_and_later_tensors_that_it_returns() -> None:
    model, x = small.lstm()
    embedded = model.embedding(x)
    for place, tensor in (
        ("lstm:input", embedded),
        ("lstm", model.lstm(embedded)[0]),
        ("head:input", model.lstm(embedded)[0].mean(1)),
    ):
        index = (1,) * (tensor.dim() - 1)
        found = ap.InputXGradient()(model, x, target=ap.Neuron(place, index))
        torch.testing.assert_close(found.output, tensor[(slice(None), *index)][:, None].detach())


@pytest.mark.parametrize(
    ("neuron", "said"),
    [
        (ap.Neuron("1", 0), r"index is 0, but layer '1' has shape \(2, 4, 5, 5\)"),
        (ap.Neuron("1", (4, 0, 0)), r"index is \(4, 0, 0\).*accepted: a place in \(4, 5, 5\)"),
        (ap.Neuron("7", 0), "the model has no layer '7'"),
        (ap.Neuron("1:out", 0), "there is no place '1:out'; accepted: the name of a module"),
        (
            ap.Neuron("1:2", (0, 0, 0)),
            "layer '1:2' returns Tensor with 1 floating point tensors; accepted: 1:0 to 1:0",
        ),
    ],
)
def test_a_neuron_that_is_not_there_is_refused(neuron: ap.Neuron, said: str) -> None:
    for method in (ap.Saliency(), ap.Occlusion(patch=2)):
        with pytest.raises(ap.InputError, match=said):
            method(dense(), pictures(), neuron)


def test_a_neuron_of_a_layer_that_is_called_twice_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x))

    with pytest.raises(ap.InputError, match="layer 'layer' was called 2 times"):
        ap.Saliency()(Twice(), torch.ones(1, 2), ap.Neuron("layer", 0))


# ---- places of layers ----


class Mixed(nn.Module):
    """Returns two tensors, which both go on, and takes two."""

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return (a * b).relu(), (a + b).tanh()


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)
        self.mix, self.head = Mixed(), nn.Linear(3, 2)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.mix(self.first(x), b=self.second(x))
        return self.head(one - other)


def test_each_tensor_that_a_layer_returns_or_is_given_has_a_name() -> None:
    """The head is linear: w · one and −w · other; and the layer is (a b)⁺ − tanh(a + b)."""
    model, x = Pair(), torch.randn(2, 4, dtype=torch.float64)
    a, b = model.first(x).detach(), model.second(x).detach()
    weight = model.head.weight[1].detach()
    out = ap.InputXGradient(at=["mix", "mix:1"])(model, x, 1).values
    torch.testing.assert_close(out["mix"], weight * (a * b).relu())
    torch.testing.assert_close(out["mix:1"], -weight * (a + b).tanh())
    given = ap.InputXGradient(at=["mix:input", "mix:input:1"])(model, x, 1).values
    slope = 1 - (a + b).tanh() ** 2
    torch.testing.assert_close(given["mix:input"], a * weight * ((a * b > 0) * b - slope))
    torch.testing.assert_close(given["mix:input:1"], b * weight * ((a * b > 0) * a - slope))


def test_what_a_layer_is_given_is_explained_as_far_as_it_goes_through_the_layer() -> None:
    """x + g(x): of the input of g the residual connection is none."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.g = nn.Linear(3, 3).double(), nn.Linear(3, 3, bias=False).double()

        def forward(self, x: Tensor) -> Tensor:
            y = self.scale(x)
            return y + self.g(y)

    model, x = Residual(), torch.randn(2, 3, dtype=torch.float64)
    y = model.scale(x).detach()
    found = ap.InputXGradient(at="g:input")(model, x, 1).values
    torch.testing.assert_close(found, y * model.g.weight[1].detach())
    path = ap.IntegratedGradients(at="g:input", path="inputs", nodes=3)(model, x, 1).values
    start = model.scale(torch.zeros_like(x)).detach()
    torch.testing.assert_close(path, (y - start) * model.g.weight[1].detach())


@pytest.mark.parametrize(
    "method", [ap.LRP("epsilon", at="2:input"), ap.DeepLIFT(at="2:input"), ap.SmoothGrad(at="2:input")]
)
def test_the_input_of_a_layer_is_the_output_of_the_one_before(method: Any) -> None:
    model, x = dense(), pictures()
    found = method(model, x, target=(1, 2, 3))
    torch.testing.assert_close(found.values, replace(method, at="1")(model, x, target=(1, 2, 3)).values)
