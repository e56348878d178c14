"""What Integrated Gradients costs on a transformer: where the path begins, and how its nodes are placed.

    python studies/paths_text.py DATA_FOLDER [--many 50] [--few 15]

DATA_FOLDER as for `training/train_sentiment.py`; needs `sentiment-transformer`. Test sentences are drawn, and each is
explained to within 1 % of its total, from masked words; the first few also from other baselines, and with all nodes
doubled instead.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from statistics import median

import torch

import apportion as ap

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from train_sentiment import read_trees

TOLERANCE = 0.01


def share(found: ap.Explanation) -> float:
    return float((found.remainder / found.total).abs()[0])


def doubled(classifier: ap.Classifier, text: str) -> tuple[int, float]:
    """Backward passes and |remainder| over |total| where all nodes are doubled until that is small."""
    passes = 0
    for nodes in (8, 16, 32, 64, 128, 256, 512):
        found = ap.explain(classifier, text, method=ap.IntegratedGradients(nodes=nodes))
        passes += nodes
        if share(found) <= TOLERANCE:
            break
    return passes, share(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data_folder", type=Path)
    parser.add_argument("--many", type=int, default=50)
    parser.add_argument("--few", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    classifier = ap.load("sentiment-transformer")
    texts = [tree[-1][0] for tree in read_trees(given.data_folder, "test") if tree[-1][1] != 2]
    texts = random.Random(given.seed).sample(texts, given.many)
    found: dict[str, list[tuple[int, float]]] = {}
    for number, text in enumerate(texts):
        for name in ("mask", "mean", "zero") if number < given.few else ("mask",):
            one = ap.explain(classifier, text, method=ap.IntegratedGradients(baseline=name))
            found.setdefault(name, []).append((one.cost.backwards, share(one)))
        if number < given.few:
            found.setdefault("mask, nodes doubled", []).append(doubled(classifier, text))
    print(
        "| begins at | sentences | passes back, median | 90 % | most | abs. remainder / total, median | most |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, each in found.items():
        passes, shares = (sorted(column) for column in zip(*each, strict=True))
        cost = f"{median(passes):g} | {passes[int(0.9 * (len(passes) - 1))]} | {passes[-1]}"
        print(f"| {name} | {len(each)} | {cost} | {median(shares):.4f} | {shares[-1]:.4f} |")


if __name__ == "__main__":
    main()
