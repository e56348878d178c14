"""Methods that read a model's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from apportion.errors import InputError
from apportion.explanation import Explanation
from apportion.forward import Inputs, Model, Subject
from apportion.target import Target


@dataclass(frozen=True)
class Saliency:
    """The absolute gradient (Simonyan et al. 2014): where a small change moves the score most.

    It does not claim to add up. The value of a token is the Euclidean norm over its embedding. Cost: one
    forward and one backward pass. `at` names one or several modules to explain instead of the inputs.

    >>> linear = torch.nn.Linear(2, 1)
    >>> bool((Saliency()(linear, torch.ones(1, 2)).values == linear.weight.abs()).all())
    True
    """

    at: str | Sequence[str] | None = None

    def __call__(self, model: Model, inputs: Inputs, target: Target = None) -> Explanation:
        subject = Subject(model, inputs, target, self.at)
        score = subject.forward()
        return subject.explanation(self, score, [g.abs() for g in score.gradients()], total=None, reduce="norm")


@dataclass(frozen=True)
class InputXGradient:
    """Input times gradient (Shrikumar et al. 2016): the first-order Taylor term at zero.

    Adds up to `f(x)` exactly for piecewise linear models without biases; the remainder says how far a model
    is from that. Cost: one forward and one backward pass.

    >>> model = torch.nn.Linear(3, 2, bias=False)
    >>> e = InputXGradient()(model, torch.ones(1, 3), target=1)
    >>> torch.allclose(e.values, model.weight[1])
    True
    """

    at: str | Sequence[str] | None = None

    def __call__(self, model: Model, inputs: Inputs, target: Target = None) -> Explanation:
        subject = Subject(model, inputs, target, self.at)
        score = subject.forward()
        values = [x * g for x, g in zip(score.leaves, score.gradients(), strict=True)]
        return subject.explanation(self, score, values, total=score.value)


@dataclass(frozen=True)
class SmoothGrad:
    """The mean gradient over inputs with Gaussian noise (Smilkov et al. 2017).

    `noise` is the standard deviation as a share of each sample's range. The noise comes from `seed`, never
    from the global random state. It does not claim to add up. Cost: `samples` + 1 forward and `samples`
    backward passes, `chunk` rows at a time.

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

    def __post_init__(self) -> None:
        for name in ("samples", "chunk"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; accepted: at least 1")
        if self.noise < 0:
            raise InputError(f"noise is {self.noise}; accepted: zero or more")

    def __call__(self, model: Model, inputs: Inputs, target: Target = None) -> Explanation:
        subject = Subject(model, inputs, target, self.at)
        first = subject.forward()
        generator = torch.Generator(first.leaves[0].device).manual_seed(self.seed)
        places = [leaf.detach() for leaf in first.leaves]
        scale = [self.noise * (x.flatten(1).amax(1) - x.flatten(1).amin(1)) for x in places]
        sums = [torch.zeros_like(x) for x in places]
        step = max(1, self.chunk // subject.batch)
        for begin in range(0, self.samples, step):
            many = min(step, self.samples - begin)
            noisy = []
            for x, s in zip(places, scale, strict=True):
                shape = (many, *x.shape)
                draw = torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)
                noisy.append((x + draw * s.view(-1, *[1] * (x.dim() - 1))).flatten(0, 1))
            for total, gradient in zip(sums, subject.forward(leaves=noisy).gradients(), strict=True):
                total += gradient.view(many, *total.shape).sum(0)
        return subject.explanation(self, first, [s / self.samples for s in sums], total=None)
