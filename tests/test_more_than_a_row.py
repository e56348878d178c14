"""Models whose scores are not a function of one row: they draw numbers, keep something from call to call, or look at
the other rows of the batch. What a method can know of that without another pass it tells; what it cannot is
declared."""

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
from apportion.core.registry import from_repr
from apportion.core.target import Contrast
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
    return lambda scores: scores * (1 + 0.3 * draw())


def counting() -> Callable[[Tensor], Tensor]:
    calls: list[int] = []

    def change(scores: Tensor) -> Tensor:
        calls.append(len(scores))
        return scores * (1 + 0.1 * len(calls))

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

# Methods that meet no input twice, so that they know no two scores which must agree. Of those with a total the
# remainder says what the values miss.
ONE_PASS = "it runs the input once"
NO_PAIR = "it runs the input once, and other points, of which it meets none twice"
CANNOT_KNOW = {
    **dict.fromkeys(
        ("saliency", "inputxgradient", "lrp", "guidedbackprop", "deconvnet", "attention"), ONE_PASS
    ),
    **dict.fromkeys(("gradcam", "gradcamplusplus", "layercam"), ONE_PASS),
    **dict.fromkeys(("smoothgrad", "vargrad", "occlusion", "rise"), NO_PAIR),
}
# What these draw or keep is the same for the one pass at the inputs and the one pass beside them.
CANNOT_SEE_THE_BATCH = {"inputhessian": "both of its passes run the whole batch"}

TOLD = ("differently each time", "not within tolerance", "add up to", "is in the remainder")
TO_THE_END = {"ig": "IntegratedGradients(max_nodes=16)", "ih": "IntegratedHessians(max_nodes=20)"}


def network_for(name: str) -> tuple[str, nn.Module, Any]:
    """A model that the method can explain, smooth where that is enough, and its inputs."""
    model = suited(name, "mlp", "cnn")
    network, inputs = small.SMALL[model]()
    if model == "mlp":
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(inputs.shape[1], 8), nn.Tanh(), nn.Linear(8, 3)).to(inputs.dtype)
    return model, network, inputs


def explained(name: str, change: Callable[[Tensor], Tensor]) -> Any:
    model, network, inputs = network_for(name)
    wanted = from_repr(TO_THE_END[name]) if name in TO_THE_END else method(name, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return wanted(Unsteady(network, change).eval(), inputs, Contrast(0, 1) if name == "taylor" else 1)


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
    told = [warning for warning in found.warnings if any(text in warning for text in TOLD)]
    blind = name in CANNOT_KNOW or (kind == "batch" and name in CANNOT_SEE_THE_BATCH)
    assert bool(told) != blind, found.warnings
    if found.total is not None and blind:
        assert bool((found.remainder.abs() > 1e-3).any())


@every_method
def test_a_model_of_one_row_is_told_nothing(name: str) -> None:
    found = explained(name, lambda scores: scores)
    assert not [
        w for w in found.warnings if "differently each time" in w or "drew random" in w or "statistics" in w
    ]


def test_texts_of_other_lengths_are_whole_under_some_masks() -> None:
    """A mask that hides the fifth token hides nothing of a text of two: it is scored as it was."""
    ids = {"input_ids": torch.tensor([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0]])}
    ids["attention_mask"] = (ids["input_ids"] > 0).long()
    calls: list[int] = []

    def model(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        calls.append(1)
        return (input_ids * attention_mask).sum(1).double() + len(calls)

    with pytest.warns(UserWarning, match="such as 14 and then 20"):
        ap.Occlusion(chunk=2)(model, ids)


def test_samples_with_one_start_have_one_score_there() -> None:
    """Nodes of a graph as rows: what the third says depends on its neighbours, not on itself alone."""
    neighbours = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])

    def graph(x: Tensor) -> Tensor:
        return (neighbours @ (x + 1))[: len(x)].sum(1)

    found = ap.IntegratedGradients(nodes=1, chunk=3)
    with pytest.warns(UserWarning, match="such as 4 and then 2"):
        found(graph, torch.ones(3, 2))


@pytest.mark.parametrize("rule", ["trapezoid", "riemann"])
def test_nodes_at_an_end_are_compared_with_it(rule: str) -> None:
    calls: list[int] = []

    def model(x: Tensor) -> Tensor:
        calls.append(1)
        return x.sum(1) + len(calls)

    with pytest.warns(UserWarning, match="such as (2 and then 3|3 and then 5)"):
        ap.IntegratedGradients(nodes=3, rule=rule)(model, torch.ones(1, 2))


def test_the_states_of_numpy_and_python_are_put_back_between_passes() -> None:
    """So that each pass draws the same, and the values are those of one function."""

    def model(x: Tensor) -> Tensor:
        return x.sum(1) * (1 + np.random.random() + random.random())

    np.random.seed(3)
    random.seed(3)
    factor = 1 + np.random.random() + random.random()
    np.random.seed(3)
    random.seed(3)
    with pytest.warns(UserWarning, match="drew random numbers"):
        found = ap.Occlusion(chunk=1)(model, torch.ones(2, 3, dtype=torch.float64))
    torch.testing.assert_close(found.values, torch.full((2, 3), factor, dtype=torch.float64))


class Standardised(nn.Linear):
    """A layer whose weights are standardised by a batch norm, as in BiT (Kolesnikov et al. 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        weight = nn.functional.batch_norm(self.weight[None], None, None, training=True)
        return nn.functional.linear(x, weight[0], self.bias)


@pytest.mark.parametrize("name", ["saliency", "lrp", "deeplift", "ig", "occlusion", "kernelshap"])
def test_a_batch_norm_of_weights_is_none_of_the_batch(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Standardised(4, 5), nn.Tanh(), nn.Linear(5, 2)).double().eval()
    found = from_repr(name)(model, torch.randn(3, 4, dtype=torch.float64), 1)
    assert not [told for told in found.warnings if "batch norm" in told]
