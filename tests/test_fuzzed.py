"""Settings of every public class, drawn at random: each is taken, or refused in one line that names it."""

from __future__ import annotations

import dataclasses
import warnings
from importlib import import_module
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import apportion as ap
from apportion import names
from apportion.errors import InputError

SEED, TRIES = 20, 40
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 5), st.floats(), st.text(max_size=4), st.binary(max_size=3),
    st.sampled_from(
        [2**70, -(2**70), 10**9, [], {}, (), [[]], {"a": 1}, object(), int, len, torch.ones(()), torch.ones(2, 3), b"x"]
    ),
)  # fmt: skip
LISTED = {
    place.split(":")[1]: place
    for places in (
        names.METHODS, names.INTERACTIONS, names.TESTS, names.RULES, names.PARTITIONS, names.REPLACEMENTS,
        names.COMPOSITES, names.MAPS, names.TARGETS,
    )
    for place in places.values()
}  # fmt: skip


def class_of(name: str) -> Any:
    module, attribute = LISTED[name].split(":")
    return getattr(import_module(f"apportion.{module}"), attribute)


CLASSES = sorted(name for name in LISTED if dataclasses.is_dataclass(class_of(name)))


def fields_of(made: Any) -> list[str]:
    return [each.name for each in dataclasses.fields(made) if each.init]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CLASSES if fields_of(class_of(name))])
def test_any_setting_is_taken_or_refused_by_its_name(name: str) -> None:
    made = class_of(name)

    @seed(SEED)
    @settings(max_examples=TRIES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.dictionaries(st.sampled_from(fields_of(made)), ODD, min_size=1, max_size=2))
    def fuzz(given_: dict[str, Any]) -> None:
        told = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made(**given_)
        except InputError as error:
            told = str(error)
        except TypeError as error:
            if "required positional argument" not in str(error):  # a setting without a default was not drawn
                raise
        assert "\n" not in told[:100]

    fuzz()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: ap.LRP(ledger="False"), "ledger is 'False'; accepted: True or False"),
        (
            lambda: ap.SmoothGrad(samples=10**9),
            "samples is 1000000000; accepted: a whole number, at least 1 and at",
        ),
        (lambda: ap.IntegratedGradients(nodes=10**9), "nodes is 1000000000; accepted"),
        (lambda: ap.SmoothGrad(seed=2**70), "seed is 1180591620717411303424; accepted"),
        (lambda: ap.NoisyLinear(noise=-1), "noise is -1; accepted"),
        (lambda: ap.NoisyLinear(accuracy=0.0), "accuracy is 0.0; accepted"),
        (lambda: ap.IntegratedHessians(pairs=[]), r"pairs is \[\]; accepted"),
        (lambda: ap.Contrast(1, 1), "positive and negative are both 1"),
        (lambda: ap.KernelSHAP(exact=40), "exact is 40; accepted"),
        (lambda: ap.PixelFlipping(replacement={}), "accepted: one value for each"),
        (lambda: ap.explain(torch.nn.Linear(2, 2), torch.ones(1, 2), method=5), "method is 5; accepted"),
        (lambda: ap.open_run(None), "folder is None; accepted"),
    ],
)
def test_settings_are_checked_when_they_are_made(make: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        make()
