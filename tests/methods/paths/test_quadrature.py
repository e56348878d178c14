"""The rules integrate exactly what they promise to."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from apportion import InputError
from apportion.methods.paths.quadrature import RULES, gauss_legendre, gauss_log, panel


@pytest.mark.parametrize("nodes", [1, 2, 3, 8, 16, 33, 64, 200])
def test_gauss_log_has_the_moments_of_minus_log(nodes):
    places, weights = gauss_log(nodes)
    assert np.all((places > 0) & (places < 1))
    assert np.all(weights > 0)
    for power in range(2 * nodes):
        exact = float(Fraction(1, (power + 1) ** 2))  # ∫ −ln u · uᵏ du
        assert (weights * places**power).sum() == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("nodes", [0, 201])
def test_gauss_log_says_how_many_nodes_it_can_do(nodes):
    with pytest.raises(InputError, match=rf"nodes is {nodes}; accepted: 1 to 200"):
        gauss_log(nodes)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("nodes", [2, 5, 64])
def test_weights_sum_to_one(name, nodes):
    assert RULES[name](nodes)[1].sum() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize(
    ("name", "degree"), [("gauss-legendre", 9), ("midpoint", 1), ("trapezoid", 1), ("riemann", 0)]
)
def test_degree_of_exactness(name, degree):
    places, weights = RULES[name](5)
    for power in range(degree + 1):
        assert (weights * places**power).sum() == pytest.approx(1 / (power + 1), abs=1e-14)
    assert abs((weights * places ** (degree + 1)).sum() - 1 / (degree + 2)) > 1e-7


def test_panels_add_up_to_the_whole():
    for function, plain in ((np.exp, math.e - 1), (np.cos, math.sin(1))):
        edges = (0.0, 0.03, 0.2, 0.7, 1.0)
        parts = [panel(low, high, 12) for low, high in itertools.pairwise(edges)]
        second = sum((p.second * function(p.places)).sum() for p in parts)
        first = sum((p.first * function(p.places)).sum() for p in parts)
        places, weights = gauss_log(40)
        assert second == pytest.approx((weights * function(places)).sum(), abs=1e-9)
        assert first == pytest.approx(plain, abs=1e-14)


def test_a_panel_far_into_a_singular_corner():
    # ∫₀ᵇ −ln u du = b (1 − ln b)
    for high in (0.25, 1e-3, 1e-9):
        assert panel(0.0, high, 6).second.sum() == pytest.approx(high * (1 - math.log(high)), rel=1e-14)


def test_legendre_matches_the_known_two_point_rule():
    places, weights = gauss_legendre(2)
    assert places == pytest.approx([0.5 - math.sqrt(3) / 6, 0.5 + math.sqrt(3) / 6])
    assert weights == pytest.approx([0.5, 0.5])
