"""The default: which method it takes, and that it adds up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import apportion as ap
import small
from apportion.core.features import TextFeatures
from apportion.errors import InputError
from apportion.methods.auto import Auto


@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_networks_are_explained_by_deeplift_and_the_values_add_up(name: str):
    made = getattr(small, name)()
    model, inputs = made[:2]
    found = ap.explain(model, inputs, target=0)
    assert isinstance(found.method, ap.DeepLIFT)
    assert found.notes["chosen"] == "faithful on networks, and it adds up"
    assert float(found.left_over.max()) <= 0.01
    again = found.method(model, inputs, 0)
    assert torch.equal(again.apportioned, found.apportioned)


def test_convolutional_networks_are_explained_by_lrp_whose_biases_are_placed():
    model, inputs = small.cnn()
    found = ap.explain(model, inputs, target=0)
    assert found.method == ap.LRP(bias="place")
    assert "convolutional" in found.notes["chosen"]
    assert float(found.left_over.max()) <= 0.01
    torch.testing.assert_close(found.total, model(inputs)[:, 0])


def test_transformers_of_pictures_are_explained_by_what_adds_up_although_a_token_is_no_pixel():
    class Pictures(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.patches, self.first = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = self.patches(x).flatten(2).mT
            found = torch.cat([self.first.expand(len(x), 1, 8), found], 1)
            return self.head((found + self.attention(found, found, found)[0])[:, 0])

    model, x = Pictures().eval(), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    found = ap.explain(model, x, target=1)
    assert isinstance(found.method, ap.DeepLIFT)
    assert float(found.left_over.max()) <= 0.01
    torch.testing.assert_close(found.total, (model(x) - model(torch.zeros_like(x)))[:, 1])
    assert float(ap.LRP(bias="place")(model, x, 1).left_over.max()) > 0.2  # the token's share


def test_what_leaves_pytorch_is_explained_by_kernel_shap_and_the_reason_is_kept():
    def forest(rows: np.ndarray) -> np.ndarray:
        return np.stack([rows[:, 0] * rows[:, 1], rows[:, 2]], 1)

    rows = np.array([[2.0, 3.0, 5.0]])
    by_arrays = ap.explain(forest, rows, target=0)
    by_tensors = ap.explain(lambda x: torch.from_numpy(forest(x.numpy())), torch.from_numpy(rows), target=0)
    for found in (by_arrays, by_tensors):
        assert isinstance(found.method, ap.KernelSHAP)
        assert found.values[0].tolist() == pytest.approx([3.0, 3.0, 0.0])
    assert "needs no gradient" in by_arrays.notes["chosen"]
    assert "not the first choice: the model leaves PyTorch" in by_tensors.notes["chosen"]


class ToyForCausalLM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(ids).cumsum(1).tanh()[:, -1])


def test_language_models_are_explained_by_kernel_shap_over_their_tokens():
    model = ToyForCausalLM().eval()
    found = Auto()(model, torch.tensor([[1, 2, 3]]), 4)
    assert isinstance(found.method, ap.KernelSHAP)
    assert "language models" in found.notes["chosen"]
    assert float(found.left_over) <= 1e-6


def test_transformers_without_words_are_explained_by_lrp_whose_biases_are_placed():
    model, inputs = small.bert()[:2]
    found = ap.explain(model, inputs, target=0)
    assert found.method == ap.LRP(bias="place")
    assert "transformers" in found.notes["chosen"]
    assert float(found.left_over.max()) <= 0.01


def sentence(words: int) -> TextFeatures:
    """A text whose words are one token each, between special tokens."""
    text = " ".join(["word"] * words)
    offsets = [(0, 0), *((5 * i, 5 * i + 4) for i in range(words)), (0, 0)]
    return TextFeatures(
        text, ("[CLS]", *["word"] * words, "[SEP]"), tuple(offsets), (None, *range(words), None)
    )


@pytest.mark.parametrize(("words", "method"), [(5, ap.KernelSHAP), (65, ap.LRP)])
def test_transformers_that_read_a_short_text_are_explained_by_kernel_shap(words: int, method: type):
    torch.manual_seed(0)
    attend = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.attend, self.head = nn.Embedding(9, 8), attend, nn.Linear(8, 2)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.attend(self.embedding(ids)).mean(1))

    ids = torch.randint(2, 9, (1, words + 2))
    model = ap.Classifier(
        Encoder().eval(), lambda _: (ids, sentence(words)), ("a", "b"), "text", "encoder", mask=1
    )
    found = ap.explain(model, sentence(words).text, target=0)
    assert isinstance(found.method, method)
    assert float(found.left_over.max()) <= 0.01


def test_a_layer_is_explained_by_deeplift_and_by_nothing_else():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    assert Auto(at="0")(model, torch.ones(1, 3), 0).method == ap.DeepLIFT(at="0")
    with pytest.raises(InputError, match="nearest"):
        Auto(at="00")(model, torch.ones(1, 3), 0)


def test_what_is_wrong_with_the_input_is_told_as_by_the_first_choice():
    with pytest.raises(InputError, match="target is class 5, but the model has 2"):
        ap.explain(nn.Linear(3, 2), torch.ones(1, 3), target=5)
