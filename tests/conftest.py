"""Fixtures that more than one file of tests uses; the models are in `small.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import small


@pytest.fixture(autouse=True)
def _random_state() -> None:
    """Every test begins from the same random state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(params=list(small.SMALL))
def made(request: pytest.FixtureRequest) -> Any:
    """Each small model in turn, with inputs: (model, inputs)."""
    return small.SMALL[request.param]()


@pytest.fixture
def mlp() -> Any:
    return small.mlp()


@pytest.fixture
def cnn() -> Any:
    return small.cnn()


@pytest.fixture
def untouched() -> Iterator[Any]:
    """`untouched(model)` fails the test if then anything of the model, or the random state, changes."""
    before: list[tuple[Any, str]] = []

    def watch(model: Any) -> None:
        before.append((model, small.fingerprint(model)))

    yield watch
    for model, print_ in before:
        assert small.fingerprint(model) == print_, "the model, its hooks or the random state changed"
