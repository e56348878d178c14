"""Lines that users write: they run, and a strict type checker has nothing against them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.core.features import TextFeatures

NET = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


def product(a: Tensor, b: Tensor) -> Tensor:
    return a * b


def total_value(explanation: ap.Explanation) -> float:
    """A user's own function takes any explanation, and asks what it holds."""
    if explanation.remainder is None or not isinstance(explanation.values, Tensor):
        return 0.0
    return float(explanation.remainder.abs().sum() + explanation.values.sum())


def test_values_of_a_tensor_are_a_tensor() -> None:
    explanation = ap.LRP("epsilon")(NET, X, target=1)
    assert explanation.values.shape == X.shape
    assert explanation.values.numpy().shape == (2, 4)
    assert explanation[0].values.shape == (1, 4)
    assert total_value(explanation) != 0


def test_a_remainder_is_there_where_a_method_adds_up() -> None:
    for tolerance in (1e-2, 1e-3):
        explanation = ap.IntegratedGradients(tolerance=tolerance)(NET, X, target=1)
        assert explanation.remainder.abs().max() < 1
    assert ap.KernelSHAP(samples=16)(NET, X, target=0).remainder.abs().max() < 1e-4
    assert ap.Saliency()(NET, X, target=0).remainder is None
    assert ap.DeepLIFT()(NET, X, target=0, baseline=torch.zeros(2, 4)).total.shape == (2,)


def test_values_of_a_tuple_are_a_tuple_and_of_a_dict_a_dict() -> None:
    pair = ap.InputXGradient()(product, (torch.ones(2, 1), torch.ones(2, 1)))
    first, second = pair.values
    assert first.abs().sum() == second.abs().sum()
    assert pair.values[0].shape == (2, 1)
    named = ap.Occlusion()(product, {"a": torch.ones(2, 1), "b": torch.ones(2, 1)})
    assert named.values["a"].numpy().shape == (2, 1)
    assert list(named.values) == ["a", "b"]


def test_explain_says_what_a_method_claims() -> None:
    assert ap.explain(NET, X).remainder.abs().max() < 1
    assert ap.explain(NET, X, "kernelshap", target=1, warn_from=0.5).values.shape == X.shape
    assert ap.explain(NET, X, ap.DeepLIFT(), target=1).total.numpy().shape == (2,)
    assert ap.explain(NET, (X,), ap.Saliency()).values[0].shape == X.shape
    by_name = ap.explain(NET, X, method="saliency")
    assert by_name.values.shape == X.shape
    assert by_name.remainder is None
    method: ap.Method = ap.Saliency()
    assert isinstance(method, ap.Method)
    assert ap.explain(NET, X, ap.IntegratedHessians(), target=1).names[0] == ("0", "1", "2", "3")
    assert ap.IntegratedHessians()(NET, X, target=1).remainder.abs().max() < 1


def test_a_classifier_knows_the_form_of_its_inputs() -> None:
    classifier = ap.load("sentiment")
    explanation = ap.explain(classifier, "The plot is thin, but the acting is superb.")
    assert explanation.values.numpy().ndim == 2
    assert explanation.remainder.abs().max() < 1e-3
    name, value = explanation.top(2)[0]
    assert isinstance(name, str)
    assert isinstance(value, float)
    assert classifier.labels[0].upper() == "NEGATIVE"
    several = ap.explain(classifier, ["A dull film.", "A warm, funny film."])
    assert several[1].remainder.abs().max() < 1e-3


def test_a_classifier_of_ones_own_is_known_by_its_encoding() -> None:
    def encode(text: str) -> tuple[dict[str, Tensor], TextFeatures]:
        words = text.split()
        numbers = torch.tensor([[float(len(word)) for word in words]])
        return {"x": numbers}, TextFeatures(text, tuple(words), ((0, 1), (2, 6)), (0, 1))

    def length(x: Tensor) -> Tensor:
        return x.sum(1, keepdim=True)

    mine = ap.Classifier(length, encode, ("long",), "text", "lengths")
    assert ap.explain(mine, "a film").values["x"].tolist() == [[1.0, 4.0]]


def test_functions_of_texts_frames_and_arrays() -> None:
    def score(texts: list[str]) -> list[float]:
        return [text.count("good") / 2 for text in texts]

    assert ap.explain(score, "good film", "kernelshap").values.shape[0] == 1

    def of_array(rows: np.ndarray) -> list[float]:
        return [float(row.sum()) for row in rows]

    assert ap.KernelSHAP()(of_array, np.ones((2, 3))).values.shape == (2, 3)

    def of_frame(frame: Any) -> list[float]:
        return [float(number) for number in frame["a"]]

    frame = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [0.0, 1.0, 0.0]})
    assert ap.explain(of_frame, frame, ap.Occlusion()).values.shape == (3, 2)
