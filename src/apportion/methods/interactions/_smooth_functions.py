"""Smooth stand-ins for functions with kinks; each takes β before the function's own arguments.

`SoftPlus_β(x) = ln(1 + e^{βx}) / β` stands for ReLU (Janizek, Sturmfels & Lee 2020), and every other
piecewise linear function is written with it; a maximum becomes `ln Σ e^{βx} / β`, which is the same for two
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.errors import InputError

INSTEAD = "replace it in the model, or use a first-order method such as IntegratedGradients"

# ---- element by element ----


def relu(beta: float, input: Tensor, inplace: bool = False) -> Tensor:
    # F.softplus itself: a hand-written ln(1 + exp) overflows, or its second derivative becomes NaN.
    return F.softplus(input, beta)


def leaky_relu(beta: float, input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return negative_slope * input + (1 - negative_slope) * relu(beta, input)


def rrelu(
    beta: float, input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, *_: Any, **__: Any
) -> Tensor:
    return leaky_relu(beta, input, (lower + upper) / 2)


def prelu(beta: float, input: Tensor, weight: Tensor) -> Tensor:
    if weight.numel() > 1:
        weight = weight.view(-1, *[1] * (input.dim() - 2))
    return weight * input + (1 - weight) * relu(beta, input)


def clamp(beta: float, input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    if min is None:
        return input if max is None else max - relu(beta, max - input)
    low: Tensor = min + relu(beta, input - min)
    return low if max is None else low - relu(beta, input - max)


def hardtanh(
    beta: float, input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    return clamp(beta, input, min_val, max_val)


def hardsigmoid(beta: float, input: Tensor, inplace: bool = False) -> Tensor:
    return clamp(beta, input + 3, 0.0, 6.0) / 6


def hardswish(beta: float, input: Tensor, inplace: bool = False) -> Tensor:
    return input * hardsigmoid(beta, input)


def elu(beta: float, input: Tensor, alpha: float = 1.0, scale: float = 1.0, *_: Any, **__: Any) -> Tensor:
    return scale * (relu(beta, input) + alpha * torch.expm1(-relu(beta, -input)))


def selu(beta: float, input: Tensor, inplace: bool = False) -> Tensor:
    return elu(beta, input, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


def softshrink(beta: float, input: Tensor, lambd: float = 0.5) -> Tensor:
    return relu(beta, input - lambd) - relu(beta, -input - lambd)


def absolute(beta: float, input: Tensor) -> Tensor:
    return relu(beta, input) + relu(beta, -input)


def threshold(beta: float, input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    if threshold != value:
        raise InputError(f"threshold({threshold}, {value}) jumps, so it has no smooth stand-in; {INSTEAD}")
    return clamp(beta, input, threshold)


# ---- the largest of several ----


def maximum(beta: float, input: Tensor, other: Tensor) -> Tensor:
    return other + relu(beta, input - other)


def minimum(beta: float, input: Tensor, other: Tensor) -> Tensor:
    return other - relu(beta, other - input)


def amax(beta: float, input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    dims = tuple(range(input.dim())) if dim is None or dim == () or dim == [] else dim
    return torch.logsumexp(beta * input, dims, keepdim) / beta


def amin(beta: float, input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    return -amax(beta, -input, dim, keepdim)


def _max(beta: float, input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Tensor:
    other = dim if isinstance(dim, Tensor) else other
    return amax(beta, input, dim, keepdim) if other is None else maximum(beta, input, other)


def _min(beta: float, input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Tensor:
    other = dim if isinstance(dim, Tensor) else other
    return amin(beta, input, dim, keepdim) if other is None else minimum(beta, input, other)


def _max_pool(dims: int) -> Callable[..., Tensor]:
    def pool(
        beta: float,
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor:
        size, pad, spread = (_each(v, dims) for v in (kernel_size, padding, dilation))
        step = _each(stride, dims) if stride else size
        around: list[int] = []
        for axis in range(dims):
            length, reach = input.shape[axis - dims] + 2 * pad[axis], spread[axis] * (size[axis] - 1) + 1
            places = (length - reach) / step[axis]
            out = (math.ceil(places) if ceil_mode else math.floor(places)) + 1
            if ceil_mode and (out - 1) * step[axis] >= length - pad[axis]:
                out -= 1  # a window may not begin in the right padding
            around = [pad[axis], pad[axis] + max(0, (out - 1) * step[axis] + reach - length), *around]
        # Padding must not win: this far below the smallest entry it weighs e⁻⁶⁰.
        result = F.pad(input, around, value=float(input.detach().min()) - 60 / beta) if any(around) else input
        for axis in range(dims):  # a window is a product of intervals, and so is its logsumexp
            windows = result.unfold(axis - dims, spread[axis] * (size[axis] - 1) + 1, step[axis])
            result = torch.logsumexp(beta * windows[..., :: spread[axis]], -1) / beta
        return result

    return pool


def _adaptive_max_pool(dims: int) -> Callable[..., Tensor]:
    def pool(beta: float, input: Tensor, output_size: Any, return_indices: bool = False) -> Tensor:
        wanted = output_size if isinstance(output_size, tuple | list) else [output_size] * dims
        result = input
        for axis in range(-dims, 0):
            long = result.shape[axis]
            out = long if wanted[axis] is None else wanted[axis]
            windows = [
                result.narrow(axis, i * long // out, -(-(i + 1) * long // out) - i * long // out)
                for i in range(out)
            ]
            result = torch.stack([torch.logsumexp(beta * w, axis) / beta for w in windows], axis)
        return result

    return pool


def _each(value: Any, dims: int) -> list[int]:
    given = list(value) if isinstance(value, tuple | list) else [value]
    return [int(v) for v in (given * dims if len(given) == 1 else given)]


STAND_INS: Mapping[str, Callable[..., Tensor]] = {
    **{
        f.__name__: f
        for f in (relu, leaky_relu, rrelu, prelu, clamp, hardtanh, hardsigmoid, hardswish, elu, selu)
    },
    **{f.__name__: f for f in (softshrink, threshold, maximum, minimum, amax, amin)},
    "relu6": lambda beta, input, *_, **__: clamp(beta, input, 0.0, 6.0),
    "clamp_min": lambda beta, input, min: clamp(beta, input, min),
    "clamp_max": lambda beta, input, max: clamp(beta, input, None, max),
    "abs": absolute,
    "fmax": maximum,
    "fmin": minimum,
    "max": _max,
    "min": _min,
    **{
        f"{kind}max_pool{n}d{places}": pool(n)
        for kind, pool in (("", _max_pool), ("adaptive_", _adaptive_max_pool))
        for n in (1, 2, 3)
        for places in ("", "_with_indices")
    },
}
"""Function name → its stand-in."""

WITHOUT = frozenset(
    """sign sgn round floor ceil trunc frac heaviside hardshrink floordiv floor_divide fmod remainder topk
    sort msort median nanmedian kthvalue mode quantile nanquantile cummax cummin aminmax rnn_relu
    rnn_relu_cell fractional_max_pool2d fractional_max_pool3d""".split()
)
"""Functions that jump or select, and have no stand-in here."""
