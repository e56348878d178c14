"""Whether a map ranks features as the score falls without each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from apportion.core.settings import checked
from apportion.evaluation.case import Case, CurveTest, Measured, nan_where
from apportion.evaluation.measures.randomisation import similarity_in_rows
from apportion.evaluation.readings import Reading, pick_reading, read_answers
from apportion.evaluation.reference_maps import Map


@dataclass(frozen=True)
@checked
class SingleDeletion(CurveTest):
    """Single deletion score (Hesse, Schaub-Meyer & Roth 2024): the rank correlation (Spearman) of the features' values
    with the fall of the score when each alone is hidden.

    1 is best, and what the exact map of a linear model has; a map that knows nothing has 0 on average. Undefined where
    all values, or all falls, of a sample are equal. Models may be compared where hidden features are nothing new to
    them: see `IDSDS`. Cost: one forward pass a feature. Settings: those below and those of
    [CurveTest][apportion.evaluation.case.CurveTest].

    Attributes:
        of (str, default "score"): What is read off: "probability", "score" or "sigmoid", as in `CurveTest`.

    >>> model = lambda x: x @ torch.tensor([[4.0], [2.0], [1.0]])
    >>> round(SingleDeletion()(model, torch.ones(1, 3), torch.tensor([[4.0, 2.0, 1.0]])).mean, 6)
    1.0
    """

    of: Reading = field(default="score", kw_only=True)

    higher_is_better: ClassVar[bool] = True
    ranks: ClassVar[bool] = False

    def measure(self, case: Case, explanation: Map) -> Measured:
        masking = case.masking(self.partition, self.replacement)
        relevance = case.relevance(explanation, masking).double()  # (batch, features)

        def run() -> Tensor:
            scores = masking.scores(~torch.eye(masking.many, dtype=torch.bool)).flatten(0, 1)
            rows = torch.arange(masking.batch).repeat_interleave(masking.many)
            return pick_reading(self.of, *read_answers(masking, scores, rows)[:3]).view(masking.batch, -1)

        left = case.once(self, run).to(relevance)
        there = torch.arange(masking.many, device=left.device) < masking.counts.to(left.device)[:, None]
        found = similarity_in_rows(relevance, -left, inside=there)
        return nan_where(
            found.isnan(), found, "all features have the same value, or the score falls by as much"
        )
