"""What the call of a method gave in the place of a setting, kept by the method that the result names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from apportion.core.content import ByContent, digest
from apportion.core.inputs import Inputs, rekeyed
from apportion.core.trees import keyed

Settings = TypeVar("Settings")


class OfSamples:
    """Base of settings that may have something of each sample; `shape` is that of the input that they are of."""

    def repeated(self, rows: int, shape: Sequence[int]) -> Any:
        """The same for so many rows of each sample, one after the other."""
        raise NotImplementedError

    def cut(self, part: slice, shape: Sequence[int]) -> Any:
        """The same for some of the samples."""
        raise NotImplementedError


class FromCall(OfSamples, ByContent):
    """Tensors that stand where a setting does, so that the method of a result explains the same again.

    `value` is in the form of the inputs; `axes` says by key along which axis the samples lie, and leaves out what all
    samples share. It is written by its content, which does not rebuild it: read from a file it is refused.

    >>> import torch
    >>> given = FromCall(torch.ones(2, 3), {None: 0})
    >>> given.repeated(2, (2, 3)).value.shape, given.cut(slice(1, 2), (2, 3)).value.shape
    (torch.Size([4, 3]), torch.Size([1, 3]))
    """

    def __init__(self, value: Inputs, axes: Mapping[Any, int]) -> None:
        self.value, self.axes = value, axes

    def repeated(self, rows: int, shape: Sequence[int]) -> FromCall:
        return self._changed(lambda t, axis: t.repeat_interleave(rows, axis))

    def cut(self, part: slice, shape: Sequence[int]) -> FromCall:
        return self._changed(lambda t, axis: t[(slice(None),) * axis + (part,)])

    def _changed(self, change: Callable[[Tensor, int], Tensor]) -> FromCall:
        if not self.axes:
            return self
        axes = self.axes
        return FromCall(
            rekeyed(self.value, lambda key, t: change(t, axes[key]) if key in axes else t), self.axes
        )

    @cached_property
    def _content(self) -> tuple[Any, ...]:
        kind = type(self.value).__name__ if isinstance(self.value, tuple | Mapping) else ""
        return "FromCall", kind, tuple((key, digest(tensor)) for key, tensor in keyed(self.value))

    def __repr__(self) -> str:
        _, kind, found = self._content
        each = [
            f"{name!r}" if key is None or kind == "tuple" else f"{key!r}: {name!r}" for key, name in found
        ]
        return f"({', '.join(each)})" if kind == "tuple" else f"{{{', '.join(each)}}}" if kind else each[0]


def with_call(method: Settings, inputs: Inputs, **given: Any) -> Settings:
    """The method with what its call gave in the place of its settings; None: nothing was given.

    The samples lie along the first axis of what has the dimensions of its input (or of its embedding), and along the
    second of what has one more, for several baselines.
    """
    told = {name: from_call(value, inputs) for name, value in given.items() if value is not None}
    return replace(method, **told) if told else method  # type: ignore[type-var]


def from_call(value: Any, inputs: Inputs) -> Any:
    """What was given, as it can be kept: one number as it is, tensors, and numbers beside them, by their content."""
    if isinstance(value, tuple):
        value = tuple(map(_as_tensor, value))
    elif isinstance(value, Mapping):
        value = {key: _as_tensor(each) for key, each in value.items()}
    items = keyed(value) if isinstance(value, Tensor | tuple | Mapping) else []
    if not items or not all(isinstance(tensor, Tensor) for _, tensor in items):
        return value
    likes, axes = dict(keyed(inputs)), {}
    for key, tensor in items:
        if (like := likes.get(key)) is None:
            continue
        embedded = tensor.is_floating_point() and not like.is_floating_point()
        axis = tensor.dim() - like.dim() - embedded
        if axis in (0, 1) and tensor.shape[axis] == len(like) > 1:
            axes[key] = axis
    return FromCall(rekeyed(value, lambda _, t: t.detach().clone()), axes)


def _as_tensor(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return torch.tensor(value, dtype=torch.float64) if number else value


def given_of(setting: Any) -> Any:
    """What was given, of a setting that may hold what a call gave."""
    return setting.value if isinstance(setting, FromCall) else setting


def for_samples(method: Settings, change: Callable[[OfSamples], Any]) -> Settings:
    """The method, and methods in its settings, with what is of samples changed; itself where there is nothing."""
    if isinstance(method, type) or not is_dataclass(method):
        return method
    found = {}
    for each in fields(method):
        value = getattr(method, each.name, None)
        new = change(value) if isinstance(value, OfSamples) else for_samples(value, change)
        if each.init and new is not value:
            found[each.name] = new
    return replace(method, **found) if found else method  # type: ignore[type-var]
