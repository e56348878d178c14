"""Where an explanation begins in a forward pass: the leaves that gradients lead back to, and where each belongs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from apportion.core.calling import Model
from apportion.core.inputs import Inputs, is_side, offsets_of, rekeyed
from apportion.core.places import axis_of_samples, place_named, samples_first, taking
from apportion.core.private_torch import without_functions
from apportion.core.trees import tensors_in
from apportion.engines.substitution.engine import Substitution
from apportion.errors import InputError


@dataclass
class Slot:
    """Where one leaf belongs: an input (`key`), the embedding of token ids (`positions`) or a layer."""

    key: Any
    positions: Tensor | None = None
    layer: str | None = None


@dataclass(frozen=True)
class Lie:
    """How the samples lie in a tensor that a model computes with: along `axis`, in `parts` rows each, one sample after
    the other."""

    axis: int = 0
    parts: int = 1

    def samples_first(self, tensor: Tensor) -> Tensor:
        first = tensor.movedim(self.axis, 0)
        return first if self.parts == 1 else first.unflatten(0, (-1, self.parts))

    def as_given(self, leaf: Tensor) -> Tensor:
        """What `samples_first` was made of."""
        rows = leaf if self.parts == 1 else leaf.flatten(0, 1)
        return rows.movedim(0, self.axis) if self.axis else rows


Moved = Callable[[Tensor, Tensor, int], Tensor]
"""`moved(rows, positions, number of the lookup)`: what is added to the embeddings of token ids, for tests that explain
a little beside the input."""


@dataclass(frozen=True, eq=False)
class Beside:
    """A model whose embeddings of token ids are `moved` where a method computes with them. A method that hides tokens
    does not see them, and runs the model as it is."""

    model: Model
    moved: Moved

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)


class Leaves:
    """Makes the leaves of one forward pass and knows where each belongs.

    `layers` names the modules whose outputs are the leaves; by default they are the floating-point `inputs`, and the
    embeddings of token ids. `given` are numbers to put into the leaves, in their order. With `grad=False` nothing is
    recorded. `inputs` is what the model is to be called with. `via` names modules whose outputs are no leaves, and are
    only passed on the way from them; `read` names one whose outputs are `met`, each time it is called.

    After the pass `made`, `slots` and `probes` have one entry for each leaf, and `chained` names a layer that is a leaf
    and is computed from another one.
    """

    def __init__(
        self,
        run: Substitution,
        inputs: Inputs,
        layers: Sequence[str] = (),
        given: Sequence[Tensor] | None = None,
        grad: bool = True,
        moved: Moved | None = None,
        via: Sequence[str] = (),
        read: str = "",
    ) -> None:
        self.run, self.layers, self.grad, self.moved = run, layers, grad, moved
        self.via, self.read = via, read
        self.passed: list[Tensor] = []
        self.via_slots: list[Slot] = []
        self.met: list[Tensor] = []
        self.given = None if given is None else list(given)
        self.made: list[Tensor] = []
        self.probes: list[Tensor | None] = []
        self.slots: list[Slot] = []
        self.chained = ""
        self.integers = False
        self.inputs = inputs
        if layers or run.explained.waiting:  # what is explained comes later
            run.explained.waiting = True
            return
        offsets = offsets_of(inputs)
        run.explained.lookup = self._looked_up

        def enter(key: Any, tensor: Tensor) -> Tensor:
            if is_side(key, tensor):
                return tensor
            if tensor.is_floating_point():
                leaf = self._leaf(tensor, Slot(key))
                run.put(leaf, tensor)
                return leaf
            if tensor.is_complex():
                what = "the input" if key is None else f"input {key!r}"
                raise InputError(
                    f"{what} has type {tensor.dtype}; accepted: floating point or integers, such as "
                    "torch.view_as_real(x) for lambda x: model(torch.view_as_complex(x))"
                )
            self.integers = True
            fresh = tensor.clone()
            begin = offsets[key][0]
            positions = torch.arange(begin, begin + tensor.numel(), device=tensor.device)
            run.explained.origins[fresh] = positions.view(tensor.shape)
            return fresh

        self.inputs = rekeyed(inputs, enter)

    @property
    def batch(self) -> int:
        """How many samples this pass has, which may be several times those that are explained."""
        return next(tensors_in(self.inputs)).shape[0]

    def _leaf(self, tensor: Tensor, slot: Slot, lie: Lie = Lie()) -> Tensor:
        """A leaf with the samples first, in the form in which the model gets it."""
        tensor = lie.samples_first(tensor)
        if self.given is not None:
            if len(self.made) >= len(self.given):
                raise InputError("the model looked up more embeddings in a later pass than in the first")
            given = self.given[len(self.made)]
            if given.shape != tensor.shape:
                raise _no_samples(tensor, self.batch)
            tensor = given
        leaf = self.run.explained.add(ordinary(tensor).detach().requires_grad_(self.grad))
        self.made.append(leaf)
        self.slots.append(slot)
        handed = lie.as_given(leaf)
        probe = None
        if self.run.explained.probing and slot.layer is None:
            probe = torch.zeros_like(leaf).requires_grad_(self.grad)
            self.run.explained.origins[handed] = lie.as_given(probe)
        self.probes.append(probe)
        return handed

    # ---- token ids ----

    def _looked_up(self, rows: Tensor, positions: Tensor) -> Tensor:
        if not bool((positions >= 0).any()):
            return rows
        if self.moved is not None:
            rows = rows + self.moved(rows, positions, len(self.made))
        lie = self._lie_of_samples(positions)
        handed = self._leaf(rows, Slot(None, positions=lie.samples_first(positions)), lie)
        own = positions < 0
        if not bool(own.any()):
            return handed
        # Tokens of the model's own, such as a class token, are constants: whatever a method puts in their places (a
        # baseline, noise), the model gets what it asked for.
        constant = self.run.explained.add(torch.where(own[..., None], rows.detach(), handed))
        self.run.explained.constants[constant] = own[..., None]
        if (probe := self.probes[-1]) is not None:
            self.run.explained.origins[constant] = lie.as_given(probe).masked_fill(own[..., None], 0)
        return constant

    def _lie_of_samples(self, positions: Tensor) -> Lie:
        """How the samples of these token ids lie; first, each once, if that is not to be seen."""
        many = [tensor[0].numel() for _, tensor in offsets_of(self.inputs).values()]
        every = torch.arange(self.batch, device=positions.device)
        sample = torch.cat([every.repeat_interleave(n) for n in many])[positions]
        for axis, size in enumerate(positions.shape):
            if not size or size % self.batch:
                continue
            parts = size // self.batch  # sentences of a document, say, one below the other
            along = every.repeat_interleave(parts).view(-1, *[1] * (positions.dim() - axis - 1))
            if bool(((sample == along) | (positions < 0)).all()):
                return Lie(axis, parts)
        return Lie()

    # ---- layers ----

    def hooks(self) -> AbstractContextManager[None]:
        """Forward hooks on the modules of `layers`, of `via` and of `read`, for this thread and this call only."""
        places = dict.fromkeys((*self.layers, *self.via, *([self.read] if self.read else ())))
        return taking(self.run.model, tuple(places), self._at_place)

    def _at_place(self, name: str, module: nn.Module, tensor: Tensor) -> Tensor:
        with without_functions():
            new = self._at_layer(name, module, tensor) if name in (*self.layers, *self.via) else tensor
            if name == self.read:
                self.met.append(samples_first(module, self.run.settled(new)))
            return new

    def _at_layer(self, name: str, module: nn.Module, tensor: Tensor) -> Tensor:
        slots = self.via_slots if name in self.via else self.slots
        calls = sum(str(slot.layer).split("#")[0] == name for slot in slots)
        slot = Slot(None, layer=name if calls == 0 else f"{name}#{calls + 1}")
        settled = self.run.settled(tensor)
        axis = axis_of_samples(module, settled)
        if settled.dim() <= axis or settled.shape[axis] != self.batch:
            raise InputError(
                f"layer {name!r} {'is given' if place_named(name).given else 'returns'} shape {tuple(settled.shape)} "
                f"for {self.batch} samples; accepted: a layer whose first axis is that of the samples"
            )
        if name in self.via or settled.requires_grad:
            # A view, so that whatever reads it reads this, and not what it was made from.
            leaf = settled.view_as(settled).movedim(axis, 0)
            if name in self.via:
                self.passed.append(leaf)
            else:
                self.chained = str(slot.layer)
                self.made.append(leaf)
                self.probes.append(None)
            slots.append(slot)
            new = leaf.movedim(0, axis)
        else:
            new = self._leaf(settled, slot, Lie(axis))
        self.run.put(new, settled)
        return new

    def complain(self) -> None:
        """Say why there is no leaf."""
        if self.layers:
            raise InputError(f"no layer of {self.layers} was called in the forward pass")
        raise InputError(
            "the inputs are integers, but none of them was looked up in an embedding; a function of texts or ids is "
            "explained by methods that hide features, such as Occlusion, LIME or KernelSHAP"
            if self.integers
            else "there is no floating point or token id input to explain"
        )


def check_samples(leaves: Sequence[Tensor], batch: int) -> None:
    """InputError unless every leaf has the samples first, as it must to be replaced row by row."""
    for leaf in leaves:
        if len(leaf) != batch:
            raise _no_samples(leaf, batch)


def _no_samples(tensor: Tensor, batch: int) -> InputError:
    return InputError(
        f"an embedding has shape {tuple(tensor.shape)} for {batch} samples; accepted by methods that put others in its "
        "place: an axis that is that of the samples"
    )


def ordinary(tensor: Tensor) -> Tensor:
    """Tensors made under `inference_mode` cannot take part in a backward pass; their copies can."""
    return tensor.clone() if tensor.is_inference() else tensor
