"""What interactions cost as the number of features grows, beside exact and sampled Shapley interactions.

    python studies/interactions_cost.py [--features 5,10,20,50,100,200]

A SoftPlus network of fixed width; Integrated Hessians within 1 % of the total, of all pairs and of one feature against
all. Shapley interactions (`pip install 'apportion[interactions]'`) of all 2ⁿ coalitions as far as that goes, of a
sample of 2048, and of the sparse transform of as many, all within two minutes.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from apportion import InputError, IntegratedHessians, ShapleyInteractions

ALL, SAMPLED, SLOW = 2**12, 150, 120  # coalitions, features, and seconds that go


def cost(method: Any, model: nn.Module, x: torch.Tensor) -> tuple[str, float]:
    try:
        found = method(model, x).cost
    except InputError as error:
        return f"– ({str(error).partition(';')[0]})", 0.0
    return f"{found.forwards + found.backwards} passes, {found.seconds:.3f} s", found.seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", default="5,10,20,50,100,200")
    given = parser.parse_args()
    torch.set_num_threads(1)
    ways: dict[str, Any] = {
        "all pairs": lambda n: IntegratedHessians(),
        "one against all": lambda n: IntegratedHessians(pairs=(0,)),
    }
    if find_spec("shapiq"):
        ways["Shapley, all coalitions"] = lambda n: ShapleyInteractions(budget=2**n) if 2**n <= ALL else None
        ways["Shapley, 2048 sampled"] = lambda n: ShapleyInteractions() if n <= SAMPLED else None
        ways["Shapley, sparse"] = lambda n: ShapleyInteractions(sparse=True) if n >= 50 else None
    print(f"| features | {' | '.join(ways)} |\n|---:{'|---' * len(ways)}|")
    late: set[str] = set()
    begun: set[str] = set()
    for features in map(int, given.features.split(",")):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(features, 64), nn.Softplus(), nn.Linear(64, 1))
        x, cells = torch.randn(1, features), []
        for name, made in ways.items():
            method = None if name in late else made(features)
            if method is None:
                cells.append(
                    f"{2.0**features:.0e} passes" if "all" in name.split(",")[-1] and "S" in name else "–"
                )
                continue
            if name not in begun:
                method(model, x)  # the first call of a process takes longer
                begun.add(name)
            said, seconds = cost(method, model, x)
            late |= {name} if seconds > SLOW else set()
            cells.append(said)
        print(f"| {features} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
