"""How relevance passes each operation that is not left to its own gradient.

The gradient itself is the right rule (LRP-0) wherever an operation only moves entries, adds them up or selects
among them, and more generally wherever it is positively homogeneous: by Euler's theorem `Σ x · ∂y/∂x = y`.
`TABLE` maps the name of a function to its treatment; `other` takes every name that is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.methods.relevance.parts import PARTS
from apportion.methods.relevance.propagation import Note, Propagation, scales
from apportion.methods.relevance.rules import Layer, Proportional, Zero
from apportion.substitution import MOVES, Call, Substitute, map_tensors, tensors_in, without_running_updates

HOMOGENEOUS = frozenset(
    """neg positive sum nansum mean nanmean cumsum add sub rsub relu leaky_relu prelu rrelu abs max min amax amin
    maximum minimum fmax fmin topk sort msort kthvalue median nanmedian mode aminmax max_pool1d max_pool2d
    max_pool3d fractional_max_pool2d fractional_max_pool3d adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d max_pool2d_with_indices max_pool3d_with_indices max_pool1d_with_indices max_unpool1d
    max_unpool2d max_unpool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    _adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool3d lp_pool1d lp_pool2d lp_pool3d interpolate
    upsample upsample_nearest upsample_bilinear upsample_nearest1d upsample_nearest2d upsample_nearest3d
    upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa
    _upsample_bicubic2d_aa norm vector_norm linalg_vector_norm matrix_norm frobenius_norm where masked_fill fill
    masked_fill_ zero col2im fold segment_reduce scatter_add scatter_reduce index_add index_reduce diff dropout
    dropout1d dropout2d dropout3d feature_dropout alpha_dropout feature_alpha_dropout native_dropout std
    std_mean trace logical_not complex view_as_real view_as_complex imag polar conj conj_physical resolve_conj
    resolve_neg roll hypot renorm normal bernoulli uniform stft istft nan_to_num affine_grid contiguous_format
    histc data requires_grad_""".split()
)

ELEMENTWISE = frozenset(
    """gelu silu swish mish elu selu celu softplus softsign hardswish hardtanh relu6 tanhshrink softshrink hardshrink
    logsigmoid log_sigmoid exp exp2 log log2 log10 log1p expm1 sin cos tan asin acos atan sinh cosh asinh acosh atanh
    erfc erfinv square clamp clamp_min clamp_max clip floor ceil round trunc frac sign sgn threshold sinc lgamma
    digamma float_power rpow arctan arcsin arccos logit special_log1p special_expm1 i0 special_i0 xlogy""".split()
)

# Weights in [0, 1]: with one of these in a product, the other factor takes all the relevance.
GATES = frozenset({"sigmoid", "hardsigmoid", "special_ndtr", "ndtr"})
TAYLOR = frozenset({"log_softmax", "logsumexp", "softmin", "special_log_softmax"})
SQUARED_DEGREE = {"var": 2.0, "var_mean": 2.0}


def other(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Moves, homogeneous functions, comparisons; and functions that no rule is known for."""
    name = call.name
    if name in MOVES:
        result = call.native()
        _carry_kind(call, result)
        return result
    if name in HOMOGENEOUS or name.startswith(("fft_", "linalg_norm")):
        return call.native()
    if name in ELEMENTWISE:
        return elementwise(call, *args, **kwargs)
    state: Propagation = call.run.state
    return state.unruled(call)


def _kind(call: Call, tensor: Any) -> str:
    note = call.run.notes.get(tensor) if isinstance(tensor, Tensor) else None
    return "" if note is None else note.kind


def _tag(call: Call, tensor: Tensor, kind: str) -> Tensor:
    call.run.notes[tensor] = Note(kind=kind)
    return tensor


def _carry_kind(call: Call, result: Any) -> None:
    first = next((t for t in tensors_in((call.args, call.kwargs)) if t.requires_grad), None)
    kind = "" if first is None else _kind(call, first)
    if kind:
        for tensor in tensors_in(result):
            if tensor is not first:
                _tag(call, tensor, kind)


# ---- element-wise functions: relevance is passed on as it is ----


class PassOn(torch.autograd.Function):
    """`y = f(x)` with the gradient `y / x`, so that `x · G_x = y · G_y`.

    Where f(0), the `constant`, is not zero, that quotient has a pole: `exp(a − b)` at `a = b` would hand huge
    amounts to a and b that only nearly cancel. There the constant's part is damped, and is absorbed like a bias.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], constant: bool) -> Tensor:
        ctx.save_for_backward(x)  # y is made again rather than held: what made x mostly holds x already
        ctx.function, ctx.constant = function, constant
        return function(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        y = ctx.function(x)
        tiny = {torch.float64: 1e-14, torch.float16: 1e-6}.get(x.dtype, 1e-9)
        away = x + tiny if x.is_complex() else torch.copysign(torch.full_like(x, tiny), x).add_(x)
        if not ctx.constant:
            return (gradient * y).div_(away), None, None
        constant = ctx.function(torch.zeros_like(x))
        near = torch.finfo(x.dtype).eps  # √eps keeps as many digits of what cancels as it takes off
        slope = (y - constant) / away + constant / (x + near / x)
        return gradient * slope, None, None


# Element-wise functions with f(0) ≠ 0.
AWAY_FROM_ZERO = frozenset(
    """exp exp2 cos cosh acos arccos sinc softplus logsigmoid log_sigmoid sigmoid hardsigmoid erfc i0 special_i0 ndtr
    special_ndtr clamp clamp_min clamp_max clip threshold""".split()
)


pass_on: Callable[..., Tensor] = PassOn.apply


def elementwise(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Any element-wise function of one active tensor: identity rule."""
    function, actives = call.function, call.actives
    x = actives[0]
    if len({id(t) for t in actives}) > 1:
        return product_of_all(call)

    # The function is kept for the backward pass: it must not keep x itself, and with it what is noted of it.
    hole = x.new_empty(0)
    given = map_tensors((call.args, call.kwargs), lambda t: hole if t is x else t)

    def apply(point: Tensor) -> Tensor:
        args, kwargs = map_tensors(given, lambda t: point if t is hole else t)
        return function(*args, **kwargs)  # type: ignore[no-any-return]

    y = pass_on(x, apply, call.name in AWAY_FROM_ZERO and not x.is_complex())
    if _kind(call, x) == "scale":
        _tag(call, y, "scale")
    return y


def gate(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    return _tag(call, elementwise(call, *args, **kwargs), "gate")


def saturating(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """tanh, erf: `1 + tanh` is a gate (hand-written GELU), and so is the tanh of something positive (Mish)."""
    positive = _kind(call, call.actives[0]) == "positive"
    return _tag(call, elementwise(call, *args, **kwargs), "gate" if positive else "tanh")


def positive(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    return _tag(call, elementwise(call, *args, **kwargs), "positive")


def inverse(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """rsqrt, sqrt, reciprocal: a divisor or its inverse; in a product the other factor takes all."""
    return _tag(call, elementwise(call, *args, **kwargs), "scale")


def power(call: Call, input: Any, exponent: Any) -> Any:
    if isinstance(exponent, Tensor) and exponent.requires_grad:
        return elementwise(call, input, exponent)
    if isinstance(exponent, int | float):
        if exponent == 1:
            return call.native()
        if exponent < 0 or exponent == 0.5:
            return inverse(call, input, exponent)
    return elementwise(call, input, exponent)


def relu(call: Call, input: Tensor, inplace: bool = False) -> Tensor:
    state: Propagation = call.run.state
    return state.relu(call, input)


def threshold(call: Call, input: Tensor, threshold: float, value: float, inplace: bool = False) -> Any:
    return relu(call, input) if threshold == 0 and value == 0 else elementwise(call)


def add(call: Call, *args: Any, **kwargs: Any) -> Any:
    result = call.native()
    kinds = {_kind(call, t) for t in tensors_in((call.args, call.kwargs)) if t.requires_grad}
    if kinds == {"tanh"} and len(call.actives) == 1:
        _tag(call, result, "gate")
    elif kinds in ({"gate"}, {"scale"}, {"positive"}):
        _tag(call, result, next(iter(kinds)))
    return result


# ---- products ----


def product(call: Call, *args: Any, **kwargs: Any) -> Any:
    """`a · b`: half the relevance each, or all of it to the signal where the other factor is a gate or scale."""
    a, b = _operands(call)
    if not (_active(a) and _active(b)):
        result = call.native()
        _carry_kind(call, result)
        return result
    kind_a, kind_b = _kind(call, a), _kind(call, b)
    weighs = ("gate", "scale")
    if (kind_a in weighs) != (kind_b in weighs):
        signal, weight = (b, a) if kind_a in weighs else (a, b)
        return signal * weight.detach()
    result = halved(call.native(), 2)
    return _tag(call, result, kind_a) if kind_a in weighs else result


class Share(torch.autograd.Function):
    """The same tensor, with a share of its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: float) -> Tensor:
        ctx.share = share
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient * ctx.share, None


share_gradient: Callable[..., Tensor] = Share.apply


def halved(result: Tensor, factors: float) -> Tensor:
    """Each of several factors has the whole relevance as its `x · gradient`; give each its share."""
    return share_gradient(result, 1 / factors) if factors > 1 and result.requires_grad else result


def product_of_all(call: Call) -> Any:
    return halved(call.native(), len({id(t) for t in call.actives}))


def _operands(call: Call) -> tuple[Any, Any]:
    values = [*call.args, *call.kwargs.values()]
    return values[0], values[1]


def _active(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def divide(call: Call, *args: Any, **kwargs: Any) -> Any:
    """`a / b`: the numerator takes all; a constant over `b` passes on to `b`, as an inverse."""
    a, b = _operands(call)
    if call.name == "rtruediv":
        a, b = b, a
    if not _active(b):
        result = call.native()
        _carry_kind(call, result)
        return result
    if not _active(a):
        return inverse(call)
    if kwargs.get("rounding_mode"):
        return elementwise(call)
    return a / b.detach()


def matmul(call: Call, *args: Any, **kwargs: Any) -> Any:
    a, b = _operands(call)
    if call.name == "rmatmul":
        a, b = b, a
    if not isinstance(b, Tensor) or not isinstance(a, Tensor):
        return call.native()
    if _active(a) and _active(b):
        if _kind(call, a) == "gate" and call.run.state.composite.softmax == "constant":
            return torch.matmul(a.detach(), b)
        return shared_product(a, b) if a.shape[:-2] == b.shape[:-2] and a.dim() > 1 else halved(torch.matmul(a, b), 2)
    if _active(a):
        layer = Layer(lambda x, w, bias: torch.matmul(x, w), b)
        return call.run.state.layer(call, layer, a, "matmul")
    layer = Layer(lambda x, w, bias: torch.matmul(w, x), a)
    return call.run.state.layer(call, layer, b, "matmul")


class SharedProduct(torch.autograd.Function):
    """`a @ b` with half the relevance each. It holds the factors as they come, mostly views of what is held anyway,
    where `torch.matmul` holds contiguous copies of them."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return torch.matmul(a, b)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        a, b = ctx.saved_tensors
        half = gradient / 2
        return torch.matmul(half, b.mH), torch.matmul(a.mH, half)


shared_product: Callable[..., Tensor] = SharedProduct.apply


def einsum(call: Call, *args: Any, **kwargs: Any) -> Any:
    """A product of all operands; with one active operand it is a layer."""
    actives = list({id(t): t for t in call.actives}.values())
    many = sum(t.requires_grad for t in tensors_in((call.args, call.kwargs)))
    if many > 1:
        constant = call.run.state.composite.softmax == "constant"
        gates = [t for t in actives if _kind(call, t) == "gate"] if constant else []
        if gates and len(gates) < len(actives):
            detach = lambda t: t.detach() if any(t is g for g in gates) else t  # noqa: E731
            return halved(call.function(*map_tensors(call.args, detach), **call.kwargs), many - len(gates))
        return halved(call.native(), many)
    constants = [t for t in tensors_in((call.args, call.kwargs)) if not t.requires_grad]
    if len(constants) != 1:
        return call.native()

    def forward(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        swap = lambda t: x if t is actives[0] else w if t is constants[0] else t  # noqa: E731
        return call.function(*map_tensors(call.args, swap), **map_tensors(call.kwargs, swap))  # type: ignore[no-any-return]

    return call.run.state.layer(call, Layer(forward, constants[0]), actives[0], "matmul")


_TERMS = (
    *("input", "self", "mat1", "batch1", "mat", "vec1", "tensor1"),
    *("mat2", "batch2", "vec", "vec2", "tensor2"),
)


def _terms(call: Call) -> tuple[Any, Any, Any]:
    """The summand and the two factors of an addmm, however the model names them."""
    named = [call.kwargs[name] for name in _TERMS if name in call.kwargs]
    summand, a, b = (*call.args, *named)[:3]
    return summand, a, b


def add_product(call: Call, *_: Any, beta: float = 1, alpha: float = 1, value: float = 1, **__: Any) -> Any:
    """addmm, baddbmm, addmv, addbmm, addr, addcmul: a product, and a sum."""
    run, name = call.run, call.name
    summand, a, b = _terms(call)
    if name == "addmm" and alpha == beta == 1 and summand.dim() == 1 and not (_active(summand) or _active(b)):
        return run.again(F.linear, a, b.t(), summand)  # what a dense layer becomes in an exported program
    if name == "addcmul":
        alpha = value
        found = run.again(torch.mul, a, b)
    elif name == "addr":
        found = run.again(torch.mul, run.again(torch.unsqueeze, a, 1), b)
    else:
        found = run.again(torch.matmul, a, b)
        if name == "addbmm":
            found = run.again(torch.sum, found, 0)
    found = found if alpha == 1 else run.again(torch.mul, found, alpha)
    if beta == 0:
        return found
    return run.again(torch.add, found, summand if beta == 1 else run.again(torch.mul, summand, beta))


def solve(call: Call, *args: Any, **kwargs: Any) -> Any:
    """`A⁻¹ B`, like a quotient: B takes all. An inverse alone is homogeneous of degree −1 in A."""
    operands = list(tensors_in((call.args, call.kwargs)))
    matrix = operands[0]
    if len(operands) == 1 or not _active(operands[1]):
        return share_gradient(call.native(), -1.0)
    detach = lambda t: t.detach() if t is matrix else t  # noqa: E731
    return call.function(*map_tensors(call.args, detach), **map_tensors(call.kwargs, detach))


def add_quotient(call: Call, *_: Any, value: float = 1, **__: Any) -> Any:
    run = call.run
    summand, a, b = _terms(call)
    return run.again(torch.add, summand, run.again(torch.mul, run.again(torch.div, a, b), value))


def grouped_product(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Rows in groups, each group times a matrix of its own: the experts of a mixture, which are layers."""
    a, b = _operands(call)
    if _active(a) and _active(b):
        return halved(call.native(), 2)
    x, weight = (a, b) if _active(a) else (b, a)

    def forward(point: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        swap = lambda t: point if t is x else w if t is weight else t  # noqa: E731
        return call.function(*map_tensors(args, swap), **map_tensors(kwargs, swap))  # type: ignore[no-any-return]

    return call.run.state.layer(call, Layer(forward, weight), x, "matmul")


def glu(call: Call, input: Tensor, dim: int = -1) -> Any:
    run = call.run
    signal, weight = run.again(torch.chunk, input, 2, dim)
    return run.again(torch.mul, signal, run.again(torch.sigmoid, weight))


def cosine_similarity(call: Call, x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Any:
    run = call.run
    one, two = (
        run.again(F.normalize, x, dim=dim, eps=eps) if _active(x) else F.normalize(x, dim=dim, eps=eps)
        for x in (x1, x2)
    )
    return run.again(torch.sum, run.again(torch.mul, one, two), dim)


def lerp(call: Call, input: Tensor, end: Tensor, weight: Any) -> Any:
    if _active(weight):
        return call.function(input, end, weight.detach())
    return call.native()


def multiplied_along(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    dim = kwargs.get("dim", args[0] if args else None)
    return halved(call.native(), input.numel() if dim is None else input.shape[dim])


def grid_sample(call: Call, input: Tensor, grid: Tensor, *args: Any, **kwargs: Any) -> Any:
    return (
        call.function(input, grid.detach(), *args, **kwargs)
        if _active(input)
        else call.run.state.unruled(call)
    )


# ---- layers ----


def linear(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    if _active(weight) or _active(bias):
        return _with_active_weight(call, input, weight, bias, lambda x, w: F.linear(x, w))

    def adjoint(g: Tensor, x: Tensor, w: Tensor) -> Tensor:
        return torch.matmul(g, w)

    return call.run.state.layer(call, Layer(F.linear, weight, bias, adjoint=adjoint), input, "linear")


def _with_active_weight(
    call: Call, input: Tensor, weight: Tensor, bias: Tensor | None, apply: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """A layer whose weights depend on the input: a product of two activations."""
    result = halved(apply(input, weight), int(_active(input)) + int(_active(weight)))
    if bias is None:
        return result
    channel = bias if input.dim() <= 2 or call.name == "linear" else bias.view(-1, *[1] * (result.dim() - 2))
    return result + channel


def convolution(
    call: Call,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    return _convolve(call, input, weight, bias, stride, padding, dilation, False, 0, groups)


def transposed_convolution(
    call: Call,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    return _convolve(call, input, weight, bias, stride, padding, dilation, True, output_padding, groups)


def any_convolution(
    call: Call, input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int, *_: Any,
) -> Any:  # fmt: skip
    return _convolve(call, input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)


def _convolve(
    call: Call, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Any:  # fmt: skip
    spatial = weight.dim() - 2

    def each(value: Any) -> tuple[int, ...]:
        many = (value,) * spatial if isinstance(value, int) else tuple(value)
        return many * spatial if len(many) == 1 and spatial > 1 else many

    stride, dilation = each(stride), each(dilation)
    padding, sides = _same(weight, padding, dilation)
    while isinstance(before := call.run.notes.get(input), Padded):
        if len(before.sides) > 2 * spatial or _active(weight) or _active(bias):
            break
        input = before.input
        sides = [a + b for a, b in zip_longest(sides, before.sides, fillvalue=0)]
    padding, output_padding = each(padding), each(output_padding)
    unbatched = input.dim() == spatial + 1
    if unbatched:
        input = call.run.again(torch.unsqueeze, input, 0)
    settings = (stride, padding, dilation, transposed, output_padding, groups)
    if _active(weight) or _active(bias):
        result = _with_active_weight(
            call,
            F.pad(input, sides) if sides else input,
            weight,
            bias,
            lambda x, w: torch.convolution(x, w, None, *settings),
        )
    else:

        def forward(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
            return torch.convolution(F.pad(x, sides) if sides else x, w, b, *settings)

        def adjoint(g: Tensor, x: Tensor, w: Tensor) -> Tensor:
            x = F.pad(x, sides) if sides else x
            found: Tensor = torch.ops.aten.convolution_backward(
                g, x, w, None, *settings, [True, False, False]
            )[0]
            return F.pad(found, [-side for side in sides]) if sides else found

        layer = Layer(forward, weight, bias, channel=1, adjoint=adjoint)
        result = call.run.state.layer(call, layer, input, "convolution")
    return call.run.again(torch.squeeze, result, 0) if unbatched else result


@dataclass
class Padded(Note):
    """A picture with zeros around it, by a function of its own. The layer that reads it takes the picture instead:
    no input could hold what a rule like flat would hand to the zeros."""

    input: Any = None
    sides: Sequence[int] = ()


def pad(call: Call, input: Tensor, pad: Any, mode: Any = "constant", value: Any = None) -> Any:
    result = call.native()
    composite, run = call.run.state.composite, call.run
    if isinstance(mode, int | float):  # `constant_pad_nd` has the value in this place
        mode, value = "constant", mode
    sides = list(pad)
    direct = getattr(composite.first, "direct", False) and not (composite.names or composite.types)
    if direct and mode == "constant" and not value and min(sides) >= 0 and run.shadows.get(input) is not None:
        run.notes[result] = Padded(input=input, sides=sides)
    else:
        _carry_kind(call, result)
    return result


def _same(weight: Tensor, padding: Any, dilation: Sequence[int]) -> tuple[Any, list[int]]:
    """Padding as numbers; what "same" puts on one side more than on the other comes as the sides of `F.pad`."""
    if not isinstance(padding, str):
        return padding, []
    pads = (
        [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)] if padding == "same" else [0]
    )
    if not any(pad % 2 for pad in pads):
        return [pad // 2 for pad in pads], []
    return 0, [side for pad in reversed(pads) for side in (pad // 2, pad - pad // 2)]


def bilinear(call: Call, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    result = halved(call.function(input1, input2, weight, None), int(_active(input1)) + int(_active(input2)))
    return result if bias is None else result + bias


def max_pool(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Winner takes all, which is the gradient; or in proportion to what is pooled, by choice."""
    if call.run.state.composite.pooling == "winner":
        return call.native()
    dims = int(call.name[-2])
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if given.get("dilation", 1) not in (1, (1,) * dims, [1] * dims) or given.get("return_indices"):
        return call.run.state.unruled(call)
    kernel, pool = given["kernel_size"], (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[dims - 1]
    count = kernel**dims if isinstance(kernel, int) else math.prod(kernel)
    stride = given.get("stride") or kernel
    places = (kernel, stride, given.get("padding", 0), given.get("ceil_mode", False))
    layer = Layer(lambda x, w, b: pool(x, *places) * count, input.new_ones(()))
    return call.run.state.ruled_layer(
        call, layer, input, Proportional(), None, value=lambda: call.function(input.detach(), *args, **kwargs)
    )


# ---- normalisation: the denominator is a constant ----


class Normalise(torch.autograd.Function):
    """`y = (x − mean) · r · w + b` as the model computes it, with `r` constant in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, r: Tensor, weight: Tensor | None, dims: tuple[int, ...], centred: bool
    ) -> Tensor:
        ctx.save_for_backward(r, weight)
        ctx.dims, ctx.centred, ctx.shape = dims, centred, x.shape
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        r, weight = ctx.saved_tensors
        g = gradient * r if weight is None else (gradient * weight).mul_(r)
        if ctx.centred:
            g = g - g.mean(ctx.dims, keepdim=True)
        return g, None, None, None, None, None


normalise: Callable[..., Tensor] = Normalise.apply


def _normalised(
    call: Call,
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    dims: tuple[int, ...],
    eps: float,
    centred: bool = True,
) -> Tensor:
    with torch.no_grad():
        spread = (
            x.detach().var(dims, correction=0, keepdim=True)
            if centred
            else x.detach().square().mean(dims, keepdim=True)
        )
        r = torch.rsqrt(spread + eps)
    return normalise(x, y, r.to(x.dtype), weight, dims, centred)


def layer_norm(
    call: Call, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5, *_: Any, **__: Any,
) -> Any:  # fmt: skip
    y = torch.layer_norm(input.detach(), list(normalized_shape), weight, bias, eps)
    return _normalised(call, input, y, weight, tuple(range(-len(normalized_shape), 0)), eps)


def rms_norm(
    call: Call,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Any:
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    y = call.function(input.detach(), normalized_shape, weight, eps)
    return _normalised(call, input, y, weight, tuple(range(-len(normalized_shape), 0)), eps, centred=False)


def group_norm(
    call: Call, input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, *_: Any, **__: Any,
) -> Any:  # fmt: skip
    y = torch.group_norm(input.detach(), num_groups, weight, bias, eps)
    return _grouped(call, input, y, num_groups, weight, eps)


def _grouped(call: Call, input: Tensor, y: Tensor, groups: int, weight: Tensor | None, eps: float) -> Tensor:
    shape = (input.shape[0], groups, input.shape[1] // groups, *input.shape[2:])
    w = None
    if weight is not None:
        w = weight.view(1, groups, -1, *[1] * (input.dim() - 2))
    dims = tuple(range(2, len(shape)))
    return _normalised(call, input.reshape(shape), y.reshape(shape), w, dims, eps).reshape(input.shape)


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
    return _grouped(call, input, y.detach(), input.shape[1], weight, eps)


def batch_norm(call: Call, *args: Any, **kwargs: Any) -> Any:
    """`F.batch_norm` has the statistics first, `torch.batch_norm` and the operators the weights."""
    names: tuple[str, ...] = (
        "input",
        "running_mean",
        "running_var",
        "weight",
        "bias",
        "training",
        "momentum",
        "eps",
    )
    if call.function is not F.batch_norm:
        names = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
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
    state: Propagation = call.run.state
    if training or running_mean is None:
        y = torch.batch_norm(input.detach(), weight, bias, None, None, True, 0.0, eps, False)
        w = None if weight is None else _column(weight, input)
        return _normalised(call, input, y, w, (0, *range(2, input.dim())), eps)
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale if bias is None else bias - running_mean * scale
    scale, shift = scale.to(input.dtype), shift.to(input.dtype)
    note: Note | None = call.run.notes.get(input)

    def apply(x: Tensor) -> Tensor:
        return torch.batch_norm(x, weight, bias, running_mean, running_var, False, 0.0, eps, False)

    if (
        note is not None
        and note.layer is not None
        and (folded := _fold(note.layer, scale, shift, input)) is not None
    ):
        assert note.x is not None
        assert note.raw is not None
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
    if layer.adjoint is None or channel != 1 or w.dim() < 2 or w.shape[0] != len(scale):
        return None
    weight = w * scale.view(-1, *[1] * (w.dim() - 1))
    bias = shift if layer.bias is None else layer.bias * scale + shift
    return Layer(layer.forward, weight, bias, layer.channel, layer.adjoint)


def native_layer_norm(call: Call, *args: Any, **kwargs: Any) -> Any:
    return layer_norm(call, *args, **kwargs), None, None


def native_group_norm(
    call: Call, input: Tensor, weight: Any, bias: Any, n: int, c: int, hw: int, group: int, eps: float
) -> Any:
    y = torch.group_norm(input.detach(), group, weight, bias, eps)
    return _grouped(call, input, y, group, weight, eps), None, None


def normalize(call: Call, input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, **_: Any) -> Any:
    return input / input.detach().norm(p, dim, keepdim=True).clamp_min(eps)


def local_response_norm(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    y = call.function(input.detach(), *args, **kwargs)
    return input * torch.where(input == 0, torch.zeros_like(y), y / input.detach())


# ---- the rest ----


def softmax(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Its own gradient (the Taylor form of AttnLRP), or constant weights."""
    result = call.native()
    if call.run.state.composite.softmax == "constant":
        return result.detach()
    return _tag(call, result, "gate")


def dropout(
    call: Call, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, **kwargs: Any
) -> Any:
    if not kwargs.get("train", training):
        return input
    return call.native()


def var(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Homogeneous of degree two: half of its gradient."""
    result = call.native()
    return halved(result, 2) if isinstance(result, Tensor) else (halved(result[0], 2), *result[1:])


def taylor(call: Call, *args: Any, **kwargs: Any) -> Any:
    return call.native()


COMPOSED: dict[str, Substitute] = {
    **PARTS,
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "addbmm", "addr", "addcmul"), add_product),
    "addcdiv": add_quotient,
    "glu": glu,
    "cosine_similarity": cosine_similarity,
}
"""Treatments that only call other operations: the ledger has rows for those."""

TABLE: dict[str, Substitute] = {
    **dict.fromkeys(GATES, gate),
    **dict.fromkeys(("tanh", "erf", "special_erf"), saturating),
    **dict.fromkeys(("softplus",), positive),
    **dict.fromkeys(("rsqrt", "sqrt", "reciprocal"), inverse),
    **dict.fromkeys(("pow", "float_power", "pow_tensor"), power),
    **dict.fromkeys(("add", "sub", "rsub"), add),
    **dict.fromkeys(("mul",), product),
    **dict.fromkeys(("div", "rtruediv"), divide),
    **dict.fromkeys(("matmul", "rmatmul"), matmul),
    **dict.fromkeys(("grouped_mm", "_grouped_mm", "grouped_mm_fallback"), grouped_product),
    **dict.fromkeys(
        ("einsum", "tensordot", "chain_matmul", "linalg_multi_dot", "inner", "outer", "ger", "kron"), einsum
    ),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), transposed_convolution),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), max_pool),
    **dict.fromkeys(("softmax", "_safe_softmax"), softmax),
    **dict.fromkeys(
        ("dropout", "feature_dropout", "alpha_dropout", "dropout1d", "dropout2d", "dropout3d"), dropout
    ),
    **dict.fromkeys(("var", "var_mean"), var),
    **dict.fromkeys(("prod", "cumprod"), multiplied_along),
    **dict.fromkeys(TAYLOR, taylor),
    "relu": relu,
    "threshold": threshold,
    "pad": pad,
    "constant_pad_nd": pad,
    **dict.fromkeys(("linalg_solve", "linalg_solve_triangular", "linalg_inv", "inverse"), solve),
    "lerp": lerp,
    "grid_sample": grid_sample,
    "linear": linear,
    "convolution": any_convolution,
    "bilinear": bilinear,
    "layer_norm": layer_norm,
    "native_layer_norm": native_layer_norm,
    "native_group_norm": native_group_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    **dict.fromkeys(
        (
            "batch_norm",
            "native_batch_norm",
            "cudnn_batch_norm",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_no_training",
        ),
        batch_norm,
    ),
    "normalize": normalize,
    "local_response_norm": local_response_norm,
    **COMPOSED,
}
