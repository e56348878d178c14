"""DeepLIFT: the difference to a reference, passed back through each function by its slope between the two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.errors import InputError
from apportion.explanation import Explanation
from apportion.forward import Inputs, Model, Subject, with_gradients
from apportion.substitution import HARMLESS, Call, Substitute, Substitution
from apportion.target import Target
from apportion.trees import tensors_in

# Differences below this are no differences: the function's own derivative is taken.
_SMALL = 1e-10


@dataclass(frozen=True)
class DeepLIFT:
    """DeepLIFT with the rescale rule (Shrikumar et al. 2017, eq. 11-12): at each element-wise non-linearity
    the multiplier is `(y − y′) / (z − z′)`, its slope between the reference and the input.

    Inputs and reference run in one batch. `baseline` is the reference of every entry (of every embedding
    entry for token ids); a tensor that broadcasts to the inputs can be given in the call. Max pooling hands
    on the change of its maximum (to where it was and where it is), products of two signals share theirs
    equally, and softmax is taken apart into these. `total` is `f(x) − f(x′)`, and the values add up to it
    for what is made of linear maps and these; any other function passes its gradient on, and what that
    misses is in the remainder. Cost: three forward passes (one, and one twice as wide) and one backward pass.

    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    >>> bool(DeepLIFT()(model, torch.ones(1, 3)).remainder.abs() < 1e-5)
    True
    """

    baseline: float = 0.0
    at: str | Sequence[str] | None = None

    def __call__(
        self, model: Model, inputs: Inputs, target: Target = None, *, baseline: Tensor | None = None
    ) -> Explanation:
        subject = Subject(model, inputs, target, self.at)
        first = subject.forward(grad=False)
        ends = [leaf.detach() for leaf in first.leaves]
        starts = [_reference(end, self.baseline if baseline is None else baseline, len(ends)) for end in ends]
        both = [torch.cat([end, start]) for end, start in zip(ends, starts, strict=True)]
        score = subject.forward(Substitution(_TABLE, model=subject.model), leaves=both)
        with with_gradients():
            value, reference = score.value.chunk(2)
        pairs = zip(ends, starts, score.gradients(value), strict=True)
        values = [(end - start) * gradient[: subject.batch] for end, start, gradient in pairs]
        return subject.explanation(self, first, values, total=value - reference)


def _reference(end: Tensor, baseline: Tensor | float, leaves: int) -> Tensor:
    if not isinstance(baseline, Tensor):
        return torch.full_like(end, baseline)
    if leaves > 1:
        raise InputError("a baseline tensor was given for a model with several inputs; accepted: a number")
    try:
        return baseline.to(end).expand_as(end)
    except RuntimeError:
        expected = f"accepted: {tuple(end.shape)} or what broadcasts to it"
        raise InputError(f"baseline has shape {tuple(baseline.shape)}; {expected}") from None


def _pinned(value: Tensor, surrogate: Tensor) -> Tensor:
    """The value of one and the gradient of the other."""
    return value.detach() + (surrogate - surrogate.detach())


def _twice(half: Tensor) -> Tensor:
    return torch.cat([half, half])


def _difference(x: Tensor) -> Tensor:
    end, start = x.detach().chunk(2)
    return end - start


def rescaled(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """An element-wise function of (2 × batch, …), inputs first and references after, under the rescale
    rule."""
    y = function(z)
    if y.shape != z.shape:
        return y
    step = _difference(z)
    small = step.abs() < _SMALL
    slope = _twice(torch.where(small, torch.zeros_like(step), _difference(y) / step.masked_fill(small, 1)))
    return _pinned(y, torch.where(_twice(small), y, z * slope))


def shared(function: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """A bilinear function of two signals: each is multiplied by the other's mean of input and reference."""

    def middle(x: Tensor) -> Tensor:
        end, start = x.detach().chunk(2)
        return _twice((end + start) / 2)

    return _pinned(function(a, b), function(a, middle(b)) + function(middle(a), b))


def _elementwise(call: Call, *args: Any, **kwargs: Any) -> Any:
    actives = call.actives
    if len(actives) != 1 or actives[0].shape[0] % 2:
        return call.native()
    return rescaled(
        lambda z: call.function(*_with(args, actives[0], z), **_with_kwargs(kwargs, actives[0], z)),
        actives[0],
    )


def _product(call: Call, *args: Any, **kwargs: Any) -> Any:
    actives = call.actives
    if len(actives) == 2 and actives[0] is actives[1]:
        return _elementwise(call, *args, **kwargs)
    paired = len(actives) == 2 and actives[0].shape[0] == actives[1].shape[0] and actives[0].shape[0] % 2 == 0
    if not paired or len(list(tensors_in((args, kwargs)))) != 2:
        return call.native()
    return shared(lambda a, b: call.function(a, b), *actives)


def _softmax(call: Call, input: Tensor, dim: int | None = None, *args: Any, **kwargs: Any) -> Any:
    if dim is None or not input.is_floating_point():
        return call.native()
    high = torch.maximum(*input.detach().chunk(2)).amax(dim, keepdim=True)
    powers = rescaled(torch.exp, input - _twice(high))
    return _pinned(
        call.native(), shared(torch.mul, powers, rescaled(torch.reciprocal, powers.sum(dim, keepdim=True)))
    )


def _max_pool(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    dims = int(call.name[-2])
    kwargs = {**kwargs, "return_indices": True}
    found = getattr(F, call.name)(input, *args, **kwargs)
    y, index = found
    step = _difference(input)
    small = step.abs() < _SMALL
    end, start = y.detach().chunk(2)
    highest = torch.maximum(end, start)
    share = (input.chunk(2)[0] / step.masked_fill(small, 1)).masked_fill(small, 0).flatten(-dims)

    def at(places: Tensor) -> Tensor:
        return share.gather(-1, places.flatten(-dims)).view(places.shape)

    here, there = index.chunk(2)
    own = getattr(F, call.name)(
        torch.where(small, input.chunk(2)[0], input.chunk(2)[0].detach()),
        *args,
        **{**kwargs, "return_indices": False},
    )
    surrogate = (highest - start) * at(here) + (end - highest) * at(there) + own
    return torch.cat([_pinned(end, surrogate), y.chunk(2)[1]])


def _with(args: tuple[Any, ...], old: Tensor, new: Tensor) -> tuple[Any, ...]:
    return tuple(new if a is old else a for a in args)


def _with_kwargs(kwargs: dict[str, Any], old: Tensor, new: Tensor) -> dict[str, Any]:
    return {name: new if value is old else value for name, value in kwargs.items()}


_ELEMENTWISE = frozenset(
    """relu relu6 hardtanh leaky_relu elu selu celu gelu silu mish softplus sigmoid tanh hardsigmoid hardswish
    hardshrink softshrink tanhshrink softsign logsigmoid log_sigmoid threshold exp expm1 log log1p log2 sqrt
    rsqrt square pow reciprocal abs clamp clamp_min clamp_max erf sin cos rtruediv prelu""".split()
)

_TABLE: dict[str, Substitute] = {
    **HARMLESS,
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(("mul", "matmul"), _product),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), _max_pool),
    "softmax": _softmax,
}
