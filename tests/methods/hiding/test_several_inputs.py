"""Partitions, replacements, windows and baselines over several inputs, against what is obviously right."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor

import apportion as ap
from apportion.core.registry import from_repr

A = torch.tensor([[2.0, 3.0], [1.0, -1.0]], dtype=torch.float64)
B = torch.tensor([[5.0, -1.0, 4.0], [0.5, 2.0, 1.0]], dtype=torch.float64)


def model(a: Tensor, b: Tensor) -> Tensor:
    """Of all kinds of products, within an input and between two: a₀ b₀ + a₁ b₁ b₂ + 2 b₀."""
    return (a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] * b[:, 2] + 2 * b[:, 0])[:, None]


def hidden(a: Tensor, b: Tensor, keep: set[int], put: tuple[Any, Any]) -> Tensor:
    """The score where the features 0: {a₀, b₀}, 1: {a₁}, 2: {b₁, b₂} are kept or replaced."""
    maps = (torch.tensor([0, 1]), torch.tensor([0, 2, 2]))
    masked = [
        torch.where(sum(labels == i for i in keep) > 0 if keep else torch.zeros_like(labels) > 0, x, other)
        for x, labels, other in zip((a, b), maps, put, strict=True)
    ]
    return model(*masked)[:, 0]


def sums(values: tuple[Tensor, ...]) -> Tensor:
    """The sum of each of the three features over both inputs, (batch, 3)."""
    a, b = values
    return torch.stack([a[:, 0] + b[:, 0], a[:, 1], b[:, 1] + b[:, 2]], 1)


MAPS = (torch.tensor([4, 7]), torch.tensor([4, 9, 9]))  # any numbers: equal ones are one feature


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("put", [(0.0, 0.0), (0.5, torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64))])
def test_one_feature_may_span_several_inputs(named: bool, put: tuple[Any, Any]) -> None:
    """Shapley values by all orders, and leave-one-out, of three features of which one lies in both inputs."""
    put = tuple(torch.as_tensor(one, dtype=torch.float64) for one in put)  # type: ignore[assignment]
    wide = tuple(ap.Background(one) if one.dim() else ap.Constant(float(one)) for one in put)
    inputs: Any = {"a": A, "b": B} if named else (A, B)
    settings: dict[str, Any] = {"partition": dict(zip("ab", MAPS, strict=True)) if named else MAPS}
    settings["replacement"] = dict(zip("ab", wide, strict=True)) if named else wide
    orders = list(permutations(range(3)))
    shapley = torch.zeros(2, 3, dtype=torch.float64)
    for order in orders:
        for i in range(3):
            gain = hidden(A, B, set(order[: i + 1]), put) - hidden(A, B, set(order[:i]), put)
            shapley[:, order[i]] += gain / len(orders)
    found = ap.KernelSHAP(**settings)(model, inputs, 0)
    values = tuple(found.values.values()) if named else found.values
    torch.testing.assert_close(sums(values), shapley)
    torch.testing.assert_close(found.total, hidden(A, B, {0, 1, 2}, put) - hidden(A, B, set(), put))
    out = torch.stack([model(A, B)[:, 0] - hidden(A, B, {0, 1, 2} - {i}, put) for i in range(3)], 1)
    found = ap.Occlusion(**settings)(model, inputs, 0)
    torch.testing.assert_close(sums(tuple(found.values.values()) if named else found.values), out)
    assert ap.LIME(**settings, samples=50)(model, inputs, 0).total.isfinite().all()


def test_inputs_of_which_nothing_is_said_are_cut_as_usual() -> None:
    found = ap.Occlusion(partition={"b": torch.tensor([0, 0, 0])})(model, {"a": A, "b": B}, 0)
    without = torch.stack(
        [model(A, B)[:, 0] - model(A * ~(torch.arange(2) == i), B)[:, 0] for i in range(2)], 1
    )
    torch.testing.assert_close(found.values["a"], without)
    torch.testing.assert_close(found.values["b"].sum(1), model(A, B)[:, 0])
    kinds = ap.Occlusion(partition=(ap.Columns(), ap.Patches(2)))(model, (A, B), 0)
    pair = model(A, B)[:, 0] - model(A, B * torch.tensor([0, 0, 1]))[:, 0]
    torch.testing.assert_close(kinds.values[1][:, :2].sum(1), pair)
    torch.testing.assert_close(kinds.values[0], without)


def test_rows_of_several_backgrounds_are_drawn_together() -> None:
    rows = (A + 1, B - 2)
    found = ap.KernelSHAP(replacement=tuple(map(ap.Background, rows)))(model, (A, B), 0)
    torch.testing.assert_close(found.total, model(A, B)[:, 0] - model(*rows).mean())
    one = ap.KernelSHAP(replacement=(ap.Background(rows[0][:1]), ap.Background(rows[1])))(model, (A, B), 0)
    torch.testing.assert_close(
        one.total, model(A, B)[:, 0] - model(rows[0][:1].expand(2, -1), rows[1]).mean()
    )


def test_windows_go_over_each_input_by_itself() -> None:
    """f = Σ a + Σ b²: each window's effect is its own sum, whatever else there is."""
    pictures = torch.arange(32, dtype=torch.float64).view(1, 2, 4, 4)
    rows = torch.arange(1.0, 6.0, dtype=torch.float64)[None]

    def total(a: Tensor, b: Tensor) -> Tensor:
        return (a.sum((1, 2, 3)) + (b**2).sum(1))[:, None]

    whole = ap.Occlusion(patch=((2, 2), 2))(total, (pictures, rows), 0)
    cells = pictures.view(1, 2, 2, 2, 2, 2).sum((1, 3, 5))  # (1, 2, 2)
    torch.testing.assert_close(
        whole.values[0],
        (cells / 8).repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None].expand(1, 2, 4, 4),
    )
    squares = rows**2
    torch.testing.assert_close(whole.values[1][0, :2], squares[0, :2].mean().expand(2))
    sliding = ap.Occlusion(patch={"a": 2, "b": 2}, stride={"a": 1, "b": 1})(
        total, {"a": pictures, "b": rows}, 0
    )
    pairs = (squares[0, 1:] + squares[0, :-1]) / 2  # what an entry gets of each window over it
    torch.testing.assert_close(sliding.values["b"][0, 1:4], (pairs[1:] + pairs[:-1])[:3] / 2)
    torch.testing.assert_close(sliding.values["b"][0, 0], pairs[0])
    alone = ap.Occlusion(patch=2, stride=1)(lambda a: total(a, rows), pictures, 0)
    torch.testing.assert_close(sliding.values["a"], alone.values)
    some = ap.Occlusion(patch={"a": 2}, stride={"a": 1})(total, {"a": pictures, "b": rows}, 0)
    torch.testing.assert_close(some.values["a"], alone.values)
    torch.testing.assert_close(some.values["b"], squares)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (ap.Occlusion(partition=(MAPS[0],)), "partition has 1 values, but the inputs are \\[0, 1\\]"),
        (
            ap.Occlusion(partition=MAPS[0]),
            "one partition was given for the inputs 0, 1; accepted: none, a single",
        ),
        (ap.Occlusion(partition={"c": MAPS[0]}), "partition names the inputs \\['c'\\], but the inputs are"),
        (
            ap.Occlusion(patch=1),
            "patch is 1 for the inputs 0, 1; accepted: one for each, as a tuple of tuples",
        ),
        (ap.Occlusion(patch=((1,),)), "patch has 1 values"),
        (ap.KernelSHAP(replacement=(3, None)), "replacement is 3; accepted: a replacement"),
        (
            ap.KernelSHAP(replacement=(ap.Background(A[:, :2]), ap.Background(torch.cat([B, B])))),
            "the backgrounds of the inputs have \\[2, 4\\] rows; accepted: as many for each",
        ),
    ],
)
def test_what_does_not_fit_several_inputs_is_refused(method: Any, said: str) -> None:
    with pytest.raises(ap.InputError, match=said):
        method(model, (A, B), 0)
    with pytest.raises(ap.InputError, match="baseline is None"):
        ap.IntegratedGradients(baseline=None)


def test_what_is_given_for_a_constant_input_is_refused() -> None:
    mask = torch.ones(2, 2, dtype=torch.bool)
    with pytest.raises(ap.InputError, match="partition has a value for input 1, which is held constant"):
        ap.Occlusion(partition=(None, MAPS[0]))(lambda a, m: (a * m).sum(1), (A, mask), 0)


def test_numbers_may_stand_beside_tensors_as_baselines() -> None:
    whole = torch.full_like(A, 0.5)
    start = B + 1
    for method in (ap.IntegratedGradients(nodes=8), ap.DeepLIFT()):
        wanted = method(model, (A, B), 0, baseline=(whole, start))
        found = method(model, (A, B), 0, baseline=(0.5, start))
        torch.testing.assert_close(found.values, wanted.values)
        torch.testing.assert_close(found.total, wanted.total)
        named = method(model, {"a": A, "b": B}, 0, baseline={"a": 0.5, "b": start})
        torch.testing.assert_close(tuple(named.values.values()), wanted.values)
    ids, width = torch.tensor([[1, 2]]), torch.randn(4, 2, dtype=torch.float64)

    def looks_up(ids: Tensor, a: Tensor) -> Tensor:
        return torch.nn.functional.embedding(ids, width).sum(1) * a

    with pytest.raises(ap.InputError, match="baseline of input 0 is a number; accepted: token ids"):
        ap.IntegratedGradients()(looks_up, (ids, A[:1]), 0, baseline=(0.0, 1.0))


def test_settings_for_each_input_are_read_from_their_reprs() -> None:
    for method in (
        ap.Occlusion(partition=(ap.Patches(2), None)),
        ap.Occlusion(patch={"a": 4, "b": (2, 2)}, stride={"a": 1}),
        ap.KernelSHAP(replacement=(ap.Constant(2.0), None)),
    ):
        assert from_repr(repr(method)) == method
        assert hash(from_repr(repr(method))) == hash(method)


def test_log_odds_of_the_mean_probability_are_apportioned() -> None:
    """One feature, two rows of data: logit(σ(x)) − logit of the mean of σ(0) and σ(2)."""
    data = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
    x = torch.tensor([[3.0]], dtype=torch.float64)
    found = ap.KernelSHAP(link="logit", replacement=ap.Background(data))(torch.sigmoid, x, 0)
    torch.testing.assert_close(found.values[0, 0], 3.0 - data.sigmoid().mean().logit())
    torch.testing.assert_close(found.total, found.apportioned)
    # Where the log-odds are linear and one row is the background, they are each column's own.
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = ap.KernelSHAP(link="logit")(lambda x: (x @ weight).sigmoid(), B, 0)
    torch.testing.assert_close(found.values, B * weight)
    with pytest.raises(
        ap.InputError, match="link='logit' needs probabilities between 0 and 1, but the scores"
    ):
        ap.KernelSHAP(link="logit")(lambda x: x @ weight, B, 0)
    with pytest.raises(ap.InputError, match="link='logit' is of the mean over a background"):
        ap.KernelSHAP(link="logit", replacement=ap.Background(data, many=1))(torch.sigmoid, x, 0)
    with pytest.raises(ap.InputError, match="link is 'log'; accepted: 'identity', 'logit'"):
        ap.KernelSHAP(link="log")  # type: ignore[arg-type]
