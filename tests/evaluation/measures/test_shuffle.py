"""The shuffle test against a literal transcription, closed forms, and maps that are hard to weight with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apportion.errors import InputError
from apportion.evaluation.by_training.weighting import weights_of
from apportion.evaluation.measures.shuffle import ShuffleTVD
from apportion.learning.networks import AttentionClassifier, TokenMLP


@pytest.fixture
def model() -> AttentionClassifier:
    torch.manual_seed(0)
    made = AttentionClassifier(20, embedding=5, hidden=4).eval().requires_grad_(False)
    made.output.weight.mul_(20)
    return made


IDS = torch.tensor([[3, 4, 5, 6, 7, 8], [9, 10, 11, 2, 0, 0], [12, 0, 0, 0, 0, 0]])


def literal(
    model: AttentionClassifier, ids: torch.Tensor, values: torch.Tensor, test: ShuffleTVD
) -> list[float]:
    """Jain & Wallace 2019, sec. 4.2.1, one text and one permutation at a time."""
    found = []
    for row, row_values in zip(ids, values, strict=True):
        n = int((row != 0).sum())
        text, weights = row[None, :n], row_values[:n] / row_values[:n].norm(test.norm)
        states = model.states(text)[0]
        keys = np.random.default_rng(test.seed).random((n, test.permutations))
        y = torch.softmax(model.output((weights[:, None] * states).sum(0)), 0)
        distances = []
        for p in range(test.permutations):
            shuffled = weights[keys[:, p].astype(np.float32).argsort()]
            y_hat = torch.softmax(model.output((shuffled[:, None] * states).sum(0)), 0)
            distances.append(float(0.5 * (y - y_hat).abs().sum()))
        found.append(float(np.median(distances)))
    return found


@pytest.mark.parametrize(("permutations", "norm"), [(1, 1), (7, 1), (100, 1), (100, 2)])
def test_agrees_with_its_definition(model: AttentionClassifier, permutations: int, norm: int) -> None:
    test = ShuffleTVD(permutations, seed=3, norm=norm)
    values = torch.randn(IDS.shape, generator=torch.Generator().manual_seed(1))
    scores = test(model, IDS, values)
    assert scores.values.tolist() == pytest.approx(literal(model, IDS, values, test), abs=1e-6)
    assert scores.higher_is_better
    assert scores.values[0] > 1e-3


def test_is_zero_where_the_order_does_not_matter(model: AttentionClassifier) -> None:
    for values in (torch.ones(IDS.shape), torch.zeros(IDS.shape), torch.full(IDS.shape, -2.0)):
        assert ShuffleTVD()(model, IDS, values).values.tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    one_token = ShuffleTVD()(model, IDS[2:], torch.rand(1, 6))
    assert one_token.values.tolist() == pytest.approx([0], abs=1e-6)


def test_depends_on_neither_batch_nor_padding_nor_size_of_the_map(model: AttentionClassifier) -> None:
    values = torch.randn(IDS.shape, generator=torch.Generator().manual_seed(2))
    together = ShuffleTVD()(model, IDS, values).values
    alone = [
        ShuffleTVD()(model, IDS[i : i + 1, :n], values[i : i + 1, :n]).mean for i, n in enumerate((6, 4, 1))
    ]
    assert together.tolist() == pytest.approx(alone, abs=1e-6)
    assert ShuffleTVD()(model, IDS, 7 * values).values.tolist() == pytest.approx(together.tolist(), abs=1e-6)
    front = torch.tensor([[0, 0, 9, 10, 11, 2]])
    padded_in_front = torch.cat([torch.full((1, 2), 5.0), values[1:2, :4]], 1)
    assert ShuffleTVD()(model, front, padded_in_front).mean == pytest.approx(float(together[1]), abs=1e-6)


def test_a_token_with_weight_zero_is_a_token(model: AttentionClassifier) -> None:
    """Shuffling only what is not zero would leave a map of one token as it is."""
    values = torch.tensor([[1.0, 0, 0, 0, 0, 0]])
    assert ShuffleTVD()(model, IDS[:1], values).mean > 1e-3


def test_any_model_that_weights_states_will_do() -> None:
    model = TokenMLP(20, embedding=5, hidden=4).eval()
    assert ShuffleTVD()(model, IDS, torch.rand(IDS.shape)).n == 3


@pytest.mark.parametrize(
    ("model", "ids", "values", "message"),
    [
        (torch.nn.Linear(2, 2), IDS, torch.ones(IDS.shape), r"Linear has no states\(\) and decide\(\)"),
        (TokenMLP(20, 5, 4), IDS, torch.ones(3, 5), "the map has shape"),
        (TokenMLP(20, 5, 4), IDS, torch.full(IDS.shape, torch.nan), "NaN"),
        (TokenMLP(20, 5, 4), IDS.float(), torch.ones(IDS.shape), r"accepted: token ids \(batch, tokens\)"),
        (TokenMLP(20, 5, 4), torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3), "text 0 has no token"),
    ],
)
def test_refuses(model: torch.nn.Module, ids: torch.Tensor, values: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ShuffleTVD()(model, ids, values)


def test_refuses_no_permutations() -> None:
    with pytest.raises(InputError, match="permutations is 0"):
        ShuffleTVD(permutations=0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=8))
@example([8.407790785948902e-45])
@example([1e-40, -1e-42, 0.0])
def test_weights_add_up_to_one_or_are_all_zero(values: list[float]) -> None:
    given_values = torch.tensor([values])
    weights = weights_of(given_values, torch.ones_like(given_values, dtype=torch.bool))
    total = float(weights.double().abs().sum())
    assert total == pytest.approx(1, rel=1e-5) if any(values) else total == 0
    assert bool((weights.sign() * given_values.sign() >= 0).all())


def test_one_score_is_two_classes_of_which_one_has_none() -> None:
    torch.manual_seed(0)
    one, two = (AttentionClassifier(20, 5, 4, classes=n).eval().requires_grad_(False) for n in (1, 2))
    two.load_state_dict(
        {**one.state_dict(), "output.weight": torch.zeros(2, 8), "output.bias": torch.zeros(2)}
    )
    two.output.weight[1], two.output.bias[1] = 20 * one.output.weight[0], one.output.bias[0]
    one.output.weight.mul_(20)
    values = torch.rand(IDS.shape)
    found = ShuffleTVD()(one, IDS, values).values
    assert float(found.max()) > 0.01
    torch.testing.assert_close(found, ShuffleTVD()(two, IDS, values).values)
