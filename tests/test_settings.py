"""The settings that a docstring lists are those that the class has, with the defaults that it has."""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import import_module
from typing import Any

import pytest

from apportion import names

LISTED = (
    names.METHODS | names.INTERACTIONS | names.OF_ONE_KIND | names.TESTS | names.RULES | names.COMPOSITES
    | names.PARTITIONS | names.REPLACEMENTS
)  # fmt: skip
ENTRY = re.compile(r"^ {4}(\w+) \(([^\n]*?(?:\n {8}[^\n]*?)*?)\): ", re.M)


def settings_of(made: type) -> dict[str, str]:
    """Name → what stands in brackets, in the list of a class and those of its bases."""
    found: dict[str, str] = {}
    for each in reversed(made.__mro__):
        text = re.sub(r"(?m)^ {4}", "", each.__dict__.get("__doc__") or "")
        _, listed, rest = text.partition("\nAttributes:\n")
        found |= dict(ENTRY.findall(rest)) if listed else {}
    return found


def default_of(each: Field[Any]) -> Any:
    return each.default_factory() if each.default_factory is not MISSING else each.default


def begins_with(written: str, default: Any) -> bool:
    """Whether the words after "default" say this one: `1e-6` for 1e-06, `Epsilon` for Epsilon(), `empty` for ()."""
    first = re.split(r"[,;] |,\n", written)[0].strip()
    if isinstance(default, float):
        return float(first) == default
    if default == ():
        return first in ("()", "empty")
    if is_dataclass(default) and default == type(default)():
        return first.removesuffix("()") == type(default).__name__
    head, cut, tail = " ".join(written.split()).replace('"', "'").partition("…, ")
    return (
        repr(default).startswith(head) and repr(default).endswith(tail)
        if cut
        else head.startswith(repr(default))
    )


@pytest.mark.parametrize("place", LISTED.values(), ids=LISTED)
def test_the_list_of_settings_is_that_of_the_class(place: str) -> None:
    module, name = place.split(":")
    made = getattr(import_module(f"apportion.{module}"), name)
    if not is_dataclass(made):
        pytest.skip(f"{name} is a function that makes another test")
    own = {each.name: each for each in fields(made) if each.init}
    listed = settings_of(made)
    assert set(listed) == set(own)
    for setting, each in own.items():
        _, said, written = listed[setting].partition("default ")
        assert bool(said) == (default_of(each) is not MISSING), setting
        assert not said or begins_with(written, default_of(each)), f"{setting}: {written}"
