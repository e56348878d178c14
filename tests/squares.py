"""Small pictures of three classes, and networks for them, with which ProtoPNet is tested."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

import apportion as ap
from apportion.domains.image import ImagePreparation
from apportion.models.prototypes.settings import LastLayer, Paper

QUICK = Paper(
    width=8, epochs=4, warm_epochs=1, push_from=2, push_every=2, batch=20, last=LastLayer(iterations=50)
)
GREY = ImagePreparation(resize=None, crop=None, mean=(0.0,), std=(1.0,))


def backbone() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(1, 6, 3, stride=2), nn.ReLU())


def data(many: int = 60) -> tuple[Tensor, Tensor]:
    """A bright square somewhere in one of three corners' quarters, with noise."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(many) % 3
    x = 0.2 * torch.rand(many, 1, 12, 12, generator=random)
    for i, label in enumerate(labels.tolist()):
        row, column = 6 * (label // 2) + i % 3, 6 * (label % 2) + i % 2
        x[i, 0, row : row + 3 + label, column : column + 5 - label] += 0.8
    return x, labels


def fitted(recipe: object = "fast", **settings) -> ap.ProtoPNet:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ap.ProtoPNet(backbone(), 3, recipe=recipe, **settings).fit(*data())


def quick() -> ap.ProtoPNet:
    """Not fitted; nothing is pruned, so that nothing is warned of."""
    return ap.ProtoPNet(backbone(), 2, recipe=replace(QUICK, pruning=None))


def state(model: ap.ProtoPNet) -> dict[str, Tensor]:
    return model.net_.state_dict()


def equal(one: ap.ProtoPNet, other: ap.ProtoPNet) -> bool:
    a, b = state(one), state(other)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


X, LABELS = data()


def fast(module: nn.Module | None = None, many: int = 2, **settings) -> ap.ProtoPNet:
    return ap.ProtoPNet(module or backbone(), many, recipe="fast", **settings)


def photos(place: Path) -> Path:
    """A folder with a folder of pictures for each of three classes."""
    x, labels = data(30)
    for i, (image, label) in enumerate(zip(x, labels.tolist(), strict=True)):
        inside = place / "photos" / f"class <{label}>"
        inside.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image[0] * 255).clamp(0, 255).byte().numpy()).save(inside / f"{i:02}.png")
    return place / "photos"
