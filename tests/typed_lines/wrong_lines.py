"""Lines that fail when they are run: a strict type checker reports each marked line, and no other."""

from __future__ import annotations

import torch
from torch import nn

import apportion as ap

NET = nn.Linear(1, 3)
PRODUCT = nn.Bilinear(1, 1, 1)
X = torch.ones(2, 1)


def remainder_of_saliency() -> None:
    ap.Saliency()(NET, X).remainder.abs()  # wrong: it does not claim to add up


def remainder_of_occlusion() -> None:
    print(ap.Occlusion()(NET, X).total.shape)  # wrong: it does not claim to add up


def remainder_by_name() -> None:
    ap.explain(NET, X, "saliency").remainder.abs()  # wrong: a name does not say that it adds up


def remainder_in_explain() -> None:
    ap.explain(NET, X, ap.SmoothGrad(samples=2)).remainder.abs()  # wrong: it does not claim to add up


def shape_of_a_tuple() -> None:
    print(ap.InputXGradient()(PRODUCT, (X, X)).values.shape)  # wrong: a tuple of tensors


def shape_of_a_dict() -> None:
    ap.LRP()(PRODUCT, {"input1": X, "input2": X}).values.numpy()  # wrong: a dict of tensors


def shape_of_any() -> None:
    def shape(explanation: ap.Explanation) -> torch.Size:
        return explanation.values.shape  # wrong: of any explanation

    shape(ap.Saliency()(PRODUCT, (X, X)))


def third_of_two() -> None:
    ap.DeepLIFT()(PRODUCT, (X, X)).values[2].abs()  # wrong: there are two


def values_of_a_transformer() -> None:
    explanation = ap.explain(ap.load("sentiment-transformer"), "good")
    explanation.values.numpy()  # wrong: a dict of tensors


def unknown_setting() -> None:
    ap.IntegratedGradients(nods=3)  # wrong: misspelt


def written() -> None:
    ap.LRP()(NET, X).values = X  # wrong: results are frozen
