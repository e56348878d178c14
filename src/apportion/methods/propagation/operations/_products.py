"""Products of two activations: half the relevance each, or all of it to the signal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.core.trees import map_tensors, tensors_in
from apportion.engines.substitution import Call
from apportion.methods.propagation._softmax import pinned
from apportion.methods.propagation._tags import (
    active,
    carry_kind,
    kind_of,
    on_gradient,
    operands,
    state_of,
    tag,
    uniform_of,
    weigh,
)
from apportion.methods.propagation.rules import Layer


def product(call: Call, *args: Any, **kwargs: Any) -> Any:
    """`a · b`: half the relevance each, or all of it to the signal where the other factor is a gate or scale."""
    a, b = operands(call)
    if not (active(a) and active(b)):
        result = call.native()
        carry_kind(call, result)
        return result
    kind_a, kind_b = kind_of(call, a), kind_of(call, b)
    weighs = ("gate", "scale")
    if (kind_a in weighs) != (kind_b in weighs):
        signal, weight = (b, a) if kind_a in weighs else (a, b)
        return signal * weight.detach()
    result = share_out(call.native(), 2)
    return tag(call, result, kind_a) if kind_a in weighs else result


class Share(torch.autograd.Function):
    """The same tensor, with a share of its gradient: one number, or one for each entry."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: float | Tensor) -> Tensor:
        ctx.share = share
        return x.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient * ctx.share, None


share_gradient: Callable[..., Tensor] = Share.apply


def share_out(result: Tensor, factors: float) -> Tensor:
    """Each of several factors has the whole relevance as its `x · gradient`; give each its share."""
    return share_gradient(result, 1 / factors) if factors > 1 and result.requires_grad else result


def matmul(call: Call, *args: Any, **kwargs: Any) -> Any:
    a, b = operands(call)
    if call.name == "rmatmul":
        a, b = b, a
    if not isinstance(b, Tensor) or not isinstance(a, Tensor):
        return call.native()
    a, b = weigh(call, a, b)
    if (
        active(a)
        and active(b)
        and (places := state_of(call).places) is not None
        and places.carried is not None
    ):
        b = b.detach()  # of queries times keys, and of weights times values, the query takes all
    if active(a) and active(b):
        if (found := _attended(call, torch.matmul, a, b)) is not None:
            return found
        return (
            shared_product(a, b)
            if a.shape[:-2] == b.shape[:-2] and a.dim() > 1
            else share_out(torch.matmul(a, b), 2)
        )
    if active(a):
        layer = Layer(lambda x, w, bias: torch.matmul(x, w), b)
        return state_of(call).layer(call, layer, a, "matmul")
    layer = Layer(lambda x, w, bias: torch.matmul(w, x), a)
    return state_of(call).layer(call, layer, b, "matmul")


def _attended(call: Call, function: Callable[..., Tensor], a: Tensor, b: Tensor) -> Tensor | None:
    """Attention weights times values where relevance goes by what differs from equal weights u: of `a v = u v +
    (a − u) v` the values take the first, and both half of the second. None for other products."""
    uniform = uniform_of(call, a), uniform_of(call, b)
    if (uniform[0] is None) == (uniform[1] is None):
        return None
    weights, values = (a, b) if uniform[0] is not None else (b, a)
    equal = uniform[0] if uniform[0] is not None else uniform[1]
    assert equal is not None
    weights = weights.view_as(weights)
    if (row := state_of(call).row) is not None:
        on_gradient(weights, partial(row.add_product, "returned", equal.detach()))

    def apply(w: Tensor, v: Tensor) -> Tensor:
        return function(w, v) if uniform[0] is not None else function(v, w)

    product = apply(weights, values.detach())
    return pinned(product, apply((weights.detach() + equal) / 2, values) + product / 2)


class SharedProduct(torch.autograd.Function):
    """`a @ b` with half the relevance each. It holds the factors as they come, mostly views of what is held anyway,
    where `torch.matmul` holds contiguous copies of them."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        y = torch.matmul(a, b)  # (…, rows, inner) @ (…, inner, columns) → (…, rows, columns)
        ctx.save_for_backward(a.to(y.dtype), b.to(y.dtype))  # autocast, off later on, may mix formats
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        a, b = ctx.saved_tensors
        half = gradient / 2  # (…, rows, columns)
        return torch.matmul(half, b.mH), torch.matmul(a.mH, half)  # (…, rows, inner), (…, inner, columns)


shared_product: Callable[..., Tensor] = SharedProduct.apply


def _of(call: Call, operands: Sequence[Tensor]) -> Callable[..., Tensor]:
    """The call as a function of two of its operands."""

    def function(a: Tensor, b: Tensor) -> Tensor:
        swap = lambda t: a if t is operands[0] else b if t is operands[1] else t  # noqa: E731
        return call.function(*map_tensors(call.args, swap), **map_tensors(call.kwargs, swap))  # type: ignore[no-any-return]

    return function


def einsum(call: Call, *args: Any, **kwargs: Any) -> Any:
    """A product of all operands; with one active operand it is a layer."""
    held = iter(weigh(call, *tensors_in((call.args, call.kwargs))))
    call.args, call.kwargs = map_tensors((call.args, call.kwargs), lambda _: next(held))
    actives = call.actives
    if len(actives) == 2 and (places := state_of(call).places) is not None and places.carried is not None:
        layer = Layer(lambda x, w, bias: _of(call, actives)(x, w), actives[1].detach())
        return state_of(call).layer(call, layer, actives[0], "matmul")
    if len(actives) == 2 and (found := _attended(call, _of(call, actives), *actives)) is not None:
        return found
    if len(actives) > 1:
        return share_out(call.native(), len(actives))
    constants = [t for t in tensors_in((call.args, call.kwargs)) if not t.requires_grad]
    if len(constants) != 1:
        return call.native()

    def forward(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        swap = lambda t: x if t is actives[0] else w if t is constants[0] else t  # noqa: E731
        return call.function(*map_tensors(call.args, swap), **map_tensors(call.kwargs, swap))  # type: ignore[no-any-return]

    return state_of(call).layer(call, Layer(forward, constants[0]), actives[0], "matmul")


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
    if name == "addmm" and alpha == beta == 1 and summand.dim() == 1 and not (active(summand) or active(b)):
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
    if len(operands) == 1 or not active(operands[1]):
        return share_gradient(call.native(), -1.0)
    detach = lambda t: t.detach() if t is matrix else t  # noqa: E731
    return call.function(*map_tensors(call.args, detach), **map_tensors(call.kwargs, detach))


def add_quotient(call: Call, *_: Any, value: float = 1, **__: Any) -> Any:
    run = call.run
    summand, a, b = _terms(call)
    return run.again(torch.add, summand, run.again(torch.mul, run.again(torch.div, a, b), value))


def grouped_product(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Rows in groups, each group times a matrix of its own: the experts of a mixture, which are layers."""
    a, b = operands(call)
    if active(a) and active(b):
        return share_out(call.native(), 2)
    x, weight = (a, b) if active(a) else (b, a)

    def forward(point: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        swap = lambda t: point if t is x else w if t is weight else t  # noqa: E731
        return call.function(*map_tensors(args, swap), **map_tensors(kwargs, swap))  # type: ignore[no-any-return]

    return state_of(call).layer(call, Layer(forward, weight), x, "matmul")


def glu(call: Call, input: Tensor, dim: int = -1) -> Any:
    run = call.run
    signal, weight = run.again(torch.chunk, input, 2, dim)  # half of the channels each
    return run.again(torch.mul, signal, run.again(torch.sigmoid, weight))


def cosine_similarity(call: Call, x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Any:
    run = call.run
    one, two = (
        run.again(F.normalize, x, dim=dim, eps=eps) if active(x) else F.normalize(x, dim=dim, eps=eps)
        for x in (x1, x2)
    )
    return run.again(torch.sum, run.again(torch.mul, one, two), dim)


def lerp(call: Call, input: Tensor, end: Tensor, weight: Any) -> Any:
    if active(weight):
        return call.function(input, end, weight.detach())
    return call.native()


def multiply_along(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """prod, cumprod: entry k of a running product has k + 1 factors."""
    dim: Any = kwargs.get("dim", args[0] if args else None)
    result = call.native()
    if call.name == "prod":
        return share_out(result, input.numel() if dim is None else input.shape[dim])
    factors = torch.arange(1, input.shape[dim] + 1, dtype=result.dtype, device=result.device)
    return share_gradient(result, (1 / factors).view(-1, *[1] * (input.dim() - 1 - dim % input.dim())))


def reduce(call: Call, *args: Any, **kwargs: Any) -> Any:
    """scatter_reduce and its kin: homogeneous, unless what they reduce by is a product of entries."""
    product = any(isinstance(value, str) and value == "prod" for value in (*args, *kwargs.values()))
    return state_of(call).unruled(call) if product else call.native()


def grid_sample(call: Call, input: Tensor, grid: Tensor, *args: Any, **kwargs: Any) -> Any:
    return (
        call.function(input, grid.detach(), *args, **kwargs)
        if active(input)
        else state_of(call).unruled(call)
    )


def bilinear(call: Call, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    input1, input2 = weigh(call, input1, input2)
    result = share_out(call.function(input1, input2, weight, None), int(active(input1)) + int(active(input2)))
    return result if bias is None else result + bias
