"""Small explanations and files that the tests of the surfaces share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion import InputXGradient, IntegratedHessians
from apportion.features import ImageFeatures, TabularFeatures, TextFeatures
from apportion.results.cost import Cost
from apportion.results.explanation import Explanation
from apportion.results.interactions import Interactions

ATTACK = "<script>alert(1)</script>"


def made(values: Tensor, features: Any, /, **fields: Any) -> Explanation:
    """An explanation with these values of one sample, a total of 3 and two classes."""
    explanation = Explanation(
        values=values[None],
        total=torch.tensor([3.0]),
        output=torch.tensor([[-1.0, 3.0]]),
        target=torch.tensor([1]),
        method=InputXGradient(),
        cost=Cost(1, 1, 0.5),
        features=None if features is None else (features,),
        labels=("no", "yes"),
    )
    return replace(explanation, **fields)


def words(text: str = "not bad at all", **fields: Any) -> Explanation:
    pieces = text.split()
    starts = [text.index(piece) for piece in pieces]
    spans = tuple((start, start + len(piece)) for start, piece in zip(starts, pieces, strict=True))
    features = TextFeatures(text, tuple(pieces), spans, tuple(range(len(pieces))))
    return made(torch.linspace(-1.0, 2.0, len(pieces)), features, **fields)


def picture(height: int = 64, width: int = 96, **fields: Any) -> Explanation:
    """A photo whose upper left quarter speaks for the class and whose lower right speaks against it."""
    values = torch.zeros(3, height, width)
    values[:, : height // 2, : width // 2] = 1.0
    values[:, height // 2 :, width // 2 :] = -0.5
    shades = np.linspace(0, 255, height * width * 3).reshape(height, width, 3).astype(np.uint8)
    return made(values, ImageFeatures(torch.from_numpy(shades), "cat.jpg"), **fields)


def row(**fields: Any) -> Explanation:
    features = TabularFeatures(("age", "sex"), ("41", "female"), (0, 1, 1))
    return made(torch.tensor([1.5, -0.75, 0.5]), features, **fields)


def pairs(names: tuple[str, str] = ("not", "bad")) -> Interactions:
    """Two words that do −2 together and +1 and +3 alone."""
    return Interactions(
        values=torch.tensor([[[1.0, -1.0], [-1.0, 3.0]]]),
        total=torch.tensor([3.0]),
        attributions=None,
        output=torch.tensor([[-1.0, 3.0]]),
        target=torch.tensor([1]),
        method=IntegratedHessians(),
        cost=Cost(1, 1, 0.5),
        names=(names,),
        labels=("no", "yes"),
    )
