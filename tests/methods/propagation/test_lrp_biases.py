"""What becomes of the relevance that biases and softmax take: absorbed, spread, ignored, placed, handed back."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import apportion as ap
import small
from apportion.errors import InputError
from apportion.methods.propagation.composites import COMPOSITES
from apportion.results.ledger import Ledger


def shaken(net: nn.Module) -> Any:
    """The net with biases and statistics that are not zero."""
    for tensor in net.parameters():
        tensor.data.add_(0.3 * torch.randn_like(tensor))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return net.double().eval()


class Positions(nn.Module):
    """Tokens with constant positions, attention with a padding mask, norms: what a BERT has."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 16), nn.Embedding(9, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu")
        self.head = nn.Linear(16, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        x += self.places(torch.arange(ids.shape[1]))
        return self.head(self.layer(x, src_key_padding_mask=ids == 0).mean(1))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.lstm, self.head = (
            nn.Embedding(20, 8),
            nn.LSTM(8, 6, batch_first=True),
            nn.Linear(6, 2),
        )

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.lstm(self.words(ids))[0].mean(1))  # type: ignore[no-any-return]


PICTURE = (2, 3, 10, 10)
MODELS: dict[str, tuple[Any, tuple[int, ...] | None]] = {
    "folded": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5), nn.BatchNorm1d(5), nn.SiLU(),
            nn.Linear(5, 3),
        ),
        PICTURE,
    ),
    "norm first": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)),
        PICTURE,
    ),
    "group norm": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2),
            nn.InstanceNorm2d(4, affine=True), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
        ),
        PICTURE,
    ),
    "table": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 2)), (3, 6)),
    "attention": (Positions, None),
    "recurrent": (Recurrent, None),
}  # fmt: skip


def made(name: str) -> tuple[Any, Tensor]:
    make, shape = MODELS[name]
    model = shaken(make())
    if shape is not None:
        return model, torch.randn(shape, dtype=torch.float64)
    ids = torch.randint(1, 20, (2, 7))
    ids[0, -2:] = 0 if name == "attention" else ids[0, -2:]
    return model, ids


@pytest.mark.parametrize(
    ("name", "composite"),
    [
        *itertools.product(["folded", "norm first", "group norm"], ["epsilon-plus-flat", "epsilon-gamma-box"]),
        ("table", "epsilon"), ("attention", "transformer"), ("attention", "constant"), ("attention", "difference"),
        ("recurrent", "constant"),
    ],
)  # fmt: skip
def test_with_placed_biases_values_add_up(name: str, composite: str) -> None:
    model, x = made(name)
    rules = COMPOSITES[composite] if composite in COMPOSITES else ap.Composite(softmax=composite)  # type: ignore[arg-type]
    plain = ap.LRP(rules)(model, x, target=1)
    e = ap.LRP(rules, bias="place", ledger=True)(model, x, target=1)
    assert (e.remainder.abs() <= 2e-4 * e.total.abs().clamp(min=1)).all()
    assert (plain.remainder.abs() > 1e-2).any()
    # Nothing is absorbed twice: what is placed is what was missing.
    assert e.ledger.placed == pytest.approx(float((plain.remainder - e.remainder).sum()), abs=1e-9)
    assert abs(e.ledger.residual) < 1e-9
    assert abs(e.ledger.absorbed["bias"]) + abs(e.ledger.absorbed["softmax"]) < 1e-4
    assert Ledger.from_json(e.ledger.to_json()) == e.ledger


def test_a_placed_bias_is_shared_by_the_size_of_contributions() -> None:
    layer = nn.Linear(4, 3).double()
    x = torch.randn(2, 4, dtype=torch.float64)
    parts = x * layer.weight[1]
    expected = parts + layer.bias[1] * parts.abs() / parts.abs().sum(1, keepdim=True)
    found = ap.LRP(ap.Composite(linear=ap.Zero()), bias="place")(layer, x, target=1)
    torch.testing.assert_close(found.values, expected.detach())


def test_a_placed_bias_stays_in_the_receptive_field() -> None:
    # Two convolutions of width 3, the second of which has the only bias; one of its positions is explained.
    net = nn.Sequential(nn.Conv1d(2, 3, 3, bias=False), nn.Conv1d(3, 1, 3), nn.Flatten()).double()
    x = torch.randn(1, 2, 20, dtype=torch.float64)
    place, absorb = (ap.LRP("epsilon", bias=b)(net, x, target=6) for b in ("place", "absorb"))
    placed = place.values - absorb.values
    assert float(placed.sum()) == pytest.approx(net[1].bias.item(), abs=1e-5)
    assert (placed[..., 6:11] != 0).all()
    assert (placed[..., :6] == 0).all()
    assert (placed[..., 11:] == 0).all()


def test_what_is_placed_at_a_token_stays_there() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.norm, self.head = nn.Embedding(9, 4), nn.LayerNorm(4), nn.Linear(4, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(torch.relu(self.norm(self.words(ids) + 0.5)))[:, 2]  # type: ignore[no-any-return]

    model = shaken(Tokens())
    e = ap.LRP("epsilon", bias="place")(model, torch.tensor([[1, 2, 3, 4]]), target=0)
    assert float(e.values[0, 2]) == pytest.approx(float(e.total), abs=1e-4)
    assert (e.values[0, [0, 1, 3]] == 0).all()


@pytest.mark.parametrize("rule", [ap.Gamma(0.5, eps=0), ap.AlphaBeta(1, 0, eps=0)], ids=repr)
def test_a_spread_bias_is_shared_evenly(rule: Any) -> None:
    layer = nn.Linear(5, 1).double()
    x = torch.randn(3, 5, dtype=torch.float64)
    x[:, 0] = 0
    absorb, spread = (
        ap.LRP(ap.Composite(linear=rule), bias=b)(layer, x, target=0) for b in ("absorb", "spread")
    )
    assert absorb.remainder is not None
    taken = absorb.remainder[:, None] / 4
    torch.testing.assert_close(spread.values, absorb.values + torch.where(x == 0, 0, taken))


def test_the_bias_setting_of_the_method_goes_before_that_of_the_composite() -> None:
    model, x = made("table")
    rules = ap.Composite(bias="place")
    placed, same, absorbed = (
        ap.LRP(rules)(model, x, target=0), ap.LRP("epsilon", bias="place")(model, x, target=0),
        ap.LRP(rules, bias="absorb")(model, x, target=0),
    )  # fmt: skip
    torch.testing.assert_close(placed.values, same.values)
    torch.testing.assert_close(absorbed.values, ap.LRP("epsilon")(model, x, target=0).values)


def test_biases_are_placed_at_an_inner_layer() -> None:
    model, x = made("folded")
    e = ap.LRP("epsilon-plus-flat", at="4", bias="place")(model, x, target=0)
    assert (e.remainder.abs() <= 1e-4 * e.total.abs().clamp(min=1)).all()


def test_settings_that_came_later_are_not_told_until_set() -> None:
    assert " bias=" not in repr(ap.LRP()) + repr(ap.Composite())
    assert "bias='place'" in repr(ap.LRP(bias="place"))
    assert "bias='place'" in repr(ap.Composite(bias="place"))


# ---- softmax ----


class Attention(nn.Module):
    """Attention without biases, its weights written as users write them."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.words = way, nn.Embedding(20, 8)
        self.q, self.k, self.v = (nn.Linear(8, 8, bias=False) for _ in range(3))
        self.head = nn.Linear(8, 2, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        q, k, v = self.q(x), self.k(x), self.v(x)
        mask = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        if self.way == "fused":
            y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = (q @ k.mT / 8**0.5).masked_fill(~mask, -torch.inf)
            if self.way == "einsum":
                y = torch.einsum("bqk,bkd->bqd", scores.softmax(-1), v)
            elif self.way == "transposed":
                y = (v.mT @ nn.functional.dropout(scores.softmax(-1), 0.1, self.training).mT).mT
            else:
                y = nn.functional.softmax(scores, dim=-1, dtype=torch.float64) @ v
        return self.head((x + y).mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("way", ["fused", "einsum", "transposed", "matmul"])
def test_softmax_by_difference_adds_up_and_is_deeplift_from_zero(way: str) -> None:
    # From a zero embedding all scores are zero, and so are the values.
    model = shaken(Attention(way))
    ids = torch.randint(0, 20, (2, 6))
    rules = ap.Composite(linear=ap.Epsilon(1e-12), matmul=ap.Epsilon(1e-12), softmax="difference")
    e = ap.LRP(rules, ledger=True)(model, ids, target=1)
    assert e.remainder.abs().max() < 1e-7
    torch.testing.assert_close(
        e.values, ap.DeepLIFT(baseline="zero")(model, ids, target=1).values, rtol=1e-6, atol=1e-8
    )
    assert abs(e.ledger.absorbed["softmax"]) < 1e-9
    assert abs(e.ledger.residual) < 1e-9


def test_the_ledger_names_softmax() -> None:
    model = shaken(Attention("matmul"))
    e = ap.LRP("transformer", ledger=True)(model, torch.randint(0, 20, (2, 6)), target=1)
    absorbed = e.ledger.absorbed
    assert abs(absorbed["softmax"]) > 1e-3
    assert abs(absorbed["bias"]) < 1e-9
    assert absorbed["softmax"] == pytest.approx(float(e.remainder.sum()), abs=1e-4)
    assert {row.operation for row in e.ledger if row.softmax} == {"softmax"}


def test_what_softmax_absorbs_is_placed_at_the_query() -> None:
    model = shaken(Attention("matmul"))
    ids = torch.arange(6)[None]

    def third(y: Tensor) -> Tensor:
        return y[:, 0]

    class Third(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            x = model.words(ids)
            q, k, v = model.q(x), model.k(x), model.v(x)
            return ((q @ k.mT).softmax(-1) @ v)[:, 2]  # type: ignore[no-any-return]

    net = Third().double().eval()
    absorb, place = (ap.LRP("epsilon", bias=b)(net, ids, target=third) for b in ("absorb", "place"))
    moved = place.values - absorb.values
    assert float(moved[0, 2]) == pytest.approx(float(absorb.remainder), abs=1e-4)
    assert (moved[0, [0, 1, 3, 4, 5]].abs() < 1e-9).all()
    assert abs(float(absorb.remainder)) > 1e-3


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_biases_are_placed_without_a_graph_of_the_callers(mode) -> None:
    model, x = small.cnn()
    expected = ap.LRP(bias="place")(model, x, 0)
    with mode():
        found = ap.LRP(bias="place")(model, x.clone(), 0)
    torch.testing.assert_close(found.values, expected.values)


class Alternating(nn.Module):
    """Runs one more layer in its odd calls, or in its even ones."""

    def __init__(self, odd: bool) -> None:
        super().__init__()
        self.first, self.more, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.odd, self.calls = odd, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.first(x).relu()
        return self.last(self.more(x).relu() if (self.calls % 2 == 1) == self.odd else x)


@pytest.mark.parametrize("odd", [True, False])
def test_a_model_that_runs_other_layers_the_second_time_is_refused(odd: bool) -> None:
    with pytest.raises(InputError, match="the model ran other layers in the second"):
        ap.LRP(bias="place")(Alternating(odd).eval(), torch.ones(1, 4), target=0)
