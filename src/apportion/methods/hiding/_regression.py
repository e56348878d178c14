"""Weighted linear models of a score over masks, and how sure of their coefficients one can be.

All in NumPy: the arrays are small, and what a call costs beyond its arithmetic is a third of what it costs in torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from apportion.errors import InputError
from apportion.methods.hiding._coalitions import Masks, Numbers


@dataclass(frozen=True, eq=False)
class Fit:
    """A linear model for each of several scores.

    Attributes:
        coefficients (array): (batch, features).
        intercept (array): (batch,).
        r2 (array): The weighted share of the variance that it explains, (batch,); 0 where there are too few masks
            to tell.
        errors (array): Standard errors of the coefficients, (batch, features); infinite there.
    """

    coefficients: Numbers
    intercept: Numbers
    r2: Numbers
    errors: Numbers


@dataclass(frozen=True, eq=False)
class Reach:
    """How far each row reaches into each coefficient, (…, masks, features), with the products that standard errors
    take of it."""

    rows: Numbers

    @cached_property
    def squares(self) -> Numbers:
        return self.rows**2

    @cached_property
    def pairs(self) -> Numbers:
        return self.rows[..., 0::2, :] * self.rows[..., 1::2, :]


def ridge(
    masks: Masks,
    scores: Numbers,
    weights: Numbers,
    alpha: float = 1.0,
    chosen: Masks | None = None,
    missing: Numbers | None = None,
    paired: bool = False,
    noise: Numbers | None = None,
    kept: dict[Any, Any] | None = None,
) -> Fit:
    """Minimise `Σᵢ wᵢ (yᵢ − b − zᵢ·c)² + α |c|²`.

    Standard errors are those of the sandwich estimator (White 1980), of pairs of rows where they were drawn in
    pairs.

    Args:
        masks (array): z, (masks, features).
        scores (array): y, (batch, masks).
        weights (array): w, (masks,).
        alpha (float, default 1.0): α.
        chosen (array, default None): Leaves the other coefficients at zero, (batch, features); None: all are free.
        missing (array, default None): The share of each row's stratum that was left out (Cochran 1977, finite
            population), (masks,).
        paired (bool, default False): Rows 0 and 1, 2 and 3, … were drawn together.
        noise (array, default None): Variance of the mean scores, (batch, masks), where every mask there is was run
            several times: nothing else is uncertain then.
        kept (dict, default None): What all fits to these masks and weights have in common, put there by the first.

    >>> z = np.array([[False, False], [True, False], [False, True], [True, True]])
    >>> fit = ridge(z, (1 + 2 * z[:, 0] - z[:, 1])[None], np.ones(4), alpha=0.0)
    >>> fit.coefficients.round(6).tolist(), fit.r2.tolist()
    ([[2.0, -1.0]], [1.0])
    """
    kept = {} if kept is None else kept
    if "centred" not in kept:
        z, share, root = masks.astype(float), weights / weights.sum(), np.sqrt(weights)
        centre = share @ z  # (features,)
        kept["centred"] = share, root, centre, (z - centre) * root[:, None]
    share, root, centre, zc = kept["centred"]
    mean = scores @ share  # (batch,)
    yc = (scores - mean[:, None]) * root
    if chosen is not None:
        gram = np.where(chosen[:, :, None] & chosen[:, None, :], zc.T @ zc, 0.0)
        reach = Reach(np.where(chosen[:, None], zc @ _invert(gram, alpha), 0.0))  # (batch, masks, features)
        coefficients = (yc[:, None] @ reach.rows)[:, 0]
    else:
        if alpha not in kept:  # (A'A + α)⁻¹ A' = A' (A A' + α)⁻¹: the smaller of the two matrices
            few = len(zc) < zc.shape[1]
            kept[alpha] = Reach(_invert(zc @ zc.T, alpha) @ zc if few else zc @ _invert(zc.T @ zc, alpha))
        reach = kept[alpha]
        coefficients = yc @ reach.rows  # (batch, features)
    residual = yc - coefficients @ zc.T  # (batch, masks)
    r2 = explained_share(residual, yc)
    if noise is None:
        free = zc.shape[1] if chosen is None else int(chosen.sum(1).max())
        errors = standard_errors(reach, residual, free, missing, paired)
        r2 = np.where(np.isinf(errors).any(1), 0.0, r2)
    else:
        errors = np.sqrt(_sum_over_masks(noise * weights, reach.squares))
    return Fit(coefficients, mean - coefficients @ centre, r2, errors)


def _invert(gram: Numbers, alpha: float) -> Numbers:
    """The pseudo-inverse of symmetric matrices with `alpha` added to the diagonal: their inverse, which takes a tenth
    of the time, where they are far from singular."""
    matrix = gram + alpha * np.eye(gram.shape[-1])
    try:
        factor = np.linalg.cholesky(matrix).diagonal(axis1=-2, axis2=-1)
        regular = bool((factor.min(-1) > 1e-4 * factor.max(-1)).all())
    except np.linalg.LinAlgError:
        regular = False
    return np.asarray(np.linalg.inv(matrix) if regular else np.linalg.pinv(matrix, hermitian=True))


def explained_share(residual: Numbers, centred: Numbers) -> Numbers:
    """The share of the squares of (batch, masks) scores that is not in their residuals."""
    left, spread = (residual**2).sum(1), (centred**2).sum(1)
    return np.asarray(1 - np.divide(left, spread, out=np.zeros_like(left), where=spread > 0))


def standard_errors(
    reach: Reach, weighted: Numbers, parameters: int, missing: Numbers | None, paired: bool
) -> Numbers:
    """(batch, features) standard errors from how far each row reaches into each coefficient and the (batch, masks)
    weighted residuals. Infinite where there are no more
    equations than `parameters`: any residual is zero then, and says nothing."""
    clusters = weighted.shape[1]
    if missing is not None:
        if not missing.any():
            return np.zeros((len(weighted), reach.rows.shape[-1]))
        weighted = weighted * np.sqrt(missing)

    variance = _sum_over_masks(weighted**2, reach.squares)  # (batch, features)
    if paired and clusters % 2 == 0:
        # The influence of a pair is the sum of that of its two rows; its square is multiplied out.
        variance += 2 * _sum_over_masks(weighted[:, 0::2] * weighted[:, 1::2], reach.pairs)
        clusters //= 2  # a pair is one equation for the coefficients, of which there are as many as before
    left = clusters - parameters - 1
    if left < 1:
        return np.full(variance.shape, np.inf)
    return np.asarray(np.sqrt(np.maximum(variance * (clusters / left), 0)))


def _sum_over_masks(row: Numbers, table: Numbers) -> Numbers:
    """(batch, features) sums of (masks, features) or (batch, masks, features) over masks."""
    return np.asarray((row[:, None] @ table)[:, 0])


def highest(masks: Masks, scores: Numbers, weights: Numbers, keep: int) -> Masks:
    """The `keep` features with the largest coefficients in a ridge regression of all, (batch, features)."""
    coefficients = ridge(masks, scores, weights, alpha=0.01).coefficients
    best = (-np.abs(coefficients)).argsort(axis=1, kind="stable")[:, :keep]
    chosen = np.zeros(coefficients.shape, dtype=bool)
    np.put_along_axis(chosen, best, True, 1)
    return chosen


def lasso(masks: Masks, scores: Numbers, weights: Numbers, keep: int) -> Masks:
    """The last set of at most `keep` features on the path of the weighted lasso (Efron et al. 2004), (batch,
    features)."""
    try:
        from sklearn.linear_model import lars_path  # type: ignore[import-untyped]
    except ImportError:
        raise InputError("select='lasso' needs scikit-learn: pip install 'apportion[tabular]'") from None

    root = np.sqrt(weights)
    zc = (masks - np.average(masks, axis=0, weights=weights)) * root[:, None]
    gram = zc.T @ zc if len(zc) > zc.shape[1] else None  # wider ones would hold more than the masks do
    chosen = np.zeros((len(scores), masks.shape[1]), dtype=bool)
    for row, target in zip(chosen, scores, strict=True):
        yc = (target - np.average(target, weights=weights)) * root
        _, _, path = lars_path(zc, yc, Gram=gram, method="lasso", max_iter=8 * min(zc.shape))
        few = np.flatnonzero(np.count_nonzero(path, axis=0) <= keep)
        row[:] = path[:, few[-1]] != 0
    return chosen


def constrained(
    masks: Masks,
    scores: Numbers,
    weights: Numbers,
    base: Numbers,
    whole: Numbers,
    missing: Numbers | None = None,
    paired: bool = False,
    noise: Numbers | None = None,
    unsure: Numbers | None = None,
    kept: dict[Any, Any] | None = None,
) -> Fit:
    """Minimise `Σᵢ wᵢ (yᵢ − base − zᵢ·c)²` such that the coefficients add up to `whole − base`.

    The other arguments are those of `ridge`.

    Args:
        base (array): The score of the empty mask, (batch,).
        whole (array): The score of the full mask, (batch,).
        unsure (array, default None): Variance of `base` and `whole`, (batch, 2); None: they are certain.
    """
    gap = whole - base
    unsure = np.zeros((len(gap), 2)) if unsure is None else unsure
    if masks.shape[1] == 1:
        return Fit(gap[:, None], base, np.ones_like(gap), np.sqrt(unsure.sum(1))[:, None])
    kept = {} if kept is None else kept
    if "constrained" not in kept:
        root = np.sqrt(weights)
        z: Numbers = masks.astype(float) * root[:, None]  # (masks, features)
        # With the pseudo-inverse P of the smaller matrix, Z (Z'Z)⁺ = P Z and (Z'Z)⁺ 1 = Z' P P Z 1.
        if len(z) < z.shape[1]:
            plain = _invert(z @ z.T, 0.0) @ z  # (masks, features)
            ones = plain.sum(1) @ plain
        else:
            inverse = _invert(z.T @ z, 0.0)
            plain, ones = z @ inverse, inverse.sum(1)
        ones /= ones.sum()  # (features,)
        reach = Reach(plain - plain.sum(1)[:, None] * ones)  # the sum over features is Z (Z'Z)⁺ 1
        kept["constrained"] = root, z, plain, ones, reach
    root, z, plain, ones, reach = kept["constrained"]
    above = (scores - base[:, None]) * root  # (batch, masks)
    free = above @ plain  # (batch, features)
    coefficients = free + (gap - free.sum(1))[:, None] * ones
    residual = above - coefficients @ z.T  # (batch, masks)
    r2 = explained_share(residual, root * (scores - (scores @ weights / weights.sum())[:, None]))
    if noise is None:
        errors = standard_errors(reach, residual, masks.shape[1] - 1, missing, paired)
        r2 = np.where(np.isinf(errors).any(1), 0.0, r2)
    else:
        errors = np.sqrt(_sum_over_masks(noise * weights, reach.squares))
    ends = np.stack([root @ reach.rows + ones, ones])  # how far base (downwards) and whole reach
    return Fit(coefficients, base, r2, np.sqrt(errors**2 + unsure @ ends**2))
