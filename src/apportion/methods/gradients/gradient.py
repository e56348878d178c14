"""The gradient itself, and the gradient times the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from apportion.core.calling import Model
from apportion.core.inputs import FEW, Given
from apportion.core.settings import checked
from apportion.core.target import Target
from apportion.engines.substitution import Gradients
from apportion.results.explanation import Explanation


@dataclass(frozen=True)
@checked
class Saliency:
    """Take the absolute gradient (Simonyan et al. 2014): where a small change moves the score most.

    It does not claim to add up. The value of a token is the Euclidean norm over its embedding. Cost: one
    forward and one backward pass.

    Attributes:
        at (str or list of str, default None): Modules to explain instead of the inputs; None: the inputs.

    >>> linear = torch.nn.Linear(2, 1)
    >>> bool((Saliency()(linear, torch.ones(1, 2)).values == linear.weight.abs()).all())
    True
    """

    at: str | Sequence[str] | None = None
    once: ClassVar[int] = FEW

    def __call__(self, model: Model, inputs: Given, target: Target = None) -> Explanation[Given, None]:
        subject = Gradients(model, inputs, target, self.at, once=self.once)
        score = subject.forward()
        return subject.explanation(
            self, score, [g.abs() for g in score.gradients()], total=None, reduce="norm"
        )


@dataclass(frozen=True)
@checked
class InputXGradient:
    """Multiply the input by the gradient (Shrikumar et al. 2016): the first-order Taylor term at zero.

    The values add up to `f(x)` exactly for piecewise linear models without biases; the remainder says how far
    a model is from that. Cost: one forward and one backward pass.

    Attributes:
        at (str or list of str, default None): Modules to explain instead of the inputs; None: the inputs.

    >>> model = torch.nn.Linear(3, 2, bias=False)
    >>> e = InputXGradient()(model, torch.ones(1, 3), target=1)
    >>> torch.allclose(e.values, model.weight[1])
    True
    """

    at: str | Sequence[str] | None = None
    once: ClassVar[int] = FEW

    def __call__(self, model: Model, inputs: Given, target: Target = None) -> Explanation[Given, Tensor]:
        subject = Gradients(model, inputs, target, self.at, once=self.once)
        score = subject.forward()
        values = [x * g for x, g in zip(score.leaves, score.gradients(), strict=True)]
        return subject.explanation(self, score, values, total=score.value)
