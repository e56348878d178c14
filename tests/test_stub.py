"""The public names (`src/apportion/__init__.pyi`) beside those that are listed (`names.py`).

That each has an entry in the reference is in `test_readme.py`."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

import apportion as ap
from apportion import names

STUB = Path(str(ap.__file__)).with_suffix(".pyi")
# Each public name → "module:name", below `apportion`, as in `names.py`.
PUBLIC = {
    str(alias.asname): f"{node.module}:{alias.name}"
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}
LISTED = {
    "method": names.METHODS,
    "method of pairs": names.INTERACTIONS,
    "test": names.TESTS,
    "rule": names.RULES,
    "composite": names.COMPOSITES,
    "partition": names.PARTITIONS,
    "replacement": names.REPLACEMENTS,
}
PLACES = [
    pytest.param(place, id=f"{kind} {name}") for kind, all_ in LISTED.items() for name, place in all_.items()
]


@pytest.mark.parametrize("place", PLACES)
def test_what_is_listed_is_public_under_the_name_of_its_class(place: str) -> None:
    assert PUBLIC.get(place.split(":")[1]) == place


@pytest.mark.parametrize("place", [*names.OF_ONE_KIND.values(), *names.MAPS.values()])
def test_what_need_not_be_public_is_no_namesake_of_what_is(place: str) -> None:
    assert PUBLIC.get(place.split(":")[1], place) == place


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_public_is_where_the_stub_says(name: str) -> None:
    module, original = PUBLIC[name].split(":")
    assert getattr(ap, name) is getattr(import_module(f"apportion.{module}"), original)


def test_the_stub_holds_all_that_is_public_and_renames_nothing() -> None:
    assert set(PUBLIC) == set(ap.__all__)
    assert all(place.endswith(f":{name}") for name, place in PUBLIC.items())
