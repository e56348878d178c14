"""Write `src/data.ts`: the types of what Python hands to the page, and of what the page asks of the server."""

from __future__ import annotations

import textwrap
import types
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from apportion.display import page_data
from apportion.serve import messages
from apportion.serve.request import Ask, Given

PLAIN = {str: "string", int: "number", float: "number", bool: "boolean", type(None): "null", Any: "unknown"}
HEAD = """// Written by frontend/write_types.py (`make page`) from apportion/display/page_data.py,
// apportion/serve/messages.py and apportion/serve/request.py: change it there.
"""


def typescript() -> str:
    """The whole file."""
    names = {value: name for module in (page_data, messages) for name, value in _own(module)}
    lines = [_alias(name, value, names) for value, name in names.items()]
    return "\n".join([HEAD, *lines, _fields(Given, "Given", names), _fields(Ask, "Ask", names)])


def _own(module: Any) -> list[tuple[str, Any]]:
    """The types that a module defines, in its order."""
    return [
        (name, value)
        for name, value in vars(module).items()
        if (is_typeddict(value) and value.__module__ == module.__name__)
        or isinstance(value, types.GenericAlias)
        or get_origin(value) in (Union, Literal, types.UnionType)
    ]


def _alias(name: str, value: Any, names: dict[Any, str]) -> str:
    if is_typeddict(value):
        return _fields(value, name, names)
    return f"export type {name} = {_written(value, {k: n for k, n in names.items() if n != name})};\n"


def _fields(made: Any, name: str, names: dict[Any, str]) -> str:
    """A type with fields; those that may be left out have a question mark."""
    settings = getattr(made, "model_fields", {})  # of pydantic, what has a default may be left out
    said = textwrap.fill(" ".join(f"/** {made.__doc__} */".split()), 118, subsequent_indent=" * ")
    lines = [said, f"export type {name} = {{"]
    for field, hint in get_type_hints(made, include_extras=True).items():
        if field == "model_config":
            continue
        optional = get_origin(hint) is NotRequired or (
            field in settings and not settings[field].is_required()
        )
        hint = get_args(hint)[0] if get_origin(hint) is NotRequired else hint
        lines.append(f"  {field}{'?' if optional else ''}: {_written(hint, names)};")
    return "\n".join([*lines, "};", ""])


def _written(hint: Any, names: dict[Any, str]) -> str:
    if hint in PLAIN or hint in names:
        return PLAIN.get(hint) or names[hint]
    inner = get_args(hint)
    if get_origin(hint) is Annotated:
        return _written(inner[0], names)
    if get_origin(hint) is Literal:
        return " | ".join(f'"{value}"' for value in inner)
    parts = [_written(part, names) for part in inner]
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(parts)
    if get_origin(hint) is list:
        apart = get_origin(inner[0]) in (Union, types.UnionType) and inner[0] not in names
        return f"({parts[0]})[]" if apart else f"{parts[0]}[]"
    if get_origin(hint) is tuple:
        return f"[{', '.join(parts)}]"
    if get_origin(hint) is dict:
        return f"Record<{', '.join(parts)}>"
    raise TypeError(f"{hint} has no counterpart in TypeScript yet")


if __name__ == "__main__":
    place = Path(__file__).parent / "src" / "data.ts"
    place.write_text(typescript(), encoding="utf-8")
