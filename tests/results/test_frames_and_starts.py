"""Results as frames and arrays, columns by name, every class in one call, and where a total starts from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.methods.explain import explain_encoded
from apportion.results.table import Table

pytest.importorskip("pandas")

WEIGHTS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])


def linear(x):
    return x.to(WEIGHTS) @ WEIGHTS.T + 1


def arrays(x):
    return x @ WEIGHTS.numpy().T + 1


def test_a_frame_has_a_line_for_each_feature_and_adds_up_to_the_total() -> None:
    rows = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 0.5]])
    e = ap.explain(linear, rows, "kernelshap", target=0, feature_names=["age", "mass", "speed"])
    frame = e.to_frame()
    assert list(frame.columns) == ["sample", "target", "feature", "cell", "value"]
    assert list(frame.feature[:3]) == ["age", "mass", "speed"]
    assert list(frame.cell) == ["1", "2", "3", "0", "1", "0.5"]
    wide = frame.pivot(index="sample", columns="feature", values="value")
    np.testing.assert_allclose(wide, rows.numpy() * WEIGHTS[0].numpy(), atol=1e-6)
    np.testing.assert_allclose(frame.groupby("sample").value.sum(), e.total, atol=1e-6)


def test_a_frame_of_what_is_no_table_names_words_and_entries() -> None:
    words = ap.explain(
        lambda texts: [float(len(text)) for text in texts], "so so good", "occlusion"
    ).to_frame()
    assert list(words.feature) == ["so", "so", "good"]
    assert "cell" not in words
    entries = ap.Saliency()(torch.nn.Conv1d(2, 1, 2), torch.ones(1, 2, 2), target=(0, 0)).to_frame()
    assert entries.feature[3] == "input[1, 1]"


def test_a_frame_of_interactions_has_each_pair_once() -> None:
    i = ap.IntegratedHessians()(lambda x: x[:, 0] * x[:, 1] + x[:, 2], torch.tensor([[2.0, 3.0, 5.0]]))
    frame = i.to_frame()
    assert len(frame) == 6
    assert frame.value.sum() == pytest.approx(float(i.apportioned[0]))
    pair = frame[(frame["first"] == "0") & (frame["second"] == "1")].value
    assert float(pair.iloc[0]) == pytest.approx(2 * float(i.values[0, 0, 1]))
    some = ap.IntegratedHessians(pairs=[(0, 1)])(lambda x: x[:, 0] * x[:, 1], torch.ones(1, 3))
    assert not some.to_frame().value.isna().any()


def test_a_frame_of_a_table_has_a_line_for_each_method_and_test() -> None:
    scores = {
        name: {"t": ap.Scores(values, "t", higher_is_better=True)}
        for name, values in (("a", [1.0, 2.0]), ("random", [0.0, 0.0]))
    }
    frame = Table(scores, references=("random",)).to_frame()
    assert frame.to_dict("records")[0] | {"low": 0, "high": 0} == {
        "method": "a", "reference": False, "test": "t", "mean": 1.5, "low": 0, "high": 0, "n": 2,
        "higher_is_better": True,
    }  # fmt: skip
    assert list(frame.reference) == [False, True]


def test_results_are_arrays() -> None:
    e = ap.InputXGradient()(torch.nn.Linear(3, 2), torch.ones(4, 3))
    assert np.array_equal(np.asarray(e), e.values.detach().numpy())
    assert np.asarray(e, dtype=np.float16).dtype == np.float16
    assert np.asarray(ap.InputHessian()(lambda x: x.prod(1), torch.ones(2, 3))).shape == (2, 3, 3)
    pair = ap.InputXGradient()(lambda x, y: x + y, (torch.ones(1, 1), torch.ones(1, 1)))
    with pytest.raises(ap.InputError, match="of 2 inputs"):
        np.asarray(pair)


@pytest.mark.parametrize("method", ["kernelshap", "occlusion", "lime", "ig", "auto"])
def test_all_classes_are_what_each_class_alone_is(method: str) -> None:
    rows = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 0.5]])
    every = ap.explain(linear, rows, method, target="all")
    assert len(every) == 4
    assert every.target.tolist() == [0, 1, 0, 1]
    for c in range(2):
        alone = ap.explain(linear, rows, method, target=c)
        torch.testing.assert_close(every.values[c::2], alone.values)
    assert every.notes["classes"] == 2


def test_a_method_that_hides_asks_once_for_all_classes_of_a_row() -> None:
    asked = []

    def model(x):
        asked.append(len(x))
        return arrays(x)

    row = np.array([[1.0, 2.0, 3.0]], np.float32)
    ap.explain(model, row, "kernelshap", target=0)
    one, asked[:] = sum(asked), []
    ap.explain(model, row, "kernelshap", target="all")
    assert sum(asked) <= one + 4  # and not twice as many; the rows as they are are run for each class


def test_a_class_that_is_called_all_is_that_class() -> None:
    made = ap.Classifier(linear, lambda raw: raw, labels=("none", "All"), domain="tabular", name="m")
    assert len(explain_encoded(made, torch.ones(1, 3), (), ap.InputXGradient(), "all")) == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("abc", "a list of texts"),
        (["a", "b"], "2 names for 3 columns"),
        (["a", "b", "a"], "'a' twice"),
        ([1, 2, 3], "a list of texts"),
    ],
)
def test_names_that_are_not_one_for_each_column_are_refused(names, message: str) -> None:
    with pytest.raises(ap.InputError, match=message):
        ap.explain(linear, torch.ones(1, 3), "ig", feature_names=names)


def test_names_are_for_rows_alone() -> None:
    with pytest.raises(ap.InputError, match="rows of columns"):
        ap.explain(torch.nn.Conv1d(1, 1, 1), torch.ones(1, 1, 3), "ig", feature_names=["a", "b", "c"])
    made = ap.Classifier(linear, lambda raw: raw, labels=(), domain="tabular", name="m")
    with pytest.raises(ap.InputError, match="has names"):
        ap.explain(made, {"a": 1}, "ig", feature_names=["a", "b", "c"])


def test_a_total_starts_from_the_score_of_the_baseline() -> None:
    x, baseline = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 1.0, 1.0]])
    e = ap.IntegratedGradients()(linear, x, target=0, baseline=baseline)
    torch.testing.assert_close(e.start, linear(baseline)[:, 0].double())
    assert e.opening() == "score 2.50 = start 4.50 − 2.00"
    data = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    e = ap.KernelSHAP(replacement=ap.Background(torch.from_numpy(data)))(arrays, x.numpy(), 1)
    assert float(e.start[0]) == pytest.approx(arrays(data)[:, 1].mean(), abs=1e-5)
    assert e.summary().startswith("KernelSHAP of class 1: score 10.00 = start ")


def test_a_start_in_log_odds_is_that_of_the_mean_probability() -> None:
    def chance(x):
        return 1 / (1 + np.exp(-x.sum(1)))

    data = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    method = ap.KernelSHAP(link="logit", replacement=ap.Background(torch.from_numpy(data)))
    e = method(chance, np.array([[1.0, 0.5, -0.2]], np.float32))
    mean = chance(data).mean()
    assert float(e.start[0]) == pytest.approx(np.log(mean / (1 - mean)), abs=1e-5)
    assert float(e.score[0]) == pytest.approx(1.3, abs=1e-5)


def test_nothing_is_said_of_a_start_that_is_zero_or_unknown() -> None:
    x = torch.ones(1, 3)
    assert ap.InputXGradient()(torch.nn.Linear(3, 2), x).opening() == ""
    assert ap.IntegratedGradients()(linear, x, target=ap.Contrast(0, 1)).opening() == ""
    assert ap.Occlusion()(linear, x).opening() == ""
