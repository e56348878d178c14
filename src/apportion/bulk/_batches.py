"""Read and encode inputs ahead of the model, and put those of one shape together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from apportion.bulk.sources import Source
from apportion.core.calling import behind
from apportion.core.classifier import Classifier
from apportion.core.features import Features
from apportion.core.inputs import Inputs, checked_inputs
from apportion.core.trees import map_tensors, tensors_in
from apportion.domains.language import LanguageModel
from apportion.errors import InputError

Result = TypeVar("Result")


class Sample(NamedTuple):
    """An input that was read: a batch of one, and the names of its features where a classifier has them."""

    number: int
    inputs: Inputs
    features: Features | None


class Failure(NamedTuple):
    """An input that could not be read, or not be explained (`stage`), and why."""

    number: int
    stage: str
    error: Exception


def read(source: Source, model: Any, index: int) -> Sample | Failure:
    """Read and encode one input; whatever its reader raises is a Failure."""
    try:
        inputs, features = encode_samples(model, source.read(index))
        return Sample(index, inputs, features)
    except Exception as error:  # a damaged file, or the user's own dataset
        return Failure(index, "read", error)


def encode_samples(model: Any, raw: Any) -> tuple[Inputs, Features | None]:
    """A batch of one in the precision of the model, still on the CPU. Floating point tensors and token ids
    are taken as they are; of uint8 tensors a classifier of pictures takes each as a picture, and of what a language
    model is asked nothing is encoded yet."""
    if isinstance(model, LanguageModel):  # what it is asked is put together where it is explained
        return raw if isinstance(raw, Mapping) else {"prompt": raw}, None
    classifier = model if isinstance(model, Classifier) else None
    tensor = raw if isinstance(raw, Tensor) else None
    ready = tensor is not None and not (
        classifier is not None
        and (classifier.domain == "tabular" or (classifier.domain == "image" and tensor.dtype == torch.uint8))
    )
    if (
        isinstance(raw, dict)
        and raw
        and all(isinstance(value, Tensor | np.ndarray) for value in raw.values())
    ):
        raw, ready = {key: torch.as_tensor(value) for key, value in raw.items()}, True
    features: Features | None = None
    if ready:
        inputs = map_tensors(raw, lambda t: t[None])
    elif classifier is not None:
        inputs, features = classifier.encoded(raw)
    elif isinstance(raw, np.ndarray):
        inputs = torch.as_tensor(raw)[None]
    else:
        raise InputError(
            f"the input is {type(raw).__name__}; a model without preprocessing takes tensors: give a "
            "Classifier, or a dataset of tensors"
        )
    weight = weight_of(model)
    if weight is not None:
        inputs = map_tensors(inputs, lambda t: t.to(weight.dtype) if t.is_floating_point() else t)
    return checked_inputs(inputs, missing=not isinstance(behind(model), torch.nn.Module)), features


def read_ahead(read: Callable[[int], Result], indices: Iterable[int], threads: int) -> Iterator[Result]:
    """The results in order, read in threads while the last ones are worked on; at most 16 a thread wait."""
    waiting: deque[Any] = deque()
    # A second team of OpenMP threads beside the model's slows that by half: readers compute alone.
    before = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for index in indices:
                waiting.append(pool.submit(read, index))
                if len(waiting) >= 16 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)


def batches(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Samples of equal shapes together, so that nothing is padded; the order is always the same."""
    open_: dict[Any, list[Sample]] = {}
    for sample in samples:
        shape = tuple((t.shape, t.dtype) for t in tensors_in(sample.inputs))
        batch = open_.setdefault(shape, [])
        batch.append(sample)
        if len(batch) == size:
            yield open_.pop(shape)
    yield from open_.values()


def weight_of(model: Any) -> Tensor | None:
    """A parameter that tells the model's precision and device; None for a plain callable."""
    module = model.model if isinstance(model, Classifier | LanguageModel) else model
    if not isinstance(module, torch.nn.Module):
        return None
    return next((p for p in module.parameters() if p.is_floating_point()), None)
