"""A fitted Bag-of-Words classifier as one safetensors file with a JSON header: nothing in it is run."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.core.files import read_tensors, write_tensors
from apportion.core.trees import all_finite
from apportion.errors import InputError
from apportion.models.bag_of_words import features, kernels, mapping
from apportion.models.bag_of_words._bag import Bagging
from apportion.models.bag_of_words._learning import as_tuple
from apportion.models.bag_of_words._machine import KernelMachine, WeightedKernel
from apportion.models.bag_of_words._pooling import pooling_exponent
from apportion.models.bag_of_words._vocabulary import Mixture, VisualWords
from apportion.models.bag_of_words.features import EXTRACTORS
from apportion.models.bag_of_words.kernels import choose
from apportion.models.bag_of_words.mapping import MAPPINGS

SCHEMA = 1
# As they are called in files.
VOCABULARIES = {"Words": VisualWords, "Mixture": Mixture}
_NAMES = {kind: name for name, kind in VOCABULARIES.items()}
OWN = "own"


def save(bow: Any, path: Path) -> Path:
    """Write a fitted classifier. Raises InputError for class labels that JSON has no form for."""

    labels = bow.classes_.tolist()
    if not all(isinstance(label, str | int | float | bool) for label in labels):
        raise InputError(f"classes are {labels[:3]}…; accepted for a file: strings or numbers")
    machine, bagging = bow.machine_, bow.bagging_
    tensors = {"points": machine.points, "coefficients": machine.coefficients, "bias": machine.bias}
    for number, vocabulary in enumerate(bagging.vocabularies):
        for name, array in vocabulary._asdict().items():
            tensors[f"vocabulary.{number}.{name}"] = torch.as_tensor(np.ascontiguousarray(array))
    header = {
        "schema": SCHEMA,
        "settings": {name: _describe(value) for name, value in bow.get_params(deep=False).items()},
        "classes": labels,
        "kernels": [
            {"kernel": _describe(p.kernel), "weight": p.weight, "start": p.start, "stop": p.stop}
            for p in machine.parts
        ],
        "vocabularies": [_NAMES[type(vocabulary)] for vocabulary in bagging.vocabularies],
    }
    return write_tensors(path, "bag_of_words", tensors, header)


def load(cls: Any, path: Path, own: dict[str, Any]) -> Any:
    """Rebuild what `save` wrote; `own` are the callables that could not be in the file, by their setting."""
    unknown = set(own) - {"kernel", "features", "mapping"}
    if unknown:
        raise InputError(f"load got {', '.join(sorted(unknown))}; accepted: kernel, features, mapping")
    return read_tensors(
        path,
        "bag_of_words",
        "Bag-of-Words classifier",
        SCHEMA,
        lambda tensors, header: _rebuild(cls, header, tensors, own, path),
    )


def _rebuild(
    cls: Any, header: dict[str, Any], tensors: dict[str, Tensor], own: dict[str, Any], path: Path
) -> Any:
    settings = {
        name: own[name] if name in own else _make(value, name, path)
        for name, value in header["settings"].items()
    }
    bow = cls(**settings)
    vocabularies = []
    for number, kind in enumerate(header["vocabularies"]):
        made: Any = VOCABULARIES[kind]
        vocabularies.append(made(*(tensors[f"vocabulary.{number}.{name}"].numpy() for name in made._fields)))
    given = as_tuple(bow.kernel)
    parts = []
    for number, each in enumerate(header["kernels"]):
        stored = each.pop("kernel")
        kernel = given[number % len(given)] if stored == OWN else _make(stored, "kernel", path)
        parts.append(WeightedKernel(kernel, **each))
    bow.bagging_ = Bagging(
        tuple(choose(one, EXTRACTORS, "features") for one in as_tuple(bow.features)),
        tuple(vocabularies),
        choose(bow.mapping, MAPPINGS, "mapping"),
        pooling_exponent(bow.pooling),
        tuple(bow.pyramid),
    )
    bow.machine_ = KernelMachine(tensors["points"], tensors["coefficients"], tensors["bias"], tuple(parts))
    classes, machine = header["classes"], bow.machine_
    if not isinstance(classes, list) or len(vocabularies) != len(bow.bagging_.extractors):
        raise InputError("classes or vocabularies are not a list with one for each")
    if not bow.pyramid or not all(isinstance(cells, int) and 0 < cells < 100 for cells in bow.pyramid):
        raise InputError(f"settings.pyramid is {bow.pyramid!r:.60}; accepted: whole numbers from 1")
    shapes = tuple(machine.coefficients.shape), tuple(machine.bias.shape)
    kinds = {t.dtype for t in (machine.points, machine.coefficients, machine.bias)}
    if (
        len(kinds) > 1
        or shapes != ((len(classes), len(machine.points)), (len(classes),))
        or not all_finite(tensors)
    ):
        raise InputError("points, coefficients and bias are not finite numbers for each class and point")
    bow.classes_ = np.array(classes)
    machine(torch.zeros_like(machine.points[:1]))  # says what does not fit the kernels
    if "features" not in own:
        # And what does not fit ours: noise has features of all kinds, if not too large ones.
        bow(torch.as_tensor(np.random.default_rng(0).random((1, 3, 64, 64))))
    return bow


def _describe(value: Any) -> Any:
    """JSON for a setting: names and numbers as they are, our own dataclasses by name and settings."""
    if isinstance(value, tuple | list):
        return [_describe(item) for item in value]
    if isinstance(value, dict):  # class weights, whose keys may be numbers
        return {"pairs": [[key, weight] for key, weight in value.items()]}
    if _find_class(type(value).__name__) is type(value):
        numbers = {field.name: _describe(getattr(value, field.name)) for field in fields(value)}
        return {"class": type(value).__name__, "settings": numbers}
    return OWN if callable(value) else value


def _make(stored: Any, setting: str, path: Path) -> Any:
    if stored == OWN:
        raise InputError(
            f"{path} was saved with a {setting} of its owner's, which is not in the file; accepted: "
            f"BagOfWords.load(path, {setting}=…)"
        )
    if isinstance(stored, list):
        return tuple(_make(item, setting, path) for item in stored)
    if isinstance(stored, dict) and "pairs" in stored:
        return dict(stored["pairs"])
    if isinstance(stored, dict):
        numbers = {name: _make(value, setting, path) for name, value in stored["settings"].items()}
        return _find_class(stored["class"])(**numbers)
    return stored


def _find_class(name: str) -> Any:
    for module in (features, kernels, mapping):
        kind = getattr(module, name, None)
        if isinstance(kind, type) and is_dataclass(kind) and kind.__module__ == module.__name__:
            return kind
    return None
