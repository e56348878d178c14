"""How much a map changes when its input hardly does. The method explains again, many perturbed inputs at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.faithfulness.case import Case, Found, Test, nan_where
from apportion.faithfulness.maps import Map, method_of, values_of


@dataclass(frozen=True)
class MaxSensitivity(Test):
    """Max-sensitivity (Yeh et al. 2019), relative as in Captum and Quantus: the largest `‖φ(x + δ) − φ(x)‖ / ‖φ(x)‖` of
    `samples` perturbations δ, uniform in ±`radius` for each entry. Lower is better.

    A map that does not look at the input scores best: read it beside a faithfulness test. The inputs are single
    floating point tensors; the target stays that of the explanation. Undefined where φ(x) is zero. Cost: that of
    `samples` explanations, made many at a time.

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
        _check(self.samples, self.radius)

    def measure(self, case: Case, explanation: Map) -> Found:
        here = _map(explanation, _input(case, self))
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

    The inputs are single floating point tensors; the target stays that of the explanation. Cost: that of
    `samples` explanations, made many at a time.

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
        _check(self.samples, self.radius)

    def measure(self, case: Case, explanation: Map) -> Found:
        here = _map(explanation, _input(case, self))
        largest = here.new_zeros(len(here))
        for drawn, there in _perturbed(self, case, explanation):
            slopes = (there - here[:, None]).norm(dim=2) / drawn.flatten(1).norm(dim=1).to(here)
            largest = largest.maximum(slopes.amax(1))
        return Found(largest)


def _perturbed(
    test: MaxSensitivity | LocalLipschitz, case: Case, explanation: Map
) -> Iterator[tuple[Tensor, Tensor]]:
    """Some perturbations at a time, (many, …), and the maps there, (batch, many, entries)."""
    method, x = method_of(explanation, test), _input(case, test)
    masking = case.masking()
    batch = masking.batch
    target = masking.resolved
    random = np.random.default_rng(test.seed)
    together = max(1, masking.chunk // batch)
    for begin in range(0, test.samples, together):
        many = min(together, test.samples - begin)
        drawn = torch.from_numpy(random.uniform(-test.radius, test.radius, (many, *x.shape[1:]))).to(x)
        repeated = target.repeat_interleave(many) if isinstance(target, Tensor) else target
        there = (x[:, None] + drawn).flatten(0, 1)
        made = case.explain(method, repeated, inputs=there, rows=many)
        yield drawn, _map(made, there).view(batch, many, -1)


def _input(case: Case, test: object) -> Tensor:
    x = case.inputs
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise InputError(
            f"{type(test).__name__} perturbs the input a little, so it needs one floating point tensor; token ids "
            "have no neighbours"
        )
    return x


def _map(explanation: Map, like: object) -> Tensor:
    """The values of each sample in one row, in at least single precision."""
    (values,) = values_of(explanation, like).values()  # type: ignore[arg-type]
    return (values if values.dtype == torch.float64 else values.float()).flatten(1)


def _check(samples: int, radius: float) -> None:
    if samples < 1:
        raise InputError(f"samples is {samples}; accepted: at least 1")
    if not radius > 0:
        raise InputError(f"radius is {radius}; accepted: a positive number")
