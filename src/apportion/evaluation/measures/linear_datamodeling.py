"""ContextCite's second test: whether sums of values rank random ablations as the model does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from apportion.core.settings import checked
from apportion.errors import check_whole
from apportion.evaluation.case import Case, CurveTest, Measured, nan_where
from apportion.evaluation.measures.randomisation import similarity_in_rows
from apportion.evaluation.readings import Reading, pick_reading, read_answers
from apportion.evaluation.reference_maps import Map


@dataclass(frozen=True)
@checked
class LDS(CurveTest):
    """Linear datamodeling score (Park et al. 2023; of a context Cohen-Wang et al. 2024, definition 2.3).

    The rank correlation (Spearman), over random ablations, of the sum of the values of the features that are left with
    the model's score. An ablation leaves each feature with a chance of ½. 1 is best: the map ranks all ablations as the
    model does. Undefined where the sums, or the scores, are all equal. The ablations are the same for all samples.
    Cost: one forward pass each. Settings: those below and those of [CurveTest][apportion.evaluation.case.CurveTest].

    Attributes:
        of (str, default "score"): What is read off: "probability", "score" or "sigmoid", as in `CurveTest`.
        samples (int, default 64): Ablations.
        seed (int, default 0): Seed of the ablations.

    >>> model = lambda x: x @ torch.tensor([[4.0], [2.0], [1.0]])
    >>> LDS()(model, torch.ones(1, 3), torch.tensor([[4.0, 2.0, 1.0]])).mean
    1.0
    """

    of: Reading = field(default="score", kw_only=True)
    samples: int = 64
    seed: int = 0

    higher_is_better: ClassVar[bool] = True
    ranks: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(2, samples=self.samples)
        check_whole(0, seed=self.seed)

    def measure(self, case: Case, explanation: Map) -> Measured:
        masking = case.masking(self.partition, self.replacement)
        relevance = case.relevance(explanation, masking).double()  # (batch, features)
        kept = ablations(masking.many, self.samples, self.seed).to(relevance.device)
        # Those that leave a sample the same features are one: no last digit shall rank them.
        first = first_alike(kept, masking.counts)  # (batch, samples)
        needed, place = first.unique(return_inverse=True)

        def run() -> Tensor:
            scores = masking.scores(kept[needed]).flatten(0, 1)  # (batch · needed, classes)
            rows = torch.arange(masking.batch).repeat_interleave(len(needed))
            read = pick_reading(self.of, *read_answers(masking, scores, rows)[:3])
            return read.view(masking.batch, -1)

        done = case.once(self, run).to(relevance).gather(1, place)  # (batch, samples)
        largest = relevance.abs().amax(1, keepdim=True)
        said = (relevance / largest @ kept[needed].double().T).round(decimals=9).gather(1, place)
        found = similarity_in_rows(said, done)
        return nan_where(found.isnan(), found, "all ablations have the same sum of values, or the same score")


def ablations(many: int, samples: int, seed: int) -> Tensor:
    """Draw which features are left, (samples, many), True with a chance of ½. Those of a feature do not depend on how
    many others there are."""
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.random((many, samples)) < 0.5).T


def first_alike(kept: Tensor, counts: Tensor) -> Tensor:
    """The first of the ablations that leaves each sample, which has the first `counts` features, the same as this one,
    (batch, samples).

    >>> first_alike(torch.tensor([[True, False], [True, True]]), torch.tensor([1, 2])).tolist()
    [[0, 0], [0, 1]]
    """
    found = []
    for count in counts.tolist():
        _, which = kept[:, :count].unique(dim=0, return_inverse=True)
        found.append((which[:, None] == which).int().argmax(1))
    return torch.stack(found)
