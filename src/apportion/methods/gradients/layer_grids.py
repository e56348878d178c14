"""Find the layer of a model that keeps a grid of places of the input, and the grid in its output."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook

from apportion.core.private_torch import Convolution, without_functions
from apportion.core.trees import keyed, map_tensors
from apportion.engines.substitution import Gradients, Score
from apportion.engines.substitution.explained import Explained
from apportion.engines.substitution.leaves import ordinary
from apportion.engines.substitution.reached import Tracing
from apportion.errors import InputError

# A vision transformer puts at most so many tokens (class, distillation, registers) before those of the
# patches.
_MOST_PREFIXES = 8
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Grid:
    """The way from a layer's output to (batch, channels, …grid): as it is, or, with the channels last, the places after
    `prefix` other tokens."""

    sides: tuple[int, ...]
    prefix: int | None

    def of(self, output: Tensor) -> Tensor:
        if self.prefix is None:
            return output
        places = output.flatten(1, -2)[:, self.prefix :].transpose(1, 2)
        return places.reshape(*places.shape[:2], *self.sides)


@dataclass(frozen=True)
class LayerChannels:
    """The number of a layer's channels; `last` if they are its last axis."""

    many: int
    last: bool

    def are_last(self, shape: Sequence[int]) -> bool:
        """True if this shape of the layer's output, or of what follows it, has the channels last."""
        return shape[-1] == self.many and (self.last or shape[1] != self.many)


def channels_of(module: torch.nn.Module) -> LayerChannels | None:
    """The channels of a module whose kind tells; None for others."""
    if isinstance(module, Convolution):
        return LayerChannels(module.out_channels, last=False)
    if isinstance(module, torch.nn.Linear):
        return LayerChannels(module.out_features, last=True)
    if isinstance(module, torch.nn.LayerNorm | torch.nn.RMSNorm) and len(module.normalized_shape) == 1:
        return LayerChannels(module.normalized_shape[0], last=True)
    if isinstance(module, torch.nn.RNNBase):
        return LayerChannels((module.proj_size or module.hidden_size) * (1 + module.bidirectional), last=True)
    return None


def grid_of(
    output: Any, batch: int, space: Sequence[int], channels: LayerChannels | None = None
) -> Grid | None:
    """The grid of a layer's output for inputs (batch, channels, …space); None if it has none. Its channels are the
    second axis unless those of the layer, or of one before it, are found last.

    >>> grid_of(torch.zeros(1, 197, 768), 1, (224, 224))
    Grid(sides=(14, 14), prefix=1)
    >>> grid_of(torch.zeros(1, 512, 7, 7), 1, (224, 224))
    Grid(sides=(7, 7), prefix=None)
    """
    if not isinstance(output, Tensor):
        return None
    shape = output.shape
    if len(shape) < 3 or shape[0] != batch or not output.is_floating_point():
        return None
    if len(shape) == len(space) + 2:
        last = channels is not None and channels.are_last(shape)
        sides = tuple(shape[1:-1] if last else shape[2:])
        steps = [length / side for length, side in zip(space, sides, strict=True)]
        # Channels that are last look like a side, but not like one as coarse as the other.
        fits = max(sides) > 1 and min(steps) >= 1 and max(steps) <= 2 * min(steps)
        return Grid(sides, 0 if last else None) if fits else None
    if len(shape) != 3 or shape[2] == 1:  # one number each: pooled channels, not tokens
        return None
    for prefix in range(_MOST_PREFIXES + 1):
        many = shape[1] - prefix
        if many < 4:
            return None
        step = (math.prod(space) / many) ** (1 / len(space))
        sides = tuple(round(length / step) for length in space)
        alike = all(side * space[0] == sides[0] * length for side, length in zip(sides, space, strict=True))
        if alike and math.prod(sides) == many:
            return Grid(sides, prefix)
    return None


@dataclass
class Found:
    """A layer, its output with a grid, and the gradient of each sample's score there."""

    layer: str
    grid: Grid
    score: Score
    activation: Tensor
    gradient: Tensor
    warnings: tuple[str, ...] = ()


def at_layer(subject: Gradients, layer: str, key: Any, space: Sequence[int]) -> Found:
    """The named layer, at its last call that depends on the picture `key`; the backward pass ends there."""
    run = Tracing(subject.model, _picture(subject, key))
    score = subject.forward(run)
    dependent = [place for place, reached in enumerate(run.stood_in) if reached]
    if not dependent and run.ended:
        raise InputError(
            f"layer {layer!r} does not depend on the picture; accepted: a layer that is computed from it"
        )
    last = dependent[-1] if dependent else -1
    output, name = score.leaves[last], str(score.slots[last].layer)
    shape = tuple(output.shape)
    known = _channels_at(subject.model, layer, shape) if len(shape) > 2 else None
    grid = grid_of(output, subject.batch, space, known)
    if grid is None:
        raise InputError(
            f"layer {layer!r} returns {shape}, which has no grid of places; accepted: a layer before pooling"
        )
    gradient = _differentiate(subject, score, [output])[0]
    if gradient is None:
        raise InputError(
            f"the score does not depend on layer {layer!r}; accepted: a layer that it is computed from"
        )
    return Found(name, grid, score, output.detach(), gradient, () if dependent else _unknown(name))


def _picture(subject: Gradients, key: Any) -> Tensor:
    """The picture itself, as the model is given it."""
    subject.inputs = map_tensors(subject.inputs, ordinary)
    picture: Tensor = dict(keyed(subject.inputs))[key]
    return picture


def _unknown(layer: str) -> tuple[str, ...]:
    return (
        f"it cannot be seen whether layer {layer!r} depends on the picture (compiled code or NumPy lies between): "
        "if it does not, the map is of something else",
    )


def _channels_at(model: Any, layer: str, shape: Sequence[int]) -> LayerChannels | None:
    """The channels of the last module in this layer, or before it, that has as many as an axis of this shape."""
    modules = list(model.named_modules(remove_duplicate=False))
    inside = [place for place, (name, _) in enumerate(modules) if f"{name}.".startswith(f"{layer}.")]
    known = (channels_of(module) for _, module in reversed(modules[: inside[-1] + 1]))
    return next((found for found in known if found and found.many in (shape[1], shape[-1])), None)


def last_layer(subject: Gradients, key: Any, space: Sequence[int]) -> Found:
    """The last layer whose output has a grid that depends on the picture `key` and that the score depends on; one that
    the score only reads places of, as of a segmentation's output, comes after all others.

    Of a network with convolutions it is most often the last of them or one that is called after it, so that nothing
    needs to be recorded before; if it is none of these, a second pass records from the first layer on.
    """
    if not isinstance(subject.model, torch.nn.Module):
        raise InputError("the model is a plain callable without named layers; accepted: a torch.nn.Module")
    modules = list(subject.model.named_modules())
    names = {id(module): name for name, module in modules if name}
    convolutions = [module for _, module in modules if isinstance(module, Convolution)]
    output: Found | None = None
    for begin in (*convolutions[-1:], None):
        run = Tracing(subject.model, _picture(subject, key), Explained(waiting=begin is not None))
        score, kept = _record(subject, space, names, begin, run)
        known = [item for item in kept if item.reached]
        if known or run.ended:  # else the way from the picture was lost
            kept = known
        # The last of all most often; a transformer may read its class token only there.
        rest = [item for item in kept[:-1] if not isinstance(item.module, _PARTS)]
        for items in (kept[-1:], rest):
            gradients = _differentiate(subject, score, [item.output for item in items]) if items else []
            for item, gradient in reversed(list(zip(items, gradients, strict=True))):
                if gradient is not None and bool((item.grid.of(gradient) != 0).any()):
                    warnings = () if item.reached else _unknown(item.name)
                    found = Found(item.name, item.grid, score, item.output.detach(), gradient, warnings)
                    if not _reads_places(item.grid.of(gradient)):
                        return found
                    output = output or found
    if output is not None:
        return output
    if isinstance(subject.model, torch.fx.GraphModule | torch.jit.ScriptModule):
        raise InputError(
            "a model that was exported or scripted does not call its layers, so that none is found; accepted: the "
            "module that it was made from"
        )
    raise InputError(
        "no layer of the model keeps a grid of places that the score depends on; name one with layer="
    )


def _reads_places(gradient: Tensor) -> bool:
    """Whether each score is read off some places of one channel, by this gradient (batch, channels, …grid): then the
    layer is the output itself, and its map the places that were asked for."""
    met = (gradient != 0).flatten(2)
    return met.shape[1] > 1 and bool((met.any(2).sum(1) <= 1).all()) and not bool(met.any(1).all())


# A linear map of tokens (the keys of an attention) is a part of a layer, not its output.
_PARTS = (torch.nn.Linear, torch.nn.Dropout, torch.nn.Identity)
# Attention weights, and channels before places: they have the shape of a grid of tokens, but are none.
_NO_GRIDS = (torch.nn.Softmax, torch.nn.Flatten)


@dataclass
class _Kept:
    """A layer's output with a grid."""

    name: str
    module: torch.nn.Module
    grid: Grid
    output: Tensor
    reached: bool  # by the picture


def _record(
    subject: Gradients,
    space: Sequence[int],
    names: Mapping[int, str],
    begin: torch.nn.Module | None,
    run: Tracing,
) -> tuple[Score, list[_Kept]]:
    """A forward pass that is recorded from the layer `begin` on (None: from the start), and all outputs with a
    grid since then, in the order of the calls."""
    kept: list[_Kept] = []
    known: LayerChannels | None = None
    thread = threading.get_ident()  # the hook is for this thread and this call only

    def look(module: torch.nn.Module, _: Any, output: Any) -> Any:
        nonlocal known
        before = run.explained.waiting and module is not begin
        if before or id(module) not in names or threading.get_ident() != thread:
            return None
        several = type(output) is tuple and bool(output)
        whole = output[0] if several else output
        with without_functions():
            whole = run.current(whole) if isinstance(whole, Tensor) else whole
            if not isinstance(whole, Tensor) or isinstance(module, _NO_GRIDS):
                return None
            if whole.dim() == len(space) + 2:
                known = channels_of(module) or known
            grid = grid_of(whole, subject.batch, space, known)
            if grid is None:
                return None
            if kept and kept[-1].output is whole:  # what contains a layer and returns its output
                kept.pop()
            elif not whole.requires_grad:
                leaf = run.explained.add(whole.detach().requires_grad_())
                run.put(leaf, whole)
                whole = leaf
            kept.append(_Kept(names[id(module)], module, grid, whole, whole in run))
        return (whole, *output[1:]) if several else whole

    hook = register_module_forward_hook(look)  # one for all modules: the model is not touched
    try:
        return subject.forward(run), kept
    finally:
        hook.remove()


def _differentiate(subject: Gradients, score: Score, at: list[Tensor]) -> list[Tensor | None]:
    if not score.value.requires_grad:
        return [None] * len(at)
    return list(subject.derivatives(score.value, at, retain_graph=True))


def enlarge(maps: Tensor, space: Sequence[int]) -> Tensor:
    """(batch, …grid) maps in the size of the input, bilinearly."""
    return F.interpolate(maps[:, None], size=tuple(space), mode=MODES[len(space)], align_corners=False)[:, 0]
