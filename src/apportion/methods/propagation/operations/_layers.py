"""Layers that are linear in their input, which have a rule of the composite; padding and pooling belong to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.engines.substitution import Call
from apportion.methods.propagation._tags import Tag, active, carry_kind, state_of, weigh
from apportion.methods.propagation.operations._products import share_out
from apportion.methods.propagation.rules import Layer, Proportional


def linear(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    if active(weight) or active(bias):
        return _with_active_weight(call, input, weight, bias, lambda x, w: F.linear(x, w))

    def adjoint(g: Tensor, x: Tensor, w: Tensor) -> Tensor:
        return torch.matmul(g, w)

    return state_of(call).layer(call, Layer(F.linear, weight, bias, adjoint=adjoint), input, "linear")


def _with_active_weight(
    call: Call, input: Tensor, weight: Tensor, bias: Tensor | None, apply: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """A layer whose weights depend on the input: a product of two activations."""
    input, weight = weigh(call, input, weight)
    result = share_out(apply(input, weight), int(active(input)) + int(active(weight)))
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
    padding, sides = _resolve_same(weight, padding, dilation)
    while isinstance(before := call.run.notes.get(input), Padded):
        if len(before.sides) > 2 * spatial or active(weight) or active(bias):
            break
        input = before.input
        sides = [a + b for a, b in zip_longest(sides, before.sides, fillvalue=0)]
    padding, output_padding = each(padding), each(output_padding)
    unbatched = input.dim() == spatial + 1
    if unbatched:
        input = call.run.again(torch.unsqueeze, input, 0)
    settings = (stride, padding, dilation, transposed, output_padding, groups)
    # Not `torch.convolution`, which autocast does not know on every device.
    function = getattr(F, f"conv_transpose{spatial}d" if transposed else f"conv{spatial}d")
    rest = (output_padding, groups, dilation) if transposed else (dilation, groups)

    def forward(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return function(F.pad(x, sides) if sides else x, w, b, stride, padding, *rest)  # type: ignore[no-any-return]

    if active(weight) or active(bias):
        result = _with_active_weight(call, input, weight, bias, forward)
    else:

        def adjoint(g: Tensor, x: Tensor, w: Tensor) -> Tensor:
            x = F.pad(x, sides) if sides else x
            found: Tensor = torch.ops.aten.convolution_backward(
                g, x, w, None, *settings, [True, False, False]
            )[0]
            return F.pad(found, [-side for side in sides]) if sides else found

        layer = Layer(
            forward, weight, bias, channel=1, adjoint=adjoint, groups=groups if transposed else None
        )
        result = state_of(call).layer(call, layer, input, "convolution")
    return call.run.again(torch.squeeze, result, 0) if unbatched else result


@dataclass
class Padded(Tag):
    """A picture with zeros around it, by a function of its own. The layer that reads it takes the picture instead:
    no input could hold what a rule like flat would hand to the zeros."""

    input: Any = None
    sides: Sequence[int] = ()


def pad(call: Call, input: Tensor, pad: Any, mode: Any = "constant", value: Any = None) -> Any:
    result = call.native()
    composite, run = state_of(call).composite, call.run
    if isinstance(mode, int | float):  # `constant_pad_nd` has the value in this place
        mode, value = "constant", mode
    sides = list(pad)
    direct = getattr(composite.first, "direct", False) and not (composite.names or composite.types)
    if (
        direct
        and mode == "constant"
        and not value
        and min(sides) >= 0
        and run.explained.origins.get(input) is not None
    ):
        run.notes[result] = Padded(input=input, sides=sides)
    else:
        carry_kind(call, result)
    return result


def _resolve_same(weight: Tensor, padding: Any, dilation: Sequence[int]) -> tuple[Any, list[int]]:
    """Padding as numbers; what "same" puts on one side more than on the other comes as the sides of `F.pad`."""
    if not isinstance(padding, str):
        return padding, []
    pads = (
        [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)] if padding == "same" else [0]
    )
    if not any(pad % 2 for pad in pads):
        return [pad // 2 for pad in pads], []
    return 0, [side for pad in reversed(pads) for side in (pad // 2, pad - pad // 2)]


def max_pool(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Winner takes all, which is the gradient; or in proportion to what is pooled, by choice."""
    if state_of(call).composite.pooling == "winner":
        return call.native()
    dims = int(call.name[-2])
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if given.get("dilation", 1) not in (1, (1,) * dims, [1] * dims) or given.get("return_indices"):
        return state_of(call).unruled(call)
    kernel, pool = given["kernel_size"], (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[dims - 1]
    count = kernel**dims if isinstance(kernel, int) else math.prod(kernel)
    stride = given.get("stride") or kernel
    places = (kernel, stride, given.get("padding", 0), given.get("ceil_mode", False))
    layer = Layer(lambda x, w, b: pool(x, *places) * count, input.new_ones(()))
    return state_of(call).ruled_layer(
        call, layer, input, Proportional(), None, value=lambda: call.function(input.detach(), *args, **kwargs)
    )
