"""Concept relevance: sums, closed forms, what leads past the layer, and zennit-crp."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import apportion as ap
import peers
import small
from apportion.core.registry import from_repr


def pictures() -> Tensor:
    return torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=small.seeded(1))


def network(biased: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=biased), nn.ReLU(), nn.Conv2d(6, 8, 3, bias=biased), nn.ReLU(inplace=True),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 5, bias=biased),
    ).double()  # fmt: skip


class Past(nn.Module):
    """A layer that a shortcut leads past."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x + self.inner(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("layer", "many"), [("0", 6), ("1", 6), ("2", 8), ("3", 8), ("4", 8), ("6", 5)])
@pytest.mark.parametrize(
    "composite", [None, "epsilon", "epsilon-alpha2beta1-flat", ap.Composite(first=ap.Box(-4.0, 4.0), last=ap.Zero())]
)  # fmt: skip
def test_maps_of_all_channels_add_up_to_the_map_of_lrp(layer: str, many: int, composite: Any) -> None:
    model, x = network(), pictures()
    maps = [ap.ConceptRelevance(layer, c, composite=composite)(model, x, target=1) for c in range(many)]
    whole = ap.LRP(composite)(model, x, target=1)
    torch.testing.assert_close(sum(e.values for e in maps), whole.values, atol=1e-10, rtol=1e-8)
    at = ap.LRP(composite, at=layer)(model, x, target=1).values
    totals = torch.stack([e.total for e in maps], 1)
    torch.testing.assert_close(totals, at.flatten(2).sum(2) if at.dim() > 2 else at, atol=1e-10, rtol=1e-8)
    both = ap.ConceptRelevance(layer, [0, 2], composite=composite)(model, x, target=1)
    torch.testing.assert_close(both.values, maps[0].values + maps[2].values, atol=1e-10, rtol=1e-8)


def test_a_linear_network_has_it_in_closed_form() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False)).double()
    x = torch.randn(2, 4, dtype=torch.float64)
    first, last = model[0].weight, model[1].weight
    for channel in range(3):
        found = ap.ConceptRelevance("0", channel, composite=ap.Composite(linear=ap.Zero()))(
            model, x, target=0
        )
        torch.testing.assert_close(found.values, x * first[channel] * last[0, channel])
        torch.testing.assert_close(found.total, (x @ first[channel]) * last[0, channel])
        torch.testing.assert_close(found.remainder, torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)


def test_what_leads_past_the_layer_takes_no_part() -> None:
    torch.manual_seed(2)
    model, x = Past().double(), torch.randn(2, 4, dtype=torch.float64)
    plain = ap.Composite(linear=ap.Zero())
    inner, last = model.inner.weight, model.last.weight[1]
    found = sum(ap.ConceptRelevance("inner", c, composite=plain)(model, x, target=1).values for c in range(4))
    torch.testing.assert_close(found, x * (last @ inner))
    torch.testing.assert_close(ap.LRP(plain)(model, x, target=1).values, found + x * last)


def test_tokens_have_their_channels_on_the_last_axis() -> None:
    pytest.importorskip("transformers")
    model, inputs = small.bert()
    layer = "bert.embeddings"
    maps = [ap.ConceptRelevance(layer, [c, c + 8], axis=-1)(model, inputs, target=2) for c in range(8)]
    whole = ap.LRP()(model, inputs, target=2)
    torch.testing.assert_close(
        sum(e.values["input_ids"] for e in maps), whole.values["input_ids"], atol=1e-8, rtol=1e-6
    )


def test_without_channels_it_is_the_most_relevant_one_of_each_sample() -> None:
    model, x = network(), torch.cat([pictures(), -pictures()])
    most = ap.LRP(at="2")(model, x, target=1).values.flatten(2).sum(2).argmax(1).tolist()
    found = ap.ConceptRelevance("2")(model, x, target=1)
    assert found.notes["channels"] == most
    assert len(set(most)) > 1
    for row, channel in enumerate(most):
        alone = ap.ConceptRelevance("2", channel)(model, x[row : row + 1], target=1)
        torch.testing.assert_close(found.values[row], alone.values[0], atol=1e-10, rtol=1e-8)


def test_it_is_read_from_its_repr() -> None:
    method = ap.ConceptRelevance("2", [1, 3])
    assert from_repr(repr(method)) == method


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("",), "layer is ''; accepted: the name of a module, such as '"),
        (("2", 8), "channels is 8 of axis 1; layer '2' returns"),
        (("2", [0, 9]), "channels is .*; layer '2' returns"),
        (("7", 0), "7"),
        (("2", []), "accepted: one, or several, each once"),
        (("2", [1, 1]), "accepted: one, or several, each once"),
        (("2", -1), r"channels\[0\] is -1"),
        (("2", 0, 0), "channels is 0 of axis 0"),
        (("2", 0, 4), "channels is 0 of axis 4"),
        (("2", 0, 1, ap.Composite(bias="place")), "composite places"),
    ],
)
def test_says_what_is_wrong(given: Any, message: str) -> None:
    with pytest.raises(ap.InputError, match=message):
        ap.ConceptRelevance(*given)(network(), pictures(), target=0)


def test_a_layer_that_is_called_twice_is_refused() -> None:
    layer = nn.Linear(4, 4)
    with pytest.raises(ap.InputError, match="layer '0' is called 2 times"):
        ap.ConceptRelevance("0", 1)(nn.Sequential(layer, layer), torch.randn(1, 4), target=0)


@pytest.mark.skipif(find_spec("crp") is None, reason="zennit-crp is not installed")
def test_beside_zennit_crp() -> None:
    attribution, zennit = peers.concepts(), peers.zennit()
    model, x = network(biased=False), pictures()
    rules = [
        (zennit.types.Convolution, zennit.rules.ZPlus()),
        (zennit.types.Linear, zennit.rules.Epsilon(1e-6)),
    ]
    ours = ap.Composite(convolution=ap.AlphaBeta(1, 0))
    theirs = zennit.composites.LayerMapComposite([*rules, (zennit.types.Activation, zennit.rules.Pass())])
    for layer, channels in (("0", [2]), ("2", [1, 5]), ("3", [3])):
        conditions = [{layer: channels, "y": [4]}]
        copied = network(biased=False)
        asked = attribution.CondAttribution(copied)(x.clone().requires_grad_(), conditions, theirs)
        made = ap.ConceptRelevance(layer, channels, composite=ours)(model, x, target=4)
        torch.testing.assert_close(made.values.sum(1), asked.heatmap, atol=1e-8, rtol=1e-5)
