"""Models, data and settings of the files in this folder: the same numbers on every machine, and nothing drawn.

Only public names are used here, so that the code of any version can run it; `network` is also a factory for
`apportion bulk --model things.py:network`.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

import apportion as ap

REVIEWS = ("A warm and funny movie.", "A painfully dull film!", "not a bad movie at all", "so slow, so loud")
FEW = {"batch": 2, "shard": 3, "table": "jsonl", "progress": False}  # of the runs
STUDY = """\
title: Short reviews
models: sentiment
data:
  - name: short
    texts:
      - a painfully dull film
      - warm and funny
      - not a bad movie at all
methods: [lrp, inputxgradient, gradcam]
tests: [pixel-flipping, deletion-rate]
samples: 2
"""


def numbers(*shape: int, start: int = 0) -> Tensor:
    """Fractions in [0, 1) without an order that shows."""
    whole = (torch.arange(prod(shape)) + start) * 37 % 101
    return whole.reshape(shape) / 101


def weighted(module: nn.Module) -> Any:
    """The module in eval mode, with such numbers for weights."""
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.copy_(numbers(*parameter.shape, start=7 * i) - 0.45)
    return module.eval()


def network() -> Any:
    """(batch, 6) → (batch, 3)"""
    return weighted(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))


def backbone() -> Any:
    """(batch, 1, 12, 12) → (batch, 6, 5, 5)"""
    return weighted(nn.Sequential(nn.Conv2d(1, 6, 3, stride=2), nn.ReLU()))


class Sum(nn.Module):
    """Of two inputs, which may come as a tuple or by name."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = weighted(nn.Linear(4, 2)), weighted(nn.Linear(3, 2))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.a(a).relu() - self.b(b).sigmoid()


def first_minus_last(scores: Tensor) -> Tensor:
    return scores[:, 0] - scores[:, -1]


def squares(many: int = 30) -> tuple[Tensor, Tensor]:
    """(many, 1, 12, 12) pictures of three classes: a bright square in one of three quarters, with noise."""
    x, labels = 0.2 * numbers(many, 1, 12, 12), torch.arange(many) % 3
    for i, label in enumerate(labels.tolist()):
        row, column = 6 * (label // 2) + i % 3, 6 * (label % 2) + i % 2
        x[i, 0, row : row + 3 + label, column : column + 5 - label] += 0.8
    return x, labels


def drawing(i: int) -> Any:
    """A (28, 28) picture of a bar, light on black."""
    picture = torch.zeros(28, 28, dtype=torch.uint8)
    across, begin = slice(4, 24), 5 + 2 * i
    picture[(slice(begin, begin + 2), across) if i % 2 else (across, slice(begin, begin + 2))] = 255
    return picture.numpy()


def coloured(i: int) -> Any:
    """A (40, 40, 3) picture, dark or light."""
    return (numbers(40, 40, 3, start=11 * i) * (120 + 120 * (i % 2))).byte().numpy()


def background() -> Any:
    """Kernel SHAP with data in its settings, which no repr can say."""
    return ap.KernelSHAP(samples=20, replacement=ap.Background(numbers(3, 6, start=5)))


def texts(many: int, start: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """Token ids of texts of 2 to 8 tokens, and whether the word 2 is in them."""
    ids = [3 + (numbers(2 + i % 7, start=start + 13 * i) * 9).long() for i in range(many)]
    for i, text in enumerate(ids[::2]):
        text[i % len(text)] = 2
    return tuple(ids), torch.arange(many).remainder(2).eq(0).long()


def treebank() -> dict[str, list[tuple[list[str], int]]]:
    """Texts of up to eight words, of which one is good or bad."""
    parts = {}
    for place, part in enumerate(("train", "valid", "test")):
        parts[part] = []
        for i in range(40):
            words = [f"w{n}" for n in (numbers(1 + i % 7, start=400 * place + 9 * i) * 30).int().tolist()]
            words.insert(i % len(words), ("bad", "good")[i % 2])
            parts[part].append((words, i % 2))
    return parts


def of_study(settings: type) -> Any:
    """The settings of a study of texts in miniature, of the class of its settings."""
    training = type(settings().training)
    return settings(
        corpora=("sst",),
        training=training(epochs=2, rate=1e-2),
        learner=ap.WeakLearner(4, 4, seeds=(0,), training=training(epochs=2)),
        train=100,
        valid=60,
        test=60,
        few=20,
        steps=200,
    )


def prototypes(recipe: Any) -> Any:
    return ap.ProtoPNet(backbone(), 2, recipe=recipe)


PAPER = {
    "width": 8,
    "epochs": 6,
    "warm_epochs": 1,
    "push_from": 3,
    "push_every": 3,
    "batch": 10,
    "pruning": None,
}
TRAINING = {"epochs": 4, "rate": 2e-2, "batch": 16}
ATTENTION = {"words": 12, "embedding": 6, "hidden": 5, "dropout": 0.0}
ROAR = {"shares": (0.5,), "epochs": 2, "batch": 8, "rate": 1e-2}


def fingerprinted() -> dict[str, Any]:
    """What a run, a method, a target or data can be made of."""
    public = {name: getattr(ap, name) for name in sorted(ap.__all__)}
    classes = {name: value for name, value in public.items() if isinstance(value, type)}
    made = {f"{name}()": value() for name, value in classes.items() if name not in NEEDS_SETTINGS}
    return {
        **classes,
        **made,
        "Background": ap.Background(numbers(3, 6)),
        "Quartiles": ap.Quartiles(numbers(9, 6)),
        "Contrast": ap.Contrast(0, 1),
        "Composite": ap.LRP(ap.Composite(first=ap.Flat(), names=(("head*", ap.Epsilon(0.1)),))),
        "partition and replacement": ap.Occlusion(partition=ap.Words(), replacement=ap.Delete(padding=1)),
        "a method's method": ap.LRP().__call__,
        "smooth": ap.smooth(nn.ReLU()),
        "network": network(),
        **{f"load {name}": ap.load(name) for name in ("sentiment", "imagenet", "digits", "breast-cancer")},
        **{f"encode of {name}": ap.load(name).encode for name in ("sentiment", "digits", "breast-cancer")},
    }


NEEDS_SETTINGS = frozenset({"Background", "Classifier", "Contrast", "Explanation", "InputError", "Interactions",
                            "ProtoPNet", "Quartiles", "Scores",
                            # public since then
                            "LanguageModel", "Layer", "Method", "Neuron", "Partition", "Question", "Region", "Remote",
                            "Replacement", "Rule", "Tabular", "Test", "held"})  # fmt: skip
