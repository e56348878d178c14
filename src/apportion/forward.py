"""Run a model from what is explained (inputs, embeddings or an inner layer) to the scalar explained."""

from __future__ import annotations

import difflib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.explanation import Cost, Explanation, Values
from apportion.progress import model_called
from apportion.substitution import Substitution, warn_about_training
from apportion.target import Target, described, pick, resolve, scores_of
from apportion.trees import all_finite, keyed, map_tensors, tensors_in

Model = Callable[..., Any]
Inputs = Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]

# Keyword inputs of `transformers` models that say how to read the input.
_SIDE_INPUTS = frozenset(
    "attention_mask token_type_ids position_ids head_mask decoder_attention_mask langs bbox labels "
    "pixel_mask padding_mask global_attention_mask".split()
)


def is_side(key: Any, tensor: Tensor) -> bool:
    """Whether an input is held constant: masks (booleans, or floating-point ones by their names), and
    integers that go by the names of positions, types or labels."""
    known = key in _SIDE_INPUTS and (key.endswith("mask") or not tensor.is_floating_point())
    return known or tensor.dtype == torch.bool


@dataclass
class Slot:
    """Where one leaf belongs: an input (`key`), the embedding of token ids (`positions`) or a layer."""

    key: Any
    positions: Tensor | None = None
    layer: str | None = None


@dataclass
class Score:
    """One forward pass: `value` is the (batch,) scalar explained, `leaves` what it was computed from."""

    subject: Subject
    leaves: list[Tensor]
    probes: list[Tensor | None]
    slots: list[Slot]
    output: Tensor
    value: Tensor
    run: Substitution

    def gradients(self, value: Tensor | None = None, create_graph: bool = False) -> list[Tensor]:
        """The gradient of each sample's scalar at each leaf, in the leaf's shape (one backward pass)."""
        return self._backward(self.leaves, value, create_graph)

    def gradients_and_probes(self) -> tuple[list[Tensor], list[Tensor]]:
        """Also the gradient at each probe (zero where no function asked for one), in the same pass."""
        probes = [probe for probe in self.probes if probe is not None]
        found = self._backward([*self.leaves, *probes], None, False)
        given = iter(found[len(self.leaves) :])
        pairs = zip(self.leaves, self.probes, strict=True)
        at_probes = [torch.zeros_like(leaf) if probe is None else next(given) for leaf, probe in pairs]
        return found[: len(self.leaves)], at_probes

    def _backward(self, at: Sequence[Tensor], value: Tensor | None, create_graph: bool) -> list[Tensor]:
        value = self.value if value is None else value
        if not value.requires_grad:
            raise InputError(_NOT_DIFFERENTIABLE)
        with with_gradients():
            found = torch.autograd.grad(value.sum(), list(at), allow_unused=True, create_graph=create_graph)
        if all(gradient is None for gradient in found):
            raise InputError(_NOT_DIFFERENTIABLE)
        self.subject.backwards += -(-value.shape[0] // self.subject.batch)
        return [torch.zeros_like(t) if g is None else g for t, g in zip(at, found, strict=True)]


_NOT_DIFFERENTIABLE = (
    "the model's output does not depend differentiably on the input (it runs under no_grad, detaches, "
    "compares or uses integers only); use a method that hides features instead, such as Occlusion"
)


@dataclass
class Subject:
    """What is explained: a model at some inputs for some target, with the passes spent on it.

    `at` names modules whose outputs are explained instead of the inputs. Token ids (integer inputs that reach
    an embedding) are explained at their embeddings, and their values are those of whole tokens.
    """

    model: Model
    inputs: Inputs
    target: Target = None
    at: str | Sequence[str] | None = None
    resolved: Any = None
    forwards: int = 0
    backwards: int = 0
    warnings: tuple[str, ...] = ()
    start: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        if not callable(self.model):
            raise InputError(f"model is {type(self.model).__name__}; accepted: a module or any callable")
        self.model = behind(self.model)
        self.model = getattr(self.model, "_orig_mod", self.model)
        self.inputs = checked_inputs(self.inputs)
        self.warnings = warn_about_training(self.model)

    @property
    def batch(self) -> int:
        return next(tensors_in(self.inputs)).shape[0]

    @property
    def layers(self) -> tuple[str, ...]:
        return () if self.at is None else (self.at,) if isinstance(self.at, str) else tuple(self.at)

    # ---- forward ----

    def forward(
        self,
        run: Substitution | None = None,
        leaves: Sequence[Tensor] | None = None,
        rows: Tensor | None = None,
        grad: bool = True,
    ) -> Score:
        """One forward pass.

        `run` is the substitution to run under (a fresh one; default: nothing replaced). `leaves` replaces
        what is explained: tensors whose first dimension may be a multiple of the batch, in which case all
        other inputs are repeated; `rows` then says which sample each row belongs to. With `grad=False`
        nothing is recorded for a backward pass.
        """
        run = Substitution(model=self.model) if run is None else run
        if leaves is not None and rows is None:
            rows = torch.arange(self.batch, device=leaves[0].device).repeat(leaves[0].shape[0] // self.batch)
        with ExitStack() as stack:
            stack.enter_context(with_gradients())
            inputs = map_tensors(
                self.inputs, lambda t: _ordinary(t if rows is None else t[rows.to(t.device)])
            )
            entry = _Entry(self, run, inputs, leaves, grad)
            stack.enter_context(same_random_state(inputs))
            stack.enter_context(torch.set_grad_enabled(grad))
            stack.enter_context(entry.hooks())
            stack.enter_context(run)
            output = call_model(self.model, entry.inputs)
            with torch._C.DisableTorchFunction():
                size = next(tensors_in(entry.inputs)).shape[0]
                scores = scores_of(map_tensors_of(output, entry.settle), size)
                self.forwards += size // self.batch if rows is None else -(-size // self.batch)
                if self.resolved is None:
                    self.resolved = resolve(self.target, scores)
                wanted = self.resolved
                if rows is not None and isinstance(wanted, Tensor):
                    wanted = wanted[rows.to(wanted.device)]
                value = pick(wanted, scores)
        if not entry.leaves:
            entry.complain()
        return Score(self, entry.leaves, entry.probes, entry.slots, scores.detach(), value, run)

    # ---- the result ----

    def explanation(
        self,
        method: Any,
        score: Score,
        values: Sequence[Tensor],
        total: Tensor | None,
        reduce: Literal["sum", "norm"] = "sum",
        **extra: Any,
    ) -> Explanation:
        """Gather per-leaf values into the shape of the inputs. The values of a token are the sum over its
        embedding (`reduce="sum"`) or their Euclidean norm (`"norm"`)."""
        gathered = self._gather(score.slots, [value.detach() for value in values], reduce)
        if not all_finite(gathered):
            raise InputError(
                f"{method!r} gave NaN or infinite values; the model's gradients are not finite here"
            )
        return Explanation(
            values=gathered,
            total=None if total is None else total.detach(),
            output=score.output,
            target=described(self.resolved),
            method=method,
            cost=Cost(self.forwards, self.backwards, time.perf_counter() - self.start),
            warnings=(*self.warnings, *extra.pop("warnings", ())),
            **extra,
        )

    def _gather(self, slots: Sequence[Slot], values: Sequence[Tensor], reduce: str) -> Values:
        if self.layers:
            named = {str(slot.layer): value for slot, value in zip(slots, values, strict=True)}
            return named[str(slots[0].layer)] if isinstance(self.at, str) and len(named) == 1 else named
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


class _Entry:
    """Makes the leaves of one forward pass and knows where each belongs."""

    def __init__(
        self, subject: Subject, run: Substitution, inputs: Inputs, given: Sequence[Tensor] | None, grad: bool
    ) -> None:
        self.subject, self.run, self.grad = subject, run, grad
        self.given = None if given is None else list(given)
        self.leaves: list[Tensor] = []
        self.probes: list[Tensor | None] = []
        self.slots: list[Slot] = []
        self.integers = False
        self.inputs = inputs
        if subject.layers:
            run.idle = True
            return
        offsets = offsets_of(inputs)
        run.on_embedding = self._embedded

        def enter(key: Any, tensor: Tensor) -> Tensor:
            if is_side(key, tensor):
                return tensor
            if tensor.is_floating_point():
                return self._leaf(tensor, Slot(key))
            if tensor.is_complex():
                what = "the input" if key is None else f"input {key!r}"
                raise InputError(f"{what} has type {tensor.dtype}; accepted: floating point or integers")
            self.integers = True
            fresh = tensor.clone()
            begin = offsets[key][0]
            run.shadows[fresh] = torch.arange(begin, begin + tensor.numel(), device=tensor.device).view(
                tensor.shape
            )
            return fresh

        self.inputs = rekeyed(inputs, enter)

    def _leaf(self, tensor: Tensor, slot: Slot) -> Tensor:
        if self.given is not None:
            if len(self.leaves) >= len(self.given):
                raise InputError("the model looked up more embeddings in a later pass than in the first")
            tensor = self.given[len(self.leaves)]
        leaf = _ordinary(tensor).detach().requires_grad_(self.grad)
        self.run.own.add(id(leaf))
        self.run.idle = False
        self.leaves.append(leaf)
        self.slots.append(slot)
        probe = None
        if self.run.follow and slot.layer is None:
            probe = torch.zeros_like(leaf).requires_grad_(self.grad)
            self.run.shadows[leaf] = probe
        self.probes.append(probe)
        return leaf

    def _embedded(self, rows: Tensor, positions: Tensor) -> Tensor:
        if not bool((positions >= 0).any()):
            return rows
        return self._leaf(rows, Slot(None, positions=positions))

    def settle(self, tensor: Tensor) -> Tensor:
        return self.run.current(tensor)

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Forward hooks on the modules that `at` names, for this thread and this call only."""
        with ExitStack() as stack:
            thread = threading.get_ident()
            for name in self.subject.layers:
                module = module_named(self.subject.model, name)

                def take(_: Any, __: Any, output: Any, name: str = name) -> Any:
                    if threading.get_ident() != thread:
                        return None
                    with torch._C.DisableTorchFunction():
                        return self._layer_output(output, name)

                stack.callback(module.register_forward_hook(take).remove)
            yield

    def _layer_output(self, output: Any, name: str) -> Any:
        first = next((t for t in tensors_in(output) if t.is_floating_point()), None)
        if first is None:
            raise InputError(
                f"layer {name!r} returns {type(output).__name__} without a floating point tensor"
            )
        calls = sum(str(slot.layer).split("#")[0] == name for slot in self.slots)
        slot = Slot(None, layer=name if calls == 0 else f"{name}#{calls + 1}")
        settled = self.settle(first)
        if settled.requires_grad and self.given is None:
            new = settled.view_as(settled)  # so that whatever reads it reads this, not what it was made from
            self.leaves.append(new)
            self.probes.append(None)
            self.slots.append(slot)
        else:
            new = self._leaf(settled, slot)
        return map_tensors(output, lambda t: new if t is first else t)

    def complain(self) -> None:
        if self.subject.layers:
            raise InputError(f"no layer of {self.subject.layers} was called in the forward pass")
        raise InputError(
            "the inputs are integers, but none of them was looked up in an embedding"
            if self.integers
            else "there is no floating point or token id input to explain"
        )


def behind(model: Any) -> Any:
    """The model of a Classifier; others as they are, also those that happen to have an attribute `model`."""
    from apportion.domains import Classifier

    return model.model if isinstance(model, Classifier) else model


def call_model(model: Model, inputs: Inputs) -> Any:
    model_called()
    if isinstance(inputs, Tensor):
        return model(inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(**inputs)


def map_tensors_of(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The scores in a model's output, with `change` applied; model output objects are read, not rebuilt."""
    if isinstance(output, Tensor | tuple | list):
        return map_tensors(output, change)
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    return change(logits) if isinstance(logits, Tensor) else output


def module_named(model: Model, name: str) -> torch.nn.Module:
    """The module of that dotted name, or an error that suggests the nearest."""
    if not isinstance(model, torch.nn.Module):
        raise InputError(
            f"layer {name!r} was asked for, but the model is a plain callable without named modules"
        )
    names: dict[str, torch.nn.Module] = dict(model.named_modules())
    if name in names:
        return names[name]
    near = difflib.get_close_matches(name, names, 3, 0.3) or [n for n in names if n][:3]
    raise InputError(f"the model has no layer {name!r}; nearest: {', '.join(near)}")


def checked_inputs(inputs: Any) -> Inputs:
    """Tensors with one batch dimension in common, detached from any graph."""
    if hasattr(inputs, "data") and isinstance(inputs, Mapping) and not isinstance(inputs, dict):
        inputs = dict(inputs)
    if not isinstance(inputs, Tensor | tuple | Mapping):
        raise InputError(
            f"inputs is {type(inputs).__name__}; accepted: a tensor, or a tuple or dict of tensors"
        )
    items = keyed(inputs)
    if not items or not all(isinstance(t, Tensor) for _, t in items):
        raise InputError("inputs must hold tensors only, at least one")
    explained = [(key, t) for key, t in items if not is_side(key, t)] or items
    sizes = {t.shape[0] if t.dim() else None for _, t in explained}
    batch = sizes.pop() if len(sizes) == 1 else None
    # A mask or the positions may be the same for all samples.
    if not batch or not all(
        t.dim() and (t.shape[0] == batch or (is_side(k, t) and len(t) == 1)) for k, t in items
    ):
        shapes = [tuple(t.shape) for _, t in items]
        raise InputError(
            f"inputs have shapes {shapes}; accepted: one batch dimension in common, at least one sample"
        )
    for key, tensor in explained:
        if not all_finite(tensor):
            what = "inputs contain" if key is None else f"input {key!r} contains"
            raise InputError(f"{what} NaN or infinite numbers")
    return rekeyed(
        inputs, lambda _, t: t.detach() if len(t) == batch else t.detach().expand(batch, *t.shape[1:])
    )


def rekeyed(inputs: Inputs, change: Callable[[Any, Tensor], Tensor]) -> Inputs:
    """Inputs of the same form, of which each tensor is changed with its key in view."""
    if isinstance(inputs, Tensor):
        return change(None, inputs)
    if isinstance(inputs, Mapping):
        return {key: change(key, t) for key, t in inputs.items()}
    return tuple(change(i, t) for i, t in enumerate(inputs))


def placed(found: Mapping[Any, Tensor], inputs: Inputs) -> Values:
    """Values by key in the form of the inputs; zero in a tuple for an input that has none."""
    if isinstance(inputs, Tensor):
        return found[None]
    if isinstance(inputs, tuple):
        return tuple(found.get(i, torch.zeros(t.shape, device=t.device)) for i, t in enumerate(inputs))
    return {str(key): found[key] for key in inputs if key in found}


def offsets_of(inputs: Inputs) -> dict[Any, tuple[int, Tensor]]:
    """Where the flat positions of each integer input begin, so that all are distinct."""
    begin, found = 0, {}
    for key, tensor in keyed(inputs):
        if not tensor.is_floating_point():
            found[key] = (begin, tensor)
            begin += tensor.numel()
    return found


@contextmanager
def with_gradients() -> Iterator[None]:
    """What is computed here can be differentiated, also for a caller under `no_grad` or `inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _ordinary(tensor: Tensor) -> Tensor:
    """Tensors made under `inference_mode` cannot take part in a backward pass; their copies can."""
    return tensor.clone() if tensor.is_inference() else tensor


@contextmanager
def same_random_state(inputs: Inputs) -> Iterator[None]:
    """Put the global random states back if the model drew from them."""
    devices = {t.device for t in tensors_in(inputs) if t.is_cuda}
    before, on_devices = torch.get_rng_state(), {d: torch.cuda.get_rng_state(d) for d in devices}
    try:
        yield
    finally:
        if not torch.equal(before, torch.get_rng_state()):
            torch.set_rng_state(before)
        for device, state in on_devices.items():
            torch.cuda.set_rng_state(state, device)
