"""What to write to extend the package: a method, a rule of propagation, a replacement, a partition, a test.

Each is a frozen dataclass whose fields are its settings, so that its repr says what it is: caches, files and pages go
by it. Nothing needs to be registered to be used from Python; a line in `names.py` gives it a name on the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from apportion.core.calling import Model
from apportion.core.features import Features
from apportion.core.inputs import Inputs
from apportion.core.target import Target
from apportion.engines.masking.replacements import Replacement
from apportion.methods.propagation.rules import Layer
from apportion.results.result import Result, Total

__all__ = ["Layer", "Method", "Partition", "Replacement", "Rule", "Test"]


@runtime_checkable
class Method(Protocol[Total]):
    """Explains a model at some inputs.

    A method that computes with gradients begins with `Gradients(model, inputs, target)`, one that hides features with
    `Masking(model, inputs, target, …)`, any other with `Subject(model, inputs, target)`: they check what is given,
    count the passes, leave the model as it was, and make the result. Further arguments are by keyword; `features` and
    `mask` are handed to methods that name them.
    """

    def __call__(self, model: Model, inputs: Inputs, target: Target = None) -> Result[Total]:
        """Return values for a batch, in the form of its inputs, and the total that they are to add up to."""


@runtime_checkable
class Rule(Protocol):
    """Says how relevance passes one layer that is linear in its input.

    A rule with `direct = True` returns the relevance of the input itself, so that it may be non-zero where the input is
    zero. Where a rule is a scaling of the layer's own gradient, a method `scaled(z, gradient, closed=False)` returns
    that gradient scaled, and the layer need not be evaluated again.
    """

    def __call__(self, layer: Layer, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
        """Return the gradient G that makes `x * G` the relevance of the input `x` (batch, …) of `layer`; `z` is the
        output and `R` the relevance there, both (batch, …)."""


@runtime_checkable
class Partition(Protocol):
    """Cuts an input into features."""

    def __call__(self, x: Tensor, features: Sequence[Features] | None = None) -> Tensor:
        """Return the feature of each entry of `x` (batch, …) as whole numbers 0, 1, … that broadcast to its shape; −1
        for entries that are never hidden. `features` are those of the domain, one for each sample, where known."""


@runtime_checkable
class Test(Protocol):
    """Measures how good a map is.

    It extends `evaluation.case.Test`, or `evaluation.case.CurveTest` if it hides features along the order of the map:
    then `steps_of` says how many at which step, and what runs is shared with other tests.
    """

    __test__: ClassVar[bool] = False  # not one of pytest's

    higher_is_better: ClassVar[bool | None]

    def measure(self, case: Any, explanation: Any) -> Any:
        """Return what was found for each sample of a `Case` as `Measured(values)`, (batch,)."""
