"""DeepLIFT: the difference to a reference, passed back through each function by its slope between the two."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.core.calling import Model
from apportion.core.inputs import Inputs
from apportion.core.target import Target
from apportion.core.trees import map_tensors, tensors_in
from apportion.engines.substitution import HARMLESS, Call, Gradients, Substitute, Substitution, no_derivatives
from apportion.errors import InputError
from apportion.methods.propagation.operations.table import COMPOSED
from apportion.results.explanation import Explanation


@dataclass(frozen=True)
class DeepLIFT:
    """Pass the difference to a reference back by the rescale rule (Shrikumar et al. 2017, eq. 11-12): at each
    element-wise non-linearity the multiplier is `(y − y′) / (z − z′)`, its slope between the reference and the input.

    The model runs at the reference first, and each function then finds there what it was given at the same call.
    Max pooling hands on the change of its maximum (to where it was and where it is), products of two signals share
    theirs equally, and softmax, attention, recurrent layers, layer and RMS norms are taken apart into these.

    `total` is `f(x) − f(x′)`, and the values add up to it for what is made of linear maps and these; any other
    function passes its gradient on, and what that misses is in the remainder. A model that takes another way at
    the reference than at the input (calls other functions, or the same with other shapes) passes its gradient on
    there too, and a warning on the explanation says where. Cost: three forward passes and one backward pass.

    Attributes:
        baseline (float, default 0.0): The reference of every entry (of every embedding entry for token ids); in the
            call `baseline=` also takes a tensor that broadcasts to the inputs.
        at (str or list of str, default None): Modules to explain instead of the inputs; None: the inputs.

    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    >>> bool(DeepLIFT()(model, torch.ones(1, 3)).remainder.abs() < 1e-5)
    True
    """

    baseline: float = 0.0
    at: str | Sequence[str] | None = None

    def __call__(
        self, model: Model, inputs: Inputs, target: Target = None, *, baseline: Tensor | None = None
    ) -> Explanation:
        subject = Gradients(model, inputs, target, self.at)
        first = subject.forward(grad=False)
        ends = [leaf.detach() for leaf in first.leaves]
        starts = [
            _expand_baseline(end, self.baseline if baseline is None else baseline, len(ends)) for end in ends
        ]
        calls = ReferenceCalls()
        reference = subject.forward(calls.run(subject.model, calls.record()), leaves=starts)
        at_reference = reference.value.detach()
        del reference  # and its graph
        score = subject.forward(calls.run(subject.model, calls.table()), leaves=ends)
        triples = zip(ends, starts, score.gradients(), strict=True)
        values = [(end - start) * gradient for end, start, gradient in triples]
        total = score.value - at_reference
        return subject.explanation(self, first, values, total=total, warnings=calls.warnings)


def _expand_baseline(end: Tensor, baseline: Tensor | float, leaves: int) -> Tensor:
    if isinstance(baseline, int | float):
        return torch.full_like(end, baseline)
    if not isinstance(baseline, Tensor):
        raise InputError(f"baseline is {baseline!r:.60}; accepted: a number, or in the call a tensor")
    if leaves > 1:
        raise InputError("a baseline tensor was given for a model with several inputs; accepted: a number")
    try:
        return baseline.to(end).expand_as(end)
    except RuntimeError:
        expected = f"accepted: {tuple(end.shape)} or what broadcasts to it"
        raise InputError(f"baseline has shape {tuple(baseline.shape)}; {expected}") from None


@dataclass
class ReferenceCalls:
    """The arguments of each function at the reference, in the order of the calls, for the same calls at the input."""

    calls: deque[tuple[str, list[Tensor]]] = field(default_factory=deque)
    warnings: tuple[str, ...] = ()

    def run(self, model: Model, table: dict[str, Substitute]) -> Substitution:
        """A substitution that also writes attention, recurrent layers and norms out in functions that have rules."""
        composed: dict[str, Substitute] = {**COMPOSED, "layer_norm": _layer_norm, "rms_norm": _rms_norm}
        table = {**HARMLESS, **composed, "grad": no_derivatives, **table}
        return Substitution(table, model=model, state=self)

    def unruled(self, call: Call) -> Any:
        """Use the gradient where a call cannot be written out, such as an LSTM with projections."""
        return call.native()

    def record(self) -> dict[str, Substitute]:
        """A table that changes nothing and notes what it meets."""

        def note(call: Call, *args: Any, **kwargs: Any) -> Any:
            self.calls.append((call.name, [t.detach() for t in call.actives]))
            return call.native()

        return dict.fromkeys(_RULES, note)

    def table(self) -> dict[str, Substitute]:
        """The table of the rules, each of which is handed what its call was given at the reference."""

        def ruled(call: Call, *args: Any, **kwargs: Any) -> Any:
            starts = self._take_next(call)
            return call.native() if starts is None else _RULES[call.name](call, starts, *args, **kwargs)

        return dict.fromkeys(_RULES, ruled)

    def _take_next(self, call: Call) -> list[Tensor] | None:
        name, starts = self.calls.popleft() if self.calls else ("", [])
        if name == call.name and [t.shape for t in starts] == [t.shape for t in call.actives]:
            return starts
        if name != call.name:
            self.calls.clear()  # out of step, so that all that follows has lost its reference
        where = f"{call.name!r} in {call.run.where() or 'the model'!r}"
        what = "other shapes" if name == call.name else "another way"
        if not any(what in warning for warning in self.warnings):
            self.warnings += (f"at {where} the model took {what} for the reference: its gradient was used",)
        return None


def _pin_value(value: Tensor, surrogate: Tensor) -> Tensor:
    """The value of one and the gradient of the other."""
    return value.detach() + (surrogate - surrogate.detach())


class _Sloped(torch.autograd.Function):
    """A given value, whose gradient at `z` is a given slope."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return y.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * ctx.saved_tensors[0], None, None


def rescale(function: Callable[[Tensor], Tensor], z: Tensor, start: Tensor) -> Tensor:
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
    return _Sloped.apply(z, y, torch.where(differs, slope, derivative))  # type: ignore[no-untyped-call,no-any-return]


def share_product(
    function: Callable[[Tensor, Tensor], Tensor], pair: Sequence[Tensor], starts: Sequence[Tensor]
) -> Tensor:
    """A bilinear function of two signals: each is multiplied by the other's mean of input and reference."""
    a, b = pair
    middle_a, middle_b = ((x.detach() + start) / 2 for x, start in zip(pair, starts, strict=True))
    return _pin_value(function(a, b), function(a, middle_b) + function(middle_a, b))


def _elementwise(call: Call, starts: list[Tensor], *_: Any, **__: Any) -> Any:
    actives = call.actives
    if len(actives) != 1:
        return call.native()

    def function(z: Tensor) -> Any:
        args, kwargs = map_tensors((call.args, call.kwargs), lambda t: z if t is actives[0] else t)
        return call.function(*args, **kwargs)

    return rescale(function, actives[0], starts[0])


def _product(call: Call, starts: list[Tensor], *args: Any, **kwargs: Any) -> Any:
    if len(starts) != 2 or len(list(tensors_in((args, kwargs)))) != 2:
        return call.native()

    def function(*pair: Tensor) -> Any:
        given = iter(pair)
        args, kwargs = map_tensors((call.args, call.kwargs), lambda _: next(given))
        return call.function(*args, **kwargs)

    return share_product(function, call.actives, starts)


def _softmax(
    call: Call, starts: list[Tensor], input: Tensor, dim: int | None = None, *_: Any, **__: Any
) -> Any:
    if dim is None:
        return call.native()
    (start,) = starts
    high = torch.maximum(input.detach(), start).amax(dim, keepdim=True)
    none = high == -torch.inf  # a query that may attend to nothing
    high = high.masked_fill(none, 0)
    powers, at_start = rescale(torch.exp, input - high, start - high), torch.exp(start - high)
    sums = [p.sum(dim, keepdim=True).masked_fill(none, 1) for p in (powers, at_start)]
    inverses = rescale(torch.reciprocal, *sums), sums[1].reciprocal()
    return _pin_value(call.native(), share_product(torch.mul, (powers, inverses[0]), (at_start, inverses[1])))


def _layer_norm(
    call: Call, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5, *_: Any, **__: Any,
) -> Any:  # fmt: skip
    means = call.run.again(torch.mean, input, tuple(range(-len(normalized_shape), 0)), True)
    centred = call.run.again(torch.sub, input, means)
    normed = _rms_norm(call, centred, normalized_shape, weight, eps)
    return normed if bias is None else call.run.again(torch.add, normed, bias)


def _rms_norm(
    call: Call,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Any:
    again, dims = call.run.again, tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    squares = again(torch.mean, again(torch.square, input), dims, True)
    normed = again(torch.mul, input, again(torch.rsqrt, again(torch.add, squares, eps)))
    return normed if weight is None else again(torch.mul, normed, weight)


def _max_pool(call: Call, starts: list[Tensor], input: Tensor, *args: Any, **kwargs: Any) -> Any:
    (start,), name = starts, call.name.removesuffix("_with_indices")
    dims, places = int(name[-2]), 1 if name.startswith("adaptive") else 5  # then `return_indices`, in `F`

    def pool(x: Tensor, indices: bool = True) -> Any:
        return getattr(F, name)(x, *args[:places], **{**kwargs, "return_indices": indices})

    (end_y, here), (start_y, there) = pool(input.detach()), pool(start)
    step = input.detach() - start
    same = step == 0
    highest = torch.maximum(end_y, start_y)
    share = (input / step.masked_fill(same, 1)).masked_fill(same, 0).flatten(-dims)

    def at(places: Tensor) -> Tensor:
        return share.gather(-1, places.flatten(-dims)).view(places.shape)

    own = pool(torch.where(same, input, input.detach()), indices=False)
    found = _pin_value(end_y, (highest - start_y) * at(here) + (end_y - highest) * at(there) + own)
    with torch.no_grad():
        return found if isinstance(call.native(), Tensor) else (found, here)


_ELEMENTWISE = frozenset(
    """relu relu6 hardtanh leaky_relu elu selu celu gelu silu mish softplus sigmoid tanh hardsigmoid hardswish
    hardshrink softshrink tanhshrink softsign logsigmoid log_sigmoid threshold exp expm1 log log1p log2 sqrt
    rsqrt square pow reciprocal abs clamp clamp_min clamp_max maximum minimum fmax fmin erf sin cos rtruediv
    prelu""".split()
)

_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(("mul", "matmul", "einsum"), _product),
    **{
        f"{kind}max_pool{n}d{places}": _max_pool
        for kind in ("", "adaptive_")
        for n in (1, 2, 3)
        for places in ("", "_with_indices")
    },
    "softmax": _softmax,
}
