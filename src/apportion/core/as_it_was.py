"""What a call may not change, put back where an interrupt ends it: a signal, as that of Ctrl-C, or a lack of memory may
come between the steps of a `with`, which then ends nothing."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from apportion.core.private_torch import (
    function_modes,
    functions_are_seen,
    hooks_of,
    no_saved_hooks,
    put_function_modes,
    put_functions_are_seen,
    put_no_saved_hooks,
    set_grad_enabled,
)
from apportion.core.random_state import NumpyState, RandomState

Call = TypeVar("Call", bound=Callable[..., Any])

_inside: ContextVar[_State | None] = ContextVar("inside", default=None)  # what the outermost call found


@dataclass
class _State:
    grad: bool
    modes: list[Any]
    seen: bool
    no_saved_hooks: str | None
    numpy_errors: dict[str, Any]
    threads: int
    hooks: list[tuple[dict[int, Any], list[int]]]
    modules: list[tuple[nn.Module, bool]]
    parameters: list[tuple[nn.Parameter, bool]]
    chance: RandomState

    @classmethod
    def of(cls, model: Any) -> _State:
        held = getattr(model, "model", model)
        modules = list(held.modules()) if isinstance(held, nn.Module) else []
        parameters = [parameter for module in modules for parameter in module.parameters(recurse=False)]
        return cls(
            torch.is_grad_enabled(),
            function_modes(),
            functions_are_seen(),
            no_saved_hooks(),
            {**np.geterr()},
            torch.get_num_threads(),
            [(hooks, list(hooks)) for module in (None, *modules) for hooks in hooks_of(module)],
            [(module, module.training) for module in modules],
            [(parameter, parameter.requires_grad) for parameter in parameters],
            RandomState(),
        )

    def put_back(self) -> None:
        set_grad_enabled(self.grad)
        put_functions_are_seen(self.seen)
        put_function_modes(self.modes)
        put_no_saved_hooks(self.no_saved_hooks)
        np.seterr(**self.numpy_errors)
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        for hooks, before in self.hooks:
            for key in set(hooks).difference(before):
                del hooks[key]
        for module, training in self.modules:
            if module.training != training:
                module.training = training
        for parameter, requires_grad in self.parameters:
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)
        self.chance.put_back()


def numpy_as_found() -> NumpyState | None:
    """NumPy's random state as the outermost call found it; None outside of calls."""
    found = _inside.get()
    return None if found is None else found.chance.numpy


def leaves_as_it_was(call: Call) -> Call:
    """A call of settings with a model as its first argument, the outermost of which puts the process and the model
    back."""

    @wraps(call)
    def outermost(settings: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        if _inside.get() is not None:
            return call(settings, model, *args, **kwargs)
        before = _State.of(model)
        # Twice, since the interrupt may come while the inner one puts back.
        return _put_back_after(
            lambda: _put_back_after(lambda: called(before, settings, model, args, kwargs), before), before
        )

    def called(before: _State, settings: Any, model: Any, args: Any, kwargs: Any) -> Any:
        _inside.set(before)
        return call(settings, model, *args, **kwargs)

    outermost.outermost = True  # type: ignore[attr-defined]
    return outermost  # type: ignore[return-value]


def _put_back_after(run: Callable[[], Any], before: _State) -> Any:
    try:
        return run()
    except BaseException as error:
        told = error
        # A mode was left twice, as of the interrupt before: that is what is to be told.
        if (
            isinstance(error, RuntimeError)
            and "empty mode stack" in str(error)
            and error.__context__ is not None
        ):
            told = error.__context__
        # Errors end every `with` on their way, and another thread may be at work in the same model.
        if not isinstance(told, Exception) or isinstance(told, MemoryError):
            # What a frame still holds open would be closed after this, and change again what is put back.
            for one in (error, told):
                traceback.clear_frames(one.__traceback__)
            before.put_back()
        if told is error:
            raise
        raise told from None
    finally:
        _inside.set(None)
