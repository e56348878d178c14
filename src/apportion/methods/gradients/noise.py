"""Moments of the gradient over inputs with noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from apportion.core.calling import Model
from apportion.core.inputs import FEW, Given
from apportion.core.settings import checked
from apportion.core.target import Target
from apportion.engines.substitution import Gradients, Score
from apportion.errors import check, check_seed, check_whole
from apportion.results.explanation import Explanation


@dataclass(frozen=True)
@checked
class SmoothGrad:
    """Average the gradient over inputs with Gaussian noise (Smilkov et al. 2017).

    The noise never comes from the global random state and is the same for every sample up to its deviation:
    neither `chunk` nor the rest of the batch changes a value. It does not claim to add up. Cost: `samples` + 1
    forward and `samples` backward passes.

    Attributes:
        samples (int, default 32): Noisy copies of each input.
        noise (float, default 0.15, share of the sample's range): Standard deviation of the noise.
        seed (int, default 0): Fixes the noise.
        chunk (int, default 32, rows): Rows that run at once.
        at (str or list of str, default None): Modules to explain instead of the inputs; None: the inputs.

    >>> linear = torch.nn.Linear(2, 1)
    >>> e = SmoothGrad(samples=4)(linear, torch.tensor([[0.0, 1.0]]))
    >>> torch.allclose(e.values, linear.weight)
    True
    """

    samples: int = 32
    noise: float = 0.15
    seed: int = 0
    chunk: int = 32
    at: str | Sequence[str] | None = None
    once: ClassVar[int] = FEW

    def __post_init__(self) -> None:
        check_whole(1, samples=self.samples, chunk=self.chunk)
        check_seed(self.seed)
        check("noise", self.noise, lambda v: 0 <= v < float("inf"), "zero or more")

    def __call__(self, model: Model, inputs: Given, target: Target = None) -> Explanation[Given, None]:
        subject = Gradients(model, inputs, target, self.at, once=self.once)
        first, means, variances = self._measure_moments(subject)
        return subject.explanation(self, first, self.moment(means, variances), total=None)

    def moment(self, means: list[Tensor], variances: list[Tensor]) -> list[Tensor]:
        return means

    def _measure_moments(self, subject: Gradients) -> tuple[Score, list[Tensor], list[Tensor]]:
        """The pass without noise, and the mean and variance of the gradient at each leaf with it."""
        first = subject.forward(grad=False)
        generator = torch.Generator(first.leaves[0].device).manual_seed(self.seed)
        places = [leaf.detach() for leaf in first.leaves]
        apart = [x[:1] if subject.once else x for x in places]  # (batch, …), or what stands for all of them
        rows = [x.reshape(len(x), -1) for x in apart]
        scale = [self.noise * (row.amax(1) - row.amin(1)) for row in rows]
        means, squares = [torch.zeros_like(x) for x in places], [torch.zeros_like(x) for x in places]
        step = max(1, self.chunk // subject.batch)
        for begin in range(0, self.samples, step):
            many = min(step, self.samples - begin)
            # One draw at a time, in one number format: what is drawn at once depends on the size of the whole.
            draws = [[_draw_normal(x, generator) for x in places] for _ in range(many)]
            moved = []
            for x, s, fields in zip(apart, scale, zip(*draws, strict=True), strict=True):
                noisy = x + torch.stack(fields)[:, None] * s.view(-1, *[1] * (x.dim() - 1))
                moved.append(noisy.flatten(0, 1))
            of = torch.arange(many).repeat_interleave(subject.batch) if subject.once else None
            gradients = subject.forward(leaves=moved, of=of).gradients()
            for mean, square, gradient in zip(means, squares, gradients, strict=True):
                # Merging means keeps the digits that mean(g²) - mean(g)² loses (Chan et al. 1979).
                new = gradient.view(many, *mean.shape)
                centre = new.mean(0)
                gap = centre - mean
                square += ((new - centre) ** 2).sum(0) + gap**2 * (begin * many / (begin + many))
                mean += gap * (many / (begin + many))
        return first, means, [square / self.samples for square in squares]


@dataclass(frozen=True)
@checked
class VarGrad(SmoothGrad):
    """Take the variance of the gradient over inputs with Gaussian noise (Adebayo et al. 2018).

    It does not claim to add up; the value of a token is the sum over its embedding. Settings and cost: those of
    [SmoothGrad][apportion.methods.gradients.noise.SmoothGrad].

    >>> linear = torch.nn.Linear(2, 1)
    >>> VarGrad(samples=4)(linear, torch.tensor([[0.0, 1.0]])).values.abs().max() < 1e-12
    tensor(True)
    """

    def moment(self, means: list[Tensor], variances: list[Tensor]) -> list[Tensor]:
        return variances


def _draw_normal(x: Tensor, generator: torch.Generator) -> Tensor:
    """Normal numbers in the shape of one sample of `x`."""
    return torch.randn(x.shape[1:], generator=generator, device=x.device, dtype=torch.float32).to(x)
