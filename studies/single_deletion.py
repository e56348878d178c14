"""In-domain single deletion scores on MNIST: two models, the digits network that ships and a linear one.

    python studies/single_deletion.py DATA [--train 2000] [--test 200] [--epochs 3]

Each model is trained on with single squares of 7 × 7 pixels hidden, from two seeds, and explained before and after.
DATA holds the idx files of MNIST.
"""

from __future__ import annotations

import argparse
import gzip
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.evaluation.reference_maps import RandomMap
from apportion.results.scores import Scores

METHODS = {
    "LRP": ap.LRP(),
    "LRP-γ": ap.LRP("epsilon-gamma-box"),
    "Integrated Gradients": ap.IntegratedGradients(nodes=16, max_nodes=16),
    "input × gradient": ap.InputXGradient(),
    "saliency": ap.Saliency(),
    "Grad-CAM": ap.GradCAM(),
    "random": RandomMap(),
}


def mnist(data: Path, part: str, many: int) -> tuple[Tensor, Tensor]:
    """Pictures in [0, 1], (many, 1, 28, 28), and their classes."""

    def read(what: str, skipped: int) -> np.ndarray:
        path = next(path for path in data.rglob("mnist*") if part in path.name and what in path.name)
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rb") as file:
            return np.frombuffer(file.read(), np.uint8, offset=skipped)

    labels = read("labels", 8)
    chosen = np.random.default_rng(0).permutation(len(labels))[:many]
    pictures = read("images", 16).reshape(-1, 1, 28, 28)[chosen]
    return torch.from_numpy(pictures).float() / 255, torch.from_numpy(labels[chosen].astype(np.int64))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    x, labels = mnist(given.data, "train", given.train)
    test, right = mnist(given.data, "t10k", given.test)
    single = ap.SingleDeletion(partition=ap.Patches(7), replacement=ap.Constant(0))
    digits = ap.load("digits").model
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    columns: dict[str, dict[str, Scores]] = {}
    for name, model, rate in (("digits", digits, 1e-4), ("linear", linear, 1e-3)):
        after = {
            f"{name}, trained on, seed {seed}": ap.IDSDS(single, given.epochs, rate=rate, seed=seed).trained(
                model, x, labels
            )
            for seed in (0, 1)
        }
        for title, made in ({f"{name}, as it is": model} | after).items():
            with torch.no_grad():
                accuracy = float((made(test).argmax(1) == right).double().mean())
            head = f"{title} ({accuracy:.1%} right)"
            columns[head] = {}
            for method, how in METHODS.items():
                if method != "Grad-CAM" or name == "digits":
                    columns[head][method] = single(made, test, how(made, test, right), target=right)
    print(f"| | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for method in METHODS:
        cells = []
        for found in columns.values():
            scores = found.get(method)
            low, high = (0.0, 0.0) if scores is None else scores.interval()
            cells.append("–" if scores is None else f"{scores.mean:.3f} [{low:.3f}, {high:.3f}]")
        print(f"| {method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
