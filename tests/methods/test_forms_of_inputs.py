"""Inputs of other forms than one row a sample: documents of sentences, graphs, complex numbers, two pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import apportion as ap
from apportion.errors import InputError

DOCUMENTS = (2, 3, 4)  # (batch, sentences, tokens)


class OfSentences(nn.Module):
    """Reads all sentences of a batch of documents as one batch, and means them by document."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.read, self.say = nn.Embedding(20, 4), nn.GRU(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, ids: Tensor) -> Tensor:
        batch, sentences, _ = ids.shape
        _, state = self.read(self.words(ids.flatten(0, 1)))
        return self.say(torch.tanh(state[0]).reshape(batch, sentences, -1).mean(1))


def of_sentences() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return OfSentences().double().eval(), torch.randint(1, 20, DOCUMENTS)


def with_other(model: nn.Module, ids: Tensor, place: tuple[int, int], other: int) -> Tensor:
    changed = ids.clone()
    changed[(slice(None), *place)] = other
    with torch.no_grad():
        return model(changed)[:, 1]


@pytest.mark.parametrize("method", [ap.IntegratedGradients(tolerance=1e-6), ap.DeepLIFT(), ap.KernelSHAP()])
def test_documents_of_sentences_add_up_and_each_sample_is_its_own(method: Any) -> None:
    model, ids = of_sentences()
    both = method(model, ids, target=1)
    assert both.values.shape == DOCUMENTS
    torch.testing.assert_close(both.values.flatten(1).sum(1).double(), both.total, rtol=0, atol=1e-6)
    for one in range(2):
        alone = method(model, ids[one : one + 1], target=1)
        torch.testing.assert_close(alone.values[0], both.values[one], rtol=0, atol=1e-9)


def test_documents_are_integrated_as_their_sentences_would_be() -> None:
    """The document's score is the mean of what its sentences have, each alone, once the last layer is linear."""
    model, ids = of_sentences()
    method = ap.IntegratedGradients(tolerance=1e-9, baseline="zero")
    whole = method(model, ids, target=1).values
    each = [method(model, ids[:, i : i + 1], target=1).values for i in range(3)]
    torch.testing.assert_close(whole, torch.cat(each, 1) / 3, rtol=0, atol=1e-9)


def test_words_of_documents_are_hidden_one_by_one() -> None:
    model, ids = of_sentences()
    values = ap.Occlusion()(model, ids, target=1).values
    with torch.no_grad():
        score = model(ids)[:, 1]
    for sentence in range(3):
        for word in range(4):
            fall = score - with_other(model, ids, (sentence, word), 0)
            torch.testing.assert_close(values[:, sentence, word].double(), fall, rtol=0, atol=1e-6)


def test_sentences_that_lie_between_each_other_are_still_refused() -> None:
    model, ids = of_sentences()

    def mixed(ids: Tensor) -> Tensor:
        sentences = ids.transpose(0, 1)  # the first of all documents, then the second
        _, state = model.read(model.words(sentences.flatten(0, 1)))
        return model.say(state[0].view(*sentences.shape[:2], -1).mean(0))

    with pytest.raises(InputError, match="an axis that is that of the samples"):
        ap.IntegratedGradients()(mixed, ids, target=1)


def test_pictures_of_bytes_are_no_documents() -> None:
    with pytest.raises(InputError, match=r"uint8 have shape.*floating point"):
        ap.Occlusion()(
            lambda x: x.double().sum((1, 2, 3))[:, None], torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
        )


class OfGraph(nn.Module):
    """Sums over the neighbours: nodes (N, F) and edges (2, E), as PyTorch Geometric calls its models."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        hidden = torch.relu(self.first(nodes))
        return self.last(
            torch.zeros_like(hidden).index_add(0, edges[1], hidden[edges[0]]).mean(0, keepdim=True)
        )


def test_a_graph_is_explained_as_its_refusal_says() -> None:
    torch.manual_seed(0)
    model = OfGraph().double().eval()
    nodes = torch.randn(5, 3, dtype=torch.float64)
    edges = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])
    with pytest.raises(InputError, match=r"a graph is one sample x\[None\] for lambda rows"):
        ap.LRP()(model, (nodes, edges))

    def whole(rows: Tensor) -> Tensor:
        return torch.cat([model(row, edges) for row in rows])

    nothing = whole(torch.zeros_like(nodes)[None])[0, 1].item()
    for method in (ap.IntegratedGradients(tolerance=1e-6), ap.DeepLIFT(), ap.KernelSHAP()):
        found = method(whole, nodes[None], target=1)
        expected = whole(nodes[None])[0, 1].item() - nothing
        assert found.values.shape == (1, 5, 3)
        assert found.values.sum().item() == pytest.approx(expected, abs=1e-5)


class OfComplex(nn.Module):
    """|w · z|², whose values by real and imaginary parts are known in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, dtype=torch.complex128))

    def forward(self, z: Tensor) -> Tensor:
        return ((z @ self.weight).abs() ** 2)[:, None]


def test_complex_inputs_are_explained_as_their_refusal_says() -> None:
    torch.manual_seed(0)
    model, z = OfComplex(), torch.randn(2, 4, dtype=torch.complex128)
    with pytest.raises(
        InputError, match=r"view_as_real\(x\) for lambda x: model\(torch.view_as_complex\(x\)\)"
    ):
        ap.IntegratedGradients()(model, z)
    found = ap.IntegratedGradients()(lambda x: model(torch.view_as_complex(x)), torch.view_as_real(z))
    # A quadratic form: Integrated Gradients from zero is x · ∇f / 2 = Re(conj(s) w z), s = w · z.
    sums = (z @ model.weight)[:, None]
    both = torch.view_as_real(model.weight.detach() * sums.detach().conj())  # (w s*): real, imaginary
    right = torch.stack([z.real * both[..., 0], -z.imag * both[..., 1]], -1)
    torch.testing.assert_close(found.values.double(), right, rtol=0, atol=1e-6)
    by_hiding = ap.KernelSHAP()(model, z)  # hides whole complex numbers
    torch.testing.assert_close(by_hiding.values.sum(1).double(), model(z)[:, 0].detach(), rtol=1e-6, atol=0)


class OfTwoPictures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.colour, self.depth = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.say = nn.Linear(8, 3)

    def forward(self, colour: Tensor, depth: Tensor) -> Tensor:
        read = [torch.relu(self.colour(colour)), torch.relu(self.depth(depth))]
        return self.say(torch.cat([each.mean((2, 3)) for each in read], 1))


def test_of_two_pictures_the_one_that_is_not_held_gets_the_map() -> None:
    torch.manual_seed(0)
    model, colour, depth = OfTwoPictures().eval(), torch.randn(2, 3, 8, 8), torch.randn(2, 1, 8, 8)
    with pytest.raises(InputError, match=r"of several, ap.held\(x\) marks those that are not explained"):
        ap.GradCAM()(model, (colour, depth), target=1)
    of_depth = ap.GradCAM()(model, (ap.held(colour), depth), target=1)
    alone = ap.GradCAM(layer="depth")(lambda_of(model, colour), depth, target=1)
    torch.testing.assert_close(of_depth.values[1], alone.values)
    assert not of_depth.values[0].any()
    with pytest.raises(InputError, match="does not depend on the picture"):
        ap.GradCAM(layer="colour")(model, (ap.held(colour), depth), target=1)


def lambda_of(model: OfTwoPictures, colour: Tensor) -> nn.Module:
    class OfDepth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.depth = model.depth

        def forward(self, depth: Tensor) -> Tensor:
            return model(colour, depth)

    return OfDepth().eval()


class OfRegion(nn.Module):
    """The mean score of each class over a region of a segmentation."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.layers(x)
        return (scores if self.whole else scores[:, :, 2:5, 2:5]).mean((2, 3))


@pytest.mark.parametrize(("whole", "layer"), [(False, "layers.1"), (True, "layers")])
def test_the_output_of_a_segmentation_is_not_its_own_map(whole: bool, layer: str) -> None:
    torch.manual_seed(0)
    found = ap.GradCAM()(OfRegion(whole).eval(), torch.randn(2, 3, 8, 8), target=1)
    assert found.notes["layer"] == layer


def test_ids_that_are_longer_than_the_model_are_told() -> None:
    settings = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=16,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(settings).eval()
    with pytest.raises(RuntimeError, match="size") as caught:
        ap.LRP()(model, torch.randint(0, 30, (1, 20)))
    assert "takes at most 16 tokens" in " ".join(caught.value.__notes__)
