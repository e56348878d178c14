"""ERASER's comprehensiveness and sufficiency: does hiding the rationale change the answer, does it suffice?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from apportion.faithfulness.case import Case, CurveTest, Found
from apportion.faithfulness.curves import at_shares, check_shares
from apportion.faithfulness.maps import Map

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True)
class Comprehensiveness(CurveTest):
    """Comprehensiveness (DeYoung et al. 2020): the mean over `shares` of
    `p(x) − p(x with that share of the most relevant features hidden)`. Higher is better.

    The share of the features is rounded up, so that at least one is hidden. Special tokens are kept. Cost: one
    forward pass a share.

    >>> model = lambda x: x @ torch.tensor([[4.0], [2.0]])
    >>> Comprehensiveness(shares=(0.5,), of="score")(model, torch.ones(1, 2), torch.tensor([[4.0, 2.0]])).mean
    4.0
    """

    shares: tuple[float, ...] = SHARES

    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares("shares", self.shares)

    def measure(self, case: Case, explanation: Map) -> Found:
        order = self.ordered(case, explanation)
        none = torch.zeros_like(order.counts)[:, None]
        read = order.curve(torch.cat([none, at_shares(order.counts, self.shares)], 1)).read(self.of)
        return Found((read[:, :1] - read[:, 1:]).mean(1))


@dataclass(frozen=True)
class Sufficiency(CurveTest):
    """Sufficiency (DeYoung et al. 2020): the mean over `shares` of
    `p(x) − p(x with only that share of the most relevant features left)`. Lower is better.

    The share of the features is rounded up, so that at least one is left. Cost: one forward pass a share.

    >>> model = lambda x: x @ torch.tensor([[4.0], [2.0]])
    >>> Sufficiency(shares=(0.5,), of="score")(model, torch.ones(1, 2), torch.tensor([[4.0, 2.0]])).mean
    2.0
    """

    shares: tuple[float, ...] = SHARES

    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares("shares", self.shares)

    def measure(self, case: Case, explanation: Map) -> Found:
        order = self.ordered(case, explanation, least_first=True)
        none = torch.zeros_like(order.counts)[:, None]
        hidden = order.counts[:, None] - at_shares(order.counts, self.shares)
        read = order.curve(torch.cat([none, hidden], 1)).read(self.of)
        return Found((read[:, :1] - read[:, 1:]).mean(1))
