"""DeepLIFT: the difference to a reference, passed back through each function by its slope between the two."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from apportion.core.calling import Model
from apportion.core.features import Features
from apportion.core.from_call import with_call
from apportion.core.inputs import FEW, Given, Inputs
from apportion.core.settings import Told, checked, later
from apportion.core.target import Target
from apportion.core.trees import tensors_in
from apportion.engines.substitution import HARMLESS, Call, Gradients, Substitute, Substitution, no_derivatives
from apportion.engines.substitution.unseen import Unseen, check_visible, describe_unseen
from apportion.methods.paths.paths import baselines_of
from apportion.methods.paths.token_baselines import known_baseline, note_of, scored_at
from apportion.methods.propagation._deeplift_constants import Constants, storages_of_weights
from apportion.methods.propagation._deeplift_rules import COMPOSED, RULES, other
from apportion.results.explanation import Explanation


@dataclass(frozen=True)
@checked
class DeepLIFT(Told):
    """Pass the difference to a reference back (Shrikumar et al. 2017, rescale rule, eq. 11-12): at each element-wise
    non-linearity the multiplier is `(y − y′) / (z − z′)`, its slope between the reference and the input.

    The model runs at the reference first, and each function then finds there what it was given at the same call.
    Extremes and max pooling hand on the change of their value (to where it was and where it is), products of two
    signals share theirs equally, softmax and its kin go by the logarithmic mean of their probabilities, and attention,
    recurrent layers, quotients, variances and norms are taken apart into these. `total` is `f(x) − f(x′)`, and the
    values add up to it; any other function passes its gradient on, is named in a warning, and what that misses is in
    the remainder. A model that takes another way at the reference than at the input (calls other functions, or the
    same with other shapes) passes its gradient on there too, and a warning says where. What no gradient leads through
    (a condition, an index, a rounded weight that is computed from the input) is the input's own in the whole pass; a
    warning names the function that was given another at the reference, and the amount in the remainder.

    In the call, `baseline=` takes tensors in the form of the inputs (token ids too; a dict may name some inputs only),
    or with one more leading dimension for several: then the values are the mean over them (DeepLiftShap, Lundberg &
    Lee 2017), and `total` is `f(x)` minus the mean of `f(x′)`. With `at`, too, they are inputs of the model. Raises
    InputError for shapes that do not fit. Cost: one forward pass, and for each baseline two more and a backward pass.

    Attributes:
        baseline (float or str, default 0.0): The reference of every entry, as the baseline of IntegratedGradients; 0.0:
            for the token ids of a language model "zero", since from its padding the map is no better than chance.
        at (str or list of str, default None): Modules to explain instead of the inputs; None: the inputs.
        multiply_by_inputs (bool, default True): Multiply by the difference to the reference; False: the multipliers,
            which do not claim to add up.

    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    >>> bool(DeepLIFT()(model, torch.ones(1, 3)).remainder.abs() < 1e-5)
    True
    """

    baseline: float | str = 0.0
    at: str | Sequence[str] | None = None
    multiply_by_inputs: bool = later(True)
    once: ClassVar[int] = FEW

    def __call__(
        self,
        model: Model,
        inputs: Given,
        target: Target = None,
        *,
        baseline: Inputs | float | str | None = None,
        mask: int | None = None,
        features: Sequence[Features] = (),
    ) -> Explanation[Given, Tensor]:
        subject = Gradients(model, inputs, target, self.at, once=self.once)
        check_visible(subject.model)
        first = subject.forward(grad=False)
        ends = [leaf.detach() for leaf in first.leaves]
        made = with_call(self, subject.inputs, baseline=baseline)
        made, begins = known_baseline(made, subject, first, mask, of_language="zero")
        every = baselines_of(subject, first, ends, begins, mask, features)
        values, total = [torch.zeros_like(end) for end in ends], torch.zeros_like(first.value)
        warnings: tuple[str, ...] = ()
        # Rows that are one row also at the reference are run once.
        once = subject.once and all(start.shape[1] == 1 for start in every)
        of = torch.zeros(subject.batch, dtype=torch.long) if once else None
        run_at = [end[:1] if once else end for end in ends]
        weights = storages_of_weights(subject.model)
        for one in zip(*every, strict=True):  # (batch or 1, …) for each leaf
            starts = [start.expand_as(end) for start, end in zip(one, run_at, strict=True)]
            met = Met(Constants(weights))
            with scored_at(begins):
                reference = subject.forward(met.run(subject.model, met.recording()), starts, of=of)
            at_reference = reference.value.detach()
            del reference  # and its graph
            met.constants.at_reference = False
            score = subject.forward(met.run(subject.model, met.table()), run_at, of=of)
            subject.compare(first.output, score.output, score.output)
            for value, end, start, gradient in zip(values, ends, starts, score.gradients(), strict=True):
                value += (end - start if self.multiply_by_inputs else 1) * gradient / len(every[0])
            change = score.value.detach() - at_reference
            total += change / len(every[0])
            size = score.value.detach().abs() + at_reference.abs()
            warnings += met.told(float(size.sum()), first.dtype)
        warnings = tuple(dict.fromkeys(warnings))
        claimed = total if self.multiply_by_inputs else None
        notes = note_of(begins)
        found = subject.explanation(made, first, values, total=claimed, warnings=warnings, notes=notes)
        told = () if warnings or subject.warnings else _warn_of_remainder(found)
        return replace(found, warnings=(*told, *found.warnings))


def _warn_of_remainder(found: Explanation) -> tuple[str, ...]:
    """Each function of the model has a rule that adds up, and yet the whole does not."""
    if found.remainder is None or found.total is None:
        return ()
    missed = found.remainder.abs() > NOTICEABLE * torch.maximum(found.total.abs(), found.output.abs().amax(1))
    if not bool(missed.any()):
        return ()
    worst = int(found.remainder.abs().argmax())
    sums = f"{float(found.apportioned[worst]):.4g} and not to {float(found.total[worst]):.4g}"
    return (
        f"every function has a rule, and yet the values of sample {worst} add up to {sums}, as where the model depends "
        "on the other rows of the batch or keeps something from call to call",
    )


NOTICEABLE = 0.05  # share of the scores; what rounding leaves of many differences is below it
_ANOTHER_WAY = "another way"
_BY_GRADIENT = "its gradient was used, and what that misses is in the remainder"


@dataclass
class Met:
    """What each function was given at the reference, in the order of the calls, for the same calls at the input."""

    constants: Constants
    calls: deque[tuple[str, list[Tensor]]] = field(default_factory=deque)
    warnings: tuple[str, ...] = ()
    ruled: bool = False  # at the input, and no longer at the reference

    def run(self, model: Model, table: dict[str, Substitute]) -> Substitution:
        """A substitution that also writes attention, recurrent layers and norms out in functions that have rules."""
        whole = {**HARMLESS, **COMPOSED, "grad": no_derivatives, **table}
        unseen = Unseen(self._met_unseen)
        watched = {name: self.constants.watched(function) for name, function in whole.items()}
        default = self.constants.watched(other)
        return Substitution(
            watched, default, model, state=self, arrived=unseen.arrived, returned=unseen.returned
        )

    def told(self, size: float, dtype: torch.dtype) -> tuple[str, ...]:
        """The warnings, once the multipliers are known."""
        found = self.constants.warnings(size, dtype)
        lost = any(_ANOTHER_WAY in warning for warning in self.warnings)
        return self.warnings + tuple(text for text in found if not (lost and _ANOTHER_WAY in text))

    def _met_unseen(self, run: Substitution, tensor: Tensor, maker: str) -> None:
        self._warn(f"{describe_unseen(maker, run.where())}: {_BY_GRADIENT}")

    def unruled(self, call: Call) -> Any:
        """Use the gradient of a function without a rule, and name it."""
        result = call.native()
        if any(tensor.requires_grad for tensor in tensors_in(result)):  # else it has no gradient to be used
            self.met_unruled(call)
        return result

    def met_unruled(self, call: Call) -> None:
        """Name a function that passes its gradient on."""
        self._warn(f"no rule for {call.place}: {_BY_GRADIENT}")

    def _warn(self, text: str) -> None:
        if self.ruled and text not in self.warnings:
            self.warnings += (text,)

    def recording(self) -> dict[str, Substitute]:
        """A table that changes nothing and notes what it meets."""

        def note(call: Call, *args: Any, **kwargs: Any) -> Any:
            self.calls.append((call.name, [t.detach() for t in call.actives]))
            return call.native()

        return dict.fromkeys(RULES, note)

    def table(self) -> dict[str, Substitute]:
        """The table of the rules, each of which is handed what its call was given at the reference."""

        def ruled(call: Call, *args: Any, **kwargs: Any) -> Any:
            starts = self._next(call)
            return call.native() if starts is None else RULES[call.name](call, starts, *args, **kwargs)

        self.ruled = True
        return dict.fromkeys(RULES, ruled)

    def _next(self, call: Call) -> list[Tensor] | None:
        name, starts = self.calls.popleft() if self.calls else ("", [])
        if name == call.name and [t.shape for t in starts] == [t.shape for t in call.actives]:
            return starts
        if name != call.name:
            self.calls.clear()  # out of step, so that all that follows has lost its reference
        what = "other shapes" if name == call.name else _ANOTHER_WAY
        if not any(what in warning for warning in self.warnings):
            self.warnings += (
                f"at {call.place} the model took {what} for the reference: its gradient was used",
            )
        return None
