"""Which layer of a model keeps a grid of places of the input, and where in its output that grid is."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.calling import module_named
from apportion.errors import InputError
from apportion.forward import Score, Subject
from apportion.substitution import Substitution

# A vision transformer puts at most so many tokens (class, distillation, registers) before those of the
# patches.
_MOST_PREFIXES = 8
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Grid:
    """How a layer's output becomes (batch, channels, …grid): tokens after `prefix` others, or as it is."""

    sides: tuple[int, ...]
    prefix: int | None

    def of(self, output: Tensor) -> Tensor:
        if self.prefix is None:
            return output
        tokens = output[:, self.prefix :].transpose(1, 2)
        return tokens.reshape(*tokens.shape[:2], *self.sides)


def grid_of(output: Any, batch: int, space: Sequence[int]) -> Grid | None:
    """The grid of a layer's output for inputs (batch, channels, …space); None if it has none.

    >>> grid_of(torch.zeros(1, 197, 768), 1, (224, 224))
    Grid(sides=(14, 14), prefix=1)
    >>> grid_of(torch.zeros(1, 512, 7, 7), 1, (224, 224))
    Grid(sides=(7, 7), prefix=None)
    """
    if (
        not isinstance(output, Tensor)
        or not output.is_floating_point()
        or output.dim() < 3
        or len(output) != batch
    ):
        return None
    if output.dim() == len(space) + 2:
        sides = tuple(output.shape[2:])
        fits = max(sides) > 1 and all(side <= length for side, length in zip(sides, space, strict=True))
        return Grid(sides, None) if fits else None
    if output.dim() != 3 or len(space) != 2:
        return None
    for prefix in range(_MOST_PREFIXES + 1):
        many = output.shape[1] - prefix
        if many < 4:
            return None
        high = round(math.sqrt(many * space[0] / space[1]))
        if high > 0 and many % high == 0 and high * space[1] == many // high * space[0]:
            return Grid((high, many // high), prefix)
    return None


@dataclass
class Found:
    """A layer, its output with a grid, and the gradient of each sample's score there."""

    layer: str
    grid: Grid
    score: Score
    activation: Tensor
    gradient: Tensor


def at_layer(subject: Subject, layer: str, space: Sequence[int]) -> Found:
    """The named layer, at its last call if it is called several times; the backward pass ends there."""
    score = subject.forward()
    output, name = score.leaves[-1], str(score.slots[-1].layer)
    grid = grid_of(output, subject.batch, space)
    if grid is None:
        shape = tuple(output.shape)
        raise InputError(
            f"layer {layer!r} returns {shape}, which has no grid of places; accepted: a layer before pooling"
        )
    gradient = _gradients(subject, score, [output])[0]
    if gradient is None:
        raise InputError(
            f"the score does not depend on layer {layer!r}; accepted: a layer that it is computed from"
        )
    return Found(name, grid, score, output.detach(), gradient)


def last_layer(subject: Subject, space: Sequence[int]) -> Found:
    """The last layer whose output has a grid that the score depends on.

    In one forward pass each such output becomes a new start of the graph, so that what is before the last is
    never kept and the backward pass ends there. Where the score does not read that grid (a transformer reads
    its class token only), a second pass keeps them all and takes the last with a gradient.
    """
    leaves: list[tuple[str, Grid, Tensor]] = []
    run = Substitution(model=subject.model)

    def restart(name: str, output: Tensor, grid: Grid) -> Tensor:
        if leaves and leaves[-1][2] is output:
            leaves[-1] = (name, grid, output)
            return output
        leaf = output.detach().requires_grad_()
        run.own.add(id(leaf))
        leaves[:] = [(name, grid, leaf)]
        return leaf

    with _watching(subject, space, run, restart):
        score = subject.forward(run)
    if leaves:
        name, grid, leaf = leaves[-1]
        gradient = _gradients(subject, score, [leaf])[0]
        if gradient is not None and bool((grid.of(gradient) != 0).any()):
            return Found(name, grid, score, leaf.detach(), gradient)
    return _last_read(subject, space)


def _last_read(subject: Subject, space: Sequence[int]) -> Found:
    kept: list[tuple[str, Grid, Tensor]] = []
    run = Substitution(model=subject.model)

    def keep(name: str, output: Tensor, grid: Grid) -> Tensor:
        if output.requires_grad:
            kept.append((name, grid, output))
        return output

    with _watching(subject, space, run, keep):
        score = subject.forward(run)
    kept = [item for item in kept if not isinstance(module_named(subject.model, item[0]), _PARTS)]
    gradients = _gradients(subject, score, [tensor for _, _, tensor in kept]) if kept else []
    for (name, grid, tensor), gradient in reversed(list(zip(kept, gradients, strict=True))):
        if gradient is not None and bool((grid.of(gradient) != 0).any()):
            return Found(name, grid, score, tensor.detach(), gradient)
    raise InputError(
        "no layer of the model keeps a grid of places that the score depends on; name one with layer="
    )


# A linear map of tokens (the keys of an attention) is a part of a layer, not its output.
_PARTS = (torch.nn.Linear, torch.nn.Dropout, torch.nn.Identity)


def _gradients(subject: Subject, score: Score, at: list[Tensor]) -> list[Tensor | None]:
    if not score.value.requires_grad:
        return [None] * len(at)
    subject.backwards += 1
    return list(torch.autograd.grad(score.value.sum(), at, allow_unused=True))


@contextmanager
def _watching(
    subject: Subject,
    space: Sequence[int],
    run: Substitution,
    seen: Callable[[str, Tensor, Grid], Tensor],
) -> Iterator[None]:
    """Forward hooks, for this thread and this call only, on all modules but the model itself."""
    if not isinstance(subject.model, torch.nn.Module):
        raise InputError("the model is a plain callable without named layers; accepted: a torch.nn.Module")
    thread = threading.get_ident()
    with ExitStack() as stack:
        for name, module in subject.model.named_modules():

            def look(_: Any, __: Any, output: Any, name: str = name) -> Any:
                if threading.get_ident() != thread:
                    return None
                with torch._C.DisableTorchFunction():
                    whole = (
                        output[0]
                        if isinstance(output, tuple) and type(output) is tuple and output
                        else output
                    )
                    whole = run.current(whole) if isinstance(whole, Tensor) else whole
                    grid = grid_of(whole, subject.batch, space)
                    if grid is None:
                        return None
                    new = seen(name, whole, grid)
                return (new, *output[1:]) if isinstance(output, tuple) else new

            if name:
                stack.callback(module.register_forward_hook(look).remove)
        yield


def enlarged(maps: Tensor, space: Sequence[int]) -> Tensor:
    """(batch, …grid) maps in the size of the input, bilinearly."""
    return F.interpolate(maps[:, None], size=tuple(space), mode=MODES[len(space)], align_corners=False)[:, 0]
