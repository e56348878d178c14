"""Whether JSON has the type that it is said to have."""

from __future__ import annotations

import types
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict


def fits(value: Any, hint: Any, seen: set[str], where: str = "page") -> None:
    """Fail where JSON is not of a type, or has what the type does not; `seen` collects the fields that were there."""
    if is_typeddict(hint):
        fields = get_type_hints(hint, include_extras=True)
        needed = {name for name, of in fields.items() if get_origin(of) is not NotRequired}
        assert isinstance(value, dict), where
        assert needed <= value.keys() <= fields.keys(), (where, value.keys() ^ needed)
        for name, part in value.items():
            seen.add(f"{hint.__name__}.{name}")
            of = fields[name]
            fits(part, get_args(of)[0] if get_origin(of) is NotRequired else of, seen, f"{where}.{name}")
    elif get_origin(hint) in (Union, types.UnionType):
        errors = []
        for one in get_args(hint):
            try:
                found: set[str] = set()
                fits(value, one, found, where)
            except AssertionError as error:
                errors.append(error)
            else:
                seen |= found
                return
        raise AssertionError(where, errors)
    elif get_origin(hint) is Literal:
        assert value in get_args(hint), where
    elif get_origin(hint) is list:
        assert isinstance(value, list), where
        for part in value:
            fits(part, get_args(hint)[0], seen, where)
    elif get_origin(hint) is tuple:
        assert isinstance(value, list), where
        for part, of in zip(value, get_args(hint), strict=False):
            fits(part, of, seen, where)
        assert len(value) == len(get_args(hint)), where
    elif get_origin(hint) is dict:
        assert isinstance(value, dict), where
        for part in value.values():
            fits(part, get_args(hint)[1], seen, where)
    elif hint is not Any:
        numbers = {float: (float, int), int: int}
        assert isinstance(value, numbers.get(hint, hint)), (where, hint, value)
        assert hint is bool or not isinstance(value, bool), where
