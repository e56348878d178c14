"""What becomes of the relevance that biases (and softmax) take: it is absorbed, spread over the neuron's inputs, left
out of the denominators, or placed where the neuron looks.

Placing needs two passes. The first notes what the constants of each call took of each output. The second carries that
down to the input by shares that are never negative and add up to one, so that nothing is absorbed twice: a layer
shares in proportion to `|xᵢ wᵢⱼ|`, and where there is no product with weights an entry hands on what it has. Of
attention the query takes all, so that a token's share stays at the token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.methods.contracts import Rule
from apportion.methods.propagation.rules import Layer, share_evenly


@dataclass(frozen=True)
class Ignoring:
    """A rule whose denominators leave the bias out: what it took goes to the inputs by their contributions."""

    rule: Rule

    @property
    def direct(self) -> bool:
        return getattr(self.rule, "direct", False)

    def __call__(self, layer: Layer, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
        assert layer.bias is not None
        found: Tensor = self.rule(
            replace(layer, bias=None), x, z - layer.along_channel(layer.bias, z).to(z.dtype), R
        )
        return found


@dataclass(frozen=True)
class Spreading:
    """A rule that shares what the bias takes evenly over the neuron's inputs that are not zero (Bach et al. 2015,
    eq. 21)."""

    rule: Rule

    @property
    def direct(self) -> bool:
        return getattr(self.rule, "direct", False)

    def __call__(self, layer: Layer, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
        taken: list[Tensor] = []
        found: Tensor = self.rule(replace(layer, row=None, taken=taken), x, z, R)
        return found + share_evenly(layer, x, sum(taken)) if taken else found  # type: ignore[arg-type]


_OTHERWISE = (
    'bias is "place", which takes two passes, and the model ran other layers in the second than in the first; '
    'accepted: models that do the same each time, or "absorb"'
)
WRAPPING: dict[str, Callable[[Rule], Rule]] = {"ignore": Ignoring, "spread": Spreading}


@dataclass(frozen=True)
class Looking:
    """Share what is placed over what the neuron looks at: `Rᵢ = Σⱼ |xᵢ wᵢⱼ| / Σₕ |xₕ wₕⱼ| · Rⱼ`."""

    direct: ClassVar[bool] = False

    def __call__(self, layer: Layer, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
        weight = layer.weight.abs()
        sums = layer(x.abs(), weight)  # (batch, outputs, …)
        dead = sums <= _least(sums)
        shares = (R / sums).clamp_(*_ends(sums)).masked_fill_(dead, 0)
        # A neuron all of whose inputs are zero looks at nothing: others at its place do for it, or in its sample.
        at_place = R.where(dead, 0).sum(layer.channel, keepdim=True)
        size = sums.sum(layer.channel, keepdim=True)
        shares += _shares(at_place, size)
        every = list(range(1, R.dim()))
        left = at_place.where(size <= _least(size), 0).sum(every, keepdim=True)
        shares += _shares(left, size.sum(every, keepdim=True))
        return x.sign().mul_(layer.pull(x, weight, shares))


def _least(like: Tensor) -> float:
    """What is too little to divide by: of a format of few exponents, as float16 is, the root would be too much."""
    info = torch.finfo(like.dtype)
    return float(max(info.tiny, min(info.tiny**0.5, info.eps**2)))


def _shares(R: Tensor, size: Tensor) -> Tensor:
    """`R / size` where there is something to divide by, no more than the number format holds."""
    return torch.where(size.abs() > _least(size), (R / size).clamp_(*_ends(size)), 0)


def _ends(like: Tensor) -> tuple[float, float]:
    """The least and the largest number of a format."""
    info = torch.finfo(like.dtype)
    return info.min, info.max


@dataclass(eq=False)
class Place:
    """What the constants of one call took of its output, by the shapes of what it was given; and the output of a layer,
    which both passes have."""

    shapes: tuple[torch.Size, ...]
    amounts: list[Tensor] = field(default_factory=list)
    output: Tensor = field(init=False, repr=False)

    def hand_on(self) -> Tensor:
        """The output, which is let go of here."""
        output = self.output
        del self.output
        return output


@dataclass(eq=False)
class Places:
    """The places of all calls, in the order of the model's.

    The first pass fills `taken`; the second takes the sums out in the same order. `reached` are the outputs where it
    does so, which a backward pass has to come by, even if nothing from the score leads there (keys of attention).
    """

    taken: list[Place] = field(default_factory=list)
    carried: Iterator[Place] | None = None
    reached: list[Tensor] = field(default_factory=list)
    of_softmax: bool = True  # whether softmax takes anything

    def carrying(self) -> Places:
        """The same for the second pass."""
        return Places(self.taken, iter(self.taken), of_softmax=self.of_softmax)

    def next(self, *given: Tensor) -> Place:
        """Where the next call, which is given these, notes, or what it noted."""
        shapes = tuple(tensor.shape for tensor in given)
        if self.carried is None:
            self.taken.append(Place(shapes))
            return self.taken[-1]
        found = next(self.carried, None)
        if found is None or found.shapes != shapes:
            raise InputError(_OTHERWISE)
        return found

    def check_all_met(self) -> None:
        """Raise InputError if the second pass came by fewer calls than the first."""
        if self.carried is not None and next(self.carried, None) is not None:
            raise InputError(_OTHERWISE)

    def forget(self) -> None:
        """Begin anew, in the same places."""
        for place in self.taken:
            place.amounts.clear()

    @property
    def total(self) -> float:
        return sum(float(amount.double().sum()) for place in self.taken for amount in place.amounts)

    def shift(self, y: Tensor, constant: Tensor, x: Tensor | None, along: int | None, row: Any) -> Tensor:
        """`y`, made of `x` (or the rest of it) and an added constant. What is carried goes to the entries of `x` along
        an axis by their size, or to the same entry."""
        if self.carried is None:
            return _note(y, constant, self.next(y).amounts, row)
        x = torch.where(constant.isfinite(), y - constant, 0) if x is None else x
        self.reached.append(_carry(x, y.detach(), self.next(y).amounts, along))
        return self.reached[-1]

    def softmax(self, p: Tensor, scores: Tensor, dim: int, row: Any) -> Tensor:
        """Probabilities of scores. What is carried stays in its row."""
        if self.carried is None:
            return _note_softmax(p, scores.detach(), dim, self.next(p).amounts, row)
        seen = torch.where(p.detach() > 0, scores, 0)
        self.reached.append(_carry(seen, p.detach(), self.next(p).amounts if self.of_softmax else [], dim))
        return self.reached[-1]


class _Note(torch.autograd.Function):
    """A tensor with a constant in it, which notes what the constant takes."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, constant: Tensor, taken: list[Tensor], row: Any) -> Tensor:
        ctx.save_for_backward(constant)
        ctx.taken, ctx.row = taken, row
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (constant,) = ctx.saved_tensors
        # Where nothing arrives the constant may be infinite, as a mask is.
        amount = torch.where(gradient == 0, 0, gradient * constant)
        ctx.taken.append(amount)
        if ctx.row is not None:
            ctx.row.add("bias", amount.sum())
        return gradient, None, None, None


class _NoteSoftmax(torch.autograd.Function):
    """Probabilities, which note what softmax takes of each row: what arrives, but for what the scores get."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, scores: Tensor, dim: int, taken: list[Tensor], row: Any) -> Tensor:
        ctx.save_for_backward(p, scores)
        ctx.dim, ctx.taken, ctx.row = dim, taken, row
        return p.view_as(p)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        p, scores = ctx.saved_tensors  # (…, queries, keys), if `dim` is the last
        R = p * gradient
        at_scores = R - p * R.sum(ctx.dim, keepdim=True)
        passed = torch.where(at_scores == 0, 0, scores * at_scores)  # masked scores are infinite
        amount = (R - passed).sum(ctx.dim, keepdim=True)
        ctx.taken.append(amount)
        if ctx.row is not None:
            ctx.row.add("bias", amount.sum())
        return gradient, None, None, None, None


class _Carry(torch.autograd.Function):
    """`y` with the gradient that hands the relevance of `y`, and what is placed there, on to `x`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, amounts: list[Tensor], along: int | None) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.amounts, ctx.along = amounts, along
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, y = ctx.saved_tensors
        parts = [torch.where(gradient == 0, 0, gradient * y), *ctx.amounts]
        if ctx.along is None:
            return _shares(sum(parts), x), None, None, None
        # Before they are added: what softmax took has one entry for each row.
        R = sum(part.sum(ctx.along, keepdim=True) for part in parts)
        sums = x.abs().sum(ctx.along, keepdim=True)
        return x.sign() * _shares(R, sums), None, None, None


_note: Callable[..., Tensor] = _Note.apply
_note_softmax: Callable[..., Tensor] = _NoteSoftmax.apply
_carry: Callable[..., Tensor] = _Carry.apply
