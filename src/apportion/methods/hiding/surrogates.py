"""Methods that fit a linear model to the scores of masked inputs: LIME and Kernel SHAP."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from apportion.core.inputs import Inputs
from apportion.engines.masking.cut import Part
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import Columns, Partition, Superpixels, Tokens, Words, as_partition
from apportion.errors import check, check_whole
from apportion.methods.hiding.base import Hiding
from apportion.methods.hiding.coalitions import Design, Masks, Numbers
from apportion.methods.hiding.regression import Fit, constrained, highest, lasso, ridge
from apportion.results.explanation import Explanation

Distance = Literal["cosine", "euclidean"]
Sizes = Literal["coins", "uniform"]


@dataclass(frozen=True)
class LIME(Hiding):
    """LIME (Ribeiro et al. 2016, eq. 2): a linear model of the score near the input, fitted to masked inputs.

    The masks that the paper draws (each feature by a coin, `sizes="coins"`; for text first how many words
    go, `"uniform"`) and its kernel `√exp(−d²/w²)` both depend only on how many features stay. So masks are
    drawn in proportion to their weight instead of weighted after, without repeats and each with its
    complement (`paired`), which needs fewer model calls for the same standard error. The kernel's
    `distance` to the whole input is "cosine" with `width` 0.25, for rows "euclidean" with 0.75 √features.
    The model is ridge regression with strength `alpha`; `keep` leaves that many features, those with the
    largest coefficients or the last on the lasso's path (`select="lasso"`; needs scikit-learn).

    Features are superpixels of an image, words of a text, columns of a row (the paper's discretised columns:
    `replacement=Quartiles(data)`); patches for other grids. Hidden ones become the mask token, id 0, or zero
    (the paper's colour: `RegionMean()`). With `tolerance`, samples are doubled until every standard error is
    under that share of the largest coefficient, up to `max_samples`.

    The values of a feature's entries add up to its coefficient; `total` is `f(x)` minus the intercept, so the
    remainder is how far the linear model is off at the input itself. `notes` has for each input the weighted
    `r2`, the `intercept`, the `coefficients` and their `standard_errors`. Cost: `samples` forward passes and
    one more.

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
        _check_samples(self.samples, self.max_samples, self.tolerance)
        check("alpha", self.alpha, lambda v: 0 <= v < math.inf, "zero or more")
        if self.keep is not None:
            check_whole(1, keep=self.keep)
        if self.width is not None:
            check("width", self.width, lambda v: v > 0, "a positive distance, or None")
        for name, accepted in (
            ("select", ("highest", "lasso")),
            ("distance", ("cosine", "euclidean", None)),
            ("sizes", ("coins", "uniform", None)),
        ):
            check(name, getattr(self, name), accepted.__contains__, ", ".join(map(repr, accepted)))

    def cut(self, inputs: Inputs) -> Partition | None:
        return _cut(as_partition(self.partition), inputs)

    def explained(self, masking: Masking) -> Explanation:
        rows, texts = _kind(masking)
        distance = self.distance or ("euclidean" if rows else "cosine")
        sizes = self.sizes or ("uniform" if texts else "coins")

        def solve(masks: Masks, runs: Numbers, weights: Numbers, missing: Missing, where: Rows) -> Fit:
            scores, chosen = runs.mean(1), None
            if self.keep is not None and self.keep < masks.shape[1]:
                pick = lasso if self.select == "lasso" else highest
                chosen = pick(masks, scores, weights, self.keep)
            return ridge(masks, scores, weights, self.alpha, chosen, missing, self.paired, _noise(runs))

        def mass(count: int) -> Numbers:
            width = self.width or (0.25 if distance == "cosine" else 0.75 * math.sqrt(count))
            return sizes_of_masks(count, sizes, self.samples) * kernel(count, distance, width)

        fits, samples, warnings = _fitted(self, masking, mass, solve, self.samples)
        total = _numbers(masking.score) - fits.intercept
        return _explanation(self, masking, fits, total, samples, warnings)


@dataclass(frozen=True)
class KernelSHAP(Hiding):
    """Kernel SHAP (Lundberg & Lee 2017, theorem 2): Shapley values by weighted least squares.

    A coalition of s of M features has the weight `(M − 1) / (C(M, s) s (M − s))`, and the values are made to
    add up to `total`, `f(x)` minus the score with all features hidden. Up to `exact` features all coalitions
    are run and the values are the Shapley values. Beyond, `samples` of them (default: `2 M + 2048`) are drawn
    without repeats, each with its complement (`paired`). With `tolerance`, samples are doubled until every
    standard error is under that share of the largest value, up to `max_samples`.

    Features and replacements are those of `LIME`; `Background(data)` as the replacement averages over rows of
    the data (the interventional Shapley values), `Background(data, many=1)` draws one for each coalition. `notes`
    has for each input the weighted `r2`, the score with all hidden as `intercept`, the `coefficients` and their
    `standard_errors` (zero where exact). Cost: one forward pass per coalition (times the background rows), and
    three more, or an eighth more where the replacement is random.

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

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_samples(1 if self.samples is None else self.samples, self.max_samples, self.tolerance)
        check_whole(0, exact=self.exact)

    def cut(self, inputs: Inputs) -> Partition | None:
        return _cut(as_partition(self.partition), inputs)

    def explained(self, masking: Masking) -> Explanation:
        ends = torch.stack([torch.zeros(masking.many), torch.ones(masking.many)]).bool()
        total, random = np.zeros(masking.batch), _random(masking)
        known: dict[int, Numbers] = {}  # the scores at both ends, by the first row

        def solve(masks: Masks, runs: Numbers, weights: Numbers, missing: Missing, where: Rows) -> Fit:
            # The score with all hidden is in every value. If it is random, so is each value through it.
            found = known.get(where[0], np.zeros((len(where), 0, 2)))
            share = max(runs[0].size, self.samples or 2048) // 16
            more = (2 + share if random else 1) - found.shape[1]
            if more > 0:
                new = _numbers(masking.values(ends.repeat(more, 1), torch.from_numpy(where)))
                found = np.concatenate([found, new.reshape(len(where), more, 2)], 1)
                known[where[0]] = found
            (base, whole), unsure = found.mean(1).T, _noise(found)
            total[where] = whole - base
            scores, noise = runs.mean(1), _noise(runs)
            return constrained(masks, scores, weights, base, whole, missing, self.paired, noise, unsure)

        def mass(count: int) -> Numbers:
            sizes = np.arange(1, count)
            inner = (count - 1) / (sizes * (count - sizes))
            return np.pad(inner / inner.sum(), 1)

        fits, samples, warnings = _fitted(self, masking, mass, solve, self.samples, self.exact)
        return _explanation(self, masking, fits, total, samples, warnings)


def sizes_of_masks(count: int, sizes: Sizes, samples: int) -> Numbers:
    """How probable it is that a mask keeps 0, 1, …, `count` features; one sample is the whole input."""
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


Rows = npt.NDArray[np.intp]
Missing = Numbers | None
Solve = Callable[[Masks, Numbers, Numbers, Missing, Rows], Fit]
"""From the masks, the (rows, times, masks) scores under them, the weights of the masks, the share of those like each
that is missing, and the rows."""


def _random(masking: Masking) -> bool:
    """Whether one mask may have different scores."""
    return any(part.replacement.random for part in masking.parts)


def _fitted(
    method: LIME | KernelSHAP,
    masking: Masking,
    mass: Callable[[int], Numbers],
    solve: Solve,
    samples: int | None,
    exact: int = 0,
) -> tuple[Fit, int, tuple[str, ...]]:
    """Draw masks, run them and fit, for all samples with as many features at once; until certain enough."""
    batch, many = masking.batch, masking.many
    whole = Fit(*(np.zeros(shape) for shape in ((batch, many), batch, batch, (batch, many))))
    most, uncertain = 0, 0
    counts = masking.counts.numpy()
    random = _random(masking)
    for count in np.unique(counts).tolist():
        where = np.flatnonzero(counts == count)
        design = Design(count, mass(count), method.seed, method.paired)
        budget = samples or 2 * count + 2048
        if count <= exact:
            budget = max(2 ** (count + 1), budget if random else 0)
        runs = np.zeros((len(where), 1, 0))  # (rows, times that all masks were run, masks)

        def run(masks: Masks, times: int, where: Rows = where) -> Numbers:
            full = torch.nn.functional.pad(torch.from_numpy(masks), (0, many - masks.shape[1]), value=True)
            values = masking.values(full.repeat(times, 1), torch.from_numpy(where))
            return _numbers(values).reshape(len(where), times, -1)

        while True:
            before = runs[0].size
            new = design.draw(budget - len(design.masks))
            if len(new):
                runs = np.concatenate([runs, run(new, 1)], 2)
            masks = design.masks
            # Few masks with random replacements: what is left of the budget goes into repeating them.
            again = budget // max(1, len(masks)) - runs.shape[1] if random and design.complete else 0
            if again > 0 and len(masks):
                runs = np.concatenate([runs, run(masks, again)], 1)
            # As heavy as if each were drawn as often as in the paper: `alpha` means what it means there.
            weights = design.weights() * max(runs[0].size, samples or 1)
            missing = None if random else design.missing()
            fit = solve(masks, runs, weights, missing, where)
            open_rows = np.zeros(len(where), dtype=bool)
            if method.tolerance is not None:
                scale = np.abs(fit.coefficients).max(1, keepdims=True)
                open_rows = (fit.errors > method.tolerance * scale).any(1)
            drawn = runs[0].size
            if not open_rows.any() or drawn in (before, 0) or drawn >= method.max_samples:
                break
            budget = min(2 * max(budget, drawn), method.max_samples)
        uncertain += int(open_rows.sum())
        most = max(most, drawn)
        for name in ("intercept", "r2"):
            getattr(whole, name)[where] = getattr(fit, name)
        for name in ("coefficients", "errors"):
            getattr(whole, name)[where, :count] = getattr(fit, name)
    text = f"the standard errors of {uncertain} of {batch} samples are above tolerance after {most} samples"
    return whole, most, (text,) if uncertain else ()


def _cut(partition: Partition | None, inputs: Inputs) -> Partition | None:
    """Superpixels for pictures that are large enough to have some."""
    pictures = isinstance(inputs, Tensor) and inputs.dim() == 4 and min(inputs.shape[2:]) >= 32
    return Superpixels() if partition is None and pictures else partition


def _kind(masking: Masking) -> tuple[bool, bool]:
    """Whether all features are columns of rows, and whether all are tokens of texts."""

    def of_text(part: Part) -> bool:
        ids = not (part.x.is_floating_point() or masking.numpy or isinstance(part.way, Columns))
        return ids or isinstance(part.way, Tokens | Words)

    texts = all(map(of_text, masking.parts))
    return not texts and all(part.x.dim() <= 2 for part in masking.parts), texts


def _explanation(
    method: Any, masking: Masking, fits: Fit, total: Numbers, samples: int, warnings: tuple[str, ...]
) -> Explanation:
    def rows(table: Numbers) -> tuple[list[float], ...]:
        return tuple(row[:count] for row, count in zip(table.tolist(), masking.counts.tolist(), strict=True))

    notes = {
        "samples": samples,
        "r2": tuple(fits.r2.tolist()),
        "intercept": tuple(fits.intercept.tolist()),
        "coefficients": rows(fits.coefficients),
        "standard_errors": rows(fits.errors),
    }
    device = masking.score.device
    dtype = torch.float32 if device.type == "mps" else torch.float64
    values = masking.spread(torch.from_numpy(fits.coefficients).to(device, dtype))
    whole = torch.from_numpy(total).to(device, dtype)
    return masking.explanation(method, values, whole, notes=notes, warnings=warnings)


def _noise(runs: Numbers) -> Numbers | None:
    """The variance of the mean over (rows, times, masks) scores; None where each was run once."""
    times = runs.shape[1]
    return runs.var(1, ddof=1) / times if times > 1 else None


def _numbers(scores: Tensor) -> Numbers:
    return scores.cpu().double().numpy()


def _check_samples(samples: int, most: int, tolerance: float | None) -> None:
    check_whole(1, samples=samples, max_samples=most)
    if tolerance is not None:
        check("tolerance", tolerance, lambda v: v > 0, "a positive share, or None")
