"""Interactions that are known by construction: who finds them, who removes the right ones, and at what cost.

    python studies/interactions_known.py [--samples 60]

The label is a sum of products of some pairs of 12 features among many others, times a random weight.
Detection is the area under the ROC curve of |interaction| for "this pair is in the formula".
Remove-and-retrain: the strongest tenth of the interactions of each method is taken out of the training
targets, as far as they are products of the two inputs, a new network is trained, and its error on the true
target says how much was taken away.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch import Tensor, nn

from apportion import InputError, InputHessian, IntegratedHessians, ShapleyInteractions

FEATURES, PAIRS = 12, 8


def truth(seed: int) -> tuple[Tensor, Tensor]:
    """The (features, features) upper triangular weights of the formula, and which pairs are in it."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.triu_indices(FEATURES, FEATURES, 1)
    chosen = torch.randperm(len(first), generator=generator)[:PAIRS]
    weight = torch.zeros(FEATURES, FEATURES)
    weight[first[chosen], second[chosen]] = torch.randn(PAIRS, generator=generator).sign() * (
        0.5 + torch.rand(PAIRS, generator=generator)
    )
    return weight, weight != 0


def label(x: Tensor, weight: Tensor) -> Tensor:
    return ((x @ weight) * x).sum(1, keepdim=True)


def train(x: Tensor, y: Tensor, seed: int, act: type[nn.Module] = nn.ReLU) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(FEATURES, 64), act(), nn.Linear(64, 64), act(), nn.Linear(64, 1))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(1500):
        rows = torch.randint(len(x), (256,))
        optimiser.zero_grad()
        nn.functional.mse_loss(model(x[rows]), y[rows]).backward()
        optimiser.step()
    return model.eval().requires_grad_(False)


def detection(strength: Tensor, wanted: Tensor) -> float:
    """Area under the ROC curve."""
    first, second = torch.triu_indices(FEATURES, FEATURES, 1)
    score, real = strength[first, second], wanted[first, second]
    difference = score[real][:, None] - score[~real]
    return float(((difference > 0).double() + 0.5 * (difference == 0)).mean())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    methods: dict[str, Any] = {
        "IntegratedHessians": IntegratedHessians(),
        "IntegratedHessians, beta=10": IntegratedHessians(beta=10.0),
        "InputHessian, beta=10": InputHessian(),
        "ShapleyInteractions, 512 passes": ShapleyInteractions(budget=512),
        "random": None,
    }
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in methods}
    for seed in range(given.seeds):
        weight, wanted = truth(seed)
        x, fresh = torch.randn(8000, FEATURES), torch.randn(4000, FEATURES)
        y, goal = label(x, weight), label(fresh, weight)
        model = train(x, y, seed)
        print(
            f"seed {seed}: R² {1 - float((model(fresh) - goal).square().mean() / goal.var()):.3f}", flush=True
        )
        for name, method in methods.items():
            start = time.perf_counter()
            try:
                found = None if method is None else method(model, fresh[: given.samples]).values.abs().mean(0)
            except InputError as error:
                print(f"{name}: left out ({error})")
                continue
            seconds = (time.perf_counter() - start) / given.samples
            strength = torch.rand(FEATURES, FEATURES) if found is None else found
            first, second = torch.triu_indices(FEATURES, FEATURES, 1)
            strongest = strength[first, second].argsort(descending=True)[: len(first) // 10]
            without = weight.clone()
            without[first[strongest], second[strongest]] = 0
            again = train(x, label(x, without), seed + 100)
            harm = float((again(fresh) - goal).square().mean() / goal.var())
            rows[name].append((detection(strength, wanted), harm, seconds))
    print(f"\n{'method':34}{'detection AUC':>15}{'error after removal':>22}{'s a sample':>12}")
    for name, found_rows in rows.items():
        if found_rows:
            auc, harm, seconds = torch.tensor(found_rows).mean(0).tolist()
            print(f"{name:34}{auc:15.3f}{harm:22.3f}{seconds:12.4f}")
