"""LIME: a linear model of the score near the input, fitted to masked inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from apportion.core.settings import checked
from apportion.engines.masking.cut import Part
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import Columns, Partition, Tokens, Words
from apportion.errors import check, check_whole
from apportion.methods.hiding._coalitions import Masks, Numbers
from apportion.methods.hiding._regression import Fit, highest, lasso, ridge
from apportion.methods.hiding._surrogates import Missing, Rows, Surrogate, as_numbers, variance_of_mean
from apportion.results.explanation import Explanation

Distance = Literal["cosine", "euclidean"]
Sizes = Literal["coins", "uniform"]


@dataclass(frozen=True)
@checked
class LIME(Surrogate):
    """Fit a linear model of the score near the input to masked inputs (Ribeiro et al. 2016, eq. 2).

    The masks that the paper draws and its kernel `√exp(−d²/w²)` both depend only on how many features stay. So
    masks are drawn in proportion to their weight instead of weighted after, without repeats, which needs fewer
    model calls for the same standard error. The linear model is ridge regression. The paper's discretised columns
    are `replacement=Quartiles(data)`, its colour for superpixels is `RegionMean()`.

    The values of a feature's entries add up to its coefficient; `total` is `f(x)` minus the intercept, so the
    remainder is how far the linear model is off at the input itself. `notes` has for each input the weighted
    `r2`, the `intercept`, the `coefficients` and their `standard_errors`. Cost: `samples` forward passes and one
    more.

    Settings: those below and those of [Hiding][apportion.methods.hiding.base.Hiding].

    Attributes:
        samples (int, default 1000): Masks that are drawn.
        alpha (float, default 1.0): Strength of the ridge regression.
        keep (int, default None, features): Features that the linear model may use; None: all.
        select (str, default "highest"): Which features are kept: "highest", those with the largest coefficients, or
            "lasso", the last on the lasso's path (needs scikit-learn).
        distance (str, default None): Of a mask to the whole input, "cosine" or "euclidean"; None: "euclidean" for
            rows, "cosine" otherwise.
        width (float, default None): Width w of the kernel; None: 0.25 for "cosine", 0.75 √features for "euclidean".
        sizes (str, default None): How many features a mask keeps: "coins", each feature by a coin, or "uniform",
            first how many go; None: "uniform" for texts, "coins" otherwise.
        paired (bool, default True): Draw each mask with its complement.
        tolerance (float, default None, share of the largest coefficient): Double the samples until every standard
            error is below; None: draw `samples`.
        max_samples (int, default 16000): Most masks that a tolerance may ask for.
        partition (Partition or Tensor, default None): The features; None: superpixels of an image, words of a
            text, columns of a row, patches of other grids.

    >>> model = lambda x: 1 + x @ torch.tensor([2.0, -3.0, 4.0])
    >>> e = LIME(alpha=0.0)(model, torch.ones(1, 3))
    >>> e.values.round(decimals=4).tolist(), round(e.notes["r2"][0], 4)
    ([[2.0, -3.0, 4.0]], 1.0)
    """

    samples: int = 1000
    alpha: float = 1.0
    keep: int | None = None
    select: Literal["highest", "lasso"] = "highest"
    distance: Distance | None = None
    width: float | None = None
    sizes: Sizes | None = None
    paired: bool = True
    tolerance: float | None = None
    max_samples: int = 16000
    partition: Partition | Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(1, samples=self.samples, keep=1 if self.keep is None else self.keep)
        check("alpha", self.alpha, lambda v: 0 <= v < math.inf, "zero or more")
        if self.width is not None:
            check("width", self.width, lambda v: v > 0, "a positive distance, or None")
        for name, accepted in (
            ("select", ("highest", "lasso")),
            ("distance", ("cosine", "euclidean", None)),
            ("sizes", ("coins", "uniform", None)),
        ):
            check(name, getattr(self, name), accepted.__contains__, ", ".join(map(repr, accepted)))

    def explain(self, masking: Masking) -> Explanation:
        rows, texts = _judge_features(masking)
        distance = self.distance or ("euclidean" if rows else "cosine")
        sizes = self.sizes or ("uniform" if texts else "coins")

        def solve(masks: Masks, runs: Numbers, weights: Numbers, missing: Missing, where: Rows) -> Fit:
            scores, chosen = runs.mean(1), None
            if self.keep is not None and self.keep < masks.shape[1]:
                pick = lasso if self.select == "lasso" else highest
                chosen = pick(masks, scores, weights, self.keep)
            return ridge(
                masks, scores, weights, self.alpha, chosen, missing, self.paired, variance_of_mean(runs)
            )

        def mass(count: int) -> Numbers:
            width = self.width or (0.25 if distance == "cosine" else 0.75 * math.sqrt(count))
            return sizes_of_masks(count, sizes, self.samples) * kernel(count, distance, width)

        fits, samples, warnings = self.fit(masking, mass, solve)
        total = as_numbers(masking.score) - fits.intercept
        return self.explanation(masking, fits, total, samples, warnings)


def sizes_of_masks(count: int, sizes: Sizes, samples: int) -> Numbers:
    """The probability that a mask keeps 0, 1, …, `count` features; one sample is the whole input."""
    if sizes == "coins":
        factorial = np.cumsum(np.log(np.maximum(np.arange(count + 1), 1)))  # its logarithm
        share: Numbers = np.exp(factorial[-1] - factorial - factorial[::-1] - count * math.log(2))
    else:
        share = np.full(count + 1, 1 / count)
        share[count] = 0
    share[count] += 1 / samples
    return share


def kernel(count: int, distance: Distance, width: float) -> Numbers:
    """`√exp(−d²/w²)` of masks that keep 0, 1, …, `count` features, at distance d from the one that keeps
    all."""
    kept = np.arange(count + 1)
    far = 1 - np.sqrt(kept / count) if distance == "cosine" else np.sqrt(count - kept)
    return np.sqrt(np.exp(-(far**2) / width**2))


def _judge_features(masking: Masking) -> tuple[bool, bool]:
    """Tell if all features are columns of rows, and if all are tokens of texts."""

    def of_text(part: Part) -> bool:
        ids = not (part.x.is_floating_point() or masking.numpy or isinstance(part.way, Columns))
        return ids or isinstance(part.way, Tokens | Words)

    texts = all(map(of_text, masking.parts))
    return not texts and all(part.x.dim() <= 2 for part in masking.parts), texts
