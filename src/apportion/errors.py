"""The one error for input that cannot be explained: surfaces show its message without a traceback."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from numbers import Integral
from typing import Any

# C0, C1 and DEL but for tabs and line ends; what turns the direction of what follows; and other ends of lines.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

MOST_LETTERS = 2000  # of a message


class InputError(ValueError):
    """Something the caller gave cannot be used; the message, one line, names it and says what is accepted."""

    def __init__(self, message: str = "") -> None:
        line = re.sub(r"\s*[\r\n]\s*", " ", str(message))  # as the repr of a tensor has them
        line = CONTROLS.sub("", line)  # as what other libraries say of a file has them
        if len(line) > MOST_LETTERS:  # of a text or a name that was given, or of what is accepted
            line = f"{line[: MOST_LETTERS // 2]} … {line[-MOST_LETTERS // 2 :]}"
        super().__init__(line)


class MissingFileError(InputError, FileNotFoundError):
    """There is no such file."""


class NotFiniteError(InputError):
    """The scores of the model are NaN or infinite."""


def did_you_mean(name: str, known: Iterable[str], called: Mapping[str, str] | None = None) -> str:
    """The nearest of the known names as a question, empty if none is near; by another name if it is `called` so.

    >>> did_you_mean("sampels", ["samples", "tolerance"])
    "did you mean 'samples'? "
    """
    near = nearest(name, known, 1, 0.5)
    return f"did you mean {(called or {}).get(near[0], near[0])!r}? " if near else ""


def nearest(name: str, known: Iterable[str], most: int = 3, alike: float = 0.4) -> list[str]:
    """The known names that look like this one, whatever the case, the most alike first.

    >>> nearest("tiger cta", ["tabby", "Tiger cat", "tiger"])
    ['Tiger cat', 'tiger']
    """
    lower = {each.lower(): each for each in known}
    return [lower[found] for found in get_close_matches(name.lower(), lower, most, alike)]


def check(name: str, value: Any, holds: Callable[[Any], object], accepted: str) -> None:
    """Raise InputError unless `holds(value)`; what cannot be compared at all does not hold either.

    >>> check("width", "wide", lambda v: v > 0, "a positive distance")
    Traceback (most recent call last):
    apportion.errors.InputError: width is 'wide'; accepted: a positive distance
    """
    try:
        fine = bool(holds(value))
    except (TypeError, ValueError, RuntimeError):  # a tensor of several numbers
        fine = False
    if not fine:
        raise InputError(f"{name} is {shown(value)}; accepted: {accepted}")


def shown(value: Any) -> str:
    """What came, in one line."""
    return " ".join(repr(value).split())[:400]


def first_line(told: object) -> str:
    """The first line that says something, of an error or a text; empty where none does.

    >>> first_line(ValueError("\\n  too small\\nby far")), first_line(ValueError())
    ('too small', '')
    """
    return next((line.strip() for line in str(told).splitlines() if line.strip()), "")


MOST = 10_000_000  # of whatever is counted: more is a slip of the keyboard, or somebody else's file
MOST_SEED = 2**63 - 1  # what PyTorch's and NumPy's generators both take


def check_whole(least: int, most: int = MOST, **settings: Any) -> None:
    """Raise InputError for the first setting that is not a whole number from `least` to `most`.

    >>> check_whole(1, samples=10**9)
    Traceback (most recent call last):
    apportion.errors.InputError: samples is 1000000000; accepted: a whole number, at least 1 and at most 10000000
    """
    for name, value in settings.items():
        number = isinstance(value, Integral) and not isinstance(value, bool)
        if not number or value < least:
            raise InputError(f"{name} is {shown(value)}; accepted: a whole number, at least {least}")
        if value > most:
            told = repr(value) if value < 10**30 else "a number of more than 30 digits"
            raise InputError(
                f"{name} is {told}; accepted: a whole number, at least {least} and at most {most}"
            )


def check_seed(seed: Any, most: int = MOST_SEED) -> None:
    """Raise InputError for what no generator of random numbers begins with."""
    check_whole(0, most, seed=seed)
