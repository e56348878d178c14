"""LIME: a linear model of the score near the input, fitted to masked inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from apportion.core.settings import checked, later
from apportion.engines.masking.binned import Quartiles
from apportion.engines.masking.cut import Part
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import Columns, Partition, Tokens, Words
from apportion.errors import InputError, check, check_whole
from apportion.methods.hiding._coalitions import Masks, Numbers
from apportion.methods.hiding._lime_table import draw
from apportion.methods.hiding._regression import Fit, highest, lasso, ridge
from apportion.methods.hiding._surrogates import (
    Missing,
    Rows,
    Solve,
    Surrogate,
    as_numbers,
    variance_of_mean,
)
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
        sampling (str, default "masks"): "masks" as above, or, of rows of a table with rows of data as `replacement`,
            "lime": as the package lime draws them, number for number. A column is kept as often as its quartile, or
            category, is in the data, and drawn inside it from a normal; needs SciPy.
        categorical (tuple of int, default ()): With "lime", the columns that hold categories.

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
    sampling: Literal["masks", "lime"] = later("masks")
    categorical: tuple[int, ...] = later(())

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
            ("sampling", ("masks", "lime")),
        ):
            check(name, getattr(self, name), accepted.__contains__, ", ".join(map(repr, accepted)))
        if self.sampling == "lime":
            check("sizes", self.sizes, lambda v: v is None, "None with sampling='lime'")
            check("tolerance", self.tolerance, lambda v: v is None, "None with sampling='lime'")
        else:
            check("categorical", self.categorical, lambda v: not len(v), "() unless sampling='lime'")

    def explain(self, masking: Masking) -> Explanation[Any, Tensor]:
        rows, texts = _judge_features(masking)
        distance = self.distance or ("euclidean" if rows else "cosine")
        sizes = self.sizes or ("uniform" if texts else "coins")

        def solve(
            masks: Masks, runs: Numbers, weights: Numbers, missing: Missing, where: Rows, kept: dict[Any, Any]
        ) -> Fit:
            scores, paired = runs.mean(1), self.paired and self.sampling == "masks"
            chosen, noise = self._choose(masks, scores, weights), variance_of_mean(runs)
            return ridge(masks, scores, weights, self.alpha, chosen, missing, paired, noise, kept)

        def weigh(count: int) -> Numbers:
            width = self.width or (0.25 if distance == "cosine" else 0.75 * math.sqrt(count))
            return kernel(count, distance, width)

        if self.sampling == "lime":
            fits, samples, warnings = self._fit_as_lime(masking, weigh(masking.many), solve)
        else:
            fits, samples, warnings = self.fit(
                masking, lambda count: sizes_of_masks(count, sizes, self.samples) * weigh(count), solve
            )
        total = as_numbers(masking.score) - fits.intercept
        return self.explanation(masking, fits, total, samples, warnings)

    def _choose(self, masks: Masks, scores: Numbers, weights: Numbers) -> Masks | None:
        """The features that the linear model may use, (batch, features); None: all."""
        if self.keep is None or self.keep >= masks.shape[1]:
            return None
        return (lasso if self.select == "lasso" else highest)(masks, scores, weights, self.keep)

    def _fit_as_lime(
        self, masking: Masking, weights: Numbers, solve: Solve
    ) -> tuple[Fit, int, tuple[str, ...]]:
        """Draw rows as the package lime does, for each sample from the same seed, run them and fit."""
        part, data = masking.parts[0], getattr(masking.parts[0].replacement, "data", None)
        one_each = len(masking.parts) == 1 and part.x.dim() == 2 and part.each
        if not one_each or not isinstance(data, Tensor) or data.dim() != 2:
            raise InputError(
                "sampling='lime' is for rows of a table, each column a feature, with rows of data as the replacement; "
                "accepted: LIME(sampling='lime', replacement=Quartiles(data)), or a Tabular with a background"
            )
        columns = part.x.shape[1]
        check(
            "categorical",
            self.categorical,
            lambda v: set(v) <= set(range(columns)),
            f"columns 0 to {columns - 1}",
        )
        bins = part.replacement.bins if isinstance(part.replacement, Quartiles) else 4
        x, table = part.x.detach().cpu().double().numpy(), data.detach().cpu().double().numpy()
        fits = []
        for i, row in enumerate(x):
            kept, drawn = draw(row, table, self.categorical, bins, self.samples, self.seed)
            near = torch.from_numpy(drawn).to(
                part.x.device, part.x.dtype if part.x.is_floating_point() else None
            )
            scores = torch.cat([masking.picked(rows, i) for rows in near.split(self.chunk or 4096)])
            runs = as_numbers(scores)[None, None]  # (1, 1, samples)
            fits.append(solve(kept, runs, weights[kept.sum(1)], None, np.array([i]), {}))
        names = ("coefficients", "intercept", "r2", "errors")
        whole = Fit(*(np.concatenate([getattr(fit, name) for fit in fits]) for name in names))
        return whole, self.samples, ()


@lru_cache(maxsize=64)
def sizes_of_masks(count: int, sizes: Sizes, samples: int) -> Numbers:
    """The probability that a mask keeps 0, 1, …, `count` features; one sample is the whole input."""
    if sizes == "coins":
        factorial = np.cumsum(np.log(np.maximum(np.arange(count + 1), 1)))  # its logarithm
        share: Numbers = np.exp(factorial[-1] - factorial - factorial[::-1] - count * math.log(2))
    else:
        share = np.full(count + 1, 1 / count)
        share[count] = 0
    share[count] += 1 / samples
    share.setflags(write=False)
    return share


@lru_cache(maxsize=64)
def kernel(count: int, distance: Distance, width: float) -> Numbers:
    """`√exp(−d²/w²)` of masks that keep 0, 1, …, `count` features, at distance d from the one that keeps
    all."""
    kept = np.arange(count + 1)
    far = 1 - np.sqrt(kept / count) if distance == "cosine" else np.sqrt(count - kept)
    near: Numbers = np.sqrt(np.exp(-(far**2) / width**2))
    near.setflags(write=False)
    return near


def _judge_features(masking: Masking) -> tuple[bool, bool]:
    """Tell if all features are columns of rows, and if all are tokens of texts."""

    def of_text(part: Part) -> bool:
        ids = not (part.x.is_floating_point() or masking.numpy or isinstance(part.way, Columns))
        return ids or isinstance(part.way, Tokens | Words)

    texts = all(map(of_text, masking.parts))
    return not texts and all(part.x.dim() <= 2 for part in masking.parts), texts
