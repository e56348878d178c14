"""What is known of a tensor besides its value (whether it weighs, divides or is positive, and which layer made it), and
what treatments of operations may use of the pass that they are part of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from apportion.core.trees import map_tensors, tensors_in
from apportion.engines.substitution import Call
from apportion.methods.contracts import Rule
from apportion.methods.propagation._biases import Places
from apportion.methods.propagation._rows import OpenRow
from apportion.methods.propagation.composites import Composite
from apportion.methods.propagation.rules import Layer


class Unruled(Protocol):
    """The state of a method that writes attention and recurrent layers out in operations that it has rules for."""

    def unruled(self, call: Call) -> Any:
        """The result of a function that cannot be written out, such as an LSTM with projections."""


class State(Unruled, Protocol):
    """The state of a pass in which layers have rules (`Propagation`), as treatments of operations use it."""

    composite: Composite
    row: OpenRow | None
    places: Places | None

    def layer(
        self, call: Call, layer: Layer, x: Tensor, kind: str, value: Callable[[], Tensor] | None = None
    ) -> Tensor:
        """The output of a layer that is linear in `x`, under the rule that the composite has for it."""

    def ruled_layer(
        self,
        call: Call,
        layer: Layer,
        x: Tensor,
        rule: Rule,
        probe: Tensor | None,
        value: Callable[[], Tensor] | None = None,
        weights: bool = False,
    ) -> Tensor:
        """The same under a known rule; `value` makes the output where it need not be computed from `x`; of layers with
        `weights` it may be kept."""

    def shift(
        self, y: Tensor, constant: Callable[[], Tensor], x: Tensor | None = None, along: int | None = None
    ) -> Tensor:
        """`y`, made of `x` and an added constant, whose share of the relevance may be placed."""

    def placed_softmax(self, p: Tensor, scores: Tensor, dim: int) -> Tensor:
        """Probabilities of scores, whose share of the relevance is placed at the query."""

    def folded(self, call: Call, input: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor | None:
        """What an element-wise function makes of a layer's output, with the layer's rule applied in its backward pass;
        None where that is not to be had."""


def state_of(call: Call) -> State:
    """The state of the pass that a call belongs to."""
    state: State = call.run.state
    return state


def unruled(call: Call) -> Any:
    """Use the gradient of a call that has no rule and cannot be written out."""
    state: Unruled = call.run.state
    return state.unruled(call)


@dataclass
class Tag:
    """The knowledge of a tensor that a substituted function returned; for the output of a layer, how it was made
    and its `raw` output, which expects what the rule expects rather than a gradient.

    `kind` is "gate" (values in [0, 1] that weigh), "scale" (a divisor or its inverse), "tanh", "positive", or "".
    `uniform` is what attention weights would be if all scores were equal, where relevance goes by what differs from it.
    """

    kind: str = ""
    layer: Layer | None = None
    rule: Rule | None = None
    x: Tensor | None = None
    probe: Tensor | None = None
    raw: Tensor | None = None
    row: OpenRow | None = None
    uniform: Tensor | None = None


def kind_of(call: Call, tensor: Any) -> str:
    known = call.run.notes.get(tensor) if isinstance(tensor, Tensor) else None
    return "" if known is None else known.kind


def tag(call: Call, tensor: Tensor, kind: str) -> Tensor:
    call.run.notes[tensor] = Tag(kind=kind)
    return tensor


def carry_kind(call: Call, result: Any) -> None:
    """The result is of the kind that all of it was made from: a gate next to a signal in one tensor is none."""
    kinds = {kind_of(call, t) for t in call.actives}
    if len(kinds) == 1 and (kind := kinds.pop()):
        for tensor in tensors_in(result):
            tag(call, tensor, kind)
        if isinstance(result, Tensor) and len(call.actives) == 1:
            call.run.notes[result] = Tag(kind=kind, uniform=_moved_uniform(call))


def uniform_of(call: Call, tensor: Any) -> Tensor | None:
    known = call.run.notes.get(tensor) if isinstance(tensor, Tensor) else None
    return None if known is None else known.uniform


def _moved_uniform(call: Call) -> Tensor | None:
    """Equal weights, moved as this call moves the weights."""
    (weights,) = call.actives
    if (uniform := uniform_of(call, weights)) is None:
        return None
    args, kwargs = map_tensors((call.args, call.kwargs), lambda t: uniform if t is weights else t)
    return call.function(*args, **kwargs)  # type: ignore[no-any-return]


def operands(call: Call) -> tuple[Any, Any]:
    values = [*call.args, *call.kwargs.values()]
    return values[0], values[1]


def weigh(call: Call, *factors: Any) -> tuple[Any, ...]:
    """The factors of a product; where the composite has attention weights constant, gates among others are."""
    gates = [active(t) and kind_of(call, t) == "gate" for t in factors]
    if state_of(call).composite.softmax != "constant" or sum(gates) == sum(map(active, factors)):
        return factors
    return tuple(t.detach() if gate else t for t, gate in zip(factors, gates, strict=True))


def active(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def on_gradient(tensor: Tensor, then: Callable[[Tensor], None]) -> None:
    """Call `then` with the gradient that arrives at a tensor."""
    register: Callable[..., Any] = tensor.register_hook
    register(then)
