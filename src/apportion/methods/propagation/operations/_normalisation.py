"""Normalisation: the denominator is a constant, and a batch norm with fixed statistics is part of its layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.engines.substitution import Call, without_running_updates
from apportion.methods.propagation._backward import scales
from apportion.methods.propagation._tags import Tag, state_of
from apportion.methods.propagation.rules import Layer, Zero


class Normalise(torch.autograd.Function):
    """`y = (x − mean) · r · w + b` as the model computes it, with `r` constant in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, r: Tensor, weight: Tensor | None, dims: tuple[int, ...], centred: bool
    ) -> Tensor:
        ctx.save_for_backward(r, weight)
        ctx.dims, ctx.centred, ctx.shape = dims, centred, x.shape
        return y.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        r, weight = ctx.saved_tensors
        g = gradient * r if weight is None else (gradient * weight).mul_(r)
        if ctx.centred:
            g = g - g.mean(ctx.dims, keepdim=True)
        return g, None, None, None, None, None


normalise: Callable[..., Tensor] = Normalise.apply


def _normalise_by_deviation(
    call: Call,
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    dims: tuple[int, ...],
    eps: float,
    centred: bool = True,
    bias: Tensor | None = None,
    along: int | None = None,
) -> Tensor:
    """`y` is the result with weight and bias; what the bias takes may be placed at the entries `along` an axis."""
    with torch.no_grad():
        spread = (
            x.detach().var(dims, correction=0, keepdim=True)
            if centred
            else x.detach().square().mean(dims, keepdim=True)
        )
        r = torch.rsqrt(spread + eps)  # 1 on each of `dims`
    y = normalise(x, y, r.to(x.dtype), weight, dims, centred)
    return y if bias is None else state_of(call).shift(y, lambda: bias.expand_as(y), x, along)


def layer_norm(
    call: Call, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5, *_: Any, **__: Any,
) -> Any:  # fmt: skip
    y = torch.layer_norm(input.detach(), list(normalized_shape), weight, bias, eps)
    dims = tuple(range(-len(normalized_shape), 0))
    along = -1 if len(dims) == 1 else None
    return _normalise_by_deviation(call, input, y, weight, dims, eps, bias=bias, along=along)


def rms_norm(
    call: Call,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Any:
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    y = call.function(input.detach(), normalized_shape, weight, eps)
    return _normalise_by_deviation(
        call, input, y, weight, tuple(range(-len(normalized_shape), 0)), eps, centred=False
    )


def group_norm(
    call: Call, input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, *_: Any, **__: Any,
) -> Any:  # fmt: skip
    y = torch.group_norm(input.detach(), num_groups, weight, bias, eps)
    return _normalise_groups(call, input, y, num_groups, weight, bias, eps)


def _normalise_groups(
    call: Call, input: Tensor, y: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    shape = (input.shape[0], groups, input.shape[1] // groups, *input.shape[2:])
    columns = (1, groups, -1, *[1] * (input.dim() - 2))  # (1, groups, channels / groups, 1, …)
    w, b = (None if t is None else t.view(columns) for t in (weight, bias))
    dims = tuple(range(2, len(shape)))  # of (batch, groups, channels / groups, …)
    found = _normalise_by_deviation(
        call, input.reshape(shape), y.reshape(shape), w, dims, eps, bias=b, along=2
    )
    return found.reshape(input.shape)


def instance_norm(
    call: Call, input: Tensor, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5, *_: Any, **__: Any,
) -> Any:  # fmt: skip
    if call.function is not F.instance_norm:
        running_mean, running_var, weight, bias = weight, bias, running_mean, running_var
    if not use_input_stats:
        return _batch_norm(call, input, running_mean, running_var, weight, bias, False, eps)
    args, kwargs = without_running_updates(call.args, call.kwargs)
    y = call.function(*(a.detach() if isinstance(a, Tensor) else a for a in args), **kwargs)
    return _normalise_groups(call, input, y.detach(), input.shape[1], weight, bias, eps)


def batch_norm(call: Call, *args: Any, **kwargs: Any) -> Any:
    """`F.batch_norm` has the statistics first, `torch.batch_norm` and the operators the weights."""
    statistics, weights = ("running_mean", "running_var"), ("weight", "bias")
    first, then = (statistics, weights) if call.function is F.batch_norm else (weights, statistics)
    names: tuple[str, ...] = ("input", *first, *then, "training", "momentum", "eps")
    if call.name.endswith("_no_training"):
        names = (*names[:5], *names[6:])
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    wanted: dict[str, Any] = {name: given.get(name) for name in names[:5]}
    y = _batch_norm(call, **wanted, training=bool(given.get("training")), eps=given.get("eps", 1e-5))
    return (y, None, None) if call.name.startswith(("native", "_native", "cudnn")) else y


def _batch_norm(
    call: Call,
    input: Tensor,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    training: bool,
    eps: float,
) -> Tensor:
    """With fixed statistics: part of the layer before it, or an affine map of its own."""
    state = state_of(call)
    if training or running_mean is None:
        y = torch.batch_norm(input.detach(), weight, bias, None, None, True, 0.0, eps, False)
        w, b = (None if t is None else _column(t, input) for t in (weight, bias))
        return _normalise_by_deviation(call, input, y, w, (0, *range(2, input.dim())), eps, bias=b)
    scale = torch.rsqrt(running_var + eps)  # (channels,)
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale if bias is None else bias - running_mean * scale
    note: Tag | None = call.run.notes.get(input)

    def apply(x: Tensor) -> Tensor:
        return torch.batch_norm(x, weight, bias, running_mean, running_var, False, 0.0, eps, False)

    if (
        note is not None
        and note.layer is not None
        and (folded := _fold(note.layer, scale, shift, input)) is not None
    ):
        assert note.x is not None
        assert note.raw is not None
        assert note.rule is not None
        raw = note.raw
        if state.row is not None and note.row is not None:
            state.row = note.row
        scaling = scales(note.rule)
        value = (lambda: apply(raw)) if scaling else (lambda: apply(raw.detach()))
        return state.ruled_layer(call, folded, note.x, note.rule, note.probe, value)
    layer = Layer(
        lambda x, w, b: (
            torch.addcmul(_column(b, x), x, _column(w, x)) if b is not None else x * _column(w, x)
        ),
        scale,
        shift,
        channel=1,
    )
    return state.ruled_layer(call, layer, input, Zero(), None, value=lambda: apply(input))


def _column(vector: Tensor, like: Tensor) -> Tensor:
    return vector.view(1, -1, *[1] * (like.dim() - 2))


def _fold(layer: Layer, scale: Tensor, shift: Tensor, output: Tensor) -> Layer | None:
    """The layer with a following batch norm in its weights, where its outputs are the batch norm's channels."""
    w = layer.weight
    channel = layer.channel % output.dim()
    if layer.adjoint is None or channel != 1 or w.dim() < 2:
        return None
    rows = scale  # (outputs,)
    if layer.groups is not None:
        rows = scale.view(layer.groups, -1).repeat_interleave(w.shape[0] // layer.groups, 0)
    weight = w * rows.view(*rows.shape, *[1] * (w.dim() - rows.dim()))
    bias = shift if layer.bias is None else layer.bias * scale + shift
    return replace(layer, weight=weight, bias=bias)


def native_layer_norm(call: Call, *args: Any, **kwargs: Any) -> Any:
    return layer_norm(call, *args, **kwargs), None, None


def native_group_norm(
    call: Call, input: Tensor, weight: Any, bias: Any, n: int, c: int, hw: int, group: int, eps: float
) -> Any:
    y = torch.group_norm(input.detach(), group, weight, bias, eps)
    return _normalise_groups(call, input, y, group, weight, bias, eps), None, None


def normalize(call: Call, input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, **_: Any) -> Any:
    return input / input.detach().norm(p, dim, keepdim=True).clamp_min(eps)


def local_response_norm(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    y = call.function(input.detach(), *args, **kwargs)
    return input * torch.where(input == 0, torch.zeros_like(y), y / input.detach())
