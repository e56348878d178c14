"""XOR: what Integrated Gradients cannot tell apart, Integrated Hessians can (Janizek et al. 2020).

    python studies/interactions_xor.py

A small ReLU network learns XOR of two inputs. At (1, 1) the score is as at (0, 0), so first-order values must
sum to nothing, and say nothing of why. The interaction is negative; how strong it is depends on β and on the
network, which is printed too.
"""

from __future__ import annotations

import torch
from torch import nn

from apportion import IntegratedGradients, IntegratedHessians

POINTS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def train(seed: int) -> nn.Module | None:
    """A network that computes XOR at the four points, or None where training was caught elsewhere."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
    goal = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(1500):
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(model(POINTS), goal)
        loss.backward()
        optimiser.step()
    return model.eval() if loss.item() < 1e-3 else None


if __name__ == "__main__":
    torch.set_num_threads(1)
    models = [m for m in map(train, range(10)) if m is not None]
    print(f"{len(models)} of 10 networks learned XOR; all figures at (1, 1) from the baseline (0, 0)")
    on = POINTS[3:]
    largest = max(float(IntegratedGradients(tolerance=1e-3)(m, on).values.abs().max()) for m in models)
    plain = [IntegratedHessians(smooth=False)(m, on) for m in models]
    print(f"Integrated Gradients: two values that cancel, at most {largest:.2f} in size")
    print(
        "no smoothing:   interaction "
        f"{max(float(p.values[0, 0, 1].abs()) for p in plain):.2f}, |remainder| up to "
        f"{max(float(p.remainder.abs()) for p in plain):.2f}: a ReLU has no second derivative"
    )
    for beta in (5.0, 10.0, 20.0, 50.0, 100.0):
        found = [IntegratedHessians(beta=beta)(m, on) for m in models]
        pairs = torch.tensor([float(2 * f.values[0, 0, 1]) for f in found])
        left = max(float(f.remainder.abs()) for f in found)
        print(
            f"beta {beta:5g}:    interaction {pairs.mean():+.2f} ({pairs.min():+.2f} to {pairs.max():+.2f}), "
            f"|remainder| up to {left:.2f}"
        )
