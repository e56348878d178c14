"""What `BagOfWords.fit` does: check the settings, learn the vocabulary, scale the kernels, learn the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from apportion.core.progress import progress
from apportion.errors import InputError
from apportion.models.bag_of_words._bag import Bagging
from apportion.models.bag_of_words._machine import KernelMachine, WeightedKernel, make_two_sided
from apportion.models.bag_of_words._pooling import pooling_exponent
from apportion.models.bag_of_words._vocabulary import sample
from apportion.models.bag_of_words.features import EXTRACTORS, Extractor, Picture, extract, read_picture
from apportion.models.bag_of_words.kernels import KERNELS, Kernel, choose, evaluate, fit_scale
from apportion.models.bag_of_words.mapping import MAPPINGS, Mapping

Array = npt.NDArray[Any]
Made = TypeVar("Made")

VOCABULARY_IMAGES = 300  # that a vocabulary is learned from: more do not change it, and cost a second look


class Plan(NamedTuple):
    """The settings, checked; `pairs` are the kernels with the number of the extractor that each sees, and its
    weight."""

    extractors: tuple[Extractor, ...]
    mapping: Mapping
    p: float
    pyramid: tuple[int, ...]
    pairs: tuple[tuple[Kernel, int, float], ...]


def make_plan(bow: Any) -> Plan:
    """What the settings of a `BagOfWords` stand for. Raises InputError before any picture is read."""
    mapping, p, pyramid = (
        choose(bow.mapping, MAPPINGS, "mapping"),
        pooling_exponent(bow.pooling),
        tuple(bow.pyramid),
    )
    if getattr(mapping, "signed", False) and p != 1:
        raise InputError(
            f"pooling is {bow.pooling!r}, but the weights of {mapping!r} may be negative; accepted: 'sum'"
        )
    if not pyramid or min(pyramid) < 1:
        raise InputError(f"pyramid is {bow.pyramid!r}; accepted: levels from 1 on, such as (1, 2)")
    for name in ("words", "samples"):
        number = getattr(bow, name)
        if not isinstance(number, Integral) or int(number) < 1:
            raise InputError(f"{name} is {number!r}; accepted: an integer from 1 on")
    if not isinstance(bow.C, Real) or not float(bow.C) > 0:
        raise InputError(f"C is {bow.C!r}; accepted: a positive number")
    extractors = tuple(choose(each, EXTRACTORS, "features") for each in as_tuple(bow.features))
    kernels = [choose(each, KERNELS, "kernel") for each in as_tuple(bow.kernel)]
    for kernel in kernels:
        if getattr(mapping, "signed", False) and getattr(kernel, "nonnegative", False):
            raise InputError(
                f"kernel is {kernel!r}, for numbers from zero on, but the weights of {mapping!r} may be negative; "
                "accepted: a kernel such as linear, rbf or laplacian"
            )
    if len(kernels) == 1 or len(extractors) == 1:
        pairs = [(kernel, number) for kernel in kernels for number in range(len(extractors))]
    elif len(kernels) == len(extractors):
        pairs = [(kernel, number) for number, kernel in enumerate(kernels)]
    else:
        raise InputError(
            f"there are {len(kernels)} kernels and {len(extractors)} features; accepted: one of either, or as "
            "many of each"
        )
    weights = [1 / len(pairs)] * len(pairs) if bow.kernel_weights is None else bow.kernel_weights
    if len(weights) != len(pairs) or min(weights) < 0 or max(weights) == 0:
        raise InputError(
            f"kernel_weights is {bow.kernel_weights!r}; accepted: {len(pairs)} numbers from zero on"
        )
    weighted = tuple((*pair, float(weight)) for pair, weight in zip(pairs, weights, strict=True))
    return Plan(extractors, mapping, p, pyramid, weighted)


def learn_vocabularies(
    settings: Plan, sources: Sequence[Any], words: int, samples: int, seed: int
) -> Bagging:
    random = np.random.default_rng(seed)
    many = min(len(sources), VOCABULARY_IMAGES)
    some = [sources[i] for i in np.sort(random.choice(len(sources), many, replace=False))]
    vocabularies = []
    for extractor in settings.extractors:
        found = map_pictures(partial(extract, extractor), some, "images for the vocabulary")
        descriptors = sample((each.descriptors for each in found), many, samples, seed)
        vocabularies.append(settings.mapping.learn(descriptors, words, seed))
    return Bagging(settings.extractors, tuple(vocabularies), settings.mapping, settings.p, settings.pyramid)


def scale_kernels(settings: Plan, x: Tensor, lengths: Sequence[int]) -> tuple[WeightedKernel, ...]:
    """The kernels with their columns, scaled so that the training images have variance one in the feature space
    of each."""
    spans = list(pairwise(np.cumsum([0, *lengths]).tolist()))
    parts = []
    for kernel, number, weight in settings.pairs:
        start, stop = spans[number]
        seen = x[:, start:stop]
        ready = fit_scale(kernel, seen)
        gram = evaluate(ready, seen, seen)
        variance = float(gram.diagonal().mean() - gram.mean())
        parts.append(WeightedKernel(ready, weight / (variance if variance > 0 else 1.0), start, stop))
    return tuple(parts)


def learn_machine(
    x: Tensor, gram: Tensor, which: Array, parts: tuple[WeightedKernel, ...], C: float, class_weight: Any
) -> KernelMachine:
    """One support vector machine for each class against the rest; for two classes a single one."""
    from sklearn.svm import SVC  # type: ignore[import-untyped]

    classes = int(which.max()) + 1
    own = range(1, 2) if classes == 2 else range(classes)
    alpha, bias = np.zeros((len(own), len(x))), np.zeros(len(own))
    for row, each in enumerate(own):
        svm = SVC(C=C, kernel="precomputed", class_weight=class_weight)
        svm.fit(gram.numpy(), which == each)
        alpha[row, svm.support_], bias[row] = svm.dual_coef_[0], svm.intercept_[0]
    support = np.flatnonzero(np.abs(alpha).max(0))
    machine = KernelMachine(
        x[support].clone(), torch.as_tensor(alpha[:, support]), torch.as_tensor(bias), parts
    )
    return make_two_sided(machine) if classes == 2 else machine


def sources_of(images: Any) -> Sequence[Any]:
    if isinstance(images, str | bytes | Path) or not hasattr(images, "__len__") or not len(images):
        got = f"an empty {type(images).__name__}" if hasattr(images, "__len__") else type(images).__name__
        got = repr(images) if isinstance(images, str | Path) else got
        raise InputError(f"images is {got}; accepted: a list of pictures (files, PIL images, arrays)")
    if getattr(images, "ndim", 4) in (2, 3) and (images.ndim == 2 or images.shape[-1] in (1, 3, 4)):
        raise InputError(
            f"images is one picture, {tuple(images.shape)}; accepted: a list of pictures, such as [picture]"
        )
    return images  # type: ignore[no-any-return]


def map_pictures(function: Callable[[Picture], Made], sources: Sequence[Any], what: str) -> Iterator[Made]:
    """What `function` makes of each picture, with a progress bar; what is said against one begins with its
    number."""
    for (number,) in progress(([i] for i in range(len(sources))), len(sources), what):
        try:
            made = function(read_picture(sources[number]))
        except InputError as error:
            raise InputError(f"image {number}: {error}") from None
        yield made


def as_tuple(given: Any) -> tuple[Any, ...]:
    return tuple(given) if isinstance(given, tuple | list) else (given,)
