"""How much a map changes when its input hardly does. The method explains again, many perturbed inputs at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from apportion.errors import InputError, check, check_whole
from apportion.faithfulness.case import Case, Found, Test, nan_where
from apportion.faithfulness.maps import Map, in_rows, method_of
from apportion.inputs import Inputs, rekeyed


@dataclass(frozen=True)
class MaxSensitivity(Test):
    """Max-sensitivity (Yeh et al. 2019), relative as in Captum and Quantus: the largest `‖φ(x + δ) − φ(x)‖ / ‖φ(x)‖` of
    `samples` perturbations δ, uniform in ±`radius` for each entry. Lower is better.

    A map that does not look at the input scores best: read it beside a faithfulness test. The inputs are
    floating point tensors (for texts the embeddings); the target stays that of the explanation. Undefined where
    φ(x) is zero. Cost: that of `samples` explanations, made many at a time.

    >>> import apportion as ap
    >>> model, x = torch.nn.Linear(3, 2), torch.ones(2, 3)
    >>> MaxSensitivity()(model, x, ap.Saliency()(model, x)).mean
    0.0
    """

    samples: int = 10
    radius: float = 0.02
    seed: int = 0

    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self.samples, self.radius, self.seed)

    def measure(self, case: Case, explanation: Map) -> Found:
        here = _here(self, case, explanation)
        largest = here.new_zeros(len(here))
        for _, there in _perturbed(self, case, explanation):
            largest = largest.maximum((there - here[:, None]).norm(dim=2).amax(1))
        size = here.norm(dim=1)
        return nan_where(size == 0, largest / size, "the map is zero everywhere")


@dataclass(frozen=True)
class LocalLipschitz(Test):
    """Local Lipschitz estimate (Alvarez-Melis & Jaakkola 2018): the largest `‖φ(x + δ) − φ(x)‖ / ‖δ‖` of
    `samples` perturbations δ, uniform in ±`radius` for each entry. Lower is better; it is in the units of the map,
    so only maps in the same units can be compared.

    The inputs are floating point tensors (for texts the embeddings); the target stays that of the explanation.
    Cost: that of `samples` explanations, made many at a time.

    >>> import apportion as ap
    >>> model, x = torch.nn.Linear(3, 2), torch.ones(2, 3)
    >>> LocalLipschitz()(model, x, ap.Saliency()(model, x)).mean
    0.0
    """

    samples: int = 10
    radius: float = 0.02
    seed: int = 0

    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self.samples, self.radius, self.seed)

    def measure(self, case: Case, explanation: Map) -> Found:
        here = _here(self, case, explanation)
        largest = here.new_zeros(len(here))
        for drawn, there in _perturbed(self, case, explanation):
            slopes = (there - here[:, None]).norm(dim=2) / drawn.norm(dim=1).to(here)
            largest = largest.maximum(slopes.amax(1))
        return Found(largest)


def _perturbed(
    test: MaxSensitivity | LocalLipschitz, case: Case, explanation: Map
) -> Iterator[tuple[Tensor, Tensor]]:
    """Some perturbations at a time, (many, entries), and the maps there, (batch, many, entries)."""
    method, masking = method_of(explanation, test), case.masking()
    explained = {part.key: part.x[0] for part in masking.parts}
    sizes = [x.numel() for x in explained.values()]
    random = np.random.default_rng(test.seed)
    target = masking.resolved
    chunks = _CHUNKS if case.chunk is None and masking.parts[0].x.device.type == "cpu" else 1
    together = max(1, chunks * masking.chunk // masking.batch)
    for begin in range(0, test.samples, together):
        many = min(together, test.samples - begin)
        drawn = torch.from_numpy(random.uniform(-test.radius, test.radius, (many, sum(sizes))))
        parts = zip(explained.items(), drawn.split(sizes, 1), strict=True)
        added = {key: part.view(many, *x.shape).to(x) for (key, x), part in parts}
        there = rekeyed(masking.inputs, partial(_repeated, many=many, added=added))
        repeated = target.repeat_interleave(many) if isinstance(target, Tensor) else target
        made = case.explain(method, repeated, inputs=there, rows=many)
        yield drawn, _map(made, there).view(masking.batch, many, -1)


# Chunks of forward passes that are explained at once on a CPU, where a call for each layer and chunk costs more
# than what is kept for the backward pass: a quarter less time for a small network on two cores.
_CHUNKS = 3


def _repeated(key: Any, x: Tensor, many: int, added: dict[Any, Tensor]) -> Tensor:
    """Each sample `many` times, with what is added to it."""
    if key in added:
        return (x[:, None] + added[key]).flatten(0, 1)
    return x.repeat_interleave(many, 0)


def _here(test: object, case: Case, explanation: Map) -> Tensor:
    """The map at the inputs, which must be numbers."""
    masking = case.masking()
    if not all(part.x.is_floating_point() for part in masking.parts):
        raise InputError(
            f"{type(test).__name__} perturbs the inputs a little, and token ids have no neighbours; accepted: "
            "floating point inputs, for texts the embeddings, such as "
            "{'inputs_embeds': model.get_input_embeddings()(ids), 'attention_mask': mask}"
        )
    return _map(explanation, masking.inputs)


def _map(explanation: Map, inputs: Inputs) -> Tensor:
    """The values of each sample in one row, in at least single precision."""
    rows = in_rows(explanation, inputs)
    return rows if rows.dtype == torch.float64 else rows.float()


def _check(samples: int, radius: float, seed: int) -> None:
    check_whole(1, samples=samples)
    check_whole(0, seed=seed)
    check("radius", radius, lambda v: 0 < v < float("inf"), "a positive number")
