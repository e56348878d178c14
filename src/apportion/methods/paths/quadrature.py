"""Rules for integrals along a path: nodes on (0, 1) and the weight of each.

Integrated Gradients needs `∫ g(u) du`; Integrated Hessians needs `∫ −ln u · g(u) du`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from apportion.errors import InputError, check_whole

Array = NDArray[np.float64]

MOST_NODES = 5_000  # of one rule: they take a second to compute
# The modified moments shrink like 16⁻ⁿ: beyond this they are too near the smallest double.
MOST_LOG_NODES = 200

_FEW = 128  # nodes of a rule that NumPy computes in milliseconds
_NEWTON_STEPS = 4


@cache
def gauss_legendre(nodes: int) -> tuple[Array, Array]:
    """The Gauss-Legendre rule: exact for polynomials up to degree `2 * nodes - 1`.

    >>> u, w = gauss_legendre(3)
    >>> bool(abs((w * u**5).sum() - 1 / 6) < 1e-15)
    True
    """
    if nodes <= _FEW:
        places, weights = np.polynomial.legendre.leggauss(nodes)
        return (places + 1) / 2, weights / 2
    # NumPy's eigenvalues take O(nodes³). Newton's method from Tricomi's places takes O(nodes²) (Press et al., Numerical
    # Recipes, gauleg), and needs one half of the places: they lie symmetrically.
    half = (nodes + 1) // 2
    angles = np.pi * (np.arange(1, half + 1) - 0.25) / (nodes + 0.5)
    x = np.cos(angles) * (1 - (nodes - 1) / (8 * nodes**3))
    for _ in range(_NEWTON_STEPS):
        before, now = np.ones_like(x), x
        for n in range(2, nodes + 1):
            before, now = now, ((2 * n - 1) * x * now - (n - 1) * before) / n
        slope = nodes * (x * now - before) / (x * x - 1)
        x = x - now / slope
    weights = 2 / ((1 - x * x) * slope * slope)
    if nodes % 2:
        x[-1] = 0.0
    places = np.concatenate([-x, x[::-1][nodes % 2 :]])
    return (places + 1) / 2, np.concatenate([weights, weights[::-1][nodes % 2 :]]) / 2


def midpoint(nodes: int) -> tuple[Array, Array]:
    """The middle of each of `nodes` equal intervals."""
    return (np.arange(nodes) + 0.5) / nodes, np.full(nodes, 1 / nodes)


def riemann(nodes: int) -> tuple[Array, Array]:
    """The upper end of each of `nodes` equal intervals (Sundararajan et al. 2017, eq. 3)."""
    return np.arange(1, nodes + 1) / nodes, np.full(nodes, 1 / nodes)


def trapezoid(nodes: int) -> tuple[Array, Array]:
    """`nodes` equally spaced places, both ends among them at half weight; the weights sum to 1."""
    if nodes < 2:
        raise InputError(f"the trapezoid rule has {nodes} node; accepted: at least 2")
    weights = np.full(nodes, 1 / (nodes - 1))
    weights[[0, -1]] /= 2
    return np.linspace(0, 1, nodes), weights


RULES: dict[str, Callable[[int], tuple[Array, Array]]] = {
    "gauss-legendre": gauss_legendre,
    "midpoint": midpoint,
    "riemann": riemann,
    "trapezoid": trapezoid,
}


def check_nodes(**counts: int) -> None:
    """Raise InputError for numbers of nodes that no rule is computed with."""
    check_whole(1, MOST_NODES, **counts)


@cache
def gauss_log(nodes: int) -> tuple[Array, Array]:
    """The Gauss rule for the weight −ln u: exact for polynomials up to degree `2 * nodes - 1`.

    Golub & Welsch (1969) on the recurrence that the modified Chebyshev algorithm gives (Gautschi 1982). With
    moments of the shifted Legendre polynomials, `∫ −ln u Pₖ(u) du = (−1)ᵏ / (k (k + 1))`, that algorithm is
    well conditioned, so double precision is enough; with plain powers it would lose all digits by 12 nodes.

    >>> u, w = gauss_log(4)
    >>> bool(abs((w * u**7).sum() - 1 / 64) < 1e-15)  # the moments are 1 / (k + 1)²
    True
    """
    if not 1 <= nodes <= MOST_LOG_NODES:
        raise InputError(f"nodes is {nodes}; accepted: 1 to {MOST_LOG_NODES}")
    k = np.arange(1, 2 * nodes)
    # Each moment is that of the monic polynomial: divided by the leading coefficient (2k)! / (k!)².
    leading = np.cumprod((4 * k - 2) / k)
    moments = np.concatenate([[1.0], (-1.0) ** k / (k * (k + 1)) / leading])
    # The recurrence of the Legendre polynomials.
    known = np.concatenate([[1.0], k**2 / (4 * (4 * k**2 - 1.0))])
    diagonal, squares = np.empty(nodes), np.empty(nodes)
    diagonal[0], squares[0] = 0.5 + moments[1] / moments[0], moments[0]
    before, now = np.zeros(2 * nodes), moments
    for n in range(1, nodes):
        part = slice(n, 2 * nodes - n)
        step = np.zeros(2 * nodes)
        step[part] = (
            now[n + 1 : 2 * nodes - n + 1]
            - (diagonal[n - 1] - 0.5) * now[part]
            - squares[n - 1] * before[part]
            + known[part] * now[n - 1 : 2 * nodes - n - 1]
        )
        diagonal[n] = 0.5 + step[n + 1] / step[n] - now[n] / now[n - 1]
        squares[n] = step[n] / now[n - 1]
        before, now = now, step
    off = np.sqrt(squares[1:])
    places, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
    return places, squares[0] * vectors[0] ** 2


@dataclass(frozen=True)
class Nodes:
    """Places on the path with two weights each: `second` for `∫ −ln u … du`, `first` for `∫ … du`."""

    places: Array
    second: Array
    first: Array


@cache
def panel(low: float, high: float, nodes: int) -> Nodes:
    """One panel of a composite rule.

    −ln u is singular at 0 only, so only the panel that begins there uses the logarithmic rule: with
    `u = b t`, `∫₀ᵇ −ln u g du = b ∫₀¹ −ln t g(bt) dt − b ln b ∫₀¹ g(bt) dt`.

    >>> whole = panel(0.0, 1.0, 4)
    >>> bool(abs(whole.second.sum() - 1) < 1e-15 and abs(whole.first.sum() - 1) < 1e-15)
    True
    """
    t, w = gauss_legendre(nodes)
    wide = high - low
    if low > 0:
        places = low + wide * t
        return Nodes(places, -np.log(places) * wide * w, wide * w)
    s, v = gauss_log(nodes)
    return Nodes(
        np.concatenate([high * s, high * t]),
        np.concatenate([high * v, -np.log(high) * high * w + 0.0]),
        np.concatenate([np.zeros(nodes), high * w]),
    )
