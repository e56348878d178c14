"""From local features to one vector for the image (eq. 9), and relevance the way back (eq. 14 to 16)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from apportion.errors import InputError
from apportion.models.bag_of_words.features import Boxes

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

Array = npt.NDArray[Any]

NAMES = {"sum": 1.0, "max": math.inf}


def pooling_exponent(pooling: str | float) -> float:
    """p of eq. 9 from what a person says: "sum" (1), "max" (infinity), or a number from 1 on."""
    if isinstance(pooling, str) and pooling in NAMES:
        return NAMES[pooling]
    if isinstance(pooling, str) or not pooling >= 1:
        raise InputError(f"pooling is {pooling!r}; accepted: 'sum', 'max', or p of the p-means, at least 1")
    return float(pooling)


def pyramid_cells(boxes: Boxes, shape: tuple[int, ...], pyramid: Sequence[int]) -> list[Array]:
    """The features (as indices) in each cell of a spatial pyramid (Lazebnik et al. 2006): for each level n the
    n × n cells row by row. A feature belongs to the cell of its middle.

    >>> [cell.tolist() for cell in pyramid_cells(np.array([[0, 0, 2, 2], [6, 6, 8, 8]]), (8, 8), (1, 2))]
    [[0, 1], [0], [], [], [1]]
    """
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    found = []
    for level in pyramid:
        row, column = (np.minimum(middle * level / shape, level - 1)).astype(int).T
        place = row * level + column
        found += [np.flatnonzero(place == cell) for cell in range(level * level)]
    return found


def pool(weights: csr_matrix, p: float, places: Sequence[Array]) -> Array:
    """`x_d = (M⁻¹ Σ_l m_d(l)^p)^(1/p)` (Bach et al. 2015, eq. 9) in each cell, one after the other.

    p = 1 is sum pooling and p = ∞ the maximum. A cell without features has zeros. (cells · words,)

    >>> from scipy.sparse import csr_matrix
    >>> m = csr_matrix([[3.0, 0.0], [4.0, 0.0]])
    >>> [pool(m, p, [np.arange(2)]).round(3).tolist() for p in (1.0, 2.0, math.inf)]
    [[3.5, 0.0], [3.536, 0.0], [4.0, 0.0]]
    """
    return np.concatenate([_mean(weights[place], p) for place in places])


def _mean(weights: csr_matrix, p: float) -> Array:
    features = max(1, weights.shape[0])
    if p == 1:
        mean: Array = _columns(weights) / features
        return mean
    # Over the largest, so that high powers neither vanish nor overflow.
    powers, peak = _powers(weights, p)
    found: Array = peak if math.isinf(p) else peak * (_columns(powers) / features) ** (1 / p)
    return found


def share_relevance(relevance: Array, weights: csr_matrix, p: float, places: Sequence[Array]) -> Array:
    """The relevance of each local feature from that of the dimensions (Bach et al. 2015, eq. 14 and 15).

    `R_l = Σ_{d ∉ Z} R_d m_d(l)^p / Σ_l′ m_d(l′)^p + Σ_{d ∈ Z} R_d / |{l′}|`, where Z are the dimensions whose
    sum is zero: no feature is responsible for these, and all share them. For the maximum, the limit: the
    features that attain it share it equally. `relevance` is (cells · words,), the result (features,); the
    sums agree.

    >>> from scipy.sparse import csr_matrix
    >>> m = csr_matrix([[1.0, 0.0], [3.0, 0.0]])
    >>> share_relevance(np.array([8.0, 1.0]), m, 1.0, [np.arange(2)]).tolist()
    [2.5, 6.5]
    """
    features = weights.shape[0]
    found, unclaimed = np.zeros(features), 0.0
    for place, part in zip(places, np.split(relevance, len(places)), strict=True):
        powers, _ = (weights[place], None) if p == 1 else _powers(weights[place], p)
        sums = _columns(powers)
        empty = sums == 0
        unclaimed += float(part[empty].sum())
        found[place] += powers @ np.divide(part, sums, out=np.zeros_like(part), where=~empty)
    found += unclaimed / features
    return found


def to_pixels(relevance: Array, boxes: Boxes, shape: tuple[int, ...]) -> Array:
    """`R_q = Σ_{l : q ∈ area(l)} R_l / |area(l)|` (Bach et al. 2015, eq. 16): (height, width).

    >>> to_pixels(np.array([4.0, 1.0]), np.array([[0, 0, 2, 2], [1, 1, 2, 2]]), (2, 3)).tolist()
    [[1.0, 1.0, 0.0], [1.0, 2.0, 0.0]]
    """
    height, width = shape
    top, left, bottom, right = boxes.T
    density = relevance / ((bottom - top) * (right - left))
    # The corners of each box with alternating signs; summed up over rows and columns they fill the boxes.
    places = np.concatenate([y * (width + 1) + x for y, x in ((top, left), (bottom, right))])
    others = np.concatenate([y * (width + 1) + x for y, x in ((top, right), (bottom, left))])
    corners = np.bincount(
        np.concatenate([places, others]),
        np.concatenate([density, density, -density, -density]),
        (height + 1) * (width + 1),
    ).reshape(height + 1, width + 1)
    filled: Array = corners.cumsum(0).cumsum(1)[:height, :width]
    return filled


def _powers(weights: csr_matrix, p: float) -> tuple[csr_matrix, Array]:
    """`(m_d(l) / max_l m_d)^p`, and the maxima; for p = ∞ 1 where the maximum is attained."""
    peak = weights.max(0).toarray().ravel() if weights.shape[0] else np.zeros(weights.shape[1])
    powers = weights.copy()
    top = peak[powers.indices]
    ratio = np.divide(powers.data, top, out=np.zeros_like(powers.data), where=top > 0)
    powers.data = (ratio == 1).astype(np.float64) if math.isinf(p) else ratio**p
    return powers, peak


def _columns(weights: csr_matrix) -> Array:
    found: Array = np.asarray(weights.sum(0)).ravel()
    return found
