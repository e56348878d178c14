"""What a file says, held against a schema before anything is made of it."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from apportion.errors import InputError

DEEPEST = 40  # levels of lists and objects; what is written here has a tenth of them


def parsed(text: str | bytes) -> Any:
    """What a JSON text says. ValueError for what is none, and for one that is nested too deeply to be ours."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level, many = [found], 0
    while level:
        many += 1
        if many > DEEPEST:
            raise ValueError("it is nested too deeply")
        level = [
            inside
            for one in level
            if isinstance(one, dict | list)
            for inside in (one.values() if isinstance(one, dict) else one)
            if isinstance(inside, dict | list)
        ]
    return found


def hold(found: Any, kind: Any) -> None:
    """Raise ValueError, which begins with the field, unless data from JSON are of a kind: a model of pydantic or a
    dataclass. Nothing is converted: a text is no number.

    >>> from apportion.results.cost import Cost
    >>> hold({"forwards": 1, "backwards": "2", "seconds": 0.5}, Cost)
    Traceback (most recent call last):
    ValueError: backwards: Input should be a valid integer
    """
    from pydantic import ValidationError

    text = json.dumps(found, ensure_ascii=False)
    # Halves of surrogate pairs are in no UTF-8, and structure is all that is looked at.
    written = re.sub("[\ud800-\udfff]", "\ufffd", text).encode()
    try:
        _adapter(kind).validate_json(written, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(f"{place}: {first['msg']}") from None


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def held(found: Any, kind: Any, what: str) -> Any:
    """The same data; an InputError that begins with `what`, such as the name of the file."""
    try:
        hold(found, kind)
    except ValueError as error:
        raise InputError(f"{what}: {error}") from None
    return found
