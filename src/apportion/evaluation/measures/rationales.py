"""ERASER's comprehensiveness and sufficiency: does hiding the rationale change the answer, does it suffice?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from apportion.evaluation.case import Case, CurveTest, Measured
from apportion.evaluation.curves import Way, check_shares, counts_at_shares
from apportion.evaluation.reference_maps import Map


@dataclass(frozen=True)
class _MeanFall(CurveTest):
    """What both tests share: how much less probable the target is at some shares, in the mean."""

    shares: tuple[float, ...] = (0.01, 0.05, 0.1, 0.2, 0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares("shares", self.shares)

    def measure(self, case: Case, explanation: Map) -> Measured:
        (curve,) = self.curves(case, explanation).values()
        read = curve.read(self.of)
        return Measured((read[:, :1] - read[:, 1:]).mean(1))


@dataclass(frozen=True)
class Comprehensiveness(_MeanFall):
    """Comprehensiveness (DeYoung et al. 2020): the mean over `shares` of
    `p(x) − p(x with that share of the most relevant features hidden)`. Higher is better.

    The share of the features is rounded up, so that at least one is hidden. Special tokens are kept. Cost: one
    forward pass a share.

    >>> model = lambda x: x @ torch.tensor([[4.0], [2.0]])
    >>> Comprehensiveness(shares=(0.5,), of="score")(model, torch.ones(1, 2), torch.tensor([[4.0, 2.0]])).mean
    4.0
    """

    higher_is_better: ClassVar[bool] = True

    def steps_of(self, counts: Tensor) -> Mapping[Way, Tensor]:
        return {"morf": _prepend_zero(counts_at_shares(counts, self.shares))}


@dataclass(frozen=True)
class Sufficiency(_MeanFall):
    """Sufficiency (DeYoung et al. 2020): the mean over `shares` of
    `p(x) − p(x with only that share of the most relevant features left)`. Lower is better.

    The share of the features is rounded up, so that at least one is left. Cost: one forward pass a share.

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
