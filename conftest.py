"""What the examples in docstrings may use without importing it, and how many threads the tests run in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import settings

import apportion

# One: what the tests run is small, and threads that share their cores with other work wait for each other.
torch.set_num_threads(1)

# The same examples every time, so that a change is judged by what it changed; `--hypothesis-profile=default` draws new.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _examples(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace.update(torch=torch, ap=apportion)
