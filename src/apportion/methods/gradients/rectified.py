"""Gradients of which only the positive part passes back at each ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from apportion.core.calling import Model
from apportion.core.inputs import FEW, Given
from apportion.core.settings import checked
from apportion.core.target import Target
from apportion.engines.substitution import HARMLESS, Call, Gradients, Substitution, no_derivatives
from apportion.engines.substitution.call import native
from apportion.engines.substitution.unseen import Unseen, check_visible, describe_unseen
from apportion.results.explanation import Explanation


@dataclass(frozen=True)
@checked
class Deconvnet:
    """Pass only positive gradients back at each ReLU, whatever its input was (Zeiler & Fergus 2014).

    It does not claim to add up. The value of a token is the sum over its embedding. A warning on the
    explanation says so if the model has no ReLU, where this is the plain gradient. Cost: one forward and one
    backward pass.

    Attributes:
        at (str or list of str, default None): Modules to explain instead of the inputs; None: the inputs.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False), torch.nn.ReLU())
    >>> e = Deconvnet()(model, -model[0].weight.detach())
    >>> bool((e.values == model[0].weight).all())
    True
    """

    at: str | Sequence[str] | None = None
    once: ClassVar[int] = FEW

    def __call__(self, model: Model, inputs: Given, target: Target = None) -> Explanation[Given, None]:
        return _explain_rectified(
            self, Gradients(model, inputs, target, self.at, once=self.once), guided=False
        )


@dataclass(frozen=True)
@checked
class GuidedBackprop:
    """Pass only positive gradients back at each ReLU, and only where its input was positive too (Springenberg et
    al. 2015).

    It does not claim to add up, and it depends little on the model's last layers (Adebayo et al. 2018). The
    value of a token is the sum over its embedding. A warning on the explanation says so if the model has no
    ReLU, where this is the plain gradient. Cost: one forward and one backward pass.

    Attributes:
        at (str or list of str, default None): Modules to explain instead of the inputs; None: the inputs.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False), torch.nn.ReLU())
    >>> GuidedBackprop()(model, -model[0].weight.detach()).values.tolist()
    [[0.0, 0.0]]
    """

    at: str | Sequence[str] | None = None
    once: ClassVar[int] = FEW

    def __call__(self, model: Model, inputs: Given, target: Target = None) -> Explanation[Given, None]:
        return _explain_rectified(
            self, Gradients(model, inputs, target, self.at, once=self.once), guided=True
        )


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
    """True if a function cuts off at zero: `nn.ReLU6` calls hardtanh from 0 on, others write `clamp(min=0)`."""
    if call.name == "threshold":
        return [*call.args[1:], *call.kwargs.values()][:2] == [0, 0]
    given = call.args[1] if len(call.args) > 1 else None
    low = call.kwargs.get("min", call.kwargs.get("min_val", given))
    return call.name.startswith("relu") or (isinstance(low, int | float) and low == 0)


def _explain_rectified(method: Any, subject: Gradients, guided: bool) -> Explanation[Any, None]:
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

    hidden: list[str] = []

    def met_unseen(run: Substitution, tensor: Tensor, maker: str) -> None:
        text = f"{describe_unseen(maker, run.where())}: its gradient was used, also at a ReLU inside it"
        if text not in hidden:
            hidden.append(text)

    check_visible(subject.model)
    unseen = Unseen(met_unseen)
    table = {**HARMLESS, "grad": no_derivatives, **dict.fromkeys(_RELUS, rectify)}
    run = Substitution(table, native, subject.model, arrived=unseen.arrived, returned=unseen.returned)
    score = subject.forward(run)
    warnings = hidden if met or hidden else ["the model has no ReLU: this is its plain gradient"]
    return subject.explanation(method, score, score.gradients(), total=None, warnings=warnings)
