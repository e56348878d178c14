"""Integrals along paths whose gradient is hard somewhere: closed forms, and what they cost."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import apportion as ap
from apportion.methods.paths.bisection import _weights, _within

X = torch.tensor([[0.9, 0.3], [0.5, 0.4], [-0.5, 1.7]], dtype=torch.float64)


def narrow(x):
    """A step at a sum of 0.61, a fiftieth as wide as the path; its sum is all that it sees."""
    return torch.tanh(60 * (x.sum(1) - 0.61))


def test_values_of_a_narrow_step_are_those_of_the_closed_form():
    # f sees the sum alone, so each entry gets its share of the sum times what the score changes.
    found = ap.IntegratedGradients(tolerance=1e-6)(narrow, X)
    wanted = X / X.sum(1, keepdim=True) * (narrow(X) - narrow(0 * X))[:, None]
    torch.testing.assert_close(found.values, wanted, atol=2e-6, rtol=0)
    assert not found.warnings


def test_nodes_go_where_the_gradient_is_hard():
    counted = ap.IntegratedGradients(tolerance=1e-6)(narrow, X)
    doubled = ap.IntegratedGradients(nodes=counted.notes["nodes"])(narrow, X)
    assert counted.remainder.abs().max() < 1e-2 * doubled.remainder.abs().max()
    smooth = ap.IntegratedGradients()(lambda x: x.square().sum(1), X)
    assert smooth.notes["nodes"] == 8
    assert smooth.cost.backwards == 8


def test_each_path_has_its_own_panels():
    """Against every sample alone, and in chunks."""
    together = ap.IntegratedGradients(tolerance=1e-6)(narrow, X)
    for chunk in (1, 7):
        parts = ap.IntegratedGradients(tolerance=1e-6, chunk=chunk)(narrow, X)
        torch.testing.assert_close(parts.values, together.values)
    for row in range(len(X)):
        alone = ap.IntegratedGradients(tolerance=1e-6)(narrow, X[row : row + 1])
        torch.testing.assert_close(alone.values, together.values[row : row + 1])


def test_a_singular_start_is_reached():
    """√x has an infinite gradient at 0: ∫ dx/(2√x) = √x."""
    found = ap.IntegratedGradients(tolerance=1e-4)(lambda x: x.abs().sqrt().sum(1), X)
    torch.testing.assert_close(found.values, X.abs().sqrt(), rtol=1e-3, atol=0)
    assert not found.warnings


def test_a_jump_is_not_chased_for_ever():
    found = ap.IntegratedGradients()(lambda x: x.sum(1) + (x.sum(1) > 0.6).double(), X)
    assert "not within tolerance after max_nodes=512" in found.warnings[0]
    torch.testing.assert_close(found.values, X)  # the jump has no gradient
    assert found.notes["nodes"] <= 512
    assert found.cost.backwards < 1000


@pytest.mark.parametrize("most", [1, 5, 12, 40])
def test_no_more_nodes_than_allowed(most):
    found = ap.IntegratedGradients(tolerance=1e-9, max_nodes=most)(narrow, X)
    assert found.notes["nodes"] <= most
    assert f"max_nodes={most}" in found.warnings[0]


def test_the_best_panels_of_each_path_share_its_budget():
    errors = torch.tensor([3.0, 1.0, 2.0, 5.0, 1.0])
    slot = torch.tensor([0, 1, 0, 1, 1])
    within = _within(errors, torch.tensor([4.0, 2.0]), slot)
    assert within.tolist() == [False, True, True, False, True]


def test_halves_use_the_nodes_of_the_whole_again():
    """8 of the undivided path, one for the first panels, and two for each halving: no place is run twice."""
    met = []

    def noting(x):
        met.extend(x.sum(1).tolist())
        return narrow(x)

    found = ap.IntegratedGradients(chunk=1)(noting, X[:1])
    assert found.notes["nodes"] == found.cost.backwards > 10
    assert found.notes["nodes"] % 2 == 1
    assert len(set(met)) == len(met) == found.cost.backwards + 2  # and the ends of the path


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.floats(0.05, 0.95))
def test_a_panel_is_exact_for_a_parabola_and_at_the_ends_of_a_path_for_a_line(parabola, at):
    a, b, c = parabola
    places = torch.tensor([0.0, at, 1.0], dtype=torch.float64)
    _, begins, finishes = torch.eye(3, dtype=torch.bool)
    inside, first, last = _weights(torch.full((3,), at, dtype=torch.float64), begins, finishes).T
    line, curve = b * places + c, a * places**2 + b * places + c
    assert float(inside @ curve) == pytest.approx(a / 3 + b / 2 + c, abs=1e-12)
    for weights, unseen in ((first, 0), (last, 2)):
        assert weights[unseen] == 0
        assert float(weights @ line) == pytest.approx(b / 2 + c, abs=1e-12)


def test_a_gradient_that_is_infinite_at_the_start_is_not_asked_for():
    def root(x):
        return (x * x).sum(1).sqrt()  # NaN is its gradient at zero

    found = ap.IntegratedGradients(tolerance=1e-3)(root, X)
    torch.testing.assert_close(found.values, X.square() / root(X)[:, None], rtol=2e-3, atol=0)
