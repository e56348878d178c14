"""Settings that came later: with their default, a method is written down and fingerprinted as it was before them."""

from __future__ import annotations

from dataclasses import Field, field, fields
from typing import Any


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
