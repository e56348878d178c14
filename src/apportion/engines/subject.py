"""What is explained: a model at some inputs for some target. The base of both engines."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from apportion.core.calling import Model, behind, is_multi_label, warn_about_training, warned
from apportion.core.inputs import Inputs, Values, checked_inputs
from apportion.core.target import Neuron, Region, Target, described, places_of, scores_of, tensor_of_scores
from apportion.core.trees import all_finite, tensors_in
from apportion.errors import InputError
from apportion.results.cost import Cost
from apportion.results.result import Result
from apportion.results.words import WARN_FROM

R = TypeVar("R", bound=Result)


class Subject:
    """Checks the model and the inputs, counts the passes that are spent on them, gathers warnings, and makes the
    result from what a method found. The engines extend it; a method that needs neither begins with it.

    `resolved` is the class of each sample, (batch,), or the given target, once it is known. `start` is when the work
    began, in the seconds of `time.perf_counter` (default: now).

    >>> subject = Subject(torch.nn.Linear(2, 1), torch.ones(3, 2))
    >>> subject.ran(6)
    >>> subject.cost.forwards
    2
    """

    resolved: Any = None
    takes_missing: ClassVar[bool] = False
    """Whether NaN is a value like another for what is computed here, if the model takes it."""

    def __init__(
        self, model: Model, inputs: Inputs, target: Target = None, *, start: float | None = None
    ) -> None:
        self.start = time.perf_counter() if start is None else start
        if isinstance(model, type):
            raise InputError(f"model is the class {model.__name__}; accepted: a model, such as what it makes")
        if not callable(model):
            offers = [name for name in ("predict_proba", "predict") if hasattr(model, name)]
            accepted = "a module or any callable" + "".join(f", such as its {name}" for name in offers[:1])
            raise InputError(f"model is {type(model).__name__}; accepted: {accepted}")
        self.model: Model = behind(model)
        self.inputs = checked_inputs(
            inputs, self.takes_missing and not isinstance(self.model, torch.nn.Module)
        )
        self.batch: int = next(tensors_in(self.inputs)).shape[0]
        self.target = target
        # Of a model that returns more than a score for each class.
        self.places = places_of(target, self.batch)
        self.warnings = warn_about_training(self.model)
        self._unsteady = bool(self.warnings)
        self.rows_run = self.rows_differentiated = 0

    # ---- the scores ----

    @property
    def neuron(self) -> Neuron | None:
        """The neuron that is explained instead of a score of the model."""
        return self.target if isinstance(self.target, Neuron) else None

    def read_scores(
        self,
        output: Any,
        met: Sequence[Tensor],
        rows: int,
        samples: Tensor | None = None,
        row: str = "sample",
    ) -> Tensor:
        """The (rows, classes) scores of what the model returned for so many rows: those at the place that the target
        names, or the one neuron that it names, in what was `met` at its layer. `samples` says whose rows these are
        (default: all samples in their order); errors call them `row`."""
        if self.neuron is not None:
            return self.neuron.of(met, rows)
        if isinstance(self.target, Region):
            return scores_of(self.target.of(tensor_of_scores(output)), rows, row)
        if self.places is not None and tensor_of_scores(output).dim() <= 2:
            self.places = None  # the target is one class a sample
        places = self.places
        if places is not None:
            if samples is not None:
                places = places[samples.cpu()]
            elif bool((places == places[0]).all()):
                places = places[:1].expand(rows, -1)
            elif rows != self.batch:
                raise InputError(
                    "the target names a place for each sample, but other rows than these are run here"
                )
        return scores_of(output, rows, row, places)

    # ---- what it took ----

    def ran(self, rows: int) -> None:
        """Count a forward pass of so many rows."""
        self.rows_run += rows

    def derivatives(
        self,
        value: Tensor,
        at: Sequence[Tensor],
        rows: int | None = None,
        weight: Tensor | None = None,
        **how: Any,
    ) -> tuple[Tensor | None, ...]:
        """The derivatives of a sum of scores of `rows` rows (default: the batch), None where there are none; each is
        one backward pass of these rows, and there are `len(weight)` of them where that is given."""
        found = torch.autograd.grad(
            value.sum() if weight is None else value, at, weight, allow_unused=True, **how
        )
        many = 1 if weight is None else len(weight)
        self.rows_differentiated += many * (self._whole(self.batch if rows is None else rows))
        return found

    def _whole(self, rows: int) -> int:
        """A pass of fewer rows than the batch counts as one of the batch: it takes as long as it takes."""
        return -(-rows // self.batch) * self.batch

    @property
    def cost(self) -> Cost:
        """Forward and backward passes of the whole batch so far, and seconds."""
        forwards, backwards = (-(-rows // self.batch) for rows in (self.rows_run, self.rows_differentiated))
        return Cost(forwards, backwards, time.perf_counter() - self.start)

    def include(self, cost: Cost) -> None:
        """Count what another method took that explained the same."""
        self.rows_run += cost.forwards * self.batch
        self.rows_differentiated += cost.backwards * self.batch

    # ---- whether the model is a function of one row ----

    def tell_unsteady(self, told: Sequence[str]) -> None:
        """Warn, once, of a model whose scores are not those of a function of one row."""
        if told and not self._unsteady:
            self._unsteady = True
            self.warnings += warned(told)

    def compare(self, first: Tensor, again: Tensor, output: Tensor) -> None:
        """Warn if scores of the same rows, which must agree, differ by more than the rounding of an `output`."""
        if self._unsteady or not first.numel():
            return
        rounding = max(1e-4, torch.finfo(output.dtype).eps ** 0.5) * float(output.detach().abs().amax())
        first, again = first.detach().flatten(), again.detach().to(first).flatten()
        apart = (first - again).abs()
        if float(apart.amax()) > rounding:
            worst = int(apart.argmax())
            pair = f"{float(first[worst]):.6g} and then {float(again[worst]):.6g}"
            self.tell_unsteady(
                [
                    f"the model scores the same input differently each time, such as {pair}, as where it draws random "
                    "numbers, keeps something from call to call or depends on the other rows of the batch: the values "
                    "do not add up to its output"
                ]
            )

    # ---- the result ----

    def result(
        self,
        made: Callable[..., R],
        method: Any,
        values: Values,
        total: Tensor | None,
        output: Tensor,
        warnings: Sequence[str] = (),
        **more: Any,
    ) -> R:
        """The result of a method: `values`, what they are to add up to, and the (batch, classes) scores. `made` is the
        kind of result, `more` are its other fields. Told is, too, what is left over."""
        if is_multi_label(self.model):
            more["notes"] = {**more.get("notes", {}), "probabilities": "sigmoid"}
        return made(
            values=values,
            total=None if total is None else total.detach(),
            output=output,
            target=described(self.resolved),
            method=method,
            cost=self.cost,
            warnings=(*self.warnings, *warnings),
            **more,
        ).warn_from(WARN_FROM)

    @staticmethod
    def check_finite(method: Any, values: Values, why: str) -> None:
        if not all_finite(values):
            raise InputError(f"{method!r} gave NaN or infinite values; {why}")
