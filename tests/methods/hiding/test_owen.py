"""Owen values against Owen's formula and Winter's of several levels, written out over all coalitions."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.errors import InputError

ROW = torch.tensor([[1.0, -2.0, 3.0, 0.5, 1.5, -1.0]])


def model(x: torch.Tensor) -> torch.Tensor:
    a, b, c, d, e, f = x.double().unbind(1)
    return a * b + torch.sin(c * d) * (1 + a) + e * (b > 0) + e * f * c + torch.exp(d) * f


def value(kept: Any) -> float:
    mask = torch.zeros(6)
    mask[list(kept)] = 1
    return float(model(ROW * mask))


def subsets(of: Any) -> list[tuple[Any, ...]]:
    return [some for size in range(len(of) + 1) for some in itertools.combinations(of, size)]


def owen(groups: list[list[int]]) -> list[float]:
    """Owen (1977): over the subsets R of the other unions and T of the other members of i's own,
    r! (m − r − 1)! / m! · t! (b − t − 1)! / b! · (v(∪R ∪ T ∪ i) − v(∪R ∪ T))."""
    found = []
    for i in range(6):
        own = next(group for group in groups if i in group)
        others = [group for group in groups if i not in group]
        m, b = len(groups), len(own)
        found.append(
            sum(
                math.factorial(len(r)) * math.factorial(m - len(r) - 1) / math.factorial(m)
                * math.factorial(len(t)) * math.factorial(b - len(t) - 1) / math.factorial(b)
                * (value([*itertools.chain(*r), *t, i]) - value([*itertools.chain(*r), *t]))
                for r in subsets(others)
                for t in subsets([j for j in own if j != i])
            )
        )  # fmt: skip
    return found


def in_every_order(tree: Any) -> list[float]:
    """The mean of what each feature adds, over all orders in which groups, and groups in them, stay together."""

    def orders(node: Any) -> list[tuple[int, ...]]:
        if isinstance(node, int):
            return [(node,)]
        return [
            tuple(itertools.chain(*parts))
            for order in itertools.permutations(node)
            for parts in itertools.product(*map(orders, order))
        ]

    found, every = np.zeros(6), orders(tree)
    for order in every:
        for place, i in enumerate(order):
            found[i] += value(order[: place + 1]) - value(order[:place])
    return list(found / len(every))


@pytest.mark.parametrize("groups", [[[0, 1], [2, 3, 4], [5]], [[0, 5], [1, 2, 3, 4]], [[0, 1, 2, 3, 4, 5]]])
def test_values_are_those_of_owens_formula(groups: list[list[int]]) -> None:
    found = ap.Owen(groups=groups)(model, ROW)
    assert found.values[0].tolist() == pytest.approx(owen(groups), abs=1e-12)
    assert in_every_order(groups) == pytest.approx(owen(groups), abs=1e-12)
    assert float(found.remainder.abs().max()) < 1e-12
    assert found.notes["standard_errors"] == ((0.0,) * 6,)


@pytest.mark.parametrize("groups", [None, [[i] for i in range(6)], [[0, 1, 2, 3, 4, 5]]])
def test_groups_of_one_and_one_of_all_are_shapley_values(groups: Any) -> None:
    torch.testing.assert_close(
        ap.Owen(groups=groups)(model, ROW).values, ap.KernelSHAP()(model, ROW).values.double()
    )


@pytest.mark.parametrize("tree", [[[0, [1, 2]], [[3, 4], 5]], [[[0, 1], [2, 3]], 4, 5]])
def test_groups_in_groups_are_the_mean_over_orders_that_keep_them_together(tree: Any) -> None:
    assert ap.Owen(groups=tree)(model, ROW).values[0].tolist() == pytest.approx(
        in_every_order(tree), abs=1e-12
    )


def test_drawn_orders_come_near_add_up_and_say_how_sure_they_are() -> None:
    groups = [[0, 1], [2, 3, 4], [5]]
    expected, off = np.array(owen(groups)), []
    for seed in range(20):
        drawn = ap.Owen(groups=groups, samples=40, seed=seed)(model, ROW)
        assert float(drawn.remainder.abs().max()) < 1e-12
        off.append(
            (drawn.values[0].numpy() - expected) / np.maximum(drawn.notes["standard_errors"][0], 1e-12)
        )
    far = ap.Owen(groups=groups, samples=40)(model, ROW).values[0].numpy() - expected
    assert np.abs(far).max() > 1e-6
    assert float(np.mean(np.abs(np.clip(off, -9, 9)) < 2.5)) > 0.8


def test_columns_go_by_name_and_named_groups_have_their_shapley_values() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        np.random.default_rng(0).normal(size=(5, 4)), columns=["city", "zip", "age", "pay"]
    )
    table = ap.Tabular(
        lambda rows: (rows["city"] * rows["zip"] * rows["age"] + rows["pay"]).to_numpy(), frame
    )
    groups = {"place": ["city", "zip"], "person": {"body": ["age"], "money": ["pay"]}}
    found = ap.explain(table, frame.iloc[[0]], ap.Owen(groups=groups))
    together = ap.explain(
        table, frame.iloc[[0]], ap.KernelSHAP(partition={"place": ["city", "zip"], "person": ["age", "pay"]})
    )
    shapley = dict(zip(("place", "person"), together.notes["coefficients"][0], strict=True))
    assert found.notes["groups"][0] == pytest.approx(shapley)
    assert found.features[0].columns == tuple(frame.columns)
    with pytest.raises(InputError, match=r"groups name 'cityy', .* such as 'city'"):
        ap.explain(table, frame.iloc[[0]], ap.Owen(groups={"place": ["cityy"]}))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([[0, 1], [1]], "1 is in two groups"),
        ([[0, 9]], "groups name 9, .* from 0 to 5"),
        ([["a"]], "groups name 'a'"),
        (3, "groups is 3; accepted: a dict or list"),
        ([[]], r"groups is \[\]"),
        ([[True]], "groups is True"),
    ],
)
def test_groups_that_are_none_are_refused(groups: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ap.Owen(groups=groups)(model, ROW)
