"""Small explanations and files that the tests of the surfaces share."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion import InputXGradient, IntegratedHessians
from apportion.core.features import ImageFeatures, TabularFeatures, TextFeatures
from apportion.display.html import data_uri
from apportion.display.page_data import Article, Chapter, Group, Means, Sheet
from apportion.display.sheet import figure, paint_heat
from apportion.results.cost import Cost
from apportion.results.explanation import Explanation
from apportion.results.interactions import Interactions
from apportion.results.overview import Overview
from apportion.results.summing import summary

ATTACK = "<script>alert(1)</script>"
HOSTILE = f'" onload="x {ATTACK} </script><!-- \u2028'


def data_of(page: str) -> Any:
    """The data that a page carries."""
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page).group(1))


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


def answer() -> Explanation:
    """Of two tokens of an answer, to a prompt with a special token."""
    offsets = ((0, 0), (0, 2), (3, 5), (6, 9), (0, 0))
    tokens = ("<s>", "is", "it", "so?", "yes")
    features = TextFeatures("is it so? yes!", tokens, offsets, (None, 0, 1, 2, None))
    values = torch.tensor([[0.5, 1.0, -2.0, 4.0, 0.0], [0.0, 3.0, 0.25, -0.5, 2.0]])
    noted = {
        "pieces": (" yes", "!"),
        "spans": [(0, 1), (1, 2)],
        "prompt": 4,
        "characters": 9,
        "score": "log-probability",
        "rather_than": None,
        "unit": "word",
        "parts": [("prompt", 0, 9)],
    }
    explained = made(values[0], features)
    return replace(
        explained,
        values=values,
        output=torch.tensor([[-0.5, -1.5], [-0.5, -1.5]]),
        target=torch.tensor([0, 1]),
        labels=("yes", "!"),
        features=(features, features),
        total=values.sum(1),
        notes={"answer": noted},
    )


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


def over_prototypes(**fields: Any) -> Explanation:
    """An explanation over two prototypes, with a panel of one that speaks for the class."""
    pixels = data_uri(np.full((8, 8, 3), 90, np.uint8))
    panel = {
        "name": f"prototype 0 of {ATTACK}", "prototype": 0, "class": ATTACK,
        "similarity": 2.0, "weight": 1.25, "contribution": 2.5,
        "box": [0.25, 0.5, 0.0, 1.0], "source": {"name": HOSTILE, "picture": pixels, "box": [0.0, 1.0, 0.0, 0.5]},
    }  # fmt: skip
    notes = {"input": "cat.jpg", "panels": {"picture": pixels, "rows": [panel]}}
    features = (TabularFeatures(("prototype 0", "prototype 1"), ("a", "b"), (0, 1)),)
    return row(values=torch.tensor([[2.5, 0.5]]), features=features, notes=notes, **fields)


def rows() -> Sheet:
    """A small picture with a box, a map over it, and a larger one from elsewhere."""
    small, large = np.full((8, 16, 3), 90, np.uint8), np.full((100, 80, 3), 200, np.uint8)
    figures = [
        figure("this", small, box=(2, 4, 0, 16)),
        figure("map", paint_heat(small, np.linspace(0, 1, 128).reshape(8, 16))),
        figure("that", large, name=HOSTILE),
    ]
    groups: list[Group] = [{"figures": figures}, {"heading": "Nearest", "figures": figures[:1]}]
    article = Article(title=ATTACK, groups=groups, words=["2 similarity", "= 3"])
    return {
        "kind": "sheet", "title": HOSTILE, "about": "before", "layout": "list",
        "chapters": [{"articles": [article]}], "end": "after",
    }  # fmt: skip


def means() -> Sheet:
    """Two classes, in one of which there is nothing to show."""
    found: list[Means] = [{"what": "feature", "rows": [("<b>", -0.5, 2, 0.5), ("a", 0.25, 1, 0.25)]}]
    articles: list[Article] = [
        {"title": "cat", "detail": "2 inputs", "groups": [], "means": found},
        {"title": "dog", "alike": True, "groups": [], "means": [{"what": "pair", "rows": []}]},
    ]
    chapters: list[Chapter] = [
        {
            "title": "all",
            "about": "of two",
            "alike": True,
            "spectrum": [0.0, 0.25, 1.0],
            "articles": articles,
        },
        {"title": "none", "articles": []},
    ]
    return {
        "kind": "sheet", "title": "Means", "key": True, "layout": "cards", "chapters": chapters,
        "settings": "LRP(composite=None)", "folded": True,
    }  # fmt: skip


def overview() -> Overview:
    """Three rows of a column of numbers, one of which is missing, and one of texts, in two cohorts."""
    cells = ("1", ATTACK), ("missing", HOSTILE), ("2.5", "x")
    found = [
        row(
            values=torch.tensor([[1.0 - i, 0.5 * i]]),
            features=(TabularFeatures(("age", HOSTILE), cell, (0, 1)),),
            notes={"input": HOSTILE},
        )
        for i, cell in enumerate(cells)
    ]
    return summary(found, by=["a", HOSTILE, "a"])
