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
    """The result is of the kind that all of it was made from: a gate next to a signal in one tensor is none."""
    kinds = {kind_of(call, t) for t in call.actives}
    if len(kinds) == 1 and (kind := kinds.pop()):
        for tensor in tensors_in(result):
            tag(call, tensor, kind)


def operands(call: Call) -> tuple[Any, Any]:
    values = [*call.args, *call.kwargs.values()]
    return values[0], values[1]


def weighed(call: Call, *factors: Any) -> tuple[Any, ...]:
    """The factors of a product; where the composite has attention weights constant, gates among others are."""
    gates = [active(t) and kind_of(call, t) == "gate" for t in factors]
    if call.run.state.composite.softmax != "constant" or sum(gates) == sum(map(active, factors)):
        return factors
    return tuple(t.detach() if gate else t for t, gate in zip(factors, gates, strict=True))


def active(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad
