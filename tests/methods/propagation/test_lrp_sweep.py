"""LRP on every architecture that `transformers` classifies texts or pictures with, found by its auto-model
mappings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("transformers")

from lrp_sweep import EXCEPTIONS, NEEDS_PACKAGE, Swept, all_architectures, swept
from small_transformers import names

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small only lose by more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", names())
def test_lrp_explains_it_and_accounts_for_everything(name: str) -> None:
    """No crash, no operation without a rule; the model's output and weights unchanged, the values finite and
    the same without a ledger. The ledger's rows add up: to 1e-6 of what they account for in double precision
    (parts of some models compute in single), to 1e-3 where a model runs in single precision only."""
    result = swept(name)
    if name in NEEDS_PACKAGE:
        assert "requires the" in result.not_built, f"{name} can be built now: remove it from NEEDS_PACKAGE"
        pytest.skip(NEEDS_PACKAGE[name])
    assert not result.not_built
    if name in EXCEPTIONS:
        assert not result.ran, f"{name} has a rule for everything now: remove it from EXCEPTIONS"
        assert result.not_differentiable or not (result.crash or result.wrong)
        return
    assert not result.crash
    assert result.warnings == ()
    assert result.wrong == []


def test_nearly_all_run_with_a_rule_for_every_operation() -> None:
    assert sorted(all_architectures()) == sorted(names())
    results = [swept(name) for name in names()]
    built = [result for result in results if result.made]
    ran = [result for result in built if result.ran]
    print(f"{len(results)} architectures, {len(built)} built, {len(ran)} with a rule for every operation")
    assert len(ran) >= 0.95 * len(built)
    assert not [crashed(result) for result in built if result.crash and not result.not_differentiable]


def crashed(result: Swept) -> str:
    return f"{result.name}: {result.crash}"
