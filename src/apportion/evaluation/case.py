"""What a test is run on: a model at some inputs, with what was already computed there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from inspect import signature
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from apportion.core.calling import Model, warned
from apportion.core.classifier import Classifier
from apportion.core.features import Features, same_input
from apportion.core.from_call import for_samples
from apportion.core.inputs import Inputs, rekeyed
from apportion.core.target import Target
from apportion.core.trees import tensors_in
from apportion.domains.frames import read_frame
from apportion.domains.language import LanguageModel, Question
from apportion.domains.raw_text import read_as
from apportion.engines.masking.cut import gathered
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import Partition, as_partition, keep_label_map
from apportion.engines.masking.replacements import Replacement
from apportion.errors import InputError
from apportion.evaluation.curves import Curve, Order, Way
from apportion.evaluation.readings import ACCEPTED, Reading, guessed, say_reading
from apportion.evaluation.reference_maps import Map, UniformMap, target_of, values_of
from apportion.methods.explain import explain_answer
from apportion.results.cost import Cost
from apportion.results.explanation import Explanation
from apportion.results.scores import Scores, refused_scores

Made = TypeVar("Made")


class Measured(NamedTuple):
    """What a test measured: (batch,) values, why some are NaN, and JSON-ready notes."""

    values: Tensor
    undefined: str = ""
    notes: Mapping[str, Any] = MappingProxyType({})


class Case:
    """A model at some inputs for some target. Maskings and orders are made once and shared by the tests.

    Args:
        model (Model, Classifier or LanguageModel): The model.
        inputs (Inputs): A batch, as the model takes it; of a `Classifier` also what its `encode` takes, of a
            `LanguageModel` a `Question`.
        target (Target, default None): What is explained; None: the predicted class.
        labels (Tensor, default None): True classes, (batch,), which some tests need.
        features (sequence of Features, default None): Features of the domain, one per sample; None: those of the
            `Classifier`, or none.
        mask (int, default None): Id of a mask token; None: that of the `Classifier`, or none.
        chunk (int, default None): Rows that run at once; None: as many as `Masking` finds suitable.
    """

    def __init__(
        self,
        model: Model | Classifier | LanguageModel,
        inputs: Any,
        target: Target = None,
        *,
        labels: Tensor | None = None,
        features: Sequence[Features] | None = None,
        mask: int | Tensor | None = None,
        chunk: int | None = None,
    ) -> None:
        self.names_classes = False
        self.question = inputs if isinstance(inputs, Question) else None
        if self.question is not None:
            if isinstance(model, LanguageModel):
                self.question.check_model(model)
            model, inputs = self.question.classifier, self.question.inputs
            target = torch.arange(len(inputs)) if target is None else target
            features = self.question.features if features is None else features
        elif isinstance(model, LanguageModel):
            raise InputError(
                f"the inputs are {inputs!r:.60}; accepted for a language model: what its `question` gives"
            )
        read: Any = read_frame(read_as(model, inputs), inputs)
        if isinstance(read, Classifier):
            mask = read.mask if mask is None else mask
            if not (is_encoded(inputs) and read.is_encoded(inputs)):
                inputs, known = read.prepared(inputs)
                alike = features is None or len(features) == len(known)
                if not alike or not all(map(same_input, features or (), known)):
                    raise InputError("the explanation is of another input than the one given")
                features = known if features is None else features
            self.names_classes = len(read.labels) > 1
            read = read.model
        self.model: Model = read
        with torch.inference_mode(False):  # what was made in inference mode takes part in no training
            plain = not any(map(_of_inference, tensors_in(inputs)))
            self.inputs: Inputs = (
                inputs if plain else rekeyed(inputs, lambda _, t: t.clone() if _of_inference(t) else t)
            )
        self.target = target
        self.labels, self.features, self.mask, self.chunk = labels, features, mask, chunk
        self._told = False  # that a reading is a guess
        self.forwards = self.backwards = 0.0
        self._maskings: dict[Any, Masking] = {}
        self._orders: dict[Any, tuple[Map, Order]] = {}
        self._once: dict[Any, Any] = {}

    def masking(
        self, partition: Partition | Tensor | None = None, replacement: Replacement | None = None
    ) -> Masking:
        """The model under masks of these features with this replacement."""
        partition = as_partition(partition)
        key = (partition, replacement)
        if key not in self._maskings:
            self._maskings[key] = Masking(
                self.model,
                self.inputs,
                self.target,
                partition=partition,
                replacement=replacement,
                features=self.features,
                mask=self.mask,
                chunk=self.chunk,
            )
        return self._maskings[key]

    def relevance(self, explanation: Map, masking: Masking) -> Tensor:
        """The value of each feature, (batch, features): the sum over its entries."""
        values = values_of(explanation, masking.inputs)
        missing = [part.key for part in masking.parts if part.key not in values]
        if missing:
            raise InputError(f"the map has no values for the inputs {missing}")
        return gathered([values[part.key] for part in masking.parts], masking.parts)

    def order(
        self,
        explanation: Map,
        partition: Partition | Tensor | None = None,
        replacement: Replacement | None = None,
    ) -> Order:
        """The features in the order of the map."""
        partition = as_partition(partition)
        key = (id(explanation), partition, replacement)
        if key not in self._orders:
            masking = self.masking(partition, replacement)
            relevance = self.relevance(explanation, masking)
            if isinstance(getattr(explanation, "method", None), UniformMap):
                relevance = torch.zeros_like(relevance)  # the sums would rank features by their size
            order = Order(masking, relevance)
            self._orders[key] = (explanation, order)  # the map is kept, so that its id stays its own
        return self._orders[key][1]

    def once(self, test: Any, run: Callable[[], Made]) -> Made:
        """What a test runs that is the same for every map: it is run for the first one."""
        if test not in self._once:
            self._once[test] = run()
        found: Made = self._once[test]
        return found

    @property
    def passes(self) -> tuple[float, float]:
        """Forward and backward passes of the whole batch so far."""
        masked = sum(masking.rows_run / masking.batch for masking in self._maskings.values())
        return self.forwards + masked, self.backwards

    def explain(
        self,
        method: Any,
        target: Target = None,
        model: Model | None = None,
        inputs: Any = None,
        rows: int = 1,
    ) -> Explanation:
        """Explain by a method: these inputs of this model, or others (`rows` for each of these), which are
        counted as the test's cost."""
        if self.question is not None and target is None and model is None and inputs is None:
            found: Explanation = explain_answer(self.question, method)
            self.forwards += found.cost.forwards
            self.backwards += found.cost.backwards
            return found
        asked = signature(method).parameters
        if rows > 1:
            shape = self.masking().parts[0].x.shape
            method = for_samples(method, lambda given: given.repeated(rows, shape))
        known = {name: getattr(self, name) for name in ("features", "mask") if name in asked}
        if rows > 1 and known.get("features"):
            known["features"] = [feature for feature in known["features"] for _ in range(rows)]
        made: Explanation = method(
            self.model if model is None else model,
            self.inputs if inputs is None else inputs,
            self.target if target is None else target,
            **known,
        )
        self.forwards += made.cost.forwards * rows
        self.backwards += made.cost.backwards * rows
        if made.features is None and self.features is not None and rows == 1:
            made = replace(made, features=tuple(self.features))
        return made

    def scores(
        self, tests: Mapping[str, Any], explanation: Map, *, refusals: bool = False
    ) -> dict[str, Scores]:
        """Run several tests on one map. What they hide runs together, and is counted as the first one's cost.

        With `refusals`, a test that refuses the map has scores that say why, instead of an error.
        """
        found: dict[str, Scores] = {}
        start, before = time.perf_counter(), self.passes

        def refuse(name: str, error: InputError) -> None:
            if not refusals:
                raise error
            found[name] = refused_scores(tests[name], self.masking().batch, str(error))

        for name, test in tests.items():
            if isinstance(test, CurveTest):
                try:
                    with _no_inference():
                        test.ask(self, explanation)
                except InputError as error:
                    refuse(name, error)
        for name, test in tests.items():
            if name in found:
                continue
            try:
                with _no_inference():
                    measured = test.measure(self, explanation)
            except InputError as error:
                refuse(name, error)
                continue
            end, after = time.perf_counter(), self.passes
            forwards, backwards = (math.ceil(now - b) for now, b in zip(after, before, strict=True))
            found[name] = Scores(
                measured.values,
                repr(test),
                test.higher_is_better,
                undefined=measured.undefined,
                cost=Cost(forwards, backwards, end - start),
                notes={**measured.notes, **self.said(test, explanation)},
            )
            start, before = end, after
        return {name: found[name] for name in tests}

    def score(self, test: Any, explanation: Map) -> Scores:
        """Run one test on one map."""
        return self.scores({"": test}, explanation)[""]

    def said(self, test: Any, explanation: Map) -> dict[str, Any]:
        """How the test read the outputs, and in how many orders it hid features of equal value."""
        found: dict[str, Any] = {}
        if (of := getattr(test, "of", None)) is not None:
            masking = self.masking(getattr(test, "partition", None), getattr(test, "replacement", None))
            found["reading"] = say_reading(of, masking)
            guess = guessed(of, masking)
            known = self.names_classes or self.labels is not None
            if guess and not known and not self._told:
                self._told = bool(warned([guess]))
        if isinstance(test, CurveTest) and test.ranks:
            order = test.ordered(self, explanation)
            if bool(order.tied.any()):
                found["orders"] = order.rank.shape[1]
        return found


@contextmanager
def _no_inference() -> Iterator[None]:
    """What is computed here may take part in a training, also for a caller in inference mode."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def _of_inference(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.is_inference()


def is_encoded(inputs: Any) -> bool:
    """True if these are tensors already; a row of a table may be a dict, too."""
    return isinstance(inputs, Tensor | tuple | dict) and any(True for _ in tensors_in(inputs))


def score_map(
    test: Any,
    model: Model | Classifier | LanguageModel,
    inputs: Any,
    explanation: Map,
    target: Target = None,
    *,
    labels: Tensor | None = None,
    features: Sequence[Features] | None = None,
    mask: int | Tensor | None = None,
    chunk: int | None = None,
) -> Scores:
    """Run this test on a map of these inputs.

    Args:
        model (Model, Classifier or LanguageModel): The model.
        inputs (Inputs): A batch, as in `Case`.
        explanation (Explanation or Tensor): The map; tensors of values have the inputs' shape.
        target (Target, default None): What is explained; None: the target of the explanation.
        labels (Tensor, default None): True classes, as in `Case`.
        features (sequence of Features, default None): Features of the domain; None: those of the explanation.
        mask (int, default None): Id of a mask token, as in `Case`.
        chunk (int, default None): Rows that run at once, as in `Case`.
    """
    if features is None:
        features = getattr(explanation, "features", None)
    case = Case(
        model,
        inputs,
        target_of(explanation, target),
        labels=labels,
        features=features,
        mask=mask,
        chunk=chunk,
    )
    return case.score(test, explanation)


@dataclass(frozen=True)
class CurveTest:
    """The base of all tests that hide features in an order, and their settings.

    Attributes:
        partition (Partition or Tensor, default None): How the inputs are cut into features; None: as `Masking` does.
        replacement (Replacement, default None): What stands in the place of hidden features; None: as `Masking`
            chooses.
        of (str, default "probability"): What is read off: the "probability" of the target, its "score" before
            softmax, or the "sigmoid" of that score, for a model whose scores are logits of labels that are there or
            not. What was read is in `notes["reading"]` of the scores.
    """

    partition: Partition | Tensor | None = field(default=None, kw_only=True)
    replacement: Replacement | None = field(default=None, kw_only=True)
    of: Reading = field(default="probability", kw_only=True)

    blind: ClassVar[bool] = False
    ranks: ClassVar[bool] = True

    __call__ = score_map

    def __post_init__(self) -> None:
        if self.of not in get_args(Reading):
            raise InputError(f"of is {self.of!r}; accepted: {ACCEPTED}")
        keep_label_map(self)

    def ordered(self, case: Case, explanation: Map) -> Order:
        """The features in the order of the map, under the settings of this test."""
        return case.order(explanation, self.partition, self.replacement)

    def steps_of(self, counts: Tensor) -> Mapping[Way, Tensor]:
        """How many features are hidden at each step of each way, (batch, steps), where that is known
        beforehand."""
        return {}

    def ask(self, case: Case, explanation: Map) -> None:
        """Let the steps of this test be run with the next curve."""
        order = self.ordered(case, explanation)
        for way, hidden in self.steps_of(order.counts).items():
            order.ask(hidden, way)

    def curves(self, case: Case, explanation: Map) -> dict[Way, Curve]:
        """The model's answers at the steps of this test."""
        order = self.ordered(case, explanation)
        return {way: order.curve(hidden, way=way) for way, hidden in self.steps_of(order.counts).items()}


@dataclass(frozen=True)
class Test:
    """A test without hidden features. `blind` are those that cannot tell a map from a reference: they ask whether
    a method reacts, not whether it is right."""

    blind: ClassVar[bool] = True

    __call__ = score_map
    __test__ = False  # not one of pytest's

    def __post_init__(self) -> None:
        keep_label_map(self)


def random_draws(
    kind: Literal["random", "standard_normal"], shape: Sequence[int], draws: range, *seed: int
) -> Tensor:
    """Draw random numbers (draws, …), uniform from 0 to 1 or normal.

    Those of a draw do not depend on which others are there, and those of its first tokens not on how many there are.
    """
    random = [np.random.default_rng((*seed, number)) for number in draws]
    return torch.from_numpy(np.stack([getattr(r, kind)(tuple(shape)) for r in random]))


def nan_where(which: Tensor, values: Tensor, why: str) -> Measured:
    """Values that are undefined for some samples."""
    return Measured(values.masked_fill(which, torch.nan), why if bool(which.any()) else "")
