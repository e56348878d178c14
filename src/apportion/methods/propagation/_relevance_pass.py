"""How relevance travels through one forward and backward pass: `R = x · gradient`, layer by layer.

Two shortcuts keep the cost near that of a gradient. A ReLU or the like after a layer applies the layer's rule together
with its own gradient, and a batch norm after a layer becomes part of it. Rules that are not a scaling of the layer's
own gradient are evaluated in the backward pass, so no surrogate activations are held.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from apportion.core.trees import map_tensors, tensors_in
from apportion.engines.substitution import Call, Substitute, Substitution
from apportion.engines.substitution.explained import Explained
from apportion.engines.substitution.unseen import Unseen
from apportion.errors import InputError
from apportion.methods.contracts import Rule
from apportion.methods.propagation._backward import evaluate_lazily, fold, scales, settle
from apportion.methods.propagation._biases import WRAPPING, Ignoring, Looking, Places, Spreading
from apportion.methods.propagation._rows import OpenRow
from apportion.methods.propagation._tags import Tag, on_gradient
from apportion.methods.propagation.composites import Composite
from apportion.methods.propagation.rules import Layer


@dataclass(eq=False)
class Propagation:
    """The state of one LRP pass."""

    composite: Composite
    strict: bool = False
    ledger: bool = False
    layers: int | None = None  # how many layers there are, where the composite treats the last one apart
    places: Places | None = None  # what constants took, where that is to be placed
    rows: dict[tuple[str, str, str], OpenRow] = field(default_factory=dict)
    seen_layers: int = 0
    types: dict[str, str] = field(default_factory=dict)
    row: OpenRow | None = None
    unseen: Unseen = field(init=False)
    hidden: dict[tuple[str, str], OpenRow] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.unseen = Unseen(_note_unseen)

    def substitution(
        self, model: Any, table: Mapping[str, Substitute], composed: Container[str], other: Substitute
    ) -> Substitution:
        """The run under a table of treatments. `other` takes the functions that are not in it; those that are
        `composed` of other operations have no row of the ledger."""
        if self.ledger:
            table = {
                name: function if name in composed else self._measure(function)
                for name, function in table.items()
            }
            other = self._measure(other)
        if self.composite.types and isinstance(model, torch.nn.Module):
            self.types = {name: type(module).__name__ for name, module in model.named_modules()}
            for module in model.modules():
                if isinstance(module, torch.fx.GraphModule):
                    self.types |= _find_exported_types(module)
        explained = Explained(probing=self.composite.first is not None)
        seen = self.unseen
        return Substitution(table, other, model, self, explained, seen.arrived, seen.returned)

    # ---- what is called ----

    def _measure(self, function: Substitute) -> Substitute:
        """The substitute, with its relevance in and out measured for the ledger."""

        def substitute(call: Call, *args: Any, **kwargs: Any) -> Any:
            outer, self.row = self.row, None
            result = self._fill_row(function, call)
            self.row = outer
            return result

        return substitute

    def _fill_row(self, function: Callable[..., Any], call: Call) -> Any:
        row = OpenRow(call.run.where(), call.name)
        self.row = row

        self._measure_inputs(call, row)
        result = function(call, *call.args, **call.kwargs)
        self._watch(self.row, result)
        self._keep(self.row)
        return result

    def _measure_inputs(self, call: Call, row: OpenRow) -> None:
        """Enter in the row what this call, and no other, passes on to each of its arguments."""

        def alias(t: Tensor) -> Tensor:
            if not t.requires_grad:
                return t
            if (own := call.run.explained.constants.get(t)) is not None:
                self._count_constants(call, t, own)
            other = t.view_as(t)
            on_gradient(other, partial(row.add_product, "passed_on", t.detach()))
            for notes in (call.run.notes, call.run.explained.origins):
                if (note := notes.get(t)) is not None:
                    notes[other] = note
            return other

        call.args, call.kwargs = map_tensors(call.args, alias), map_tensors(call.kwargs, alias)

    def _count_constants(self, call: Call, tensor: Tensor, own: Tensor) -> None:
        """Enter the relevance of tokens of the model's own, which goes to none of the input: once for each lookup."""
        call.run.explained.constants[tensor] = None
        row = OpenRow("", "tokens of the model's own", "constant")
        self._keep(row)
        on_gradient(tensor, partial(row.add_product, "arrived", torch.where(own, tensor.detach(), 0)))

    def _watch(self, row: OpenRow, result: Any) -> None:
        """Enter in the row the relevance that arrives at the outputs of a call."""
        for tensor in tensors_in(result):
            if tensor.requires_grad and tensor.grad_fn is not None:
                on_gradient(tensor, partial(row.add_product, "arrived", tensor.detach()))

    def _keep(self, row: OpenRow) -> None:
        key = (row.module, row.operation, row.rule)
        kept = self.rows.get(key)
        if kept is None:
            self.rows[key] = row
        elif kept is not row:
            # One row for all calls of an operation in a module: the later call writes into the first row's sums.
            for what, amounts in row.sums.items():
                kept.sums.setdefault(what, []).extend(amounts)
            row.sums = kept.sums

    def unruled(self, call: Call) -> Any:
        """Use the gradient of a function that has no rule, and measure what that loses."""
        measured = self.row is not None  # a treatment that is only written out in other operations has no row
        row = self.row if self.row is not None else OpenRow(call.run.where(), call.name)
        if not measured:
            self._measure_inputs(call, row)
        result = call.function(*call.args, **call.kwargs)
        if not any(tensor.requires_grad for tensor in tensors_in(result)):
            return result
        if self.strict:
            raise InputError(
                f"no rule for {call.name!r}, called from {row.module or 'the model'!r} (strict=True)"
            )
        row.rule, row.ruled = "none: gradient", False
        if not measured:
            self._watch(row, result)
            self._keep(row)
        return result

    # ---- layers ----

    def layer(
        self, call: Call, layer: Layer, x: Tensor, kind: str, value: Callable[[], Tensor] | None = None
    ) -> Tensor:
        """The output of a layer that is linear in `x`, under the rule that the composite has for it."""
        self.seen_layers += 1
        probe = call.run.explained.origins.get(x) if call.run.explained.probing else None
        where = call.run.where() if (self.composite.names or self.composite.types) else ""
        last = self.seen_layers == self.layers
        rule = self.composite.rule(kind, where, self.types.get(where, ""), probe is not None, last)
        return self.ruled_layer(call, layer, x, rule, probe, value, weights=kind != "matmul")

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
        """The same under a known rule; `value` makes the output where it need not be computed from `x`. Of layers with
        `weights`, which both passes of placing come by alike, the first one keeps the output for the second."""
        row, places, placed = self.row, self.places, []
        noted = weights or layer.bias is not None
        place = places.next(x, layer.weight) if places is not None and noted else None
        first = places is not None and places.carried is None
        rule = rule.rule if isinstance(rule, Ignoring | Spreading) else rule
        if row is not None:
            row.rule, row.placed = _shorten(rule), places is not None
            layer.row = row
        if places is None:
            if layer.bias is not None and self.composite.bias in WRAPPING:
                rule = WRAPPING[self.composite.bias](rule)
        elif first:
            layer.taken = None if place is None else place.amounts
        else:
            rule = rule if getattr(rule, "direct", False) else Looking()
            if place is not None:
                placed, value = place.amounts, place.hand_on
        if scales(rule):
            z = layer(x, layer.weight, layer.bias) if value is None else value()
        else:
            direct = getattr(rule, "direct", False)
            z = evaluate_lazily(x, probe if direct else None, layer, rule, value, placed)
        if first and place is not None:
            place.output = z.detach()
        self.unseen.known[z] = True
        out = settle(z, layer, rule, row)
        if places is not None:
            places.reached.append(out)
        call.run.notes[out] = Tag(layer=layer, rule=rule, x=x, probe=probe, raw=z, row=row)
        return out

    def shift(
        self, y: Tensor, constant: Callable[[], Tensor], x: Tensor | None = None, along: int | None = None
    ) -> Tensor:
        """`y`, made of `x` (or the rest of it) and an added constant: what that takes is placed, if so wished, at the
        entries of `x` along an axis, or at the same entry."""
        if self.places is None:
            return y
        if self.row is not None:
            self.row.placed = True
        return self.places.shift(y, constant(), x, along, self.row)

    def placed_softmax(self, p: Tensor, scores: Tensor, dim: int) -> Tensor:
        """Probabilities of scores, whose share of the relevance is placed at the query."""
        assert self.places is not None
        if self.row is not None:
            self.row.placed = True
        return self.places.softmax(p, scores, dim, self.row)

    def folded(self, call: Call, input: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor | None:
        """What an element-wise function that is zero at zero makes of a layer's output, with the layer's rule applied
        in its backward pass; None where that is not to be had."""
        note = call.run.notes.get(input)
        if note is None or note.raw is None or self.ledger:
            return None
        if scales(note.rule) and (function is not torch.relu or self.places is not None):
            return None
        return fold(note.raw, note.rule, function)


def _note_unseen(run: Substitution, tensor: Tensor, maker: str) -> None:
    """A row of what cannot be seen. Of the run's state, which no bound method may hold: a cycle would keep its tensors
    until the collector comes."""
    state, where = run.state, run.where()
    if state.strict:
        raise InputError(
            f"a function that cannot be seen (its gradient is {maker!r}: a custom autograd function or compiled "
            f"code) was called from {where or 'the model'!r} (strict=True)"
        )
    row = state.hidden.setdefault((where, maker), OpenRow(where, maker, "none: gradient", ruled=False))
    on_gradient(tensor, partial(row.add_product, "arrived", tensor.detach()))


def _find_exported_types(program: torch.fx.GraphModule) -> dict[str, str]:
    """The types of the modules that an exported program was made of, by name."""
    stacks = (node.meta.get("nn_module_stack") or {} for node in program.graph.nodes)
    places = (place for stack in stacks for place in stack.values())
    return {str(name): getattr(kind, "__name__", str(kind).rsplit(".")[-1]) for name, kind in places}


def _shorten(rule: Rule) -> str:
    text = repr(rule)
    return text.replace("eps=", "ε=").replace(", spread_bias=False", "").replace("gamma=", "γ=")
