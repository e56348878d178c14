"""Taylor decomposition: closed forms for linear and quadratic scores, bounds, and honest failure."""

import pytest
import torch
from torch import nn

from apportion import Contrast, InputError, Taylor


def batch(rows=4, inputs=5, seed=0):
    return torch.randn(rows, inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_a_linear_score_is_explained_exactly():
    weight, x = torch.tensor([2.0, -1.0, 0.5, 0.0, 1.0], dtype=torch.float64), batch()
    found = Taylor()(lambda t: t @ weight - 0.3, x)
    score = x @ weight - 0.3
    # The nearest root is the projection onto the hyperplane: x₀ = x − f w / |w|².
    torch.testing.assert_close(
        found.values, score[:, None] * weight**2 / weight.square().sum(), atol=1e-3, rtol=1e-3
    )
    assert found.remainder.abs().max() < 2e-3


def test_a_quadratic_leaves_half_of_the_change_as_remainder():
    x = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    found = Taylor(tolerance=1e-9)(lambda t: t.square().sum(1) - 1, x)
    # The root is x / 5 on the unit circle, its gradient 2 x / 5, so Σ R = 2 · 4 = 8 of f(x) = 24.
    assert found.apportioned.item() == pytest.approx(8, rel=1e-5)
    assert found.notes["distance"] == pytest.approx([4.0], rel=1e-6)


def test_the_root_is_on_the_line_to_the_nearest_sample_of_the_other_sign():
    x = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    data = torch.tensor([[-9.0, -9.0], [1.0, -1.5], [4.0, 4.0]], dtype=torch.float64)
    found = Taylor(tolerance=1e-9)(lambda t: t.sum(1), x, data=data)
    torch.testing.assert_close(
        found.values, torch.tensor([[0.0, 2.0]], dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_the_data_are_scored_once_and_all_samples_bisected_together():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    x, data, rows = batch(6), batch(40, seed=3), []
    model[0].register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    scores, targets = model(x), torch.tensor([0, 1, 2, 0, 1, 2])
    rows.clear()
    found = Taylor(chunk=1000)(model, x, target=targets, data=data)
    # The samples, the data, halvings with fewer and fewer samples, and the gradients at the roots.
    assert rows[:3] == [6, 40, 6]
    assert rows[3:-1] == sorted(rows[3:-1], reverse=True)
    assert rows[-1] == 6
    assert len(rows) < 20
    torch.testing.assert_close(found.total, scores.gather(1, targets[:, None])[:, 0].detach())
    for chunk in (1, 4):
        torch.testing.assert_close(Taylor(chunk=chunk)(model, x, targets, data=data).values, found.values)
    for row in range(6):
        alone = Taylor()(model, x[row : row + 1], int(targets[row]), data=data)
        torch.testing.assert_close(alone.values, found.values[row : row + 1])


def test_data_in_half_precision():
    x, data = torch.tensor([[3.0, 1.0]]).bfloat16(), torch.tensor([[-2.0, 1.0]]).bfloat16()
    found = Taylor(tolerance=0.05)(lambda t: t.sum(1), x, data=data)  # zero at (−1, 1)
    assert found.values.dtype == torch.bfloat16
    torch.testing.assert_close(found.values.float(), torch.tensor([[4.0, 0.0]]), rtol=0.05, atol=0)


def test_data_for_one_of_several_inputs_are_scored_beside_the_others():
    x = torch.tensor([[2.0], [2.0]], dtype=torch.float64)
    offsets = {"x": x, "position_ids": torch.tensor([[1], [5]])}
    data = torch.tensor([[0.5], [7.0], [3.0]], dtype=torch.float64)
    found = Taylor(tolerance=1e-6)(lambda x, position_ids: (x - position_ids)[:, 0], offsets, data=data)
    # f = x − 1 crosses zero towards 0.5, f = x − 5 towards 7; both are linear.
    torch.testing.assert_close(
        found.values["x"], torch.tensor([[1.0], [-3.0]], dtype=torch.float64), atol=1e-5, rtol=0
    )


def test_both_searches_on_a_classifier():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    x, target = batch(), Contrast(0, 2)
    for given in ({}, {"data": batch(40, seed=3)}):
        found = Taylor()(model, x, target=target, **given)
        torch.testing.assert_close(found.total, target(model(x)).detach())
        assert all(
            abs(r) <= 1e-3 * abs(t) for r, t in zip(found.notes["root_score"], found.total, strict=True)
        )


def test_bounds_are_kept():
    x = torch.tensor([[0.9, 0.9]], dtype=torch.float64)

    def score(t):
        return t[:, 0] + 3 * t[:, 1] - 0.5  # the free root would be at a negative second entry

    found = Taylor(low=0.0, high=1.0)(score, x)
    root = x - found.values / torch.tensor([1.0, 3.0])
    assert (root >= -1e-9).all()
    assert score(root).abs() < 1e-2


def test_tokens_and_layers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 2))
    found = Taylor()(model, torch.tensor([[1, 2, 3]]), target=Contrast(0, 1))
    assert found.values.shape == (1, 3)
    inner = Taylor(at="3")(model, torch.tensor([[1, 2, 3]]), target=Contrast(0, 1))
    assert inner.remainder.abs() < 1e-3  # linear from there on


def test_no_root_says_how_close_it_came():
    with pytest.raises(
        InputError, match=r"no root point was found; closest came sample 0: f = 1\b.*Contrast"
    ):
        Taylor()(lambda t: t.square().sum(1) + 1, batch())
    with pytest.raises(InputError, match="closest came sample 0: f = 20 of 20"):  # and no gradient to follow
        Taylor()(lambda t: (10 + t.relu()).sum(1), -torch.ones(1, 2))
    with pytest.raises(InputError, match=r"no sample of the data has the other sign \(closest: "):
        Taylor()(lambda t: t.square().sum(1) + 1, batch(), data=batch(seed=1))


@pytest.mark.parametrize(("aside", "told"), [(0.0, False), (2.0, False), (4.0, True)])
def test_a_root_far_away_on_sparse_data_is_told(aside: float, told: bool) -> None:
    """The slope leads to zero at distance 1; the line to the only datum of the other sign goes aside."""
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    data = torch.tensor([[-1.0, 2 * aside]], dtype=torch.float64)
    found = Taylor()(lambda t: t[:, 0], x, data=data)
    far = (1 + aside**2) ** 0.5
    assert found.notes["distance"][0] == pytest.approx(far, rel=1e-2)
    said = [w for w in found.warnings if "times as far as the slope at sample 0" in w]
    assert bool(said) == told
    if told:
        assert f"1 of 1 samples is far away: {far:.1f} times" in said[0]
    assert not Taylor()(lambda t: t[:, 0], x).warnings


def test_a_score_of_zero_is_its_own_root():
    found = Taylor()(lambda t: t.sum(1), torch.zeros(1, 3))
    assert found.values.abs().max() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"chunk": 2.5}, "chunk is 2.5; accepted: a whole number"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"low": "none"}, "low is 'none'"),
        ({"low": 1.0, "high": 0.0}, "low=1.0 is not below"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        Taylor(**settings)


def test_bad_data():
    with pytest.raises(InputError, match=r"data has shape \(4, 3\); accepted: \('samples', 5\)"):
        Taylor()(lambda t: t.sum(1), batch(), data=torch.zeros(4, 3))
    with pytest.raises(InputError, match="data is list; accepted: a tensor"):
        Taylor()(lambda t: t.sum(1), batch(), data=[1.0])
