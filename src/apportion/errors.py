"""The one error for input that cannot be explained: surfaces show its message without a traceback."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any


class InputError(ValueError):
    """Something the caller gave cannot be used; the message names it and says what is accepted."""


def check(name: str, value: Any, holds: Callable[[Any], object], accepted: str) -> None:
    """Raise InputError unless `holds(value)`; what cannot be compared at all does not hold either.

    >>> check("width", "wide", lambda v: v > 0, "a positive distance")
    Traceback (most recent call last):
    apportion.errors.InputError: width is 'wide'; accepted: a positive distance
    """
    try:
        fine = bool(holds(value))
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise InputError(f"{name} is {value!r}; accepted: {accepted}")


def check_whole(least: int, **settings: Any) -> None:
    """Raise InputError for the first setting that is not a whole number of at least `least`."""
    for name, value in settings.items():
        number = isinstance(value, Integral) and not isinstance(value, bool)
        if not number or value < least:
            raise InputError(f"{name} is {value!r}; accepted: a whole number, at least {least}")
