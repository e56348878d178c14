"""Which methods can explain a model: told by the methods themselves, before any work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.core.features import TabularFeatures
from apportion.core.inputs import Inputs
from apportion.names import INTERACTIONS, METHODS
from apportion.pipeline.prepared import Prepared
from apportion.pipeline.suitable import why_unsuitable

NAMES = tuple(name for name in (*METHODS, *INTERACTIONS) if name != "shapleyinteractions")


class Counted(nn.Module):
    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside, self.calls = inside, 0

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return self.inside(x)


def ready(model: Any, inputs: Inputs) -> Prepared:
    def encode(_: Any) -> Any:
        return inputs, TabularFeatures(("a", "b", "c"), ("1", "2", "3"), (0, 1, 2))

    return Prepared(ap.Classifier(model, encode, ("no", "yes"), "tabular", "own"), None, inputs, (), {})


def test_what_is_called_unsuitable_is_what_refuses() -> None:
    """As found by running every method in full."""
    for model, x in (
        (nn.Linear(3, 2), torch.ones(1, 3)),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 16, 2)), torch.rand(1, 1, 6, 6)),
        (lambda x: np.stack([x.numpy().sum(1), -x.numpy().sum(1)], 1), torch.rand(1, 3)),
        (lambda x: torch.stack([x.detach().sum(1), -x.detach().sum(1)], 1), torch.rand(1, 3)),
    ):
        refusing = set()
        for name in NAMES:
            try:
                ap.explain(model, x, name)
            except ap.InputError:
                refusing.add(name)
        assert set(why_unsuitable(ready(model, x), NAMES)) == refusing, model


def test_a_model_is_run_once_at_most_and_one_elsewhere_never() -> None:
    model = Counted(nn.Linear(3, 2)).eval()
    why_unsuitable(ready(model, torch.ones(1, 3)), NAMES)
    assert model.calls <= 1  # for its attention

    def asked(texts: list[str]) -> Any:
        pytest.fail("it was asked")

    from apportion.domains.raw_text import read_as

    elsewhere = read_as(ap.Remote(asked), "a b")
    encoded, features = elsewhere.prepared("a b")
    given = Prepared(elsewhere, "a b", encoded, features, {})
    assert "occlusion" not in why_unsuitable(given, NAMES)
