"""What the examples in docstrings may use without importing it, and how many threads the tests run in."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import apportion

# Two, as on the machines that test this; more would only make figures differ between machines.
torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def _examples(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace.update(torch=torch, ap=apportion)
