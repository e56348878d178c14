"""What the suites of other packages expect of small models, derived anew: every number here follows from its comment.

The model adds up its inputs, s = x₀ + x₁ + x₂, and returns (s − 10)⁺ + 3 (s + 1)⁺ − 1, and the same + 1: four neurons,
of which the first is dead until s is 10.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import apportion as ap

FAR = torch.tensor([[0.0, 100.0, 0.0]], dtype=torch.float64)
NEAR = torch.tensor([[20.0, 50.0, 30.0]], dtype=torch.float64)


class Sums(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.same, self.four, self.relu, self.two = (
            nn.Linear(3, 3),
            nn.Linear(3, 4),
            nn.ReLU(),
            nn.Linear(4, 2),
        )
        with torch.no_grad():
            self.same.weight.copy_(torch.eye(3))
            self.same.bias.zero_()
            self.four.weight.fill_(1)
            self.four.bias.copy_(torch.tensor([-10.0, 1, 1, 1]))
            self.two.weight.fill_(1)
            self.two.bias.copy_(torch.tensor([-1.0, 1]))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.relu(self.four(self.same(x))))


def close(found: Any, wanted: list[float], within: float = 1e-9) -> None:
    torch.testing.assert_close(found, torch.tensor([wanted], dtype=torch.float64), rtol=within, atol=within)


FINE: dict[str, Any] = {"nodes": 1000, "rule": "midpoint"}  # a node on each side of α = 0.1, none at it


@pytest.mark.parametrize(
    ("method", "target", "wanted"),
    [
        # s = 100 α: the first neuron counts from α = 0.1 on, so x₁ has 100 (0.9 + 3).
        (ap.IntegratedGradients(**FINE), 0, [0, 390, 0]),
        (ap.IntegratedGradients(**FINE, multiply_by_inputs=False), 0, [3.9, 3.9, 3.9]),
        (ap.IntegratedGradients(**FINE, at="four:input"), 0, [0, 390, 0]),
        # dy of each neuron: from −10 to 90, of which what is above 0, and three times from 1 to 101.
        (ap.IntegratedGradients(**FINE, at="four", path="inputs"), 0, [90, 100, 100, 100]),
        (ap.IntegratedGradients(**FINE, at="relu", path="inputs"), 0, [90, 100, 100, 100]),
        (ap.IntegratedGradients(**FINE, at="same", path="inputs"), 0, [0, 390, 0]),
        (ap.IntegratedGradients(**FINE, at="two", path="inputs"), 0, [390, 0]),
        # ∂f/∂y is 0 for a tenth of the path at the first, and 1 elsewhere.
        (
            ap.IntegratedGradients(**FINE, at="four", path="inputs", multiply_by_inputs=False),
            0,
            [0.9, 1, 1, 1],
        ),
        # Of one neuron: x₁ ∂y/∂x₁ ∂f/∂y, that is 100 · 0.9, or 100.
        (ap.IntegratedGradients(**FINE, through=ap.Neuron("relu", 0)), 0, [0, 90, 0]),
        (ap.IntegratedGradients(**FINE, through=ap.Neuron("relu", 2)), 0, [0, 100, 0]),
        (ap.IntegratedGradients(**FINE), ap.Neuron("relu", 0), [0, 90, 0]),
        # The slope of the first ReLU between −10 and 90 is 90 / 100.
        (ap.DeepLIFT(), 0, [0, 390, 0]),
        (ap.DeepLIFT(multiply_by_inputs=False), 0, [3.9, 3.9, 3.9]),
        # Without a baseline the layer starts at zero, and not at what it returns for zero.
        (ap.DeepLIFT(at="four"), 0, [90, 101, 101, 101]),
        (ap.DeepLIFT(), ap.Neuron("relu", 0), [0, 90, 0]),
        (ap.InputXGradient(at="four:input"), 0, [0, 400, 0]),
    ],
    ids=repr,
)
def test_a_path_through_neurons_of_which_one_is_dead_at_first(
    method: Any, target: Any, wanted: list[float]
) -> None:
    close(method(Sums(), FAR, target).values, wanted)


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        # Each subset but the empty one is worth 4 s − 10 more than nothing: 4 xᵢ, less a third of 10.
        (ap.KernelSHAP(), [80 - 10 / 3, 200 - 10 / 3, 120 - 10 / 3]),
        # Without x₀ and x₁ s is 30: 4 · 70 less, shared by two; without x₂ 4 · 30 less.
        (ap.Occlusion(partition=torch.tensor([0, 0, 1])), [140, 140, 120]),
        # Windows of two: 280 less without x₀ and x₁, 320 less without x₁ and x₂; each half to an entry, and their mean.
        (ap.Occlusion(patch=2, stride=1), [140, 150, 160]),
        # With x₀ = 10 hidden at the least s is 10 or more, where f is 4 s − 8: 4 (xᵢ − bᵢ).
        (
            ap.KernelSHAP(replacement=ap.Background(torch.tensor([[10.0, 0, 0]], dtype=torch.float64))),
            [40, 200, 120],
        ),
    ],
    ids=repr,
)
def test_hidden_sums(method: Any, wanted: list[float]) -> None:
    close(method(Sums(), NEAR, 0).values, wanted)


def test_expected_gradients_over_two_baselines() -> None:
    """From 0, as above; from (0, 50, 0), where the first neuron is alive all the way, 4 · 50: the mean of both."""
    data = torch.tensor([[0.0, 0, 0], [0, 50, 0]], dtype=torch.float64)
    for method, wanted in (
        (ap.IntegratedGradients(**FINE), [0, (390 + 200) / 2, 0]),
        (ap.DeepLIFT(), [0, (390 + 200) / 2, 0]),
        (ap.DeepLIFT(at="four"), [(90 + 50) / 2, 75, 75, 75]),
        (ap.IntegratedGradients(**FINE, at="relu", path="inputs"), [(90 + 50) / 2, 75, 75, 75]),
    ):
        close(method(Sums(), FAR, 0, baseline=data[:, None]).values, wanted)
