"""Element-wise functions of one active tensor, which pass relevance on as it is; and quotients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from apportion.core.trees import map_tensors, tensors_in
from apportion.engines.substitution import Call
from apportion.methods.propagation._tags import active, carry_kind, kind_of, operands, state_of, tag

ELEMENTWISE = frozenset(
    """gelu silu mish elu selu celu softsign hardswish hardtanh relu6 tanhshrink softshrink hardshrink log_sigmoid
    exp2 log log2 log10 log1p expm1 sin cos tan asin acos atan sinh cosh asinh acosh atanh erfc erfinv square floor
    ceil round trunc frac sign sgn sinc lgamma digamma rpow arctan arcsin arccos logit special_log1p special_expm1
    i0 special_i0 xlogy prelu renorm floordiv floor_divide""".split()
)


class PassOn(torch.autograd.Function):
    """`y = f(x)` with the gradient `y / x`, so that `x · G_x = y · G_y`.

    Where f(0), the `constant`, is not zero, that quotient has a pole: `exp(a − b)` at `a = b` would hand huge
    amounts to a and b that only nearly cancel. There the constant's part is damped, and is absorbed like a bias.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], constant: Tensor | None) -> Tensor:
        ctx.save_for_backward(x)  # y is made again rather than held: what made x mostly holds x already
        ctx.function, ctx.constant = function, constant
        return function(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        y = ctx.function(x)
        tiny = {torch.float64: 1e-14, torch.float16: 1e-6}.get(x.dtype, 1e-9)
        away = x + tiny if x.is_complex() else torch.full_like(x, tiny).copysign_(x).add_(x)
        constant = ctx.constant
        if constant is None:
            return (gradient * y).div_(away), None, None
        near = torch.finfo(x.dtype).eps  # √eps keeps as many digits of what cancels as it takes off
        slope = (y - constant) / away + constant / (x + near / x)
        return gradient * slope, None, None


# Element-wise functions that may have an f(0) ≠ 0.
AWAY_FROM_ZERO = frozenset(
    """exp exp2 cos cosh acos arccos sinc softplus log_sigmoid sigmoid hardsigmoid erfc i0 special_i0 special_ndtr
    clamp clamp_min clamp_max hardtanh threshold rpow pow float_power""".split()
)


pass_on: Callable[..., Tensor] = PassOn.apply


def elementwise(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Any element-wise function of one active tensor: identity rule. No rule is known for a function of two."""
    function, actives = call.function, call.actives
    x = actives[0]
    if any(t is not x for t in actives):
        return state_of(call).unruled(call)

    # The function is kept for the backward pass: it must not keep x itself, and with it what is noted of it.
    hole = x.new_empty(0)
    given = map_tensors((call.args, call.kwargs), lambda t: hole if t is x else t)

    def apply(point: Tensor) -> Tensor:
        args, kwargs = map_tensors(given, lambda t: point if t is hole else t)
        return function(*args, **kwargs)  # type: ignore[no-any-return]

    constant = None
    if call.name in AWAY_FROM_ZERO and not x.is_complex():
        at_zero = torch.nan_to_num(apply(x.new_zeros(())), 0.0, 0.0, 0.0)  # an infinite one stays whole
        constant = at_zero if bool(at_zero.any()) else None
    y = state_of(call).folded(call, x, apply) if constant is None else None
    if y is None:
        y = pass_on(x, apply, constant)
    if kind_of(call, x) == "scale":
        tag(call, y, "scale")
    return y


def gate(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    return tag(call, elementwise(call, *args, **kwargs), "gate")


def saturating(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """tanh, erf: `1 + tanh` is a gate (hand-written GELU), and so is the tanh of something positive (Mish)."""
    positive = kind_of(call, call.actives[0]) == "positive"
    return tag(call, elementwise(call, *args, **kwargs), "gate" if positive else "tanh")


def positive(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    return tag(call, elementwise(call, *args, **kwargs), "positive")


def inverse(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """rsqrt, sqrt, reciprocal: a divisor or its inverse; in a product the other factor takes all."""
    return tag(call, elementwise(call, *args, **kwargs), "scale")


def power(call: Call, input: Any, exponent: Any) -> Any:
    if isinstance(exponent, Tensor) and exponent.requires_grad:
        return elementwise(call, input, exponent)
    if isinstance(exponent, int | float):
        if exponent == 1:
            return call.native()
        if exponent < 0 or exponent == 0.5:
            return inverse(call, input, exponent)
    return elementwise(call, input, exponent)


def clamp(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Bounds that depend on the input are chosen among like other entries: homogeneous, as a maximum is."""
    return call.native() if any(map(active, (*args, *kwargs.values()))) else elementwise(call)


def relu(call: Call, input: Tensor, inplace: bool = False) -> Tensor:
    folded = state_of(call).folded(call, input, torch.relu)
    return torch.relu(input) if folded is None else folded


def threshold(call: Call, input: Tensor, threshold: float, value: float, inplace: bool = False) -> Any:
    return relu(call, input) if threshold == 0 and value == 0 else elementwise(call)


def add(call: Call, *args: Any, **kwargs: Any) -> Any:
    result = call.native()
    if len(call.actives) == 1:
        result = state_of(call).shift(result, lambda: _at_zero(call).expand_as(result))
    kinds = {kind_of(call, t) for t in tensors_in((call.args, call.kwargs)) if t.requires_grad}
    if kinds == {"tanh"} and len(call.actives) == 1:
        tag(call, result, "gate")
    elif kinds in ({"gate"}, {"scale"}) or (kinds == {"positive"} and call.name == "add"):
        tag(call, result, next(iter(kinds)))
    return result


def _at_zero(call: Call) -> Tensor:
    """What a function of one active tensor makes of zeros."""
    zero = torch.zeros_like(call.actives[0])
    args, kwargs = map_tensors((call.args, call.kwargs), lambda t: zero if t is call.actives[0] else t)
    return call.function(*args, **kwargs)  # type: ignore[no-any-return]


def divide(call: Call, *args: Any, **kwargs: Any) -> Any:
    """`a / b`: the numerator takes all; a constant over `b` passes on to `b`, as an inverse."""
    a, b = operands(call)
    if call.name == "rtruediv":
        a, b = b, a
    if not active(b):
        result = call.native()
        carry_kind(call, result)
        return result
    if not active(a):
        return inverse(call)
    if kwargs.get("rounding_mode"):
        return elementwise(call)
    result, kind = a / b.detach(), kind_of(call, a)
    if kind == "positive" and kind_of(call, b) == "positive":
        kind = "gate"  # a softmax by hand
    return tag(call, result, kind) if kind else result
