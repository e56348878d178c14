"""What is known of a tensor besides its value: whether it weighs, divides or is positive."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from apportion.methods.relevance.propagation import Note
from apportion.substitution import Call
from apportion.trees import tensors_in


def kind_of(call: Call, tensor: Any) -> str:
    note = call.run.notes.get(tensor) if isinstance(tensor, Tensor) else None
    return "" if note is None else note.kind


def tag(call: Call, tensor: Tensor, kind: str) -> Tensor:
    call.run.notes[tensor] = Note(kind=kind)
    return tensor


def carry_kind(call: Call, result: Any) -> None:
    first = next((t for t in tensors_in((call.args, call.kwargs)) if t.requires_grad), None)
    kind = "" if first is None else kind_of(call, first)
    if kind:
        for tensor in tensors_in(result):
            if tensor is not first:
                tag(call, tensor, kind)


def operands(call: Call) -> tuple[Any, Any]:
    values = [*call.args, *call.kwargs.values()]
    return values[0], values[1]


def active(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad
