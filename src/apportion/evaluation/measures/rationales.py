"""ERASER's comprehensiveness and sufficiency: does hiding the rationale change the answer, does it suffice?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from apportion.core.settings import checked
from apportion.evaluation.case import Case, CurveTest, Measured
from apportion.evaluation.curves import Way, check_shares, counts_at_shares
from apportion.evaluation.reference_maps import Map


@dataclass(frozen=True)
class _MeanFall(CurveTest):
    """The base of both tests: how much less probable the target is at some shares, in the mean."""

    shares: tuple[float, ...] = (0.01, 0.05, 0.1, 0.2, 0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares("shares", self.shares)

    def measure(self, case: Case, explanation: Map) -> Measured:
        (curve,) = self.curves(case, explanation).values()
        read = curve.read(self.of)
        return Measured((read[:, :1] - read[:, 1:]).mean(1))


@dataclass(frozen=True)
@checked
class Comprehensiveness(_MeanFall):
    """Comprehensiveness (DeYoung et al. 2020): how far the answer falls without the most relevant features.

    The mean over `shares` of `p(x) − p(x with that share of the most relevant features hidden)`. Higher is better.
    Special tokens are kept. Cost: one forward pass a share. Settings: those below and those of
    [CurveTest][apportion.evaluation.case.CurveTest].

    Attributes:
        shares (tuple of float, default (0.01, 0.05, 0.1, 0.2, 0.5)): Shares of the features that are hidden, rounded
            up, so that at least one is.

    >>> model = lambda x: x @ torch.tensor([[4.0], [2.0]])
    >>> Comprehensiveness(shares=(0.5,), of="score")(model, torch.ones(1, 2), torch.tensor([[4.0, 2.0]])).mean
    4.0
    """

    higher_is_better: ClassVar[bool] = True

    def steps_of(self, counts: Tensor) -> Mapping[Way, Tensor]:
        return {"morf": _prepend_zero(counts_at_shares(counts, self.shares))}


@dataclass(frozen=True)
@checked
class Sufficiency(_MeanFall):
    """Sufficiency (DeYoung et al. 2020): how far the answer falls with nothing but the most relevant features.

    The mean over `shares` of `p(x) − p(x with only that share of the most relevant features left)`. Lower is better.
    Cost: one forward pass a share. Settings: those below and those of
    [CurveTest][apportion.evaluation.case.CurveTest].

    Attributes:
        shares (tuple of float, default (0.01, 0.05, 0.1, 0.2, 0.5)): Shares of the features that are left, rounded
            up, so that at least one is.

    >>> model = lambda x: x @ torch.tensor([[4.0], [2.0]])
    >>> Sufficiency(shares=(0.5,), of="score")(model, torch.ones(1, 2), torch.tensor([[4.0, 2.0]])).mean
    2.0
    """

    higher_is_better: ClassVar[bool] = False

    def steps_of(self, counts: Tensor) -> Mapping[Way, Tensor]:
        return {"lerf": _prepend_zero(counts[:, None] - counts_at_shares(counts, self.shares))}


def _prepend_zero(hidden: Tensor) -> Tensor:
    """The steps behind one at which nothing is hidden."""
    return torch.cat([torch.zeros_like(hidden[:, :1]), hidden], 1)
