"""Attention weights, captured from every kind of attention call, against those that the models report."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import apportion as ap
from apportion.errors import InputError
from apportion.methods.gradients.attention import attention_maps


class Additive(nn.Module):
    """Embedding, LSTM, `softmax(v · tanh(W h))` over tokens; `column` keeps the last dimension."""

    def __init__(self, column: bool) -> None:
        super().__init__()
        self.table, self.lstm = nn.Embedding(20, 6), nn.LSTM(6, 5, batch_first=True)
        self.key, self.query, self.head = nn.Linear(5, 4), nn.Linear(4, 1), nn.Linear(5, 2)
        self.column = column

    def weights(self, states: Tensor) -> Tensor:
        scores = self.query(torch.tanh(self.key(states)))
        return scores.softmax(1) if self.column else scores.squeeze(-1).softmax(-1)[..., None]

    def forward(self, ids: Tensor) -> Tensor:
        states = self.lstm(self.table(ids))[0]
        return self.head((self.weights(states) * states).sum(1)).softmax(-1)


class Heads(nn.Module):
    def __init__(self, first: bool, read: int | None) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=not first), nn.Linear(8, 2)
        self.first, self.read = first, read

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        x = x.transpose(0, 1) if self.first else x
        y = self.attention(x, x, x, need_weights=False)[0]
        y = y.transpose(0, 1) if self.first else y
        return self.head(y.mean(1) if self.read is None else y[:, self.read])


class Scaled(nn.Module):
    def __init__(self, **settings) -> None:
        super().__init__()
        self.table, self.head, self.settings = nn.Embedding(20, 8), nn.Linear(8, 2), settings

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids).unflatten(2, (2, 4)).transpose(1, 2)
        y = F.scaled_dot_product_attention(x, 2 * x, x, **self.settings)
        return self.head(y.transpose(1, 2).flatten(2)[:, -1])


def ids(many: int = 2, tokens: int = 6) -> Tensor:
    return torch.randint(1, 20, (many, tokens), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("column", [False, True])
def test_additive_attention(column: bool) -> None:
    torch.manual_seed(0)
    model = Additive(column).double().eval()
    found = ap.AttentionWeights()(model, ids())
    expected = model.weights(model.lstm(model.table(ids()))[0])[..., 0]
    torch.testing.assert_close(found.values, expected.detach(), rtol=0, atol=1e-12)
    assert found.cost.forwards == 1
    assert found.total is None


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("tokens", [2, 6])
@pytest.mark.parametrize("read", [None, 0, 1])
def test_multi_head_attention(first: bool, tokens: int, read: int | None) -> None:
    """Also with as many tokens as samples, where the order of dimensions cannot be guessed."""
    torch.manual_seed(0)
    model, given = Heads(first, read).double().eval(), ids(2, tokens)
    x = model.table(given)
    x = x.transpose(0, 1) if first else x
    weights = model.attention(x, x, x, average_attn_weights=False)[1].detach()
    (captured,) = attention_maps(model, given)
    assert captured.layer == "attention"
    torch.testing.assert_close(captured.weights, weights, rtol=0, atol=1e-12)
    found = ap.AttentionWeights()(model, given)
    expected = weights.mean(1).mean(1) if read is None else weights.mean(1)[:, read]
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.output, model(given).detach())
    one = ap.AttentionWeights(head=1, query=-1)(model, given)
    torch.testing.assert_close(one.values, weights[:, 1, -1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"is_causal": True},
        {"scale": 0.1},
        {"attn_mask": torch.tensor([True, True, False, True, True, True]).expand(6, 6)},
        {"attn_mask": torch.randn(6, 6, dtype=torch.float64)},
    ],
    ids=["plain", "causal", "scale", "mask", "bias"],
)
def test_scaled_dot_product_attention(settings: dict) -> None:
    """Weights times values must be what the fused function returned."""
    torch.manual_seed(0)
    model = Scaled(**settings).double().eval()
    (captured,) = attention_maps(model, ids())
    x = model.table(ids()).unflatten(2, (2, 4)).transpose(1, 2).detach()
    torch.testing.assert_close(captured.weights @ x, captured.output, rtol=0, atol=1e-12)
    found = ap.AttentionWeights()(model, ids())
    torch.testing.assert_close(found.values, captured.weights.mean(1)[:, -1])


@pytest.mark.parametrize("how", ["sdpa", "eager"])
def test_transformers(how: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24,
        initializer_range=0.3, attn_implementation=how,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config).eval()
    inputs = {"input_ids": ids(2, 7), "attention_mask": torch.ones(2, 7, dtype=torch.long)}
    inputs["attention_mask"][1, 5:] = 0
    maps = attention_maps(model, inputs)
    found = ap.AttentionWeights()(model, inputs).values["input_ids"]
    rolled = ap.AttentionWeights(rollout=True)(model, inputs).values["input_ids"]
    model.set_attn_implementation("eager")
    reported = [a.detach() for a in model(**inputs, output_attentions=True).attentions]
    assert len(maps) == 3
    for ours, theirs in zip(maps, reported, strict=True):
        torch.testing.assert_close(ours.weights, theirs, rtol=0, atol=1e-6)
    torch.testing.assert_close(found, reported[-1].mean(1)[:, 0], rtol=0, atol=1e-6)
    product = torch.eye(7)
    for layer in reported:
        product = (layer.mean(1) + torch.eye(7)) / 2 @ product
    torch.testing.assert_close(rolled, product[:, 0], rtol=0, atol=1e-6)
    first = ap.AttentionWeights(layer="bert.encoder.layer.0", query=0)(model, inputs).values["input_ids"]
    torch.testing.assert_close(first, reported[0].mean(1)[:, 0], rtol=0, atol=1e-6)


def test_patches_of_an_image() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    model = transformers.ViTForImageClassification(config).eval()
    found = ap.AttentionWeights()(model, torch.randn(2, 3, 32, 32))
    assert found.values.shape == (2, 3, 32, 32)
    assert (found.values >= 0).all()


def test_bad_input() -> None:
    model = Heads(False, None)
    for method, message in (
        (
            ap.AttentionWeights(layer="attend"),
            "no attention call was made in layer 'attend'; accepted: attention",
        ),
        (ap.AttentionWeights(layer=3), "made 1 attention calls"),
        (ap.AttentionWeights(head=2), "head is 2"),
        (ap.AttentionWeights(query=9), "query is 9"),
    ):
        with pytest.raises(InputError, match=message):
            method(model, ids())
    with pytest.raises(InputError, match="made no attention call"):
        ap.AttentionWeights()(nn.Linear(3, 2), torch.ones(1, 3))


def test_a_softmax_that_is_the_answer_is_no_attention():
    torch.manual_seed(0)
    words, key, head = nn.Embedding(10, 5), nn.Linear(5, 1), nn.Linear(5, 5)  # as many classes as tokens

    def weights(ids):
        return torch.softmax(key(words(ids))[..., 0], -1)

    def model(ids):
        return torch.softmax(head((weights(ids)[..., None] * words(ids)).sum(1)), -1)

    ids = torch.randint(0, 10, (2, 5))
    torch.testing.assert_close(ap.AttentionWeights()(model, ids).values, weights(ids).detach())


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_windows_of_a_picture_are_not_the_picture(implementation: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)

    def swin(side: int) -> nn.Module:
        config = transformers.SwinConfig(
            image_size=side,
            patch_size=4,
            embed_dim=8,
            depths=[1, 1],
            num_heads=[2, 2],
            window_size=4,
            attn_implementation=implementation,
        )
        return transformers.SwinForImageClassification(config).eval()

    with pytest.raises(InputError, match="within windows"):  # four of them in the last stage
        ap.AttentionWeights()(swin(64), torch.randn(1, 3, 64, 64))
    found = ap.AttentionWeights()(swin(32), torch.randn(2, 3, 32, 32))
    assert found.notes["layers"] == ["swin.encoder.layers.1.blocks.0.attention"]


def test_a_softmax_without_an_axis() -> None:
    torch.manual_seed(0)
    words, key, head = nn.Embedding(10, 5), nn.Linear(5, 1), nn.Linear(5, 3)

    def model(ids):
        weights = F.softmax(key(words(ids))[..., 0])
        return head((weights[..., None] * words(ids)).sum(1))

    sentence = torch.randint(0, 10, (2, 6))
    with pytest.warns(UserWarning, match="Implicit dimension"):
        found = ap.AttentionWeights()(model, sentence).values
    torch.testing.assert_close(found, torch.softmax(key(words(sentence))[..., 0], 1).detach())


def test_rollout_of_an_encoder_and_a_decoder() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BartConfig(
        vocab_size=30,
        d_model=8,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        eos_token_id=2,
        pad_token_id=1,
        attn_implementation="eager",
    )
    model = transformers.BartForSequenceClassification(config).eval()
    inputs = {"input_ids": torch.tensor([[0, 5, 6, 7, 2]])}
    reported = model(**inputs, output_attentions=True)
    with pytest.raises(InputError, match="several, as those of an encoder and a decoder"):
        ap.AttentionWeights(rollout=True)(model, inputs)
    found = ap.AttentionWeights(rollout=True, layer="model.encoder", query=0)(model, inputs)
    product = torch.eye(5)
    for weights in reported.encoder_attentions:
        product = (weights.mean(1) + torch.eye(5)) / 2 @ product
    torch.testing.assert_close(found.values["input_ids"], product[:, 0], rtol=0, atol=1e-6)
    crossed = ap.AttentionWeights()(model, inputs).values["input_ids"]
    expected = reported.cross_attentions[-1].mean(1)[:, -1]
    torch.testing.assert_close(crossed, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("first", ["samples", "heads"])
def test_as_many_heads_as_samples(first: str, fused: bool) -> None:
    """Which of them comes first is seen by what a sample's score reads."""
    torch.manual_seed(0)
    table, head = nn.Embedding(20, 8), nn.Linear(8, 3)
    order = (0, 2, 1, 3) if first == "samples" else (2, 0, 1, 3)

    def model(ids: Tensor) -> Tensor:
        x = table(ids).unflatten(2, (2, 4)).permute(order)
        if fused:
            y = F.scaled_dot_product_attention(x, x, x)
        else:
            y = torch.softmax(x @ x.transpose(-1, -2) / 2, -1) @ x
        y = y.permute(0, 2, 1, 3) if first == "samples" else y.permute(1, 2, 0, 3)
        return head(y.flatten(2)[:, -1])

    x = table(ids(2)).unflatten(2, (2, 4)).transpose(1, 2)
    weights = torch.softmax(x @ x.transpose(-1, -2) / 2, -1).detach()
    for number, expected in ((None, weights.mean(1)), (1, weights[:, 1])):
        found = ap.AttentionWeights(head=number)(model, ids(2))
        torch.testing.assert_close(found.values, expected[:, -1])
    rolled = ap.AttentionWeights(rollout=True)(model, ids(2)).values
    torch.testing.assert_close(rolled, ((weights.mean(1) + torch.eye(6)) / 2)[:, -1])


class Towers(nn.Module):
    """Attention over a picture's 2 x 2 patches, and over the words beside it, of as many tokens; the picture first or
    last."""

    def __init__(self, last: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.table = nn.Conv2d(3, 4, 4, 4), nn.Embedding(9, 4)
        self.see, self.read = (nn.MultiheadAttention(4, 2, batch_first=True) for _ in range(2))
        self.last = last

    def forward(self, pixels: Tensor, ids: Tensor) -> Tensor:
        seen, read = self.patches(pixels).flatten(2).transpose(1, 2), self.table(ids)
        for tower in ("read", "see") if self.last == "see" else ("see", "read"):
            if tower == "see":
                seen = self.see(seen, seen, seen)[0]
            else:
                read = self.read(read, read, read)[0]
        return (seen.mean(1) * read.mean(1)).sum(1)


@pytest.mark.parametrize("last", ["see", "read"])
def test_attention_goes_to_the_input_that_its_keys_were_computed_from(last: str) -> None:
    model, inputs = Towers(last).eval(), {"pixels": torch.randn(2, 3, 8, 8), "ids": torch.randint(9, (2, 4))}
    seen = model.patches(inputs["pixels"]).flatten(2).transpose(1, 2)
    read = model.table(inputs["ids"])
    for tower, tokens, key in (("see", seen, "pixels"), ("read", read, "ids")):
        weights = getattr(model, tower)(tokens, tokens, tokens)[1].mean(1).detach()
        found = ap.AttentionWeights(layer=tower)(model, inputs)
        assert list(found.values) == [key]
        if key == "ids":
            torch.testing.assert_close(found.values[key], weights)
    assert list(ap.AttentionWeights()(model, inputs).values) == ["pixels" if last == "see" else "ids"]
