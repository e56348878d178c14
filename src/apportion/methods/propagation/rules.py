"""The propagation rules for layers that are linear in their input, side by side.

A rule gets a layer, its input `x`, its output `z = Σᵢ zᵢⱼ + bⱼ` (with `zᵢⱼ = xᵢ wᵢⱼ`) and the relevance `R` at
that output, and returns the *gradient* `G` that makes `xᵢ Gᵢ` the relevance of input `i`. A rule with `direct =
True` returns the relevance itself, so that it may be non-zero where `xᵢ = 0`. `s(·)` is the stabiliser: it moves
its argument away from zero by `eps`, in the direction of its sign, with sign(0) = +.

Equation numbers are those of Bach et al. 2015 (PLoS ONE 10(7) e0130140).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from apportion.core.settings import checked
from apportion.errors import InputError, check


@dataclass
class Layer:
    """A function that is linear in its input, as a rule sees it: `layer(x, weight, bias)` runs it with any weights.

    Attributes:
        forward (callable): The function `(x, weight, bias)`.
        weight (Tensor): The weights that the model has.
        bias (Tensor, default None): The bias; None: there is none.
        channel (int, default -1): The axis of the output along which the bias lies.
        adjoint (callable, default None): `(cotangent, x, weight)`, the transposed map; None: found by a backward pass.
        groups (int, default None): Those of a transposed convolution, whose weight has its inputs first, (in,
            out / groups, …); None: any other layer.
        row (default None): The row of the ledger that is being filled in.
        taken (list of Tensor, default None): Where to note what the bias takes of each output's relevance; None:
            nowhere.
    """

    forward: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    weight: Tensor
    bias: Tensor | None = None
    channel: int = -1
    adjoint: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    groups: int | None = None
    row: Any = field(default=None)
    taken: list[Tensor] | None = None

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.forward(x, weight, bias)

    def pull(self, x: Tensor, weight: Tensor, cotangent: Tensor, bias: Tensor | None = None) -> Tensor:
        """The adjoint of the layer with these weights, at a cotangent in the output's shape; the share that
        falls to `bias` is noted."""
        self.absorb(bias, cotangent)
        if self.adjoint is not None:
            return self.adjoint(cotangent, x, weight)
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            out = self.forward(point, weight, None)
        (gradient,) = torch.autograd.grad(out, point, cotangent)
        return gradient

    def absorb(self, bias: Tensor | None, cotangent: Tensor, times: float = 1) -> None:
        """Note what a bias takes at this cotangent: its sum in the ledger, each output's part where it is wanted."""
        if bias is None or (self.row is None and self.taken is None):
            return
        bias = self.along_channel(bias, cotangent).expand_as(cotangent)
        cotangent = cotangent if times == 1 else cotangent * times  # (batch, outputs, …)
        if self.row is not None:
            self.row.add_product("bias", bias, cotangent)
        if self.taken is not None:
            self.taken.append(bias * cotangent)

    def dense(self, x: Tensor) -> bool:
        """True if `x` has samples as rows, and every output at a place reads the same of their entries."""
        known = self.adjoint is not None and self.groups is None and self.weight.dim() > 1 < x.dim()
        return known and x.shape[self.channel] == self.weight.shape[1]

    def along_channel(self, bias: Tensor, like: Tensor) -> Tensor:
        """The bias, shaped to broadcast over an output (a bias that is not a vector broadcasts as it is)."""
        if bias.dim() != 1 or self.channel == -1:
            return bias
        return bias.view(-1, *[1] * (like.dim() - 1 - self.channel % like.dim()))


def stabilised(z: Tensor, eps: float) -> Tensor:
    """`z + eps · sign(z)` with sign(0) = + (eq. 20).

    >>> stabilised(torch.tensor([-1.0, 0.0, 1.0]), 0.5)
    tensor([-1.5000,  0.5000,  1.5000])
    """
    return z + torch.where(z < 0, -eps, eps).to(z.dtype)


def _has_negative(x: Tensor) -> bool:
    return bool(x.amin() < 0) if x.numel() else False


def share_evenly(layer: Layer, x: Tensor, part: Tensor) -> Tensor:
    """The gradient that shares `part` of each output's relevance evenly over its inputs that are not zero."""
    ones, present = torch.ones_like(layer.weight), (x != 0).to(x.dtype)
    share = layer.pull(x, ones, part / layer(present, ones).clamp(min=1))
    return torch.where(x == 0, torch.zeros_like(x), share / x)


def _apply_at_bound(layer: Layer, x: Tensor, bound: Tensor, weight: Tensor) -> Tensor:
    """The layer without its bias at a bound: one number for each sample, or the same numbers for all of them."""
    if not layer.dense(x):
        return layer(bound.expand_as(x), weight)
    if len(bound) > 1:
        return bound * layer(x.new_ones(1, *x.shape[1:]), weight)
    return layer(bound.expand(1, *x.shape[1:]), weight)


class Stabilised:
    """A rule with a stabiliser; each rule lists `eps` in its own order."""

    eps: float

    def __post_init__(self) -> None:
        check("eps", self.eps, lambda v: v >= 0, "zero or a positive number")


@dataclass(frozen=True)
@checked
class Zero:
    """Share relevance by contributions (LRP-0, the basic rule, eq. 6 and 19): `Rᵢ = Σⱼ zᵢⱼ / zⱼ · Rⱼ`. Equals input
    times gradient.
    """

    direct: ClassVar[bool] = False

    def __call__(self, layer: Layer, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
        ratio = torch.where(z == 0, torch.zeros_like(z), R / z)  # (batch, outputs, …)
        return layer.pull(x, layer.weight, ratio, layer.bias)

    def scaled(self, z: Tensor, gradient: Tensor, closed: bool = False) -> Tensor:
        """The layer's own gradient as the rule has it. With `closed`, `z` is what a ReLU made of the output: zero
        where nothing may pass."""
        return gradient * (z > 0) if closed else gradient


@dataclass(frozen=True)
@checked
class Epsilon(Stabilised):
    """Shrink relevance where the pre-activation is small, by LRP-ε (eq. 20): `Rᵢ = Σⱼ zᵢⱼ / s(zⱼ) · Rⱼ`.

    Attributes:
        eps (float, default 1e-06): How far the stabiliser moves a denominator from zero.
        spread_bias (bool, default False): Share the bias' part, `bⱼ / s(zⱼ) · Rⱼ`, out evenly over the inputs of
            neuron j that are not zero, instead of letting it absorb relevance (eq. 21).

    >>> Epsilon(0.1)
    Epsilon(eps=0.1, spread_bias=False)
    """

    eps: float = 1e-6
    spread_bias: bool = False
    direct: ClassVar[bool] = False

    def __call__(self, layer: Layer, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
        ratio = R / stabilised(z, self.eps)
        if not self.spread_bias or layer.bias is None:
            return layer.pull(x, layer.weight, ratio, layer.bias)
        share = share_evenly(layer, x, ratio * layer.along_channel(layer.bias, ratio))
        return layer.pull(x, layer.weight, ratio) + share

    def scaled(self, z: Tensor, gradient: Tensor, closed: bool = False) -> Tensor:
        """`gradient · z / s(z)`, in as few passes over memory as there can be."""
        if not self.eps:
            return gradient * (z > 0) if closed else gradient
        if closed:
            share = z + self.eps
            return torch.div(z, share, out=share).mul_(gradient)
        return torch.addcdiv(gradient, gradient, z.abs().add_(self.eps), value=-self.eps)


@dataclass(frozen=True)
@checked
class Gamma(Stabilised):
    """Count positive contributions `1 + γ` times (LRP-γ, Montavon et al. 2019; generalised by Andéol et al. 2021).

    For `zⱼ > 0`: `Rᵢ = Σⱼ (zᵢⱼ + γ zᵢⱼ⁺) / s(Σₕ zₕⱼ + γ zₕⱼ⁺ + bⱼ + γ bⱼ⁺) · Rⱼ`; for `zⱼ < 0` the negative parts
    are favoured instead. After a ReLU this is the classic rule.

    Attributes:
        gamma (float, default 0.25): γ, zero or more.
        eps (float, default 1e-06): How far the stabiliser moves a denominator from zero.
    """

    gamma: float = 0.25
    eps: float = 1e-6
    direct: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check("gamma", self.gamma, lambda v: v >= 0, "zero or a positive number")

    def __call__(self, layer: Layer, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
        # With P the sum of the positive contributions the denominators are z + γP where z > 0 and z + γ(z − P)
        # where z < 0, and w⁻ = w − w⁺: one more layer evaluation serves both signs.
        w, b, g = layer.weight, layer.bias, self.gamma
        wp, bp = w.clamp(min=0), None if b is None else b.clamp(min=0)
        mixed = _has_negative(x)
        if mixed:
            P = layer(x.clamp(min=0), wp, bp).add_(layer(x.clamp(max=0), w.clamp(max=0)))
        else:
            P = layer(x, wp, bp)
        sums = torch.add(z, P, alpha=g).add_(self.eps)
        a = torch.div(R, sums, out=sums).masked_fill_(z <= 0, 0)  # (batch, outputs, …)
        if not bool(((z < 0) & (R != 0)).any()):
            if not mixed:
                bias = None if b is None or bp is None else torch.add(b, bp, alpha=g)
                return layer.pull(x, torch.add(w, wp, alpha=g), a, bias)
            c = torch.zeros_like(a)
        else:
            sums = P.mul_(-g).add_(z, alpha=1 + g).sub_(self.eps)
            c = torch.div(R, sums, out=sums).masked_fill_(z >= 0, 0)
        if not mixed:
            return layer.pull(x, w, torch.add(a, c, alpha=1 + g), b).add_(layer.pull(x, wp, g * (a - c), bp))
        wn, bn = w.clamp(max=0), None if b is None else b.clamp(max=0)
        above = layer.pull(x, wp, a, bp) + layer.pull(x, wn, c, bn)
        below = layer.pull(x, wn, a) + layer.pull(x, wp, c)
        for bias, at in ((bp, a), (bn, c)):  # the pulls above counted b⁺ and b⁻ once; they count γ times
            layer.absorb(bias, at, g - 1)
        return layer.pull(x, w, a + c, b).add_(torch.where(x > 0, above, below), alpha=g)


@dataclass(frozen=True)
@checked
class AlphaBeta(Stabilised):
    """Weigh positive and negative contributions apart (LRP-αβ):
    `Rᵢ = Σⱼ (α zᵢⱼ⁺ / s(zⱼ⁺) − β zᵢⱼ⁻ / s(zⱼ⁻)) · Rⱼ`, biases in the denominators (eq. 21).

    `AlphaBeta(1, 0)` is z⁺; `AlphaBeta(0.5, -0.5)` is the paper's own α = β = ½ there, which writes β with the other
    sign, as `α + β = 1`. What arrives below is `Rⱼ (1 − α bⱼ⁺ / zⱼ⁺ + β bⱼ⁻ / zⱼ⁻)` where both signs are there; where
    one of them is not, its part of the relevance is lost.

    The negative side is the output less the positive one, and is computed by itself where rounding would show in the
    relevance (as where one side is tiny beside the other).

    Attributes:
        alpha (float, default 2.0): α, zero or more, with `α − β = 1`.
        beta (float, default 1.0): β, at least −1.
        eps (float, default 1e-06): How far the stabiliser moves a denominator from zero.

    >>> AlphaBeta(2, 0)
    Traceback (most recent call last):
    ...
    apportion.errors.InputError: alpha − beta is 2 − 0 = 2; accepted: alpha ≥ 0, beta ≥ -1 with alpha − beta = 1
    """

    alpha: float = 2.0
    beta: float = 1.0
    eps: float = 1e-6
    direct: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        a, b = self.alpha, self.beta
        for name, value in (("alpha", a), ("beta", b)):
            check(name, value, lambda v: float(v) == v, "a number")
        if not (abs(a - b - 1) < 1e-9 and a >= 0):
            raise InputError(
                f"alpha − beta is {a:g} − {b:g} = {a - b:g}; accepted: alpha ≥ 0, beta ≥ -1 with alpha − beta = 1"
            )

    def __call__(self, layer: Layer, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
        w, b = layer.weight, layer.bias
        wp, bp = w.clamp(min=0), None if b is None else b.clamp(min=0)
        mixed = _has_negative(x)
        # The positive part with its stabiliser, which costs nothing in the bias.
        p = layer(x.clamp(min=0) if mixed else x, wp, None if bp is None else bp + self.eps)
        if bp is None:
            p.add_(self.eps)
        if mixed:
            p.add_(layer(x.clamp(max=0), w.clamp(max=0)))
        bn = None if b is None else b.clamp(max=0)
        n = self._negative(layer, x, z, p, R, bn, mixed) if self.beta else None  # (batch, outputs, …)
        found = self._side(layer, x, torch.div(R, p, out=p), wp, bp, self.alpha, mixed)
        if n is None:
            return found
        other = self._side(layer, x, torch.div(R, n, out=n), w.clamp(max=0), bn, -self.beta, mixed)
        return found.add_(other)

    def _negative(
        self, layer: Layer, x: Tensor, z: Tensor, p: Tensor, R: Tensor, bias: Tensor | None, mixed: bool
    ) -> Tensor:
        """The negative part with its stabiliser: as a difference, without a third layer evaluation, unless what
        rounding adds to it would turn more than `_ROUNDED` of the relevance."""
        n = torch.sub(z, p).clamp_(max=-self.eps)
        share = (p / n).abs_().mul_(torch.finfo(n.dtype).eps).clamp_(max=1)  # (batch, outputs, …)
        whole = R.abs()
        if not bool(share.mul_(whole).sum() > _ROUNDED * whole.sum()):
            return n
        n = layer(x.clamp(min=0) if mixed else x, layer.weight.clamp(max=0), bias)
        if mixed:
            n.add_(layer(x.clamp(max=0), layer.weight.clamp(min=0)))
        return n.sub_(self.eps)

    def _side(
        self, layer: Layer, x: Tensor, a: Tensor, part: Tensor, bias: Tensor | None, times: float, mixed: bool
    ) -> Tensor:
        """Pass on by the contributions of one sign: `part` holds the weights of that sign, and for negative
        inputs it is the other weights that make contributions of it. α and β scale the weights, which are small
        beside the activations."""
        other = layer.weight - part if mixed else None
        found = layer.pull(
            x, part if times == 1 else part.mul_(times), a, None if bias is None else bias * times
        )
        if other is None:
            return found
        return torch.where(x > 0, found, layer.pull(x, other.mul_(times), a))


_ROUNDED = 1e-4


@dataclass(frozen=True)
@checked
class WSquare(Stabilised):
    """Share relevance by squared weights, whatever the input (the w² rule, Montavon et al. 2017):
    `Rᵢ = Σⱼ wᵢⱼ² / s(Σₕ wₕⱼ²) · Rⱼ`.

    Attributes:
        eps (float, default 1e-06): How far the stabiliser moves a denominator from zero.
    """

    eps: float = 1e-6
    direct: ClassVar[bool] = True

    def __call__(self, layer: Layer, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
        square, points = layer.weight.square(), torch.ones_like(x)
        points = points[:1] if layer.dense(x) else points
        return layer.pull(x, square, R / stabilised(layer(points, square), self.eps))


@dataclass(frozen=True)
@checked
class Flat(Stabilised):
    """Share the relevance of each output evenly over all its inputs (the flat rule, Lapuschkin et al. 2019).

    Attributes:
        eps (float, default 1e-06): How far the stabiliser moves a denominator from zero.
    """

    eps: float = 1e-6
    direct: ClassVar[bool] = True

    def __call__(self, layer: Layer, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
        ones, points = torch.ones_like(layer.weight), torch.ones_like(x)
        if layer.dense(x):  # one output of each place, in one sample, stands for all
            ones, points, R = ones[:1], points[:1], R.sum(layer.channel, keepdim=True)  # R: (batch, 1, …)
        return layer.pull(x, ones, R / stabilised(layer(points, ones), self.eps))


@dataclass(frozen=True)
@checked
class Box(Stabilised):
    """Share relevance among inputs in a box `lᵢ ≤ xᵢ ≤ hᵢ` (z^B, Montavon et al. 2017):
    `Rᵢ = Σⱼ (zᵢⱼ − lᵢ wᵢⱼ⁺ − hᵢ wᵢⱼ⁻) / s(Σₕ …) · Rⱼ`.

    Attributes:
        low (float or list of float, default None): Lower bound, one number or one per channel; None: each sample's
            own smallest value.
        high (float or list of float, default None): Upper bound, likewise; None: each sample's own largest value.
        eps (float, default 1e-06): How far the stabiliser moves a denominator from zero.
    """

    low: float | Sequence[float] | None = None
    high: float | Sequence[float] | None = None
    eps: float = 1e-6
    direct: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds = (-math.inf if self.low is None else self.low), (math.inf if self.high is None else self.high)
        check("(low, high) of the box", bounds, lambda pair: np.less(*pair).all(), "low below high")

    def __call__(self, layer: Layer, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
        w, b = layer.weight, layer.bias
        wp, wn = w.clamp(min=0), w.clamp(max=0)  # (outputs, inputs, …)
        low, high = self._bound(self.low, x, torch.amin), self._bound(self.high, x, torch.amax)
        # Σ (x − l⁺ − h⁻) w without the bias, which is in z and cancels.
        corner = _apply_at_bound(layer, x, low, wp) + _apply_at_bound(
            layer, x, high, wn
        )  # (batch or 1, outputs, …)
        bias = 0 if b is None else layer.along_channel(b, z)
        ratio = R / stabilised(z - bias - corner, self.eps)  # (batch, outputs, …)
        return (x - high) * layer.pull(x, w, ratio) - (low - high) * layer.pull(x, wp, ratio)

    def _bound(self, bound: float | Sequence[float] | None, x: Tensor, of: Callable[..., Tensor]) -> Tensor:
        if bound is None:
            return of(x, dim=tuple(range(1, x.dim())), keepdim=True)
        given = torch.as_tensor(bound, dtype=x.dtype, device=x.device)
        if given.dim() == 1 and len(given) != x.shape[1]:
            raise InputError(
                f"the box has {len(given)} bounds for {x.shape[1]} channels; accepted: one number or one each"
            )
        return given.view(1, -1, *[1] * (x.dim() - 2))


@dataclass(frozen=True)
@checked
class Proportional(Stabilised):
    """Share the relevance of a max pool in proportion to the pooled values, like a sum (the layer is the sum).

    Attributes:
        eps (float, default 1e-06): How far the stabiliser moves a denominator from zero.
    """

    eps: float = 1e-6
    direct: ClassVar[bool] = False

    def __call__(self, layer: Layer, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
        return layer.pull(x, layer.weight, R / stabilised(layer(x, layer.weight), self.eps))


Rule = Any
"""Any callable `(layer, x, z, R) -> G`; `direct = True` on it says that it returns relevance. One with a method
`scaled(z, gradient, closed)` is evaluated by scaling the layer's own gradient, at no extra cost."""
