"""Methods that read a model's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from apportion.core.calling import Model
from apportion.core.inputs import Inputs
from apportion.core.target import Target
from apportion.engines.substitution import HARMLESS, Call, Gradients, Score, Substitution, no_derivatives
from apportion.errors import check, check_whole
from apportion.results.explanation import Explanation


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
        subject = Gradients(model, inputs, target, self.at)
        score = subject.forward()
        return subject.explanation(
            self, score, [g.abs() for g in score.gradients()], total=None, reduce="norm"
        )


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
        subject = Gradients(model, inputs, target, self.at)
        score = subject.forward()
        values = [x * g for x, g in zip(score.leaves, score.gradients(), strict=True)]
        return subject.explanation(self, score, values, total=score.value)


@dataclass(frozen=True)
class _Noisy:
    """A moment of the gradient over inputs with noise."""

    samples: int = 32
    noise: float = 0.15
    seed: int = 0
    chunk: int = 32
    at: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_whole(1, samples=self.samples, chunk=self.chunk)
        check("noise", self.noise, lambda v: v >= 0, "zero or more")

    def __call__(self, model: Model, inputs: Inputs, target: Target = None) -> Explanation:
        subject = Gradients(model, inputs, target, self.at)
        first, means, variances = _noisy(subject, self.samples, self.noise, self.seed, self.chunk)
        return subject.explanation(self, first, self.moment(means, variances), total=None)

    def moment(self, means: list[Tensor], variances: list[Tensor]) -> list[Tensor]:
        raise NotImplementedError


@dataclass(frozen=True)
class SmoothGrad(_Noisy):
    """The mean gradient over inputs with Gaussian noise (Smilkov et al. 2017).

    `noise` is the standard deviation as a share of each sample's range. The noise comes from `seed`, never
    from the global random state, and is the same for every sample up to that deviation: neither `chunk` nor
    the rest of the batch changes a value. It does not claim to add up. Cost: `samples` + 1 forward and `samples`
    backward passes, `chunk` rows at a time.

    >>> linear = torch.nn.Linear(2, 1)
    >>> e = SmoothGrad(samples=4)(linear, torch.tensor([[0.0, 1.0]]))
    >>> torch.allclose(e.values, linear.weight)
    True
    """

    def moment(self, means: list[Tensor], variances: list[Tensor]) -> list[Tensor]:
        return means


@dataclass(frozen=True)
class VarGrad(_Noisy):
    """The variance of the gradient over inputs with Gaussian noise (Adebayo et al. 2018).

    Settings and cost are those of `SmoothGrad`. It does not claim to add up; the value of a token is the sum
    over its embedding.

    >>> linear = torch.nn.Linear(2, 1)
    >>> VarGrad(samples=4)(linear, torch.tensor([[0.0, 1.0]])).values.abs().max() < 1e-12
    tensor(True)
    """

    def moment(self, means: list[Tensor], variances: list[Tensor]) -> list[Tensor]:
        return variances


def _noisy(
    subject: Gradients, samples: int, noise: float, seed: int, chunk: int
) -> tuple[Score, list[Tensor], list[Tensor]]:
    """The pass without noise, and the mean and variance of the gradient at each leaf with it."""
    first = subject.forward(grad=False)
    generator = torch.Generator(first.leaves[0].device).manual_seed(seed)
    places = [leaf.detach() for leaf in first.leaves]
    rows = [x.reshape(len(x), -1) for x in places]
    scale = [noise * (row.amax(1) - row.amin(1)) for row in rows]
    means, squares = [torch.zeros_like(x) for x in places], [torch.zeros_like(x) for x in places]
    step = max(1, chunk // subject.batch)
    for begin in range(0, samples, step):
        many = min(step, samples - begin)
        # One draw at a time, in one number format: what is drawn at once depends on the size of the whole.
        draws = [[_normal(x, generator) for x in places] for _ in range(many)]
        moved = []
        for x, s, fields in zip(places, scale, zip(*draws, strict=True), strict=True):
            noisy = x + torch.stack(fields)[:, None] * s.view(-1, *[1] * (x.dim() - 1))
            moved.append(noisy.flatten(0, 1))
        gradients = subject.forward(leaves=moved).gradients()
        for mean, square, gradient in zip(means, squares, gradients, strict=True):
            # Merging means keeps the digits that mean(g²) - mean(g)² loses (Chan et al. 1979).
            new = gradient.view(many, *mean.shape)
            centre = new.mean(0)
            gap = centre - mean
            square += ((new - centre) ** 2).sum(0) + gap**2 * (begin * many / (begin + many))
            mean += gap * (many / (begin + many))
    return first, means, [square / samples for square in squares]


def _normal(x: Tensor, generator: torch.Generator) -> Tensor:
    """Normal numbers in the shape of one sample of `x`."""
    return torch.randn(x.shape[1:], generator=generator, device=x.device, dtype=torch.float32).to(x)


@dataclass(frozen=True)
class Deconvnet:
    """Deconvnet (Zeiler & Fergus 2014): at each ReLU only positive gradients pass back, whatever its input
    was.

    It does not claim to add up. The value of a token is the sum over its embedding. A warning on the
    explanation says so if the model has no ReLU, where this is the plain gradient. Cost: one forward and one
    backward pass.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False), torch.nn.ReLU())
    >>> e = Deconvnet()(model, -model[0].weight.detach())
    >>> bool((e.values == model[0].weight).all())
    True
    """

    at: str | Sequence[str] | None = None

    def __call__(self, model: Model, inputs: Inputs, target: Target = None) -> Explanation:
        return _rectified(self, Gradients(model, inputs, target, self.at), guided=False)


@dataclass(frozen=True)
class GuidedBackprop:
    """Guided backpropagation (Springenberg et al. 2015): at each ReLU only positive gradients pass back, and
    only where its input was positive too.

    It does not claim to add up, and it depends little on the model's last layers (Adebayo et al. 2018). The
    value of a token is the sum over its embedding. A warning on the explanation says so if the model has no
    ReLU, where this is the plain gradient. Cost: one forward and one backward pass.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False), torch.nn.ReLU())
    >>> GuidedBackprop()(model, -model[0].weight.detach()).values.tolist()
    [[0.0, 0.0]]
    """

    at: str | Sequence[str] | None = None

    def __call__(self, model: Model, inputs: Inputs, target: Target = None) -> Explanation:
        return _rectified(self, Gradients(model, inputs, target, self.at), guided=True)


class _Rectify(torch.autograd.Function):
    """The identity, whose gradient is the positive part of what comes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clamp(min=0)


class _PassRectified(torch.autograd.Function):
    """A given value, whose gradient at `x` is the positive part of what comes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        return y.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.clamp(min=0), None


_RELUS = ("relu", "relu6", "hardtanh", "clamp", "clamp_min", "threshold")


def _is_relu(call: Call) -> bool:
    """Whether a function cuts off at zero: `nn.ReLU6` calls hardtanh from 0 on, others write `clamp(min=0)`."""
    if call.name == "threshold":
        return [*call.args[1:], *call.kwargs.values()][:2] == [0, 0]
    given = call.args[1] if len(call.args) > 1 else None
    low = call.kwargs.get("min", call.kwargs.get("min_val", given))
    return call.name.startswith("relu") or (isinstance(low, int | float) and low == 0)


def _rectified(method: Any, subject: Gradients, guided: bool) -> Explanation:
    met = False

    def rectify(call: Call, *args: Any, **kwargs: Any) -> Any:
        nonlocal met
        if not _is_relu(call):
            return call.native()
        met = True
        if guided:
            return _Rectify.apply(call.native())  # type: ignore[no-untyped-call]
        with torch.no_grad():
            y = call.native()
        return _PassRectified.apply(call.actives[0], y)  # type: ignore[no-untyped-call]

    table = {**HARMLESS, "grad": no_derivatives, **dict.fromkeys(_RELUS, rectify)}
    score = subject.forward(Substitution(table, model=subject.model))
    warnings = () if met else ("the model has no ReLU: this is its plain gradient",)
    return subject.explanation(method, score, score.gradients(), total=None, warnings=warnings)
