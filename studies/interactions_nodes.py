"""How many Hessians a path needs, by the sharpness β of the SoftPlus: what Theorem 1 of Janizek et al. is about.

    python studies/interactions_nodes.py

A network of three ReLU layers that learned products of its ten inputs is smoothed with each β, and the nodes are
counted that `IntegratedHessians` takes for errors of 10, 1 and 0.1 % of the total: the median of eight samples, and the
most.
"""

from __future__ import annotations

import torch
from torch import nn

import apportion as ap

BETAS = (1.0, 5.0, 10.0, 20.0, 50.0, 100.0)
TOLERANCES = (0.1, 0.01, 0.001)


def learned() -> nn.Module:
    """A network that learned products of pairs, by 300 steps."""
    torch.manual_seed(0)
    x = torch.randn(4000, 10)
    y = (x[:, :5] * x[:, 5:]).sum(1, keepdim=True)
    hidden = [nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    model = nn.Sequential(*hidden, nn.Linear(64, 1))
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(300):
        rows = torch.randint(len(x), (128,))
        optimiser.zero_grad()
        nn.functional.mse_loss(model(x[rows]), y[rows]).backward()
        optimiser.step()
    return model.eval().requires_grad_(False)


def main() -> None:
    torch.set_num_threads(1)
    model, x = learned(), torch.randn(8, 10, generator=torch.Generator().manual_seed(1))
    heads = [f"within {100 * tolerance:g} %" for tolerance in TOLERANCES]
    print(f"| β | {' | '.join(heads)} | smoothing moves the score by |")
    print("|---:" * (len(heads) + 2) + "|")
    for beta in BETAS:
        cells = []
        for tolerance in TOLERANCES:
            method = ap.IntegratedHessians(beta=beta, tolerance=tolerance)
            nodes = sorted(method(model, row[None], 0).notes["nodes"] for row in x)
            cells.append(f"{nodes[len(nodes) // 2]} ({nodes[-1]})")
        moved = (ap.smooth(model, beta=beta)(x) - model(x)).abs().mean()
        print(f"| {beta:g} | {' | '.join(cells)} | {float(moved):.3f} |", flush=True)


if __name__ == "__main__":
    main()
