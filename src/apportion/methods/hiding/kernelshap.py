"""Kernel SHAP: Shapley values by weighted least squares over coalitions of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from apportion.core.settings import checked, later
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import Partition
from apportion.errors import InputError, check, check_whole
from apportion.methods.hiding._coalitions import Masks, Numbers
from apportion.methods.hiding._regression import Fit, constrained
from apportion.methods.hiding._surrogates import (
    Missing,
    Rows,
    Surrogate,
    as_numbers,
    has_random_scores,
    variance_of_mean,
)
from apportion.results.explanation import Explanation

MOST_EXACT = 20  # features of which all coalitions are run: a million


@dataclass(frozen=True)
@checked
class KernelSHAP(Surrogate):
    """Estimate Shapley values by weighted least squares over coalitions (Lundberg & Lee 2017, theorem 2).

    A coalition of s of M features has the weight `(M − 1) / (C(M, s) s (M − s))`, and the values are made to add
    up to `total`, `f(x)` minus the score with all features hidden. Where all coalitions are run the values are the
    Shapley values; otherwise coalitions are drawn without repeats.

    `Background(data)` as the replacement averages over rows of the data (the interventional Shapley values),
    `Background(data, many=1)` draws one for each coalition. With `link="logit"` the values are those of the log-odds
    of the mean probability, and add up to its change. `notes` has for each input the weighted `r2`, the score
    with all hidden as `intercept`, the `coefficients` and their `standard_errors` (zero where exact). Cost: one
    forward pass per coalition (times the background rows), and three more, or an eighth more where the replacement
    is random.

    Settings: those below and those of [Hiding][apportion.methods.hiding.base.Hiding].

    Attributes:
        samples (int, default None): Coalitions that are drawn; None: `2 M + 2048`.
        exact (int, default 12, features): Up to so many features all coalitions are run.
        paired (bool, default True): Draw each coalition with its complement.
        tolerance (float, default None, share of the largest value): Double the samples until every standard error
            is below; None: draw `samples`.
        max_samples (int, default 32000): Most coalitions that a tolerance may ask for.
        partition (Partition or Tensor, default None): The features; None: superpixels of an image, words of a
            text, columns of a row, patches of other grids.
        link (str, default "identity"): What is apportioned: the score itself, or "logit", the log-odds of a
            probability.

    >>> model = lambda x: x[:, 0] * x[:, 1] + x[:, 2]
    >>> KernelSHAP()(model, torch.tensor([[2.0, 3.0, 5.0]])).values.round(decimals=4).tolist()
    [[3.0, 3.0, 5.0]]
    """

    samples: int | None = None
    exact: int = 12
    paired: bool = True
    tolerance: float | None = None
    max_samples: int = 32000
    partition: Partition | Tensor | None = None
    link: Literal["identity", "logit"] = later("identity")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(0, most=MOST_EXACT, exact=self.exact)
        check("link", self.link, ("identity", "logit").__contains__, "'identity', 'logit'")

    def read(self, masking: Masking, scores: Tensor) -> Numbers:
        """The scores, or their log-odds: of the mean over a background, as it is the mean that is a probability."""
        if self.link == "identity":
            return as_numbers(scores)
        if has_random_scores(masking):
            raise InputError(
                "link='logit' is of the mean over a background, which a random replacement does not run; accepted: "
                "Background(data) with all its rows"
            )
        found = as_numbers(scores)
        if not ((found > 0) & (found < 1)).all():
            low, high = found.min(), found.max()
            raise InputError(
                f"link='logit' needs probabilities between 0 and 1, but the scores are from {low:.4g} to {high:.4g}; "
                "accepted: a model that returns probabilities, or link='identity'"
            )
        log_odds: Numbers = np.log(found) - np.log1p(-found)
        return log_odds

    def explain(self, masking: Masking) -> Explanation[Any, Tensor]:
        ends = torch.stack([torch.zeros(masking.many), torch.ones(masking.many)]).bool()
        total, random = np.zeros(masking.batch), has_random_scores(masking)
        known: dict[int, Numbers] = {}  # the scores at both ends, by the first row

        def solve(
            masks: Masks, runs: Numbers, weights: Numbers, missing: Missing, where: Rows, kept: dict[Any, Any]
        ) -> Fit:
            # The score with all hidden is in every value. If it is random, so is each value through it.
            found = known.get(where[0], np.zeros((len(where), 0, 2)))
            share = max(runs[0].size, self.samples or 2048) // 16
            more = (2 + share if random else 1) - found.shape[1]
            if more > 0:
                new = self.read(masking, masking.values(ends.repeat(more, 1), torch.from_numpy(where)))
                found = np.concatenate([found, new.reshape(len(where), more, 2)], 1)
                known[where[0]] = found
            (base, whole), unsure = found.mean(1).T, variance_of_mean(found)  # (rows,) each, (rows, 2)
            total[where] = whole - base
            scores, noise = runs.mean(1), variance_of_mean(runs)
            return constrained(masks, scores, weights, base, whole, missing, self.paired, noise, unsure, kept)

        def mass(count: int) -> Numbers:
            sizes = np.arange(1, count)
            inner = (count - 1) / (sizes * (count - sizes))
            return np.pad(inner / inner.sum(), 1)

        fits, samples, warnings = self.fit(masking, mass, solve, self.exact, known)
        return self.explanation(masking, fits, total, samples, warnings)
