"""Features of equal value: no place, no column and no sample of the batch decides which is hidden first."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import apportion as ap
import small
from apportion.engines.masking.engine import Masking
from apportion.evaluation.case import Case
from apportion.evaluation.curves import ORDERS, Order
from apportion.evaluation.reference_maps import UniformMap

WEIGHTS = torch.tensor([5.0, -1.0, 2.0, 0.5, 0.0, 3.0], dtype=torch.float64)


def linear(x: Tensor) -> Tensor:
    return torch.stack([x @ WEIGHTS, torch.zeros_like(x[:, 0])], 1)


def rows(many: int = 5) -> Tensor:
    return torch.randn(many, 6, dtype=torch.float64, generator=small.seeded(0))


def flipped(x: Tensor, order: Any) -> list[float]:
    """What is left of the score of one sample as features are hidden in an order."""
    return [float(x @ WEIGHTS)] + [float(x[list(order[k:])] @ WEIGHTS[list(order[k:])]) for k in range(1, 7)]


@pytest.mark.parametrize("test", [ap.PixelFlipping, ap.Deletion, ap.Insertion])
def test_a_uniform_map_has_the_mean_of_all_orders(test: Any) -> None:
    """An order and its reverse have the mean of all orders on a linear model, whatever the order is."""
    x = rows()
    found = test(of="score")(linear, x, torch.ones_like(x), 0)
    every = torch.zeros(5, dtype=torch.float64)
    orders = list(permutations(range(6)))
    for order in orders:
        values = torch.tensor([6.0 - order.index(i) for i in range(6)]).expand_as(x)
        every += test(of="score")(linear, x, values, 0).values
    torch.testing.assert_close(found.values, every / len(orders))
    assert found.notes["orders"] == ORDERS


@pytest.mark.parametrize("test", [ap.Comprehensiveness, ap.Sufficiency])
def test_a_uniform_map_favours_no_column_at_single_shares(test: Any) -> None:
    """A third of the features, drawn at random, is a third of the score in the mean."""
    x = (
        torch.ones(600, 6, dtype=torch.float64) + torch.arange(600)[:, None] * 1e-9
    )  # so that each has its own orders
    found = test((1 / 3,), of="score")(linear, x, torch.ones_like(x), 0).values
    hidden = 1 / 3 if test is ap.Comprehensiveness else 2 / 3
    error = float(found.std()) / 600**0.5
    assert 0.01 < error < 0.1
    assert float(found.mean()) == pytest.approx(hidden * float(WEIGHTS.sum()), abs=4 * error)


def test_pixel_flipping_of_a_tie_in_the_middle_is_the_mean_of_its_orders() -> None:
    x = rows()
    values = torch.tensor([9.0, 4.0, 4.0, 4.0, 1.0, 0.0]).expand_as(x)
    found = ap.PixelFlipping(of="score")(linear, x, values, 0)
    for row, got in zip(x, found.values, strict=True):
        every = [flipped(row, (0, *tied, 4, 5)) for tied in permutations((1, 2, 3))]
        assert float(got) == pytest.approx(float(np.mean([[each[0] - s for s in each] for each in every])))
    untied = ap.PixelFlipping(of="score")(linear, x, x, 0)
    assert "orders" not in untied.notes


def test_columns_in_another_order_do_not_change_a_uniform_score() -> None:
    x, ones = rows(), torch.ones(5, 6)
    turned = WEIGHTS.flip(0)
    for test in (
        ap.PixelFlipping(of="score"),
        ap.Insertion(of="score"),
        ap.Comprehensiveness((0.5,), of="score"),
    ):
        one = test(lambda x: x @ WEIGHTS, x, ones, 0).values
        torch.testing.assert_close(test(lambda x: x @ turned, x.flip(1), ones, 0).values, one)


def test_each_sample_has_its_own_orders_whatever_is_beside_it() -> None:
    x = rows(6)
    x[5] = x[1]
    order = Order(Masking(linear, x, 0), torch.ones_like(x))
    ranks = order.rank.tolist()
    assert ranks[5] == ranks[1]
    assert len({str(rank) for rank in ranks}) == 5
    for k in (0, 1):  # each with its reverse
        assert torch.equal(order.rank[:, k], 5 - order.rank[:, k + 2])
    alone = Order(Masking(linear, x[3:4], 0), torch.ones(1, 6))
    assert alone.rank[0].tolist() == ranks[3]
    model, padded = nn.Embedding(9, 2), torch.tensor([[0, 0, 3, 4, 5], [2, 3, 4, 5, 6]])
    masks = {"attention_mask": (padded > 0).long(), "input_ids": padded}

    def called(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return (model(input_ids) * attention_mask[..., None]).sum(1)

    both = Order(Masking(called, masks, 0), torch.ones(2, 5))
    single = {"input_ids": padded[:1, 2:], "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    assert (
        Order(Masking(called, single, 0), torch.ones(1, 3)).rank[0].tolist() == both.rank[0, :, :3].tolist()
    )


def test_deletion_rate_of_equal_values_is_the_mean_of_the_rates() -> None:
    """The label is held by one feature: its place in an order is the rate."""

    def model(x: Tensor) -> Tensor:
        return torch.stack([torch.full_like(x[:, 0], 0.5), (x[:, 2] != 0).to(x)], 1)

    x = rows(40)
    found = ap.DeletionRate()(model, x, torch.ones_like(x))
    order = Order(Masking(model, x), torch.ones_like(x))
    torch.testing.assert_close(found.values, (order.rank[:, :, 2] + 1).double().mean(1) / 6)
    assert float(found.mean) == pytest.approx(7 / 12)  # an order and its reverse have the places k and 7 − k
    assert ap.DeletionRate()(
        model, x, torch.arange(6.0).expand_as(x)
    ).values.unique().tolist() == pytest.approx([4 / 6])
    assert found.notes["orders"] == ORDERS


def test_what_values_decide_is_run_once() -> None:
    x, ran = rows(1), []

    def model(x: Tensor) -> Tensor:
        ran.append(len(x))
        return linear(x)

    tied = torch.tensor([[9.0, 8.0, 4.0, 4.0, 1.0, 0.0]])
    score = Case(model, x, 0)
    found = score.score(ap.PixelFlipping(of="score", steps=None), tied)
    assert found.notes["orders"] == ORDERS
    assert sum(ran) == 1 + 5 + ORDERS  # all steps but the third are one set in all orders


def test_the_uniform_row_ranks_no_feature_by_its_size() -> None:
    """Of a map that is the same everywhere, the sums of larger features are larger."""
    x, labels = torch.ones(1, 6, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1, 2])
    case = Case(lambda x: x @ WEIGHTS, x, 0)
    uniform = UniformMap()(case.model, x, 0)
    order = case.order(uniform, labels)
    assert order.tied.tolist() == [True]
    assert not case.order(torch.ones_like(x), labels).tied.any()  # a map of someone's own may mean it


def test_maps_that_hide_the_same_of_all_samples_train_on_them_in_their_own_orders() -> None:
    x = torch.randn(60, 4, generator=small.seeded(1))
    masking = Masking(nn.Linear(4, 2), x)
    first = Order(masking, torch.zeros(60, 4)).rank[:, 0]
    hidden = (first == 0).double().mean(0)
    assert float(hidden.min()) > 0.1  # ROAR hides each column of some samples


def test_a_reversed_uniform_map_is_uniform() -> None:
    model, x = small.mlp()
    ones = torch.ones_like(x)
    for test in (ap.PixelFlipping(), ap.DeletionRate(), ap.Comprehensiveness()):
        torch.testing.assert_close(test(model, x, ones).values, test(model, x, -ones).values, equal_nan=True)
    assert ap.PixelFlipping("symmetric")(model, x, ones).values.abs().max() < 0.2


def test_a_tie_of_all_methods_says_that_the_input_does_not_tell_them_apart() -> None:
    x = rows(1)
    exact = x * WEIGHTS
    table = ap.compare(linear, x, {"one": exact, "other": exact * 2}, ["pixel-flipping"], 0)
    said = "pixel-flipping: both methods have the same score, so this input does not tell them apart"
    assert table.ties == (said,)
    assert said in " ".join(repr(table).split())
    assert ap.compare(linear, x, {"one": exact, "other": -exact}, ["pixel-flipping"], 0).ties == ()
