"""Whatever a model draws from the global generators is noticed and put back."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from apportion.core.random_state import NumpyState, RandomState

DRAWS: dict[str, Callable[[], Any]] = {
    "torch": lambda: torch.rand(1),
    "uniform": np.random.rand,
    "normal": np.random.randn,
    "integers": lambda: np.random.randint(5),
    "bytes": lambda: np.random.bytes(1),
    "shuffle": lambda: np.random.permutation(3),
    "a whole turn": lambda: np.random.randint(2**32, size=624, dtype=np.uint32),
    "seed": lambda: np.random.seed(3),
    "python": random.random,
}


def states() -> tuple[Any, Any, Any]:
    of_numpy = np.random.get_state()
    return torch.get_rng_state().tolist(), (of_numpy[1].tolist(), *of_numpy[2:]), random.getstate()


@pytest.fixture(autouse=True)
def mine():
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    torch.set_rng_state(before[0])
    np.random.set_state(before[1])
    random.setstate(before[2])


@pytest.mark.parametrize("kept", [False, True], ids=["no normal kept", "one normal kept"])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_draw_is_noticed_and_put_back(draw: Callable[[], Any], kept: bool):
    np.random.seed(0)
    if kept:
        np.random.randn()
    state, before = RandomState(), states()
    assert not state.put_back()
    draw()
    assert states() != before
    assert state.put_back()
    assert states() == before


def test_what_was_read_before_is_read_again_where_it_is_no_longer_so():
    np.random.seed(0)
    known = NumpyState.now()
    assert known.words
    assert RandomState(numpy=known).numpy is known
    np.random.rand()
    assert RandomState(numpy=known).numpy is not known


def test_another_generator_is_read_whole():
    own = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(0))
        state = RandomState()
        assert not state.numpy.words
        before = np.random.get_state(legacy=False)
        np.random.rand()
        assert state.put_back()
        assert np.random.get_state(legacy=False)["state"] == before["state"]
    finally:
        np.random.set_bit_generator(own)
