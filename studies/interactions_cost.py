"""What interactions cost as the number of features grows.

    python studies/interactions_cost.py

A SoftPlus network of fixed width; Integrated Hessians at 1 % of the total, all pairs and one feature against
all. Exact Shapley interactions would take 2ⁿ forward passes.
"""

from __future__ import annotations

import torch
from torch import nn

from apportion import IntegratedHessians

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"{'features':>9}{'all pairs':>24}{'one against all':>24}{'exact Shapley':>18}")
    for features in (5, 10, 20, 50, 100, 200, 500):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(features, 64), nn.Softplus(), nn.Linear(64, 1))
        x = torch.randn(1, features)
        IntegratedHessians()(model, x)
        every, one = IntegratedHessians()(model, x).cost, IntegratedHessians(pairs=(0,))(model, x).cost
        shown = [f"{c.forwards + c.backwards} passes {c.seconds:.3f} s" for c in (every, one)]
        print(f"{features:9}{shown[0]:>24}{shown[1]:>24}{f'{2.0**features:.3g} passes':>18}")
