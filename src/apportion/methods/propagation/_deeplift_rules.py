"""The rules of DeepLIFT: how the difference to the reference passes each function, by its slope between the two.

A rule gets the call, the detached tensors that its function was given at the reference, and the arguments here.
Functions that are `COMPOSED` of others are written out in these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.core.trees import map_tensors, tensors_in
from apportion.engines.substitution import Call, Substitute
from apportion.engines.substitution.function_names import MOVES
from apportion.methods.propagation._softmax import logarithmic_means, pinned
from apportion.methods.propagation.operations import table as relevance


class _Sloped(torch.autograd.Function):
    """A given value, whose gradient at `z` is a given slope."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return y.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * ctx.saved_tensors[0], None, None


_sloped: Callable[..., Tensor] = _Sloped.apply


def rescaled(function: Callable[[Tensor], Tensor], z: Tensor, start: Tensor) -> Tensor:
    """An element-wise function of `z` under the rescale rule, where it was given `start` at the reference."""
    point = z.detach().requires_grad_()
    with torch.enable_grad():  # a model may write in place where it switched gradients off
        y = function(point)
    if y.shape != z.shape:
        return function(z)
    (derivative,) = torch.autograd.grad(y.sum(), point)
    y, y_start = y.detach(), function(start)
    step = point.detach() - start
    slope = (y - y_start) / step
    # Close to the reference the slope is little but rounding: the derivative is taken where that is all that it
    # differs by. Also where the slope is NaN: between equal points, or infinite ones, such as masked scores.
    rounding = torch.finfo(y.dtype).eps * (y.abs() + y_start.abs()) / step.abs()
    differs = (slope - derivative).abs() > rounding
    return _sloped(z, y, torch.where(differs, slope, derivative))


_CLIPS = frozenset({"relu", "relu6", "hardtanh"})


def clipped(function: Callable[[Tensor], Tensor], z: Tensor, start: Tensor) -> Tensor:
    """The same of a function that gives `z` itself between two bounds. Within them and beyond the slope is 1 and 0 to
    the bit, so that no rounding has to be told from it; between equal points it is the derivative."""
    point = z.detach()
    low, high = (function(point.new_full((), end)) for end in (-torch.inf, torch.inf))
    y = function(point)
    slope = (y - function(start)).div_(point - start)
    inside = (point > low) & (point < high)
    return _sloped(z, y, torch.where(slope.isnan(), inside.to(slope.dtype), slope))


def shared(
    function: Callable[[Tensor, Tensor], Tensor], pair: Sequence[Tensor], starts: Sequence[Tensor]
) -> Tensor:
    """A bilinear function of two signals: each is multiplied by the other's mean of input and reference."""
    a, b = pair
    middle_a, middle_b = ((x.detach() + start) / 2 for x, start in zip(pair, starts, strict=True))
    return pinned(function(a, b), function(a, middle_b) + function(middle_a, b))


INVERSE = "inverse"  # what is noted of the inverse of a size, such as a norm's

_INVERTING = frozenset({"rsqrt", "reciprocal", "rtruediv"})


def _elementwise(call: Call, starts: list[Tensor], *_: Any, **__: Any) -> Any:
    actives = call.actives
    if len(actives) != 1:
        return unruled(call)
    if actives[0].is_complex():
        return _absolute(call, actives[0], starts[0]) if call.name == "abs" else unruled(call)

    def function(z: Tensor) -> Any:
        args, kwargs = map_tensors((call.args, call.kwargs), lambda t: z if t is actives[0] else t)
        return call.function(*args, **kwargs)

    found = (clipped if call.name in _CLIPS else rescaled)(function, actives[0], starts[0])
    exponent = call.args[1] if call.name == "pow" and len(call.args) > 1 else 0
    if call.name in _INVERTING or (isinstance(exponent, int | float) and exponent < 0):
        call.run.notes[found] = INVERSE
    return found


def _absolute(call: Call, z: Tensor, start: Tensor) -> Tensor:
    """|z| of complex numbers: `|z| − |z′| = Re((z − z′)* (z + z′)) / (|z| + |z′|)`."""
    sizes = z.detach().abs() + start.abs()
    slope = torch.where(sizes > 0, (z.detach() + start) / sizes.clamp(min=torch.finfo(sizes.dtype).tiny), 0)
    return pinned(call.native(), (slope.conj() * z).real)


def _product(call: Call, starts: list[Tensor], *args: Any, **kwargs: Any) -> Any:
    if len(starts) == 1:
        return call.native()  # linear in it
    if len(starts) != 2 or len(list(tensors_in((args, kwargs)))) != 2:
        return unruled(call)
    inverse = [call.run.notes.get(t) == INVERSE for t in call.actives]
    if call.name == "mul" and inverse[0] != inverse[1]:
        size, x = inverse.index(True), inverse.index(False)
        return _scaled(call.actives[x], call.actives[size], starts[x], starts[size])

    def function(*pair: Tensor) -> Any:
        given = iter(pair)
        args, kwargs = map_tensors((call.args, call.kwargs), lambda _: next(given))
        return call.function(*args, **kwargs)

    return shared(function, call.actives, starts)


def _scaled(x: Tensor, scale: Tensor, x_start: Tensor, r_start: Tensor) -> Tensor:
    """A product whose second factor is an inverse size, as in a norm. `Δ(x r) = r Δx + x′ Δr = r′ Δx + x Δr`: of both
    the one with the smaller r, so that nothing explodes where one of the points is near zero and its r is huge."""
    here = scale.detach().abs() <= r_start.abs()
    r, other = torch.where(here, scale.detach(), r_start), torch.where(here, x_start, x.detach())
    return pinned(x * scale, x * r + other * scale)


# ---- sums of exponentials ----


def _finite(input: Tensor) -> Tensor:
    return input.masked_fill(input.detach().isinf(), 0)  # masked scores


def _softmax(
    call: Call, starts: list[Tensor], input: Tensor, dim: int | None = None, *_: Any, **__: Any
) -> Any:
    if dim is None:
        return unruled(call)
    mean, weights = logarithmic_means(input, starts[0], dim)
    scores = _finite(input)
    return pinned(call.native(), mean * (scores - (weights * scores).sum(dim, keepdim=True)))


def _log_softmax(
    call: Call, starts: list[Tensor], input: Tensor, dim: int | None = None, *_: Any, **__: Any
) -> Any:
    if dim is None:
        return unruled(call)
    scores = _finite(input)
    return pinned(
        call.native(), scores - (logarithmic_means(input, starts[0], dim)[1] * scores).sum(dim, keepdim=True)
    )


def _logsumexp(call: Call, starts: list[Tensor], input: Tensor, dim: Any, keepdim: bool = False) -> Any:
    weights = logarithmic_means(input, starts[0], dim)[1]
    return pinned(call.native(), (weights * _finite(input)).sum(dim, keepdim=keepdim))


# ---- extremes ----


def _shares(x: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """What hands the change of an extreme on to its place, where the input moved; and, where it did not, the input
    itself, whose gradient is the plain one."""
    step = x.detach() - start
    same = step == 0
    share = (x / step.masked_fill(same, 1)).masked_fill(same, 0)
    return share, torch.where(same, x, x.detach())


def _extreme(call: Call, starts: list[Tensor], input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """The largest (or smallest) along an axis, or of all: the change goes to where it was and where it is."""
    given = {**dict(zip(("dim", "keepdim"), args, strict=False)), **kwargs}
    dim, keepdim = given.get("dim"), given.get("keepdim", False)
    several = (isinstance(dim, tuple | list) and len(dim) != 1) or isinstance(dim, Tensor)
    if several or (dim is None and call.name in ("amax", "amin")):
        return unruled(call)
    dim = dim[0] if isinstance(dim, tuple | list) else dim
    sign = -1 if call.name.endswith("min") else 1
    x, start = (sign * (t if dim is not None else t.flatten()) for t in (input, starts[0]))
    axis = 0 if dim is None else dim
    (end_y, here), (start_y, there) = x.detach().max(axis, keepdim=True), start.max(axis, keepdim=True)
    share, own = _shares(x, start)
    highest = torch.maximum(end_y, start_y)
    moved = (highest - start_y) * share.gather(axis, here) + (end_y - highest) * share.gather(axis, there)
    found = sign * (moved + own.gather(axis, here))
    result = call.native()
    value = result if isinstance(result, Tensor) else result[0]
    found = pinned(value, found.view(value.shape) if dim is None or not keepdim else found)
    return found if isinstance(result, Tensor) else type(result)((found, result[1]))


def _max_pool(call: Call, starts: list[Tensor], input: Tensor, *args: Any, **kwargs: Any) -> Any:
    (start,), name = starts, call.name.removesuffix("_with_indices")
    dims, places = int(name[-2]), 1 if name.startswith("adaptive") else 5  # then `return_indices`, in `F`

    def pool(x: Tensor, indices: bool = True) -> Any:
        return getattr(F, name)(x, *args[:places], **{**kwargs, "return_indices": indices})

    (end_y, here), (start_y, there) = pool(input.detach()), pool(start)
    share, own = _shares(input, start)
    highest, flat = torch.maximum(end_y, start_y), share.flatten(-dims)

    def at(places: Tensor) -> Tensor:
        return flat.gather(-1, places.flatten(-dims)).view(places.shape)

    moved = (highest - start_y) * at(here) + (end_y - highest) * at(there)
    found = pinned(end_y, moved + pool(own, indices=False))
    with torch.no_grad():
        return found if isinstance(call.native(), Tensor) else (found, here)


# ---- what is written out ----


def _divide(call: Call, *args: Any, **kwargs: Any) -> Any:
    a, b = (*call.args, *call.kwargs.values())[:2]
    if not (isinstance(b, Tensor) and b.requires_grad):
        return call.native()
    if call.kwargs.get("rounding_mode"):
        return unruled(call)
    return call.run.again(torch.mul, call.run.again(torch.reciprocal, b), a)


def _centred(call: Call, input: Tensor, dims: Any) -> Tensor:
    return call.run.again(torch.sub, input, call.run.again(torch.mean, input, dims, True))  # type: ignore[no-any-return]


def _mean_square(call: Call, input: Tensor, dims: Any) -> Tensor:
    return call.run.again(torch.mean, call.run.again(torch.square, input), dims, True)  # type: ignore[no-any-return]


def _layer_norm(
    call: Call, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5, *_: Any, **__: Any,
) -> Any:  # fmt: skip
    dims = tuple(range(-len(normalized_shape), 0))
    return _affine(call, _normed(call, _centred(call, input, dims), dims, eps), weight, bias)


def _rms_norm(
    call: Call, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
    eps: float | None = None,
) -> Any:  # fmt: skip
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    return _affine(call, _normed(call, input, tuple(range(-len(normalized_shape), 0)), eps), weight, None)


def _normed(call: Call, x: Tensor, dims: Any, eps: float) -> Tensor:
    again = call.run.again
    return again(torch.mul, x, again(torch.rsqrt, again(torch.add, _mean_square(call, x, dims), eps)))  # type: ignore[no-any-return]


def _affine(call: Call, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else call.run.again(torch.mul, x, weight)
    return x if bias is None else call.run.again(torch.add, x, bias)


def _group_norm(
    call: Call, input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, *_: Any, **__: Any,
) -> Any:  # fmt: skip
    groups = call.run.again(
        torch.Tensor.reshape, input, (len(input), num_groups, -1)
    )  # (batch, groups, rest)
    normed = _normed(call, _centred(call, groups, -1), -1, eps)
    channels = [None if t is None else t.view(-1, *[1] * (input.dim() - 2)) for t in (weight, bias)]
    return _affine(call, call.run.again(torch.Tensor.reshape, normed, input.shape), *channels)


def _instance_norm(
    call: Call, input: Tensor, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5, *_: Any, **__: Any,
) -> Any:  # fmt: skip
    if not use_input_stats:
        return call.native()
    if call.function is not F.instance_norm:  # `torch.instance_norm` has the weights first
        weight, bias = running_mean, running_var
    return _group_norm(call, input, input.shape[1], weight, bias, eps)


def _variance(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """var and std, with whichever correction; not their kin that also return the mean."""
    names = ("dim", "unbiased", "keepdim") if not (args and isinstance(args[0], bool)) else ("unbiased",)
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    dims = given.get("dim", given.get("axis"))
    dims = tuple(range(input.dim())) if dims is None else dims
    correction = given.get("correction", int(given.get("unbiased", True)))
    many = input.numel() if isinstance(dims, tuple) and len(dims) == input.dim() else _size(input, dims)
    squares = _mean_square(call, _centred(call, input, dims), dims)
    found = call.run.again(torch.mul, squares, many / (many - (1 if correction is None else correction)))
    if not given.get("keepdim", False):
        found = call.run.again(torch.Tensor.reshape, found, call.native().shape)
    return call.run.again(torch.sqrt, found) if call.name == "std" else found


def _size(input: Tensor, dims: Any) -> int:
    sizes = [input.shape[d] for d in ((dims,) if isinstance(dims, int) else dims)]
    return int(torch.tensor(sizes).prod())


def _norm(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Euclidean norms, as the root of a sum of squares; sums of absolute values."""
    given = {**dict(zip(("p", "dim", "keepdim"), args, strict=False)), **kwargs}
    order, dims = given.get("p", given.get("ord", 2)), given.get("dim")
    if order not in (None, "fro", 2, 1) or input.is_complex() or given.get("dtype") is not None:
        return unruled(call)
    again = call.run.again
    parts = again(torch.abs if order == 1 else torch.square, input)
    sums = (
        again(torch.sum, parts)
        if dims is None
        else again(torch.sum, parts, dims, given.get("keepdim", False))
    )
    return sums if order == 1 else again(torch.sqrt, sums)


def _normalize(call: Call, input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, **_: Any) -> Any:
    again = call.run.again
    size = again(torch.clamp_min, again(torch.linalg.vector_norm, input, p, dim, True), eps)
    return again(torch.mul, input, again(torch.reciprocal, size))


def unruled(call: Call) -> Any:
    """A function that no rule is known for: its gradient, and its name in the warnings."""
    return call.run.state.unruled(call)


ELEMENTWISE = frozenset(
    """relu relu6 hardtanh leaky_relu elu selu celu gelu silu mish softplus sigmoid tanh hardsigmoid hardswish
    hardshrink softshrink tanhshrink softsign logsigmoid log_sigmoid threshold exp exp2 expm1 log log1p log2 log10 sqrt
    rsqrt square pow reciprocal abs clamp clamp_min clamp_max maximum minimum fmax fmin erf erfc sin cos rtruediv
    prelu floor ceil round trunc sign""".split()
)

RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("mul", "matmul", "einsum"), _product),
    **{
        f"{kind}max_pool{n}d{places}": _max_pool
        for kind in ("", "adaptive_")
        for n in (1, 2, 3)
        for places in ("", "_with_indices")
    },
    **dict.fromkeys(("max", "min", "amax", "amin"), _extreme),
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "logsumexp": _logsumexp,
}

COMPOSED: dict[str, Substitute] = {
    **relevance.COMPOSED,
    "div": _divide,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    **dict.fromkeys(("var", "std"), _variance),
    **dict.fromkeys(("norm", "linalg_vector_norm", "linalg_norm"), _norm),
    "normalize": _normalize,
}

# Functions that are linear in what depends on the input, whose gradient is right as it is.
LINEAR = MOVES | frozenset(
    """add sub rsub neg positive sum nansum mean nanmean cumsum diff trace linear convolution conv1d conv2d conv3d
    conv_transpose1d conv_transpose2d conv_transpose3d batch_norm native_batch_norm dropout dropout1d dropout2d
    dropout3d feature_dropout alpha_dropout feature_alpha_dropout native_dropout avg_pool1d avg_pool2d avg_pool3d
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d interpolate
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d
    upsample_trilinear3d where masked_fill fill zero col2im fold scatter_add index_add view_as_real view_as_complex
    complex imag conj conj_physical resolve_conj resolve_neg stft istft detach embedding embedding_bag max_unpool1d
    max_unpool2d max_unpool3d sparse_mm _sparse_mm native_channel_shuffle lift_fresh""".split()
)


def other(call: Call, *args: Any, **kwargs: Any) -> Any:
    """A function without a rule of its own."""
    fine = call.name in LINEAR or call.name in _FLAT or call.name.startswith("fft_")
    return call.native() if fine else unruled(call)


# Nothing passes these: comparisons, places and the like (see `Constants` for what they change further on).
_FLAT = frozenset(
    "eq ne lt le gt ge argmax argmin argsort isnan isinf isfinite any all bincount "
    "searchsorted bucketize one_hot nonzero logical_not logical_and logical_or isclose allclose equal".split()
)
