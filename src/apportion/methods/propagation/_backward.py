"""The backward pass of one layer: where a gradient becomes what its rule expects, and where the rule is evaluated.

The output of a layer whose rule is a scaling of its own gradient is settled in place; any other rule is evaluated
when the relevance of the output arrives, so that no surrogate activations are held until then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor

from apportion.methods.contracts import Rule
from apportion.methods.propagation._rows import OpenRow
from apportion.methods.propagation.rules import Layer


class Scaling(Rule, Protocol):
    """A rule that scales the layer's own gradient."""

    def scaled(self, z: Tensor, gradient: Tensor, closed: bool = False) -> Tensor: ...


def scales(rule: Rule) -> TypeGuard[Scaling]:
    """True if the rule is a scaling of the layer's own gradient."""
    return hasattr(rule, "scaled") and not getattr(rule, "spread_bias", False)


def _pass_down(rule: Rule, z: Tensor, gradient: Tensor) -> Tensor:
    """Make of a gradient at the output `z` what its layer takes: a scaled gradient, or the relevance."""
    return rule.scaled(z, gradient) if scales(rule) else gradient * z


class Lazy(torch.autograd.Function):
    """A layer whose rule is evaluated in the backward pass. What arrives there is the relevance of its output, to which
    what is `placed` there is added."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        probe: Tensor | None,
        layer: Layer,
        rule: Rule,
        value: Callable[[], Tensor] | None,
        placed: list[Tensor],
    ) -> Tensor:
        z = layer(x, layer.weight, layer.bias) if value is None else value()
        ctx.layer, ctx.rule, ctx.probed, ctx.placed = layer, rule, probe is not None, placed
        ctx.save_for_backward(x, z)
        return z

    @staticmethod
    def backward(ctx: Any, R: Tensor) -> Any:
        layer, rule = ctx.layer, ctx.rule
        # Autocast, where the model uses it, is off by now, and its formats are those of the weights again.
        x, z, R = (t.to(layer.weight.dtype) for t in (*ctx.saved_tensors, sum(ctx.placed, R)))
        found = rule(layer, x, z, R)  # (batch, inputs, …)
        if not getattr(rule, "direct", False):
            return found, None, None, None, None, None
        if not ctx.probed:
            return torch.where(x == 0, torch.zeros_like(x), found / x), None, None, None, None, None
        if layer.row is not None:
            layer.row.add_product("passed_on", torch.ones_like(found), found)
        return None, found, None, None, None, None


class Settle(torch.autograd.Function):
    """Turns a gradient at a layer's output into what the layer expects."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, layer: Layer, rule: Rule, row: OpenRow | None) -> Tensor:
        ctx.save_for_backward(z)
        ctx.layer, ctx.rule, ctx.row = layer, rule, row
        return z.detach()  # no view of z: the model may write into views of what it gets

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        passed = _pass_down(ctx.rule, z, gradient)  # (batch, outputs, …)
        layer, row = ctx.layer, ctx.row
        if row is not None:
            row.layer = True
        if scales(ctx.rule):
            layer.absorb(layer.bias, passed)
        return passed, None, None, None


class Folded(torch.autograd.Function):
    """An element-wise function after a pending layer: it passes on all that arrives, and the layer's rule is applied to
    it at once. Of a rule that is a scaling the function is a ReLU: where it is open, its output is the layer's."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, rule: Rule, function: Callable[[Tensor], Tensor]) -> Tensor:
        y = function(z)
        ctx.save_for_backward(y)
        ctx.rule = rule
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (y,) = ctx.saved_tensors  # (batch, outputs, …)
        scaled = scales(ctx.rule)
        return ctx.rule.scaled(y, gradient, closed=True) if scaled else gradient * y, None, None


# Typed here, because torch's autograd functions carry no annotations.
evaluate_lazily: Callable[..., Tensor] = Lazy.apply
settle: Callable[..., Tensor] = Settle.apply
fold: Callable[..., Tensor] = Folded.apply
