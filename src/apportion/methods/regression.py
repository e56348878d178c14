"""Weighted linear models of a score over masks, and how sure of their coefficients one can be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Fit:
    """A linear model for each of `batch` scores: `coefficients` and `errors` (standard errors) are (batch,
    features); `intercept` and `r2` (the weighted share of the variance that it explains) are (batch,)."""

    coefficients: Tensor
    intercept: Tensor
    r2: Tensor
    errors: Tensor


def ridge(
    masks: Tensor,
    scores: Tensor,
    weights: Tensor,
    alpha: float = 1.0,
    chosen: Tensor | None = None,
    missing: Tensor | None = None,
    paired: bool = False,
) -> Fit:
    """Minimise `Σᵢ wᵢ (yᵢ − b − zᵢ·c)² + α |c|²` for (masks, features) z and (batch, masks) y.

    `chosen`, (batch, features), leaves the other coefficients at zero. Standard errors are those of the
    sandwich estimator (White 1980), of pairs of rows where they were drawn in pairs; `missing` is the share
    of each row's stratum that was left out (Cochran 1977, finite population).

    >>> z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> fit = ridge(z, (1 + 2 * z[:, 0] - z[:, 1])[None], torch.ones(4), alpha=0.0)
    >>> fit.coefficients.round(decimals=6).tolist(), fit.r2.tolist()
    ([[2.0, -1.0]], [1.0])
    """
    z, y, w = masks.double(), scores.double(), weights.double()
    share, root = w / w.sum(), w.sqrt()
    centre, mean = share @ z, y @ share
    zc, yc = (z - centre) * root[:, None], (y - mean[:, None]) * root
    if chosen is None and alpha > 0 and len(zc) < zc.shape[1]:  # as below, by a smaller matrix
        reach = torch.linalg.solve(zc @ zc.T + alpha * torch.eye(len(zc)).to(zc), zc)
    else:
        gram = zc.T @ zc
        gram.diagonal().add_(alpha)
        if chosen is not None:
            gram = gram.where(chosen[:, :, None] & chosen[:, None, :], 0.0)
        reach = zc @ torch.linalg.pinv(gram, hermitian=True)
    if chosen is None:
        coefficients = yc @ reach
    else:
        coefficients = (yc.unsqueeze(1) @ reach).squeeze(1).where(chosen, 0.0)
    residual = yc - coefficients @ zc.T
    r2 = explained(residual, yc)
    errors = standard_errors(reach, residual, zc.shape[1], missing, paired)
    return Fit(coefficients, mean - coefficients @ centre, r2, errors)


def explained(residual: Tensor, centred: Tensor) -> Tensor:
    """The share of the squares of (batch, masks) scores that is not in their residuals."""
    spread = centred.square().sum(1)
    tiny = torch.finfo(spread.dtype).tiny
    return torch.where(spread > 0, 1 - residual.square().sum(1) / spread.clamp(min=tiny), 1.0)


def standard_errors(
    reach: Tensor, weighted: Tensor, parameters: int, missing: Tensor | None, paired: bool
) -> Tensor:
    """(batch, features) standard errors from how far each row reaches into each coefficient, (masks,
    features) or (batch, masks, features), and the (batch, masks) weighted residuals."""
    rows = weighted.shape[1]
    if missing is not None:
        weighted = weighted * missing.to(weighted).sqrt()

    def over_rows(row: Tensor, table: Tensor) -> Tensor:
        return (row.unsqueeze(1) @ table).squeeze(1)

    if paired and rows % 2 == 0:
        # The influence of a pair is the sum of that of its two rows; its square is multiplied out.
        (a, b), (first, second) = ((t[..., 0::2, :], t[..., 1::2, :]) for t in (reach, weighted[..., None]))
        first, second = first.squeeze(-1), second.squeeze(-1)
        variance = (
            over_rows(first**2, a**2) + over_rows(second**2, b**2) + 2 * over_rows(first * second, a * b)
        )
        clusters = rows // 2
    else:
        variance, clusters = over_rows(weighted**2, reach**2), rows
    freedom = clusters / max(1, clusters - parameters // (2 if paired else 1) - 1)
    return (variance * freedom).clamp(min=0).sqrt()


def highest(masks: Tensor, scores: Tensor, weights: Tensor, keep: int) -> Tensor:
    """The `keep` features with the largest coefficients in a ridge regression of all, (batch, features)."""
    coefficients = ridge(masks, scores, weights, alpha=0.01).coefficients
    best = coefficients.abs().argsort(dim=1, descending=True, stable=True)[:, :keep]
    return torch.zeros_like(coefficients, dtype=torch.bool).scatter(1, best, True)


def lasso(masks: Tensor, scores: Tensor, weights: Tensor, keep: int) -> Tensor:
    """The last set of at most `keep` features on the path of the weighted lasso, (batch, features)."""
    z, y, w = (t.double().cpu().numpy() for t in (masks, scores, weights))
    zc = (z - np.average(z, axis=0, weights=w)) * np.sqrt(w)[:, None]
    gram = zc.T @ zc
    chosen = np.zeros((len(y), z.shape[1]), dtype=bool)
    for row, target in zip(chosen, y, strict=True):
        yc = (target - np.average(target, weights=w)) * np.sqrt(w)
        row[lasso_support(gram, zc.T @ yc, keep)] = True
    return torch.from_numpy(chosen).to(scores.device)


def lasso_support(gram: np.ndarray, pull: np.ndarray, keep: int) -> list[int]:
    """Least angle regression with the lasso's drops (Efron et al. 2004) from `XᵀX` and `Xᵀy`.

    >>> lasso_support(np.eye(3), np.array([1.0, -3.0, 0.5]), 2)
    [0, 1]
    """
    many = len(pull)
    beta, level = np.zeros(many), float(np.abs(pull).max(initial=0))
    active: list[int] = []
    found: list[int] = []
    tiny = 1e-12 * max(level, 1e-300)
    entering: int | None = int(np.abs(pull).argmax()) if level > 0 else None
    for _ in range(8 * many):
        if level <= tiny or (entering is None and not active):
            break
        if entering is not None:
            active = sorted([*active, entering])
        gap = pull - gram @ beta
        signs = np.sign(gap[active])
        step = np.linalg.lstsq(gram[np.ix_(active, active)], signs, rcond=None)[0]
        slope = gram[:, active] @ step
        rest = np.setdiff1d(np.arange(many), active)
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.concatenate(
                [(level - gap[rest]) / (1 - slope[rest]), (level + gap[rest]) / (1 + slope[rest])]
            )
            fall = -beta[active] / step
        reach[~(reach > tiny)] = np.inf
        fall[~(fall > tiny)] = np.inf
        first, drop = reach.min(initial=np.inf), fall.min(initial=np.inf)
        length = min(first, drop, level)
        beta[active] += length * step
        level -= length
        entering = None
        if drop == length:
            gone = active[int(fall.argmin())]
            beta[gone] = 0.0
            active = [j for j in active if j != gone]
        elif first == length:
            entering = int(np.concatenate([rest, rest])[int(reach.argmin())])
        support = [j for j in range(many) if beta[j] != 0]
        if len(support) <= keep:
            found = support
    return found


def constrained(
    masks: Tensor,
    scores: Tensor,
    weights: Tensor,
    base: Tensor,
    whole: Tensor,
    missing: Tensor | None = None,
    paired: bool = False,
) -> Fit:
    """Minimise `Σᵢ wᵢ (yᵢ − base − zᵢ·c)²` such that the coefficients add up to `whole − base`, each
    (batch,)."""
    z, y, w = masks.double(), scores.double(), weights.double()
    base, gap = base.double().cpu(), (whole - base).double().cpu()
    if masks.shape[1] == 1:
        return Fit(gap[:, None], base, torch.ones_like(gap), torch.zeros_like(gap)[:, None])
    root = w.sqrt()
    z, above = z * root[:, None], (y - base[:, None]) * root
    inverse = torch.linalg.pinv(z.T @ z, hermitian=True)
    free = above @ z @ inverse
    ones = inverse.sum(1)
    coefficients = free + (gap - free.sum(1))[:, None] * ones / ones.sum()
    residual = above - coefficients @ z.T
    r2 = explained(residual, root * (y - (y @ w / w.sum())[:, None]))
    reach = z @ (inverse - ones[:, None] * ones / ones.sum())
    return Fit(coefficients, base, r2, standard_errors(reach, residual, masks.shape[1] - 1, missing, paired))
