"""Interactions in tables: a drug pair whose synergy hangs on a gene, and heart disease.

    python studies/interactions_tabular.py [--heart FOLDER] [--pictures FOLDER]

Without data a set is drawn in which two drugs antagonise each other only where a gene is expressed, as in the
paper's study of anti-cancer drugs: the interaction of the drugs must depend on the gene's level. FOLDER may
hold `processed.cleveland.data` of the UCI heart disease set (Detrano et al. 1989), which is not shipped.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import torch
from torch import Tensor, nn

from apportion import IntegratedHessians, Interactions
from apportion.display.pictures import interactions as pictures

COLUMNS = (
    *("age", "sex", "chest pain", "blood pressure", "cholesterol", "sugar", "ecg", "max heart rate"),
    *("exercise angina", "st depression", "st slope", "vessels", "thal"),
)


def train(x: Tensor, y: Tensor, steps: int = 1500, decay: float = 1e-4) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(x.shape[1], 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1)
    )
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=decay)
    classes = bool(((y == 0) | (y == 1)).all())
    loss_of = nn.functional.binary_cross_entropy_with_logits if classes else nn.functional.mse_loss
    for _ in range(steps):
        rows = torch.randint(len(x), (128,))
        optimiser.zero_grad()
        loss_of(model(x[rows]), y[rows]).backward()
        optimiser.step()
    return model.eval()


def drugs(many: int = 6000, genes: int = 6) -> tuple[Tensor, Tensor]:
    """Doses of drugs a and b (0 or 1), and the expression of genes; only gene 0 couples the drugs."""
    torch.manual_seed(0)
    dose, gene = torch.bernoulli(torch.full((many, 2), 0.5)), torch.randn(many, genes)
    effect = (
        dose[:, 0]
        + dose[:, 1]
        + 0.5 * gene[:, 1]
        - 2 * dose[:, 0] * dose[:, 1] * torch.sigmoid(3 * gene[:, 0])
    )
    return torch.cat([dose, gene], 1), (effect + 0.1 * torch.randn(many))[:, None]


def strongest(found: Interactions, k: int = 6) -> None:
    mean = found.values.abs().mean(0)
    first, second = torch.triu_indices(len(mean), len(mean), 1)
    order = mean[first, second].argsort(descending=True)[:k].tolist()
    names = found.names_of(0)
    for i in order:
        a, b = int(first[i]), int(second[i])
        print(f"    {names[a]} · {names[b]}: mean |interaction| {2 * float(mean[a, b]):.3f}")


def save(ax: object, folder: Path | None, name: str) -> None:
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        ax.figure.savefig(folder / name, dpi=120)  # type: ignore[attr-defined]


def heart(folder: Path) -> tuple[Tensor, Tensor]:
    found = next((p for p in sorted(folder.iterdir()) if "cleveland" in p.name), None)
    if found is None:
        raise SystemExit(f"no file with 'cleveland' in its name in {folder}")
    text = (gzip.decompress(found.read_bytes()) if found.suffix == ".gz" else found.read_bytes()).decode()
    lines = [line for line in text.splitlines() if line[:1].isdigit() and "?" not in line]
    whole = [[float(v) for v in line.split(",")] for line in lines]
    table = torch.tensor(whole)
    return (table[:, :13] - table[:, :13].mean(0)) / table[:, :13].std(0), (table[:, 13:] > 0).float()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--heart", type=Path)
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    x, y = drugs()
    model = train(x[:5000], y[:5000]).requires_grad_(False)
    rest = x[5000:]
    both = rest[(rest[:, 0] == 1) & (rest[:, 1] == 1)][:120]
    names = ["drug a", "drug b", *(f"gene {i}" for i in range(x.shape[1] - 2))]
    # One sharpness for all: the size of an interaction depends on it.
    found = IntegratedHessians(beta=20.0)(model, both).named(names)
    pair = 2 * found.values[:, 0, 1]
    level = both[:, 2]
    print(
        f"drugs: R² {1 - float((model(rest) - y[5000:]).square().mean() / y[5000:].var()):.3f}, {found.cost}"
    )
    print(f"    smoothing moved the total by at most {float(found.smoothing.abs().max()):.2f}")
    for i in range(x.shape[1] - 2):
        slope = float(torch.corrcoef(torch.stack([pair, both[:, 2 + i]]))[0, 1])
        print(f"    correlation of the drugs' interaction with gene {i}: {slope:+.2f}")
    low, high = pair[level < -0.5].mean(), pair[level > 0.5].mean()
    print(f"    mean interaction {low:+.2f} where gene 0 is low, {high:+.2f} where it is high")
    ax = pictures.dependence(found, "drug a", "drug b", level, against_name="expression of gene 0")
    save(ax, given.pictures, "interactions_drugs.png")
    if given.heart:
        x, y = heart(given.heart)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        part = 4 * len(x) // 5
        model = train(x[order[:part]], y[order[:part]], steps=300, decay=0.1).requires_grad_(False)
        rest = x[order[part:]]
        right = ((model(rest) > 0) == (y[order[part:]] > 0.5)).float().mean()
        found = IntegratedHessians(beta=20.0)(model, rest, baseline=x[order[:5]][:, None]).named(COLUMNS)
        print(f"heart disease: {right:.0%} right on {len(rest)} patients; {found.cost}")
        strongest(found)
        save(pictures.ring(found), given.pictures, "interactions_heart.png")
