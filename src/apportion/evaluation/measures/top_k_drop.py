"""ContextCite's first test: what the model's answer loses with the passages that a map puts first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from apportion.core.settings import checked
from apportion.errors import check_whole
from apportion.evaluation.case import Case, CurveTest, Measured
from apportion.evaluation.curves import Way
from apportion.evaluation.readings import Reading
from apportion.evaluation.reference_maps import Map


@dataclass(frozen=True)
@checked
class TopKDrop(CurveTest):
    """Top-k drop (Cohen-Wang et al. 2024, definition 2.2): how far the score falls without the k highest features.

    `f(x) − f(x with the k features of the largest values hidden)`: of an answer of a language model, whose features are
    the passages of its context, the drop of its log-probability. Higher is better. A sample that has fewer features is
    without all of them. Cost: one forward pass. Settings: those below and those of
    [CurveTest][apportion.evaluation.case.CurveTest].

    Attributes:
        of (str, default "score"): What is read off: "probability", "score" or "sigmoid", as in `CurveTest`.
        k (int, default 1): Features that are hidden; the paper has 1, 3 and 5.

    >>> model = lambda x: x @ torch.tensor([[4.0], [2.0], [1.0]])
    >>> TopKDrop(k=2)(model, torch.ones(1, 3), torch.tensor([[4.0, 2.0, 1.0]])).mean
    6.0
    """

    of: Reading = field(default="score", kw_only=True)
    k: int = 1

    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(1, k=self.k)

    def steps_of(self, counts: Tensor) -> Mapping[Way, Tensor]:
        return {"morf": torch.stack([torch.zeros_like(counts), counts.clamp(max=self.k)], 1)}

    def measure(self, case: Case, explanation: Map) -> Measured:
        before, after = self.curves(case, explanation)["morf"].read(self.of).T
        return Measured(before - after)
