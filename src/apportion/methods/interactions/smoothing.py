"""A model made smooth while it is explained, so that it has the second derivatives that it lacks.

Functions with a kink are run as their stand-ins, fused attention in its plain form; the model does not
change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from apportion.core.private_torch import without_functions
from apportion.core.trees import tensors_in
from apportion.engines.substitution import HARMLESS, Call, Substitute
from apportion.engines.substitution.function_names import Function, identify
from apportion.errors import InputError, check
from apportion.methods.interactions._smooth_functions import INSTEAD, STAND_INS, WITHOUT

# ---- tables for the substitution engine ----


def smoothing(beta: float) -> dict[str, Substitute]:
    """The table that puts a stand-in for every function with a kink, and keeps the rest twice differentiable.

    Raises InputError for β ≤ 0.
    """
    accepted = "a positive number (larger is closer to the model)"
    check("beta", beta, lambda v: isinstance(v, int | float | np.number) and 0 < v < math.inf, accepted)
    return {**TWICE, **{name: _substitute(name, beta) for name in STAND_INS}}


def record_kinks(names: set[str]) -> dict[str, Substitute]:
    """A table that changes nothing and writes the functions with a kink that it meets into `names`."""

    def note(call: Call, *args: Any, **kwargs: Any) -> Any:
        if not _smooth_already(call.name, args, kwargs):
            names.add(call.name)
        return call.native()

    return {**TWICE, **dict.fromkeys((*STAND_INS, *WITHOUT), note)}


def refuse(names: Iterable[str]) -> None:
    """Raise InputError if a function that was met has no stand-in."""
    found = sorted(WITHOUT & set(names))
    if found:
        raise InputError(
            f"the model is not twice differentiable: {', '.join(found)} has no smooth stand-in; {INSTEAD}"
        )


def _smooth_already(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    if name == "abs":  # of a complex number, a root of a sum of squares
        return any(t.is_complex() for t in tensors_in((args, kwargs)))
    return name == "elu" and kwargs.get("alpha", args[1] if len(args) > 1 else 1.0) == 1.0


def _substitute(name: str, beta: float) -> Substitute:
    def substitute(call: Call, *args: Any, **kwargs: Any) -> Any:
        if _smooth_already(name, args, kwargs):
            return call.native()
        for given, own in (("self", "input"), ("a", "input"), ("axis", "dim")):
            if given in kwargs:
                kwargs[own] = kwargs.pop(given)
        smooth = STAND_INS[name](beta, *args, **kwargs)
        if not ("pool" in name or name in ("max", "min")):
            return smooth
        with torch.no_grad(), without_functions():
            whole = call.native()  # for the places of the largest, where they were asked for
        if isinstance(whole, Tensor):
            return smooth
        pair = (smooth, *list(whole)[1:])
        return type(whole)(pair) if type(whole) in (tuple, list) or hasattr(whole, "values") else pair

    return substitute


def _attention(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    # The fused kernels have no second derivative; this is the form that `sdpa_kernel(MATH)` would choose.
    # It adds its mask as it is, also one of truth values.
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = query.new_zeros(()).masked_fill(~attn_mask, -torch.inf)
    math_form = torch.ops.aten._scaled_dot_product_attention_math
    return math_form(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)[
        0
    ]


def _multi_head_attention(call: Call, *args: Any, **kwargs: Any) -> Any:
    # Asked for its weights it multiplies matrices instead of calling a fused kernel.
    if len(args) > 15:
        args, asked = (*args[:15], True, *args[16:]), bool(args[15])
    else:
        asked, kwargs = bool(kwargs.get("need_weights", True)), {**kwargs, "need_weights": True}
    output, weights = call.function(*args, **kwargs)
    return output, weights if asked else None


def _recurrent(call: Call, *args: Any, **kwargs: Any) -> Any:
    if not any(t.is_cuda for t in tensors_in(args)):
        return call.native()
    with torch.backends.cudnn.flags(enabled=False):  # cuDNN's recurrence has no second derivative
        return call.native()


TWICE: Mapping[str, Substitute] = {
    **HARMLESS,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh"), _recurrent),
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _multi_head_attention,
}
"""Substitutes that change no value, and give a second derivative where the usual kernel has none."""


# ---- a smooth model ----


@dataclass(frozen=True)
class Smoothed:
    """Run a model with smooth stand-ins, as `smooth` makes it; `original` stays as it is."""

    original: Callable[..., Any]
    beta: float

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _Smoothing(smoothing(self.beta)):
            return self.original(*args, **kwargs)


def smooth(model: Callable[..., Any], beta: float = 10.0) -> Smoothed:
    """Put SoftPlus for ReLU in a model, and a smooth stand-in for other functions with a kink.

    Functions that jump or select, such as sort, have none and stay as they are, and so do kinks inside of
    another function, such as the 1-norm. The result is called like the model, shares its parameters and lets
    gradients through to them; the model itself stays as it is. Raises InputError for β ≤ 0.

    Args:
        model (callable): Any model.
        beta (float, default 10.0): Sharpness β; a unit moves by at most ln 2 / β.

    >>> softplus = smooth(torch.nn.ReLU(), beta=2.0)
    >>> round(softplus(torch.zeros(1)).item(), 4)  # ln 2 / 2
    0.3466
    """
    smoothing(beta)
    return Smoothed(model, float(beta))


class _Smoothing(TorchFunctionMode):
    """As the substitution engine, but parameters and the caller's tensors stay in the graph."""

    def __init__(self, table: Mapping[str, Substitute]) -> None:
        super().__init__()
        self.table = {name: table[name] for name in STAND_INS}

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        identity = identify(func)
        first = next(tensors_in((args, kwargs)), None)
        if (
            identity.passive
            or identity.name not in self.table
            or first is None
            or not first.is_floating_point()
        ):
            return func(*args, **kwargs)
        in_place = identity.in_place or bool(kwargs.pop("inplace", False))
        function = identity.twin if identity.in_place and identity.twin is not None else func
        if in_place:  # the stand-in keeps its input for the backward pass, so it must not be written over
            args = (first.clone(), *args[1:])
        call = Call(self, function, identity.name, args, dict(kwargs))  # type: ignore[arg-type]
        result = self.table[identity.name](call, *args, **kwargs)
        return first.copy_(result) if in_place else result
