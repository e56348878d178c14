"""One call for a raw input or tensors: encode if needed, run a method by name, and name the features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any, Literal, Protocol, cast, overload

import numpy as np
import torch
from torch import Tensor
from typing_extensions import TypeVar

from apportion.core.calling import Model
from apportion.core.classifier import Classifier
from apportion.core.features import ELSEWHERE, Features, TabularFeatures, TextFeatures
from apportion.core.inputs import Given, Inputs, runs_once
from apportion.core.registry import made_method
from apportion.core.target import Target, is_class_number
from apportion.core.trees import map_tensors, tensors_in
from apportion.domains.answers import Answer
from apportion.domains.frames import read_frame
from apportion.domains.language import LanguageModel, Question
from apportion.domains.raw_text import read_as
from apportion.domains.tabular import text_of
from apportion.engines.masking.engine import Masking
from apportion.errors import InputError, nearest
from apportion.methods._texts_needed import check_budget, is_of_texts, remote_of, texts_needed
from apportion.methods.auto import Auto
from apportion.methods.hiding.base import Hiding
from apportion.results.explanation import Explanation
from apportion.results.interactions import Interactions
from apportion.results.result import Result, Total, joined
from apportion.results.words import WARN_FROM

ALL = "all"  # the target that is every class
Encoded = TypeVar("Encoded", bound=Inputs, default=Tensor)
Claim = TypeVar("Claim", bound=Tensor | None, default=Tensor)


class _Explains(Protocol[Total]):
    def __call__(self, model: Any, inputs: Any, target: Any = None) -> Explanation[Any, Total]: ...


class _Pairs(Protocol[Total]):
    def __call__(self, model: Any, inputs: Any, target: Any = None) -> Interactions[Total]: ...


AddsUp = Literal[
    "auto", "ig", "lrp", "deeplift", "kernelshap", "lime", "treeshap", "taylor", "inputxgradient"
]
"""Methods that claim to add up, so that there is a remainder; of other names a type checker cannot say."""


# A list of texts or pictures is explained one by one.
@overload
def explain(
    model: Classifier[Encoded],
    inputs: list[str] | list[Path],
    method: _Explains[Claim] | AddsUp = "auto",
    target: Target | str = None,
    *,
    warn_from: float = WARN_FROM,
) -> list[Explanation[Encoded, Claim]]: ...


# A classifier or a language model encodes what it is given, a model takes tensors, and a function of texts, frames or
# arrays anything; what a method claims is said by its type, or by its name.
@overload
def explain(
    model: Classifier[Encoded] | LanguageModel,
    inputs: Any,
    method: _Explains[Claim] | AddsUp = "auto",
    target: Target | str | Answer = None,
    *,
    warn_from: float = WARN_FROM,
    **asked: Any,
) -> Explanation[Encoded, Claim]: ...
@overload
def explain(
    model: Model,
    inputs: Given,
    method: _Explains[Claim] | AddsUp = "auto",
    target: Target | str = None,
    *,
    warn_from: float = WARN_FROM,
    feature_names: Sequence[str] | None = None,
) -> Explanation[Given, Claim]: ...
@overload
def explain(
    model: Model,
    inputs: Any,
    method: _Explains[Claim] | AddsUp = "auto",
    target: Target | str = None,
    *,
    warn_from: float = WARN_FROM,
    feature_names: Sequence[str] | None = None,
) -> Explanation[Tensor, Claim]: ...
@overload
def explain(
    model: Classifier[Encoded] | LanguageModel,
    inputs: Any,
    method: str,
    target: Target | str | Answer = None,
    *,
    warn_from: float = WARN_FROM,
    **asked: Any,
) -> Explanation[Encoded]: ...
@overload
def explain(
    model: Model,
    inputs: Given,
    method: str,
    target: Target | str = None,
    *,
    warn_from: float = WARN_FROM,
    feature_names: Sequence[str] | None = None,
) -> Explanation[Given]: ...
@overload
def explain(
    model: Model,
    inputs: Any,
    method: str,
    target: Target | str = None,
    *,
    warn_from: float = WARN_FROM,
    feature_names: Sequence[str] | None = None,
) -> Explanation[Tensor]: ...
@overload
def explain(
    model: Model | Classifier | LanguageModel,
    inputs: Any,
    method: _Pairs[Claim],
    target: Target | str | Answer = None,
    *,
    warn_from: float = WARN_FROM,
    **asked: Any,
) -> Interactions[Claim]: ...
def explain(
    model: Model | Classifier | LanguageModel,
    inputs: Any,
    method: Any = "auto",
    target: Target | str | Answer = None,
    *,
    warn_from: float = WARN_FROM,
    feature_names: Sequence[str] | None = None,
    **asked: Any,
) -> Any:
    """Explain one raw input (a sentence, a picture, a row) through a `Classifier`, or tensors through any model.

    A sentence, or chat messages, may also go to a function of strings, a `Remote` or an estimator of scikit-learn as
    it is, and a data frame of several rows to a function of frames or an estimator; see `RawText`, `Tabular`. A prompt
    for a `LanguageModel` is explained by the answer to it, each of whose tokens is a sample of the explanation.

    A list of sentences, pictures or rows is explained one by one by a classifier, and gives a list of explanations.

    Args:
        model (callable, Classifier or LanguageModel): The model, or a model with the preparation of its inputs.
        inputs (raw input or tensors): One raw input for a Classifier, or a list of several; a prompt, chat messages or
            a `Question` for a LanguageModel; otherwise the tensors of a batch.
        method (method or str, default "auto"): A method, its short name, or its repr; "auto" chooses by the kind of
            model one that adds up.
        target (int, str, Tensor, Contrast, Answer or callable, default None): The explained score; a class name where
            the classifier has labels; of a language model an `Answer`, the number of a token of the answer, or words of
            it; "all": every class of every row, which is a sample each, the classes of a row one after the other
            (methods that hide features ask the model once for all of them); None: the predicted class, each token of
            the answer.
        warn_from (float, default 0.2, share of |total|): Warn if more than this is left over.
        feature_names (sequence of str, default None): Names of the columns of a tensor or array, (rows, columns);
            None: "input[0]", ….
        asked: Of a language model: `answer` (a text, or its ids; left out: one is generated, as
            `LanguageModel.generate` says, with its `max_new_tokens`, `stop` and `seed`), and `unit`, what is a feature
            of the prompt: "token", "word" (default), "sentence", "passage" or "turn". `context` is a list of passages
            that stand before the prompt: these are the features then, and the prompt is asked whatever is hidden.

    >>> import torch, apportion as ap
    >>> ap.explain(torch.nn.Linear(2, 2), torch.ones(1, 2), method="saliency").values.shape
    torch.Size([1, 2])
    """
    method = made_method(method)
    if isinstance(model, LanguageModel):
        if feature_names is not None:
            raise InputError(
                "feature_names are for tensors and arrays; unit= says what a feature of a prompt is"
            )
        if isinstance(inputs, Question):
            inputs.check_model(model)
            if more := [*asked, *(["target"] if target is not None else [])]:
                raise InputError(f"{', '.join(more)} is of a prompt; the question says it already")
        question = inputs if isinstance(inputs, Question) else model.question(inputs, target=target, **asked)
        explained: Explanation = explain_answer(question, method).warn_from(warn_from)
        return explained
    if asked:
        raise InputError(f"{', '.join(asked)} is for a LanguageModel; the model is {type(model).__name__}")
    if isinstance(target, Answer):
        raise InputError(f"target is {target!r}, which is of a LanguageModel; accepted: a class index")
    model = read_frame(read_as(model, inputs), inputs)
    if not isinstance(model, Classifier):
        if isinstance(target, str) and target != ALL:
            raise InputError(
                f"target is {target!r}, but only a Classifier has class names; accepted: a class index, or {ALL!r}"
            )
        named = () if feature_names is None else _columns_named(inputs, feature_names)
        if named or isinstance(target, str):
            called: Any = model
            bare = Classifier(called, _no_encoding, labels=(), domain="tabular", name=type(model).__name__)
            return explain_encoded(bare, inputs, named, method, target).warn_from(warn_from)
        return _explanation(method(model, inputs, target)).warn_from(warn_from)
    if model.are_several(inputs):
        return [explain(model, each, method, target, warn_from=warn_from) for each in inputs]
    if feature_names is not None:
        raise InputError(
            f"feature_names are for tensors and arrays; {model.name} has names for its features already"
        )
    if model.is_encoded(inputs) and model.domain != "tabular":
        return explain_encoded(model, inputs, (), method, target).warn_from(warn_from)
    encoded, features = model.prepared(inputs)
    if (remote := remote_of(model)) is not None:
        check_budget(remote, model, lambda asked: explain_encoded(asked, encoded, features, method, target))
    return explain_encoded(model, encoded, features, method, target).warn_from(warn_from)


def forecast(model: Any, inputs: Any, method: Any = "auto", target: Target | str = None) -> int:
    """Count the texts that `explain` would ask a function for, without asking: each once, those that a `Remote` knows
    left out. With a tolerance it is the largest number that may be asked.

    Args:
        model (callable or Classifier): A function of strings, a `Remote`, or a classifier of `RawText`.
        inputs (str or chat messages): The text.
        method (method or str, default "auto"): The method.
        target (int, str, Contrast or callable, default None): The explained score.

    >>> forecast(lambda texts: [0.5] * len(texts), "a slow but funny film", "occlusion")
    6
    """
    model, method = read_as(model, inputs), made_method(method)
    if not isinstance(model, Classifier) or not is_of_texts(model):
        raise InputError(
            f"model is {type(model).__name__} and inputs {type(inputs).__name__}; accepted: a function of texts, and a "
            "text"
        )
    encoded, features = model.prepared(inputs)
    return texts_needed(model, lambda asked: explain_encoded(asked, encoded, features, method, target))


def explain_answer(question: Question, method: Any) -> Any:
    """One explanation with a sample for each thing that is explained of an answer.

    A method that hides features runs all of them under the same masks; others run them in chunks of rows, and those of
    a long prompt `once`, where they can.
    """
    many = len(question.features)
    hides = isinstance(method, Hiding | Auto)
    once = getattr(method, "once", None)
    tokens = _TOKENS_AT_ONCE
    if once is not None and runs_once(question.inputs, once):
        tokens = _TOKENS_WITH_GRADIENTS
    at_once = many if hides else max(1, tokens // question.inputs.shape[1])
    parts = []
    for begin in range(0, many, at_once):
        some = question.part(slice(begin, begin + at_once))
        target = torch.arange(len(some.features), device=some.inputs.device)
        groups = torch.stack([_units_apart(f) for f in some.features])
        parts.append(explain_encoded(some.classifier, some.inputs, some.features, method, target, groups))
    found = joined(parts)
    if isinstance(found, Interactions):
        found = _name_units(found, question.features)
    scores = torch.cat([part.output[0] for part in parts])  # a row of each part has all its scores
    return replace(
        found,
        output=scores.expand(many, -1).clone(),
        target=torch.arange(many),
        labels=question.classifier.labels,
        notes={**found.notes, **question.notes},
    )


def _units_apart(features: TextFeatures) -> Tensor:
    """The unit of each token, and one more for all that is never hidden."""
    groups = torch.tensor(features.groups)
    return groups.where(groups >= 0, len(features.names))


def _name_units(found: Interactions, features: Sequence[TextFeatures]) -> Interactions:
    """Pairs of units with their names, where they are what was paired."""
    named = [(*f.names, ELSEWHERE)[: int(_units_apart(f).max()) + 1] for f in features]
    return replace(found, names=tuple(named)) if len(named[0]) == found.values.shape[1] else found


# Rows times tokens of a chunk: of which all activations are kept, and of which only the gradients are.
_TOKENS_AT_ONCE, _TOKENS_WITH_GRADIENTS = 1 << 9, 1 << 14


def explain_encoded(
    model: Classifier,
    inputs: Inputs,
    features: Sequence[Features],
    method: Any,
    target: Target | str = None,
    groups: Tensor | None = None,
) -> Explanation:
    """Explain a batch that is encoded already; `features` has one for each sample, or is empty. `groups` are those of
    the inputs that methods of pairs take together, where they were not told which; None: those of a table."""
    if is_every_class(target, model.labels):
        return _explain_every_class(model, inputs, features, method)
    number = class_number(target, model.labels) if isinstance(target, str) else target
    # Methods that hide features say by their arguments that they want to know which these are.
    asked = signature(method).parameters
    mask = {"mask": model.mask} if "mask" in asked else {}
    known = {"features": tuple(features)} if features and "features" in asked else {}
    columns = _group_columns(method, features, groups) if "groups" in asked else {}
    explanation = _explanation(method(model.model, inputs, number, **mask, **known, **columns))
    if isinstance(model.mask, Tensor):  # what is hidden takes its values from data
        background = getattr(model.encode, "about", f"{len(model.mask)} rows")
        explanation = replace(explanation, notes={**explanation.notes, "background": background})
    if features and (guess := getattr(model.encode, "guess", None)) is not None:
        explanation = replace(explanation, warnings=(guess, *explanation.warnings))
    return name_features(explanation, model, *features)


def is_every_class(target: Any, labels: Sequence[str]) -> bool:
    """Whether a target is that of every class, and no class is called so."""
    return isinstance(target, str) and target == ALL and ALL not in map(str.lower, labels)


def _explanation(found: Any) -> Explanation:
    """What somebody's own method returned."""
    if not isinstance(found, Result):
        raise InputError(f"the method returned {type(found).__name__}; accepted: an Explanation")
    return cast("Explanation", found)


def _explain_every_class(
    model: Classifier, inputs: Any, features: Sequence[Features], method: Any
) -> Explanation:
    """One explanation with a sample for each class of each row. A method that hides features runs a row under the same
    masks for all of its classes."""
    many = len(inputs if isinstance(inputs, np.ndarray) else next(tensors_in(inputs)))

    def rows(which: Tensor) -> Any:
        if isinstance(inputs, np.ndarray):
            return inputs[which.numpy()]
        return map_tensors(inputs, lambda t: t[which.to(t.device)] if len(t) == many else t)

    classes = len(model.labels) or Masking(model.model, rows(torch.arange(1)), 0).output.shape[1]
    at_once = 1 if isinstance(method, Hiding | Auto) else many
    parts = []
    for begin in range(0, many, at_once):
        which = torch.arange(begin, min(begin + at_once, many)).repeat_interleave(classes)
        target = torch.arange(classes).repeat(len(which) // classes)
        known = [features[i] for i in which.tolist()] if features else []
        parts.append(explain_encoded(model, rows(which), known, method, target))
    found = joined(parts)
    return replace(found, notes={**found.notes, "classes": classes})


def _columns_named(inputs: Any, names: Sequence[str]) -> tuple[TabularFeatures, ...]:
    """The features of the rows of a tensor or an array, whose columns have these names."""
    if (
        isinstance(names, str)
        or not isinstance(names, Sequence)
        or not all(isinstance(name, str) for name in names)
    ):
        raise InputError(f"feature_names is {names!r:.60}; accepted: a list of texts, one for each column")
    if not isinstance(inputs, Tensor | np.ndarray) or inputs.ndim != 2:
        shape = f" of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor | np.ndarray) else ""
        raise InputError(
            f"feature_names are for rows of columns; the inputs are {type(inputs).__name__}{shape}; accepted: a tensor "
            "or an array (rows, columns)"
        )
    twice = next((name for name, many in Counter(names).items() if many > 1), None)
    if len(names) != inputs.shape[1] or twice is not None:
        wrong = f"{len(names)} names for {inputs.shape[1]} columns" if twice is None else f"{twice!r} twice"
        raise InputError(f"feature_names has {wrong}; accepted: one name for each column, each once")
    columns, own = tuple(names), tuple(range(len(names)))
    return tuple(TabularFeatures(columns, tuple(map(text_of, row)), own) for row in inputs.tolist())


def _no_encoding(raw: Any) -> Any:
    raise InputError(f"{type(raw).__name__} cannot be encoded here; accepted: tensors")


def _group_columns(
    method: Any, features: Sequence[Features], groups: Tensor | None = None
) -> dict[str, Tensor]:
    """The inputs of a one-hot block together, where a method pairs inputs and was not told which are one
    feature."""
    told = method.groups is not None or method.at is not None
    if groups is not None and not told:
        return {"groups": groups}
    if told or not features or not isinstance(features[0], TabularFeatures):
        return {}
    return {"groups": torch.tensor(features[0].groups)}


def name_features(explanation: Explanation, model: Classifier, *features: Any) -> Explanation:
    known = explanation.features or features
    scores = explanation.output.shape[1]
    if 0 < len(model.labels) < scores:
        raise InputError(f"{model.name} names {len(model.labels)} classes, but has {scores} scores")
    if not known:
        return replace(explanation, labels=model.labels or None)
    return explanation.with_features(known, model.labels or None)


def class_number(name: str, labels: tuple[str, ...]) -> int:
    """A class by its name, whatever the case, or by its number."""
    lower = [label.lower() for label in labels]
    if name.lower() in lower:
        return lower.index(name.lower())
    if is_class_number(name):
        return int(name)
    near = nearest(name, labels) or labels[:3]
    raise InputError(
        f"unknown class {name!r}; nearest: {', '.join(near)} (or a number from 0 to {len(labels) - 1})"
    )
