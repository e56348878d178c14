"""The modules and estimators that a plain callable runs, where it can be seen that it has them."""

from __future__ import annotations

import dis
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

_DEPTH = 4  # of callables that hold callables
_MANY = 1000
_LANGUAGE_MODELS = ("causallm", "lmhead")


def modules_behind(model: Any) -> list[nn.Module]:
    """The model itself if it is a module; else those that a function, a partial, a bound method or an object holds: in
    its closure, its arguments, its attributes, or by the global names that it reads.

    >>> net = nn.Linear(2, 1)
    >>> modules_behind(lambda x: net(x))
    [Linear(in_features=2, out_features=1, bias=True)]
    """
    return [found for found in _behind(model) if isinstance(found, nn.Module)]


def is_language_model(model: Any) -> bool:
    """True if a model that says the next token is behind this one, by the names of transformers' classes."""
    modules = (module for one in modules_behind(model) for module in one.modules())
    return any(word in type(module).__name__.lower() for module in modules for word in _LANGUAGE_MODELS)


def estimators_behind(model: Any) -> list[Any]:
    """The same for estimators in the form of scikit-learn's, not those that another is made of."""
    return [found for found in _behind(model) if not isinstance(found, nn.Module)]


def _behind(model: Any) -> list[Any]:
    found: list[Any] = []
    seen: set[int] = set()
    level = [(model, False)]
    for _ in range(_DEPTH):
        after: list[tuple[Any, bool]] = []
        for held, within in level:
            if id(held) in seen:
                continue
            seen.add(id(held))
            estimator = _is_estimator(held)
            if isinstance(held, nn.Module) or (estimator and not within):
                found.append(held)
            if not isinstance(held, nn.Module):
                after += [(one, within or estimator) for one in _held_by(held)]
        level = after
    return found


def _held_by(holder: Any) -> Iterator[Any]:
    if isinstance(holder, partial):
        yield from (holder.func, *holder.args, *holder.keywords.values())
    elif isinstance(holder, MethodType):
        yield from (holder.__self__, holder.__func__)
    elif isinstance(holder, FunctionType):
        for cell in holder.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # not filled yet
                continue
        yield from (*(holder.__defaults__ or ()), *(holder.__kwdefaults__ or {}).values())
        names = holder.__globals__
        read = (names[name] for name in _globals_of(holder.__code__) if name in names)
        # What else a function calls is followed in its own file only, not into packages.
        yield from (
            one
            for one in read
            if getattr(one, "__module__", None) == holder.__module__
            or isinstance(one, nn.Module)
            or _is_estimator(one)
        )
    elif isinstance(holder, Mapping | list | tuple):
        if len(holder) <= _MANY:  # else it is data
            yield from holder.values() if isinstance(holder, Mapping) else holder
    elif not isinstance(holder, type | ModuleType):
        yield from getattr(holder, "__dict__", {}).values()


def _is_estimator(held: Any) -> bool:
    return hasattr(type(held), "get_params") and hasattr(type(held), "predict")


@lru_cache(maxsize=64)
def _globals_of(code: CodeType) -> tuple[str, ...]:
    """The global names that a function reads, also in functions inside it."""
    inner = (name for held in code.co_consts if isinstance(held, CodeType) for name in _globals_of(held))
    read = (str(step.argval) for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL")
    return (*read, *inner)
