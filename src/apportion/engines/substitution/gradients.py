"""Run a model from what is explained (inputs, embeddings or an inner layer) to the scalar explained, and back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, Literal

import torch
from torch import Tensor

from apportion.core.calling import (
    Model,
    behind,
    call_model,
    map_tensors_of,
    no_checkpoints,
    one_by_one,
    same_random_state,
    with_gradients,
)
from apportion.core.inputs import Inputs, Values, offsets_of, placed, runs_once
from apportion.core.private_torch import original_of, without_functions
from apportion.core.target import Target, is_one_number, pick, resolve
from apportion.core.trees import map_tensors, tensors_in
from apportion.engines.subject import Subject
from apportion.engines.substitution.engine import Substitution
from apportion.engines.substitution.leaves import Beside, Leaves, Slot, ordinary
from apportion.errors import InputError, check
from apportion.results.explanation import Explanation


@dataclass
class Score:
    """One forward pass: `value` is the (batch,) scalar explained, `leaves` what it was computed from."""

    subject: Gradients
    leaves: list[Tensor]
    probes: list[Tensor | None]
    slots: list[Slot]
    output: Tensor
    value: Tensor
    run: Substitution
    passed: list[Tensor]
    via_slots: list[Slot]
    ran: list[Tensor]  # the leaves as they ran
    of: Tensor | None = None  # which row of these each row is, where several ran once

    @property
    def dtype(self) -> torch.dtype:
        """The widest number format of the output and of what is explained, which a model with autocast mixes."""
        return reduce(torch.promote_types, (leaf.dtype for leaf in self.leaves), self.output.dtype)

    def gradients(self, value: Tensor | None = None, create_graph: bool = False) -> list[Tensor]:
        """The gradient of each sample's scalar at each leaf, in the leaf's shape (one backward pass)."""
        return self._backward(self.ran, value, create_graph)

    def gradients_on_the_way(self) -> list[Tensor]:
        """The gradient of each sample's scalar at each tensor passed on the way from the leaves; the graph is kept."""
        return self._backward(self.passed, None, False, retain_graph=True)

    def gradients_and_probes(self, turn: int) -> tuple[list[Tensor], list[Tensor]]:
        """The same of the rows of one of the `turns`, which are to be asked for in their order; also the gradient at
        each probe (zero where no function asked for one)."""
        probes = [probe for probe in self.probes if probe is not None]
        last = turn + 1 == len(self.turns)
        at = [*self.ran, *probes]
        found = self._derived(at, self.value, self.turns[turn], False, retain_graph=not last)
        given = iter(found[len(self.ran) :])
        pairs = zip(self.ran, self.probes, strict=True)
        at_probes = [torch.zeros_like(leaf) if probe is None else next(given) for leaf, probe in pairs]
        return found[: len(self.ran)], at_probes

    @cached_property
    def turns(self) -> list[Tensor | slice]:
        """The rows of each backward pass: of those that ran once, one goes in each."""
        if self.of is None:
            return [slice(None)]
        order = self.of.argsort(stable=True)
        ran = self.of[order]
        first = torch.searchsorted(ran, ran)  # where the rows that ran with this one begin
        turn = torch.empty_like(order).index_copy(0, order, torch.arange(len(order)) - first)
        return [(turn == i).nonzero().flatten() for i in range(int(turn.max()) + 1)]

    def _backward(
        self, at: Sequence[Tensor], value: Tensor | None, create_graph: bool, **how: Any
    ) -> list[Tensor]:
        value = self.value if value is None else value
        if self.of is None:
            return self._derived(at, value, slice(None), create_graph, **how)
        found = [t.new_zeros(len(value), *t.shape[1:]) for t in at]
        for i, rows in enumerate(self.turns):
            last = i + 1 == len(self.turns)
            there = self._derived(at, value, rows, create_graph, **{"retain_graph": not last, **how})
            for all_rows, new in zip(found, there, strict=True):
                all_rows[rows] = new[self.of[rows]]
        return found

    def _derived(
        self, at: Sequence[Tensor], value: Tensor, rows: Tensor | slice, create_graph: bool, **how: Any
    ) -> list[Tensor]:
        """The gradients of the sum of the values of some rows, in one backward pass."""
        if not value.requires_grad:
            raise InputError(_not_differentiable(self.subject.layers))
        subject = self.subject
        try:
            with with_gradients(), no_checkpoints():
                some = value if self.of is None else value[rows]
                # What is one backward pass of all rows elsewhere is made of several where they ran once.
                counted = len(value) if self.of is None else 0
                found = subject.derivatives(some, list(at), counted, create_graph=create_graph, **how)
                subject.rows_differentiated += 0 if self.of is None else len(some)
        except RuntimeError as error:  # as of a // b
            if not (str(error).startswith("derivative for") and "is not implemented" in str(error)):
                raise
            raise InputError(f"PyTorch cannot differentiate the model: {error}; {_HIDING}") from error
        if all(gradient is None for gradient in found):
            raise InputError(_not_differentiable(subject.layers))
        return [torch.zeros_like(t) if g is None else g for t, g in zip(at, found, strict=True)]


def _not_differentiable(layers: Sequence[str]) -> str:
    what = f"the first output of layer {', '.join(layers)}" if layers else "the input"
    return (
        f"the model's output does not depend differentiably on {what} (it runs under no_grad, detaches, compares or "
        f"uses integers only); {_HIDING}"
    )


_HIDING = "use a method that hides features instead, such as Occlusion"


class Gradients(Subject):
    """Run a model and its gradients, for methods that compute with the graph.

    Token ids (integer inputs that reach an embedding) are explained at their embeddings, and their values are those of
    whole tokens; tokens that the model adds itself are constants. Where the model has the samples on another axis (the
    embeddings of transposed token ids, the outputs of a module with `batch_first=False`), the leaf has them on the
    first. The embeddings of a model that is given as `Beside` itself are moved before they are explained.

    Args:
        model (module or callable): The model.
        inputs (Tensor, or tuple or dict of Tensor): The inputs, the samples first.
        target (int, Tensor, callable, default None): The scalar explained; None: the predicted class.
        at (str or list of str, default None): Modules whose outputs are explained, the samples on their first axis;
            None: the inputs.
        via (str or list of str, default ()): Modules whose outputs are `passed` on the way from what is explained.
        once (int, default None, numbers of a row): From how many on rows that are one row, as `x.expand(3, -1)` for
            three classes, run once: the model runs forward for all of them, and backward for each; None: never.

    >>> score = Gradients(torch.nn.Linear(2, 1), torch.ones(3, 2)).forward()
    >>> [gradient.shape for gradient in score.gradients()]
    [torch.Size([3, 2])]
    """

    def __init__(
        self,
        model: Model,
        inputs: Inputs,
        target: Target = None,
        at: str | Sequence[str] | None = None,
        via: str | Sequence[str] = (),
        once: int | None = None,
    ) -> None:
        self.moved = model.moved if isinstance(model, Beside) else None
        model = model.model if isinstance(model, Beside) else model
        super().__init__(original_of(behind(model)), inputs, target)
        self.at = at
        self._alone = False  # whether a row must be run alone, since the model returns one number a call
        self._first: Tensor | None = None  # the scores of the inputs themselves
        self.chained = ""  # a layer that is explained and is computed from another one that is
        names = (at,) if isinstance(at, str) else at or ()
        check("at", names, _are_names, "the name of a module, or several")
        self.layers: tuple[str, ...] = tuple(names)
        self.via_given = via
        self.via = (via,) if isinstance(via, str) else tuple(via)
        plain = self.moved is None and self.places is None and not self.via
        self.once = once is not None and plain and self.batch > 1 and runs_once(self.inputs, once)

    # ---- forward ----

    def forward(
        self,
        run: Substitution | None = None,
        leaves: Sequence[Tensor] | None = None,
        rows: Tensor | None = None,
        grad: bool = True,
        of: Tensor | None = None,
    ) -> Score:
        """One forward pass.

        `run` is the substitution to run under (a fresh one; default: nothing replaced); if it is waiting, whoever made
        it says in the course of the pass what is explained. `leaves` replaces what is explained: tensors whose first
        dimension may be a multiple of the batch, in which case all other inputs are repeated; `rows` then says which
        sample each row belongs to. With `grad=False` nothing is recorded for a backward pass. Where rows that are one
        row run `once`, `of` says of each row at which of the leaves it is: as many as there are run, whatever the rows.
        """
        whole = leaves is None and rows is None
        if self.once and leaves is None:
            of = torch.zeros(self.batch, dtype=torch.long)
        run = Substitution(model=self.model) if run is None else run
        waiting = run.explained.waiting
        if leaves is not None and rows is None:
            many = (leaves[0].shape[0] if of is None else len(of)) // self.batch
            rows = torch.arange(self.batch, device=leaves[0].device).repeat(many)
        ran = rows if of is None else torch.zeros(1 if leaves is None else len(leaves[0]), dtype=torch.long)
        with ExitStack() as stack:
            stack.enter_context(with_gradients())
            inputs = map_tensors(self.inputs, lambda t: ordinary(t if ran is None else t[ran.to(t.device)]))
            read = "" if self.neuron is None else self.neuron.layer
            begun = Leaves(run, inputs, self.layers, leaves, grad, self.moved, self.via, read)
            told = stack.enter_context(same_random_state(inputs))
            stack.enter_context(torch.set_grad_enabled(grad))
            stack.enter_context(begun.hooks())
            stack.enter_context(run)
            output = self._called(begun)
            with without_functions():
                output = map_tensors_of(output, run.settled)
                scores = self.read_scores(output, begun.met, begun.batch, rows)
                scores = scores if of is None else scores[of.to(scores.device)]
                self.ran(self._whole(begun.batch))
                value = self._explained(scores, rows)
        run.explained.lookup = None  # it holds the run, whose tensors would live until the collector comes
        if not begun.made and not waiting:
            begun.complain()
        self._warn_after(run, told, begun)
        if whole:
            self._first = scores.detach() if self._first is None else self._first
            self.compare(self._first, scores, scores)
        if self.chained and leaves is not None:
            raise InputError(
                f"layer {self.chained!r} is computed from another one that is explained, or from an earlier call; "
                "accepted by methods that put others in their place: layers of which none leads to another"
            )
        made, slots, passed, via = begun.made, begun.slots, begun.passed, begun.via_slots
        if of is not None and whole:
            slots = [self._for_all(slot) for slot in slots]
            made = [leaf.detach().expand(self.batch, *leaf.shape[1:]) for leaf in made]
        return Score(
            self, made, begun.probes, slots, scores.detach(), value, run, passed, via, begun.made, of
        )

    def _for_all(self, slot: Slot) -> Slot:
        """The slot of all rows, of which one ran."""
        if slot.positions is None:
            return slot
        where = slot.positions.expand(self.batch, *slot.positions.shape[1:])
        row = torch.arange(self.batch, device=where.device).view(-1, *[1] * (where.dim() - 1))
        found = where
        for begin, tensor in offsets_of(self.inputs).values():
            first, size = begin // self.batch, tensor[0].numel()
            inside = (where >= first) & (where < first + size)
            found = torch.where(inside, begin + row * size + where - first, found)
        return Slot(slot.key, found)

    def _called(self, begun: Leaves) -> Any:
        """What the model returns; of one that returns one number a call, that of each row of a sample."""
        if not self._alone or begun.batch == 1:
            output = call_model(self.model, begun.inputs)
            self._alone = begun.batch == 1 and is_one_number(output)
            return output
        if self.layers or any(not t.is_floating_point() for t in tensors_in(begun.inputs)):
            raise InputError(
                f"the model returned one number for a whole batch, and {begun.batch} rows are to be run at once; "
                f"accepted: chunk=1, or a model that returns one for each row, ({begun.batch},)"
            )
        return one_by_one(self.model, begun.inputs)

    def _explained(self, scores: Tensor, rows: Tensor | None) -> Tensor:
        """The explained scalar of each row, (rows,)."""
        if self.resolved is None:
            self.resolved = resolve(self.target, scores, self.places)
        wanted = self.resolved
        if rows is not None and isinstance(wanted, Tensor):
            wanted = wanted[rows.to(wanted.device)]
        return pick(wanted, scores)

    def _warn_after(self, run: Substitution, told: Sequence[str], begun: Leaves) -> None:
        self.chained = self.chained or begun.chained
        self.tell_unsteady([*told, *sorted(run.met.of_batch)])
        if run.met.transformed and not any("torch.func" in warning for warning in self.warnings):
            self.warnings += (
                f"the model calls {', '.join(sorted(run.met.transformed))} under torch.func (as by vmap), where no "
                "function can be replaced: the gradient was used",
            )

    # ---- the result ----

    def explanation(
        self,
        method: Any,
        score: Score,
        values: Sequence[Tensor],
        total: Tensor | None,
        reduce: Literal["sum", "norm"] = "sum",
        warnings: Sequence[str] = (),
        slots: Sequence[Slot] | None = None,
        **more: Any,
    ) -> Explanation[Any, Any]:
        """Gather per-leaf values into the shape of the inputs. The values of a token are the sum over its
        embedding (`reduce="sum"`) or their Euclidean norm (`"norm"`). `slots` says where the values belong (default:
        to the leaves)."""
        if self.chained and total is not None:
            total = None
            warnings = (
                *warnings,
                f"layer {self.chained!r} is computed from another one that is explained, or from an earlier call: each "
                "adds up by itself, and not all together",
            )
        gathered = self._gathered(slots or score.slots, [value.detach() for value in values], reduce)
        self.check_finite(method, gathered, "the model's gradients are not finite here")
        return self.result(Explanation, method, gathered, total, score.output, warnings=warnings, **more)

    def _gathered(self, slots: Sequence[Slot], values: Sequence[Tensor], reduce: str) -> Values:
        if slots[0].layer is not None:
            named = {str(slot.layer): value for slot, value in zip(slots, values, strict=True)}
            one = isinstance(self.at or self.via_given, str) and len(named) == 1
            return named[str(slots[0].layer)] if one else named
        found: dict[Any, Tensor] = {}
        offsets = offsets_of(self.inputs)
        for slot, value in zip(slots, values, strict=True):
            if slot.positions is None:
                found[slot.key] = value
                continue
            token = value.sum(-1) if reduce == "sum" else value.norm(dim=-1)
            for key, (begin, tensor) in offsets.items():
                place = slot.positions.flatten() - begin
                inside = (place >= 0) & (place < tensor.numel())
                if bool(inside.any()):
                    total = found.setdefault(
                        key, torch.zeros(tensor.shape, dtype=value.dtype, device=value.device)
                    )
                    total.view(-1).index_add_(0, place[inside], token.flatten()[inside])
        return placed(found, self.inputs)


def _are_names(names: Any) -> bool:
    return all(isinstance(name, str) for name in names)
