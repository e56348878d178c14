"""Explain what was named on a command line: find the model, encode the input, run the methods."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from apportion.core.calling import try_out
from apportion.core.classifier import Classifier
from apportion.core.features import Features, ImageFeatures
from apportion.core.inputs import Inputs
from apportion.core.target import is_class_number, scores_of
from apportion.core.trees import map_tensors, tensors_in
from apportion.display.html import PHOTO, data_uri
from apportion.domains.frames import FrameRows
from apportion.domains.image import ImagePreparation
from apportion.domains.table_files import AS_FOUND, TEXTS, kind_of, read_table
from apportion.domains.tabular import read_row
from apportion.errors import InputError
from apportion.evaluation.case import Case
from apportion.evaluation.reference_maps import target_of
from apportion.methods.auto import Auto
from apportion.methods.explain import class_number, explain_encoded, is_every_class
from apportion.models import SHIPPED, load_classifier
from apportion.pipeline.given import DEFAULT_MODEL, Given, read_tensors
from apportion.results.explanation import Explanation
from apportion.results.result import Result

R = TypeVar("R", bound=Result)


def explain_given(
    what: Given,
    model: str | Classifier | None = None,
    methods: Sequence[Any] = (Auto(),),
    target: str | None = None,
    row: int = 0,
    device: str | None = None,
) -> tuple[Prepared, list[Result]]:
    """The input ready for its model, and one explanation of it by each method."""
    ready = _load_and_prepare(what, model, target, row, device)
    return ready, [ready.explain(method, target) for method in methods]


def explain_by_each(
    what: Given,
    model: str | Classifier | None,
    methods: Mapping[str, Any],
    target: str | None = None,
    row: int = 0,
    device: str | None = None,
) -> tuple[Prepared, dict[str, Result], dict[str, str]]:
    """The same by those methods that can explain this model, and why the others cannot. InputError if none can."""
    ready = _load_and_prepare(what, model, target, row, device)
    if is_every_class(target, ready.classifier.labels):
        raise InputError(f"target is {target!r}; accepted where methods are compared: one class")
    return ready, *by_each(methods, lambda method: ready.explain(method, target))


def by_each(methods: Mapping[str, Any], explain: Callable[[Any], R]) -> tuple[dict[str, R], dict[str, str]]:
    """Name → explanation of each method that can explain it, and why the others cannot. InputError if none can."""
    found, why = {}, {}
    for name, method in methods.items():
        try:
            found[name] = explain(method)
        except InputError as error:
            why[name] = str(error)
    if not found:
        raise InputError("; ".join(dict.fromkeys(why.values())))
    return found, why


def _load_and_prepare(
    what: Given, model: str | Classifier | None, target: str | None, row: int, device: str | None
) -> Prepared:
    if row and what.kind not in ("tabular", "tensor"):
        raise InputError(
            f"a row was asked for, but {what.name!r} is one {what.kind}; accepted: tables and tensors"
        )
    name = model or DEFAULT_MODEL.get(what.kind)
    if name is None:
        raise InputError(f"{what.name} holds tensors; say with --model which model takes them")
    classifier = name if isinstance(name, Classifier) else load_classifier(name, device=device)
    check_target(classifier, target)
    try:
        return prepare(what, classifier, row)
    except InputError as error:
        if what.kind != "tabular" or model is not None:
            raise
        raise InputError(f"{error} (the model is {name}, as --model names no other)") from error


@dataclass(frozen=True, eq=False)
class Prepared:
    """A classifier and one input, as it was given and encoded; `notes` name both on the explanations made here."""

    classifier: Classifier
    raw: Any
    inputs: Inputs
    features: tuple[Features, ...]
    notes: dict[str, str]

    def explain(self, method: Any, target: str | int | None = None) -> Result:
        """One explanation by a method, of a class by name or number."""
        explanation = explain_encoded(self.classifier, self.inputs, self.features, method, target)
        notes = {**explanation.notes, **self.notes, **self._panels(explanation)}
        return replace(explanation, labels=explanation.labels or None, notes=notes)

    def _panels(self, explanation: Result) -> dict[str, Any]:
        """Of an explanation over prototypes: the picture, and what in it looks like what in which training picture."""
        if self.classifier.panels is None:
            return {}
        from apportion.models.prototypes.methods import Prototypes

        if not isinstance(explanation.method, Prototypes):
            return {}
        picture = next(f.picture for f in self.features if isinstance(f, ImageFeatures))
        rows = self.classifier.panels(self.raw, int(explanation.target[0]))
        return {"panels": {"picture": data_uri(picture.cpu().numpy(), PHOTO), "rows": rows}}

    def case(self, explanation: Explanation) -> Case:
        """What tests of the explanation are run on."""
        goal = target_of(explanation, None)
        return Case(self.classifier, self.inputs, goal, features=self.features or None)


def check_target(classifier: Classifier, target: str | None) -> None:
    """Refuse a class name that the model does not have."""
    if is_every_class(target, classifier.labels):
        return
    if target is not None and not classifier.labels and not is_class_number(target):
        raise InputError(
            f"target is {target!r}, but {classifier.name} has no class names; accepted: a class index"
        )
    if target is not None and classifier.labels:
        class_number(target, classifier.labels)


def prepare(what: Given, classifier: Classifier, row: int = 0) -> Prepared:
    """Encode an input for a classifier; a model of the user's own is tried on it."""
    inputs, features = _encode(what, classifier, row)
    inputs = _like_weights(classifier, inputs)
    if classifier.name not in SHIPPED:
        _try_out(classifier, inputs)
    of_many = what.kind in ("tabular", "tensor") and isinstance(what.raw, Path)
    place = f"{what.name}, row {row}" if of_many else what.name
    known = () if features is None else (features,)
    return Prepared(classifier, what.raw, inputs, known, {"model": classifier.name, "input": place})


def at_layer(method: Any, layer: str | None) -> Any:
    """The method, for a layer instead of the inputs if one is named."""
    if layer is None:
        return method
    settings, name = {field.name for field in fields(method)}, type(method).__name__
    if "layer" in settings:
        raise InputError(f'the layer of {name} is a setting of its own; accepted: "{name}(layer={layer!r})"')
    if "at" not in settings:
        raise InputError(f"{name} explains inputs only; a layer does not apply")
    return replace(method, at=layer)


def _encode(what: Given, classifier: Classifier, row: int) -> tuple[Inputs, Features | None]:
    if what.kind == "tensor":
        if classifier.domain == "tabular":
            raise InputError(f"{classifier.name} takes the rows of a table; accepted: a .csv file")
        return read_tensors(what.raw, row), None
    if what.kind != classifier.domain:
        hint = ""
        if isinstance(classifier.encode, ImagePreparation) and not classifier.labels:
            hint = (
                "; a model for texts or tables needs its preprocessing: let the factory return a Classifier"
            )
        raise InputError(
            f"{what.name!r:.60} is {_with_article(what.kind)}, but {classifier.name} takes "
            f"{_with_article(classifier.domain)}{hint}"
        )
    try:
        if what.kind != "tabular" or not isinstance(what.raw, Path):
            return classifier.encoded(what.raw)
        return classifier.encoded(_row(what, classifier, row))
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {what.raw}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(str(error)) from error


def _row(what: Given, classifier: Classifier, row: int) -> Any:
    """One row of a file, as text where the file is text and the model does not know its columns' types."""
    as_text = what.dialect == AS_FOUND and kind_of(what.raw) in TEXTS
    if as_text and not isinstance(classifier.encode, FrameRows):
        return read_row(what.raw, row)
    texts = classifier.encode.texts if isinstance(classifier.encode, FrameRows) else frozenset()
    frame, told = read_table(what.raw, what.dialect, texts)
    if not 0 <= row < len(frame):
        raise InputError(
            f"{what.raw}: no row {row}; there are rows 0 to {len(frame) - 1}, counted below the header"
        )
    if told:
        warnings.warn(f"{what.name} was read with {told}, which was guessed", stacklevel=2)
    return frame.iloc[[row]].to_dict("records")[0]


def _with_article(kind: str) -> str:
    return {"text": "a text", "image": "a picture", "tabular": "a table"}[kind]


def _like_weights(classifier: Classifier, inputs: Inputs) -> Inputs:
    """The inputs on the device of the model, and numbers in its precision."""
    model, found = classifier.model, None
    if isinstance(model, torch.nn.Module):
        found = next((p for p in model.parameters() if p.is_floating_point()), None)
    if found is None:
        return inputs
    weight: torch.Tensor = found
    return map_tensors(inputs, lambda t: t.to(weight if t.is_floating_point() else weight.device))  # type: ignore[no-any-return]


def _try_out(classifier: Classifier, inputs: Inputs) -> None:
    """Run a model of the user's own once, so that what does not fit is one line."""
    shapes = ", ".join(f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in tensors_in(inputs))
    output = try_out(
        classifier.model, inputs, f"{classifier.name} does not run on this input of shape {shapes}"
    )
    scores_of(output, next(tensors_in(inputs)).shape[0])
