"""Occlusion against its definition and against captum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.core.features import TabularFeatures, TextFeatures
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.replacements import Constant, Delete
from apportion.errors import InputError


def network(size: int = 12) -> nn.Module:
    torch.manual_seed(0)
    width = size - 2
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * width * width, 5))
    return layers.double().eval()


def test_effects_of_a_product() -> None:
    x = torch.tensor([[1.0, 3.0, 5.0], [2.0, 0.0, 1.0]])
    found = ap.Occlusion()(lambda z: 2 * z[:, 0] * z[:, 1] + z[:, 2], x)
    assert found.values.tolist() == [[6.0, 6.0, 5.0], [0.0, 0.0, 1.0]]
    assert found.total is None
    assert found.cost.forwards == 4


@pytest.mark.parametrize(("patch", "stride"), [(4, 4), (4, 2), (3, 3), (6, 3), ((4, 6), (2, 3))])
def test_agrees_with_captum(patch: int | tuple[int, int], stride: int | tuple[int, int]) -> None:
    attr = pytest.importorskip("captum.attr")
    model, x = network(), torch.randn(2, 3, 12, 12, dtype=torch.float64)
    window = patch if isinstance(patch, tuple) else (patch, patch)
    step = stride if isinstance(stride, tuple) else (stride, stride)
    theirs = attr.Occlusion(model).attribute(x, (3, *window), strides=(3, *step), target=1)
    ours = ap.Occlusion(patch=patch, stride=stride)(model, x, 1)
    # captum gives each pixel the mean effect of its windows, here it is shared by the pixels of a window.
    scaled = ours.values * 3 * window[0] * window[1]
    torch.testing.assert_close(scaled.float(), theirs.float(), rtol=0, atol=1e-5)


def test_chunks_make_no_difference() -> None:
    model, x = network(), torch.randn(3, 3, 12, 12, dtype=torch.float64)
    whole = ap.Occlusion(patch=4, stride=2)(model, x)
    for chunk in (1, 5, 1000):
        part = ap.Occlusion(patch=4, stride=2, chunk=chunk)(model, x)
        torch.testing.assert_close(part.values, whole.values, rtol=0, atol=1e-12)


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 1)
        self.table.weight.data = torch.arange(10.0)[:, None]

    def forward(self, ids: Tensor) -> Tensor:
        return self.table(ids).sum(1)


def test_words_are_hidden_whole_and_special_tokens_never() -> None:
    features = TextFeatures(
        "unhappy end", ("[CLS]", "un", "##happy", "end"), ((0, 0), (0, 2), (2, 7), (8, 11)), (None, 0, 0, 1)
    )
    ids = torch.tensor([[9, 2, 3, 4]])
    assert ap.Occlusion()(Sum(), ids).values.tolist() == [[9.0, 2.0, 3.0, 4.0]]
    found = ap.Occlusion()(Sum(), ids, features=(features,), mask=1)
    assert found.values.tolist() == [[0.0, 1.5, 1.5, 3.0]]
    assert found.relevance()[1].tolist() == [3.0, 3.0]
    deleted = ap.Occlusion(replacement=Delete())(Sum(), ids, features=(features,))
    assert deleted.values.tolist() == [[0.0, 2.5, 2.5, 4.0]]


def test_one_hot_columns_are_hidden_together() -> None:
    row = TabularFeatures(("age", "sex"), ("41", "f"), (0, 1, 1))
    found = ap.Occlusion()(lambda z: z.sum(1), torch.tensor([[5.0, 1.0, 0.0]]), features=(row,))
    assert found.values.tolist() == [[5.0, 0.5, 0.5]]


def test_samples_with_fewer_features_have_nothing_beyond_them() -> None:
    labels = torch.tensor([[[0, 0], [1, 1]], [[0, 1], [2, 3]]])
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]], [[[1.0, 2.0], [3.0, 4.0]]]])
    found = ap.Occlusion(partition=labels)(lambda z: z.sum((1, 2, 3)), x)
    assert found.values[:, 0].tolist() == [[[1.5, 1.5], [3.5, 3.5]], [[1.0, 2.0], [3.0, 4.0]]]


def test_through_a_classifier() -> None:
    from apportion.core.classifier import Classifier

    def encode(text: str) -> tuple[Tensor, TextFeatures]:
        words = text.split()
        places = tuple((text.index(w), text.index(w) + len(w)) for w in words)
        features = TextFeatures(text, tuple(words), places, tuple(range(len(words))))
        return torch.tensor([[int(w) for w in words]]), features

    classifier = Classifier(Sum(), encode, ("sum",), "text", "sum", mask=2)
    found = ap.explain(classifier, "5 7", ap.Occlusion())
    assert found.top(2) == [("7", 5.0), ("5", 3.0)]


def test_a_numpy_model() -> None:
    found = ap.Occlusion()(lambda rows: rows @ np.array([[1.0], [2.0]]), np.array([[3.0, 4.0]]))
    assert found.values.tolist() == [[3.0, 8.0]]


def test_the_repr_rebuilds_it_and_files_keep_it(tmp_path) -> None:
    from apportion.core.registry import from_repr
    from apportion.engines.masking.partitions import Patches

    method = ap.Occlusion(partition=Patches(4), replacement=Constant(1.0))
    assert from_repr(repr(method)) == method
    found = method(network(), torch.ones(1, 3, 12, 12, dtype=torch.float64))
    assert ap.Explanation.load(found.save(tmp_path / "e")) == found


def test_bad_input() -> None:
    x = torch.ones(1, 3, 12, 12)
    for make, message in (
        (lambda: ap.Occlusion(patch=2, partition=Constant()), "one or the other"),
        (lambda: ap.Occlusion(patch=2, stride=3)(lambda z: z.sum((1, 2, 3)), x), "larger than the patch"),
        (lambda: ap.Occlusion(patch=0)(lambda z: z.sum((1, 2, 3)), x), "patch is 0"),
        (lambda: ap.Occlusion(patch=2)(lambda z: z, torch.ones(3)), "need numbers with a grid"),
    ):
        with pytest.raises(InputError, match=message):
            make()


def test_masks_are_made_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network(), torch.randn(2, 3, 12, 12, dtype=torch.float64)
    methods = ap.Occlusion(partition=ap.Pixels()), ap.Occlusion(patch=4, stride=3), ap.Occlusion(patch=(5, 2))
    whole = [method(model, x, 1).values for method in methods]
    values, made = Masking.values, []

    def counted(masking: Masking, masks: Tensor) -> Tensor:
        made.append(masks.numel())
        return values(masking, masks)

    monkeypatch.setattr("apportion.methods.hiding.occlusion._BLOCK", 300)
    monkeypatch.setattr(Masking, "values", counted)
    for method, expected in zip(methods, whole, strict=True):
        torch.testing.assert_close(method(model, x, 1).values, expected, rtol=0, atol=1e-12)
    assert max(made) <= 300


def test_windows_in_half_precision() -> None:
    weights = torch.rand(3000, generator=torch.Generator().manual_seed(0))
    method, x = ap.Occlusion(patch=600, stride=2), torch.ones(1, 1, 3000)
    exact = method(lambda z: z[:, 0] @ weights, x).values
    found = method(lambda z: (z[:, 0].float() @ weights).bfloat16(), x.bfloat16()).values
    assert (found - exact).abs().max() < 0.1 * exact.max()
