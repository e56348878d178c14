"""Draw the pictures of docs/prototypes.md from scikit-learn's digits: `python docs/make_prototypes.py`."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

import apportion as ap

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    x = nn.functional.interpolate(x, size=(32, 32), mode="bilinear")
    order = torch.randperm(len(x))
    train, test = order[:1200], order[1200:]
    backbone = nn.Sequential(
        nn.Conv2d(1, 24, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 48, 3, padding=1), nn.ReLU(),
    )  # fmt: skip
    plain = nn.Sequential(backbone, nn.Flatten(), nn.Linear(48 * 64, 10))
    adam = torch.optim.Adam(plain.parameters(), 2e-3)
    for _ in range(4):
        for rows in train[torch.randperm(len(train))].split(50):
            adam.zero_grad()
            nn.functional.cross_entropy(plain(x[rows]), y[rows]).backward()
            adam.step()
    model = ap.ProtoPNet(backbone, 5, recipe="fast").fit(x[train], y[train])
    print(f"{model.score(x[test], y[test]):.1%} of the test digits")
    three = int((y[test] == 3).nonzero()[0])
    model.reasons(x[test][three], top=4).plot().savefig(IMAGES / "prototypes-reasons.png", dpi=80)
    sets = {"train": (x[train], y[train]), "test": (x[test], y[test])}
    model.gallery(3, 3, **sets).plot().savefig(IMAGES / "prototypes-gallery.png", dpi=60)


if __name__ == "__main__":
    main()
