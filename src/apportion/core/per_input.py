"""A setting that has one value for each input: a tuple in their order, or a dict by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apportion.errors import InputError


@dataclass(frozen=True, repr=False)
class PerInput:
    """One value of a setting for each input, None for the default; a dict may leave inputs out.

    It is written as it was given, so that a repr rebuilds it.

    >>> PerInput.of_given((2, None)), PerInput.of_given({"a": 2}).of("b")
    ((2, None), None)
    """

    keys: tuple[Any, ...]
    values: tuple[Any, ...]
    named: bool

    @classmethod
    def of_given(cls, given: Mapping[Any, Any] | Sequence[Any]) -> PerInput:
        if not given:
            raise InputError(f"a setting for each input is {given!r}; accepted: one value for each, or None")
        if isinstance(given, Mapping):
            return cls(tuple(given), tuple(given.values()), True)
        return cls(tuple(range(len(given))), tuple(given), False)

    def of(self, key: Any) -> Any:
        """The value for the input of this key."""
        return dict(zip(self.keys, self.values, strict=True)).get(key)

    def check(self, setting: str, keys: Sequence[Any], explained: Sequence[Any]) -> None:
        """InputError unless it fits inputs of these keys, of which some are explained."""
        if any(key not in keys for key in self.keys) or not (self.named or len(self.keys) == len(keys)):
            got = f"names the inputs {list(self.keys)}" if self.named else f"has {len(self.keys)} values"
            given = "the input is one tensor" if list(keys) == [None] else f"the inputs are {list(keys)}"
            raise InputError(f"{setting} {got}, but {given}; accepted: one value for each, or None")
        for key, value in zip(self.keys, self.values, strict=True):
            if value is not None and key not in explained:
                raise InputError(
                    f"{setting} has a value for input {key!r}, which is held constant; accepted: None"
                )

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise InputError(
            f"{self!r} is for several inputs, but one was given; accepted: its part for this input"
        )

    def __repr__(self) -> str:
        pairs = dict(zip(self.keys, self.values, strict=True))
        return repr(pairs if self.named else self.values)
