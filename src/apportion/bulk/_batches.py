"""Read and encode inputs ahead of the model, and put those of one shape together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from apportion.bulk.sources import Source
from apportion.core.calling import behind
from apportion.core.classifier import Classifier
from apportion.core.features import Features
from apportion.core.inputs import Inputs, checked_inputs, rekeyed
from apportion.core.trees import keyed, map_tensors, tensors_in
from apportion.domains.frames import are_dicts
from apportion.domains.language import LanguageModel
from apportion.errors import InputError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Samples:
    """Inputs of one shape that were read: their numbers, a batch of them, and the features of each, or none, as a
    classifier has them."""

    numbers: tuple[int, ...]
    inputs: Inputs
    features: tuple[Features, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def shape(self) -> Any:
        """What inputs need in common to be run together."""
        return tuple((t.shape[1:], t.dtype) for t in tensors_in(self.inputs))

    def at(self, places: Sequence[int]) -> Samples:
        """Some of them, in this order."""
        which = torch.tensor(places)
        return Samples(
            tuple(self.numbers[i] for i in places),
            map_tensors(self.inputs, lambda t: t[which]),
            tuple(self.features[i] for i in places) if self.features else (),
        )

    @staticmethod
    def joined(parts: Sequence[Samples]) -> Samples:
        """Those of several, which have one shape; features only where all have them."""
        if len(parts) == 1:
            return parts[0]
        of_key = [dict(keyed(part.inputs)) for part in parts]
        inputs = rekeyed(parts[0].inputs, lambda key, _: torch.cat([tensors[key] for tensors in of_key]))
        named = all(part.features for part in parts)
        return Samples(
            tuple(number for part in parts for number in part.numbers),
            inputs,
            tuple(each for part in parts for each in part.features) if named else (),
        )


class Failure(NamedTuple):
    """An input that could not be read, or not be explained (`stage`), and why."""

    number: int
    stage: str
    error: Exception


def read(source: Source, model: Any, indices: Sequence[int]) -> list[Samples | Failure]:
    """Read and encode inputs, together where that is possible; whatever a reader raises is a Failure."""
    found, raws = list[Samples | Failure](), dict[int, Any]()
    for index in indices:
        try:
            raws[index] = source.read(index)
        except Exception as error:  # a damaged file, or the user's own dataset
            found.append(Failure(index, "read", error))
    with suppress(Exception):  # which of them it is, and why, is found one by one
        if len(raws) > 1 and (together := _together(model, list(raws.values()))) is not None:
            inputs, features = together
            return [*found, Samples(tuple(raws), _as_run(model, inputs), features)]
    for index, raw in raws.items():
        try:
            found.append(Samples((index,), *encode_sample(model, raw)))
        except Exception as error:
            found.append(Failure(index, "read", error))
    return found


def _together(model: Any, raws: list[Any]) -> tuple[Inputs, tuple[Features, ...]] | None:
    """A batch of inputs of which nothing has to be encoded, or all can be at once: tensors and arrays of one shape,
    rows of a table. None of others."""
    first = raws[0]
    if isinstance(model, Classifier) and are_dicts(raws) and not any(map(_is_of_tensors, raws)):
        encode = getattr(model.encode, "several", None)
        return None if encode is None else encode(raws)
    if not isinstance(first, Tensor | np.ndarray) or not _is_ready(model, first):
        return None
    if len({(type(raw), raw.dtype, raw.shape) for raw in raws}) > 1:
        return None
    return torch.stack(raws) if isinstance(first, Tensor) else torch.as_tensor(np.stack(raws)), ()


def _is_of_tensors(raw: Any) -> bool:
    kinds = Tensor | np.ndarray
    return isinstance(raw, dict) and bool(raw) and all(isinstance(value, kinds) for value in raw.values())


def _is_ready(model: Any, raw: Any) -> bool:
    """Whether this goes into the model as it is. Floating point tensors and token ids do; of uint8 tensors a classifier
    of pictures takes each as a picture."""
    if not isinstance(model, Classifier):
        return isinstance(raw, Tensor | np.ndarray) and not isinstance(model, LanguageModel)
    encodes = model.domain == "tabular" or (
        model.domain == "image" and getattr(raw, "dtype", None) == torch.uint8
    )
    return isinstance(raw, Tensor) and not encodes


def encode_sample(model: Any, raw: Any) -> tuple[Inputs, tuple[Features, ...]]:
    """A batch of one in the precision of the model, still on the CPU; of what a language model is asked nothing is
    encoded yet."""
    if isinstance(model, LanguageModel):  # what it is asked is put together where it is explained
        return raw if isinstance(raw, Mapping) else {"prompt": raw}, ()
    features: tuple[Features, ...] = ()
    if _is_of_tensors(raw):
        inputs: Any = {key: torch.as_tensor(value)[None] for key, value in raw.items()}
    elif _is_ready(model, raw):
        inputs = torch.as_tensor(raw)[None]
    elif isinstance(model, Classifier):
        inputs, named = model.encoded(raw)
        features = () if named is None else (named,)
    else:
        raise InputError(
            f"the input is {type(raw).__name__}; a model without preprocessing takes tensors: give a "
            "Classifier, or a dataset of tensors"
        )
    return _as_run(model, inputs), features


def _as_run(model: Any, inputs: Any) -> Inputs:
    """A batch in the precision of the model, of numbers that it can be run on."""
    weight = weight_of(model)
    if weight is not None:
        inputs = map_tensors(inputs, lambda t: t.to(weight.dtype) if t.is_floating_point() else t)
    return checked_inputs(inputs, missing=not isinstance(behind(model), torch.nn.Module))


def read_ahead(
    read: Callable[[Sequence[int]], Sequence[Result]], indices: Sequence[int], together: int, threads: int
) -> Iterator[Result]:
    """The results in order, so many read together, in threads while the last ones are worked on; at most 16 a thread
    wait, or one more that are read together."""
    waiting: deque[Any] = deque()
    # A second team of OpenMP threads beside the model's slows that by half: readers compute alone.
    before = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for begin in range(0, len(indices), together):
                waiting.append(pool.submit(read, indices[begin : begin + together]))
                if (len(waiting) - 1) * together >= 16 * threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)


def batches(samples: Iterable[Samples], size: int) -> Iterator[Samples]:
    """Samples of equal shapes together, so that nothing is padded; the order is always the same."""
    open_: dict[Any, list[Samples]] = {}
    for some in samples:
        waiting = open_.setdefault(some.shape, [])
        waiting.append(some)
        if (many := sum(map(len, waiting))) >= size:
            whole = Samples.joined(open_.pop(some.shape))
            yield whole if many == size else whole.at(range(size))
            if many > size:
                open_[some.shape] = [whole.at(range(size, many))]
    yield from map(Samples.joined, open_.values())


def weight_of(model: Any) -> Tensor | None:
    """A parameter that tells the model's precision and device; None for a plain callable."""
    module = model.model if isinstance(model, Classifier | LanguageModel) else model
    if not isinstance(module, torch.nn.Module):
        return None
    return next((p for p in module.parameters() if p.is_floating_point()), None)
