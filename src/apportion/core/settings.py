"""Frozen settings: checked when they are made; and those that came later, with whose default a method is written down
and fingerprinted as it was before them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import Field, field, fields
from functools import cache, wraps
from inspect import signature
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np

from apportion.core.as_it_was import leaves_as_it_was
from apportion.core.from_call import OfSamples
from apportion.core.per_input import PerInput
from apportion.errors import InputError, shown

Made = TypeVar("Made")


def later(default: Any, kw_only: bool = False) -> Any:
    """A field of frozen settings that older files do not know."""
    return field(default=default, kw_only=kw_only, metadata={"later": True})


def told(settings: Any) -> list[tuple[str, Any]]:
    """The fields that say what these settings are, with their values: later ones only where they were set."""
    found = [(each, getattr(settings, each.name, None)) for each in fields(settings)]
    return [(each.name, value) for each, value in found if not _is_as_before(each, value)]


def _is_as_before(each: Field[Any], value: Any) -> bool:
    return "later" in each.metadata and type(value) is type(each.default) and value == each.default


class Told:
    """Base of frozen dataclasses some of whose settings came later.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Draw(Told):
    ...     samples: int = 4
    ...     paired: bool = later(True)
    >>> Draw(), Draw(paired=False)
    (Draw(samples=4), Draw(samples=4, paired=False))
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__repr__" not in vars(cls):  # a dataclass writes its own where its class has none
            cls.__repr__ = Told.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        shown = {each.name for each in fields(self) if each.repr}  # type: ignore[arg-type]
        settings = (f"{name}={value!r}" for name, value in told(self) if name in shown)
        return f"{type(self).__qualname__}({', '.join(settings)})"


# ---- settings are what their annotations say ----


def checked(made: type[Made]) -> type[Made]:
    """Beneath `@dataclass(frozen=True)`: each setting is of the kind that its annotation names, or InputError. What a
    class checks itself is said first, as it knows more. The call of a method or test leaves all as it was.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... @checked
    ... class Draw:
    ...     paired: bool = True
    >>> Draw(paired="no")
    Traceback (most recent call last):
    apportion.errors.InputError: paired is 'no'; accepted: True or False
    """
    own: Callable[[Any], None] | None = getattr(made, "__post_init__", None)

    @wraps(own or checked)
    def after(self: Any) -> None:
        try:
            if own is not None:
                own(self)
        except InputError:
            raise
        except Exception:  # what a comparison or a conversion says of another kind of thing
            _check_kinds(self)
            raise
        _check_kinds(self)

    made.__post_init__ = after  # type: ignore[attr-defined]
    call: Any = getattr(made, "__call__", None)  # noqa: B004 (the function itself is wanted)
    if call is not None and "model" in signature(call).parameters and not hasattr(call, "outermost"):
        made.__call__ = leaves_as_it_was(call)  # type: ignore[method-assign]
    return made


def _check_kinds(settings: Any) -> None:
    made: Any = type(settings)
    for name, hint in _hints(made).items():
        value = getattr(settings, name, None)
        if not isinstance(value, OfSamples | PerInput) and not _is_of(value, hint):
            raise InputError(f"{name} is {shown(value)}; accepted: {_words(hint)}")


@cache
def _hints(made: Any) -> dict[str, Any]:
    """The annotations of the settings as types; those that are none while the program runs are left out."""
    found = {}
    for each in fields(made):
        owner = next(base for base in made.__mro__ if each.name in vars(base).get("__annotations__", {}))
        if each.init and each.name.isidentifier() and not each.name.startswith("_"):
            try:
                # Of our own source.
                found[each.name] = eval(str(each.type), vars(sys.modules[owner.__module__]))
            except NameError:
                continue
    return found


def _is_of(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    if hint is float:
        # Larger ones are in no number format of C.
        fits = not isinstance(value, Integral) or abs(int(value)) < 2**63
        return isinstance(value, Real) and not isinstance(value, bool) and fits
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if hint in (None, NoneType):
        return value is None
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_is_of(value, one) for one in inside)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inside)
    if origin in (tuple, Sequence):
        if not isinstance(value, list | tuple | range | np.ndarray):
            return False
        several = inside if origin is tuple and inside[-1] is not ... else inside[:1] * len(value)
        return len(several) == len(value) and all(map(_is_of, value, several))
    if origin is Callable or getattr(hint, "_is_protocol", False):
        return callable(value) and not isinstance(value, type)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _words(hint: Any) -> str:
    known = {bool: "True or False", int: "a whole number", float: "a number", str: "a text", NoneType: "None"}
    if hint in known:
        return known[hint]
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return ", or ".join(dict.fromkeys(map(_words, inside)))
    if origin is Literal:
        return ", ".join(map(repr, inside))
    if origin in (tuple, Sequence):
        return f"a list, each {_words(inside[0])}"
    if origin is Callable:
        return "a function"
    return f"of type {getattr(hint, '__name__', hint)}"
