"""What tests of explanations take for a feature and for a probability: models that end in a sigmoid, one score,
regressions, low precision, padding, label maps."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import apportion as ap
import small
from apportion.core.registry import from_repr
from apportion.engines.masking.engine import Masking
from apportion.evaluation.case import Case
from apportion.evaluation.curves import Order
from apportion.evaluation.measures.randomisation import histogram_entropy
from apportion.names import TESTS

# ---- what a model's scores are ----


def ends(model: nn.Module) -> dict[str, Any]:
    """The same binary model, which gives its one score, its probability in several ways, or two scores."""

    def halves(x: Tensor) -> Tensor:
        return torch.cat([-model(x) / 2, model(x) / 2], 1)

    return {
        "score": model,
        "flat": lambda x: model(x)[:, 0],
        "sigmoid": nn.Sequential(model, nn.Sigmoid()),
        "function": lambda x: torch.sigmoid(model(x)).squeeze(1),
        "two": halves,
        "one of two": lambda x: halves(x).softmax(1)[:, 1],
    }


@pytest.mark.parametrize("name", ["pixel-flipping", "deletion-rate", "comprehensiveness", "soft-sufficiency"])
def test_a_model_that_ends_in_a_sigmoid_is_read_as_it_is(name: str) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(6, 1).double(), torch.randn(9, 6, dtype=torch.float64)
    values = x * model.weight.detach()
    target = torch.ones(9, dtype=torch.long)
    found = {
        end: from_repr(name, "test")(one, x, values, target if end == "two" else None).values
        for end, one in ends(model).items()
    }
    assert found["score"].isnan().sum() < 9
    for end in found:
        torch.testing.assert_close(found[end], found["score"], equal_nan=True)


def test_one_score_of_a_numpy_model_between_0_and_1_is_a_probability() -> None:
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    x = random.standard_normal((40, 5))
    fitted = LogisticRegression().fit(x, x[:, 0] + x[:, 1] > 0)
    values = torch.from_numpy(x * fitted.coef_)
    for test in (ap.PixelFlipping(), ap.DeletionRate(), ap.SoftComprehensiveness()):
        of_score = test(fitted.decision_function, x, values).values
        of_chance = test(lambda rows: fitted.predict_proba(rows)[:, 1], x, values).values
        torch.testing.assert_close(of_score, of_chance, equal_nan=True)
        assert 0 < of_score.nanmean() < 1


def test_one_score_of_a_model_behind_tensors_between_0_and_1_is_a_probability() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(6, 1), torch.randn(9, 6)
    sigmoid = nn.Sequential(model, nn.Sigmoid())
    shapes = ({0: torch.export.Dim("batch", max=4096)},)
    weight, bias = model.weight.detach().numpy(), model.bias.detach().numpy()

    def numpy(rows: Tensor) -> Tensor:
        return torch.tensor(1 / (1 + np.exp(-(rows.numpy() @ weight.T + bias))))

    exported = torch.export.export(sigmoid, (x,), dynamic_shapes=shapes).module()
    behind = [torch.jit.trace(sigmoid, x), exported, numpy]
    for one in behind:
        assert Masking(one, x).gives_probabilities
    assert not Masking(torch.jit.trace(model, x), x).gives_probabilities
    assert not Masking(model, x / 100).gives_probabilities


def test_low_precision_probabilities_are_read_alike_in_every_batch() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 40), nn.Softmax(1)).bfloat16(), torch.randn(16, 8).bfloat16()
    masking = Masking(model, x)
    assert masking.gives_probabilities
    curve = Order(masking, x).curve(torch.zeros(16, 1, dtype=torch.long))
    assert torch.equal(curve.probability[:, 0], model(x).amax(1).float())


def test_one_score_explains_class_1_and_its_size_what_is_predicted() -> None:
    model = nn.Linear(5, 1).double()
    x = torch.randn(12, 5, dtype=torch.float64, generator=small.seeded(2))
    found = ap.DeletionRate()(model, x, ap.InputXGradient()(model, x))
    negative = model(x)[:, 0] < 0
    assert 0 < negative.sum() < 12
    assert torch.equal(found.values.isnan(), negative)
    assert found.undefined == "the one score speaks for class 1, and class 0 is predicted"

    def size(scores: Tensor) -> Tensor:
        return scores[:, 0].abs()

    both = ap.DeletionRate()(model, x, ap.InputXGradient()(model, x, target=size), target=size)
    assert both.n == 12
    torch.testing.assert_close(both.values[~negative], found.values[~negative])


def test_a_regression_read_as_a_logit_is_told() -> None:
    x = np.random.default_rng(0).standard_normal((6, 4))

    def model(rows: np.ndarray) -> np.ndarray:
        return 150 + rows.sum(1)

    with pytest.warns(UserWarning, match="for a regression, or to see more, use of='score'"):
        assert ap.PixelFlipping()(model, x, torch.from_numpy(x)).mean == 0
    assert ap.PixelFlipping(of="score")(model, x, torch.from_numpy(x)).mean != 0


# ---- labels that are there or not, and regressions ----


def labelled() -> tuple[nn.Module, Tensor, Tensor]:
    """Logits of four labels, each by itself, rows, and the exact map of the third label."""
    model = nn.Linear(6, 4).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(4, 6, dtype=torch.float64, generator=small.seeded(1)))
        model.bias.copy_(
            torch.tensor([3.0, 3.0, 0.5, 3.0], dtype=torch.float64)
        )  # the third is never the highest
    x = torch.randn(12, 6, dtype=torch.float64, generator=small.seeded(2))
    return model, x, x * model.weight[2].detach()


def fall_to_half(model: nn.Module, x: Tensor, values: Tensor, label: int) -> float:
    """The share of features, most relevant first, without which the label's logit is not above zero."""
    if float(model(x[None])[0, label]) <= 0:
        return float("nan")
    order = values.argsort(descending=True)
    for k in range(1, 7):
        hidden = x.clone()
        hidden[order[:k]] = 0
        if float(model(hidden[None])[0, label]) <= 0:
            return k / 6
    return 1.0


def as_a_transformer(model: nn.Module, kind: str) -> nn.Module:
    """The same with a configuration that says what its scores are, as of Hugging Face."""
    made = nn.Sequential(model)
    made.config = type("Config", (), {"problem_type": kind})()  # type: ignore[assignment]
    return made


def test_labels_that_are_there_or_not_are_read_one_by_one() -> None:
    model, x, values = labelled()
    weight, bias = model.weight.detach().numpy(), model.bias.detach().numpy()
    ways: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "ends in sigmoids": (nn.Sequential(model, nn.Sigmoid()), x, {}),
        "NumPy": (lambda rows: 1 / (1 + np.exp(-(rows @ weight.T + bias))), x.numpy(), {}),
        "configuration": (as_a_transformer(model, "multi_label_classification"), x, {}),
        "asked": (model, x, {"of": "sigmoid"}),
    }
    rates = torch.tensor([fall_to_half(model, row, v, 2) for row, v in zip(x, values, strict=True)])
    assert 0 < int(rates.isnan().sum()) < 12
    chances = [model(x)[:, 2].sigmoid()]
    for k in range(1, 7):
        hidden = x.scatter(1, values.argsort(1, descending=True)[:, :k], 0.0)
        chances.append(model(hidden)[:, 2].sigmoid())
    flipping = (chances[0] - torch.stack(chances)).mean(0).detach()
    for name, (one, given, settings) in ways.items():
        found = ap.PixelFlipping(**settings)(one, given, values, 2)
        torch.testing.assert_close(found.values, flipping)
        assert "each by itself" in found.notes["reading"] or "of each label" in found.notes["reading"], name
        rate = ap.DeletionRate(**settings)(one, given, values, 2)
        torch.testing.assert_close(rate.values.float(), rates, equal_nan=True)
        assert rate.undefined == "the explained label is not there: its probability is not above ½"
    by_softmax = ap.PixelFlipping()(model, x, values, 2)
    assert by_softmax.notes["reading"] == "the softmax of the scores"
    assert not torch.allclose(by_softmax.values, flipping)
    for one, settings in ((ways["ends in sigmoids"][0], {}), (model, {"of": "sigmoid"})):
        with pytest.raises(ap.InputError, match="is a label of its own, and a callable target says none"):
            ap.DeletionRate(**settings)(one, x, values, lambda scores: scores[:, 2])
    with pytest.raises(ap.InputError, match="has a score for each label by itself"):
        ap.FFidelity()(ways["ends in sigmoids"][0], x, values, 2)


def regression(rows: Any) -> Any:
    """Predictions about 1, as of a standardised target."""
    return 0.2 * (rows @ np.array([1.0, -0.5, 0.3, 0.0, 2.0])) + 1.0


def test_regressors_that_can_be_known_are_read_as_the_numbers_that_they_predict() -> None:
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    x = np.random.default_rng(0).standard_normal((8, 5))
    values = torch.from_numpy(x * np.array([0.2, -0.1, 0.06, 0.0, 0.4]))
    expected = ap.PixelFlipping(of="score")(regression, x, values)
    fitted = [e.fit(x, regression(x)) for e in (LinearRegression(), make_pipeline(LinearRegression()))]
    fitted.append(GridSearchCV(LinearRegression(), {"fit_intercept": [True]}, cv=2).fit(x, regression(x)))
    linear = nn.Linear(5, 1).double()
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.2, -0.1, 0.06, 0.0, 0.4]]))
        linear.bias.fill_(1.0)
    models: list[Any] = [each.predict for each in fitted] + [lambda rows: fitted[0].predict(rows)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in models:
            for test in (ap.PixelFlipping(), ap.Comprehensiveness(), ap.Infidelity(), ap.SoftSufficiency()):
                found = test(model, x, values)
                assert found.notes["reading"] in (
                    "the scores as they are: numbers of a regression",
                    "the score",
                )
            torch.testing.assert_close(ap.PixelFlipping()(model, x, values).values, expected.values)
            with pytest.raises(ap.InputError, match="a regression has none; accepted: tests of its score"):
                ap.DeletionRate()(model, x, values)
        module = as_a_transformer(linear, "regression")
        found = ap.PixelFlipping()(module, torch.from_numpy(x), values)
        torch.testing.assert_close(found.values, expected.values, rtol=1e-6, atol=1e-6)
    with pytest.raises(ap.InputError, match="trains a model of classes, and this one predicts numbers"):
        ap.FFidelity()(module, torch.from_numpy(x), values)
    table = ap.compare(fitted[0].predict, x, {"exact": values}, ["pixel-flipping", "deletion-rate"])
    assert table.scores["exact"]["pixel-flipping"].mean == pytest.approx(expected.mean)
    assert "regression has none" in table.scores["exact"]["deletion-rate"].refusal


def test_one_score_of_which_nothing_is_known_is_told_to_be_read_as_a_logit() -> None:
    x = np.random.default_rng(0).standard_normal((6, 5))
    values = torch.from_numpy(x)
    for test in (ap.PixelFlipping(), ap.DeletionRate(), ap.Sufficiency(), ap.SoftSufficiency()):
        with pytest.warns(UserWarning, match="read as the logit of class 1.*for a regression say of='score'"):
            found = test(regression, x, values)
        assert found.notes["reading"] == "the sigmoid of the one score, the logit of class 1"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ap.PixelFlipping(of="score")(regression, x, values)
        ap.PixelFlipping(of="sigmoid")(regression, x, values)
        ap.Infidelity()(regression, x, values)
        labels = torch.arange(6) % 2
        assert ap.PixelFlipping()(regression, x, values, labels=labels).n == 6
    with pytest.raises(ap.InputError, match="a regression has none"):
        ap.DeletionRate(of="score")(regression, x, values)


def test_a_numpy_model_is_tested_without_a_warning_of_numpy() -> None:
    from sklearn.ensemble import RandomForestClassifier

    x = np.random.default_rng(0).standard_normal((8, 4))
    forest = RandomForestClassifier(3, random_state=0).fit(x, x[:, 0] > 0)
    explanation = ap.KernelSHAP()(forest.predict_proba, x)
    skipped = ("roar", "kar", "f-fidelity", "idsds", "shuffle-tvd", "road", "parameter-randomisation")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in TESTS:
            if name not in skipped:
                from_repr(name, "test")(forest.predict_proba, x, explanation)


@pytest.mark.parametrize("end", ["score", "sigmoid"])
def test_training_reads_one_score_as_what_it_is(end: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(120, 3)
    labels = (x[:, 0] > 0).long()
    model = ends(nn.Linear(3, 1))[end]
    with torch.no_grad():
        linear = model if end == "score" else model[0]
        linear.weight.copy_(torch.tensor([[4.0, 0.0, 0.0]]))
        linear.bias.zero_()
    # What is hidden of the right column leaves chance; of a wrong one, a model that is right.
    good, bad = (torch.zeros_like(x).index_fill(1, torch.tensor([i]), 1.0) for i in (0, 1))
    roar = ap.ROAR(shares=(0.3,), epochs=20, rate=0.05)
    assert roar(model, x, good, labels=labels).mean < 0.75
    assert roar(model, x, bad, labels=labels).mean > 0.9
    # Without labels a model is trained on towards its own predictions, of both classes.
    used = ap.FFidelity(epochs=20, rate=0.01)
    torch.testing.assert_close(used(model, x, good).values, used(model, x, good, labels=labels).values)


# ---- padding and arrays ----


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
def test_maps_of_low_precision_are_added_up_in_single(dtype: torch.dtype) -> None:
    x, values = torch.ones(1, 1, 79, 80), torch.full((1, 1, 79, 80), 100, dtype=dtype)
    labels = torch.zeros(79, 80, dtype=torch.long)
    labels[:, 70:] = 1
    case = Case(lambda x: x.flatten(1).sum(1), x)
    assert case.relevance(values, case.masking(labels)).tolist() == [[553000.0, 79000.0]]


def test_padding_does_not_make_maps_alike() -> None:
    pytest.importorskip("transformers")
    model, inputs = small.bert()
    tests = (ap.ParameterRandomisation(), ap.ParameterRandomisation("complexity"), ap.RandomLogit())
    found = []
    for extra in (0, 9):
        padded = {name: nn.functional.pad(t[:1], (0, extra)) for name, t in inputs.items()}
        explanation = ap.Saliency()(model, padded)
        found.append([test(model, padded, explanation).mean for test in tests])
    assert found[1] == pytest.approx(found[0])


def test_histogram_entropy_beside_numpy() -> None:
    from scipy.stats import entropy

    rows = torch.randn(4, 300, dtype=torch.float64, generator=small.seeded(0))
    expected = [entropy(np.histogram(row.numpy(), bins=40)[0]) for row in rows]
    assert histogram_entropy(rows, 40).tolist() == pytest.approx(expected)
    inside = torch.ones_like(rows, dtype=torch.bool)
    inside[:, 200:] = False
    expected = [entropy(np.histogram(row[:200].numpy(), bins=40)[0]) for row in rows]
    assert histogram_entropy(rows, 40, inside).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("form", [np.asarray, list, torch.tensor])
def test_label_maps_may_be_arrays_or_lists(form: Any) -> None:
    model, x = small.mlp()
    explanation = ap.InputXGradient()(model, x)
    labels = form([0, 0, 1, 1, 2, 2])
    for test in (
        ap.PixelFlipping(partition=labels),
        ap.DeletionRate(partition=labels),
        ap.Sparseness(labels),
    ):
        expected = replace(test, partition=torch.tensor([0, 0, 1, 1, 2, 2]))
        assert test(model, x, explanation).mean == pytest.approx(expected(model, x, explanation).mean)


# ---- entries dropped at random ----


def soft(model: nn.Module, ids: Tensor, values: Tensor, seed: int, samples: int) -> tuple[float, float]:
    """Zhao & Aletras (2023), eqs. 3 to 6, for one text: soft comprehensiveness and sufficiency."""
    rows = model.embedding(ids)[0].detach()
    scaled = (values - values.min()) / (values.max() - values.min())

    def chance(rows: Tensor) -> float:
        steps, _ = model.lstm(rows[None])
        return model.head(steps.mean(1)).softmax(1)[0, int(model(ids).argmax())].item()

    whole, zeros = chance(rows), chance(torch.zeros_like(rows))
    shares = []
    for chances in (1 - scaled, scaled):
        each = []
        for i in range(samples):
            chance_kept = np.random.default_rng((seed, 0, i)).random(rows.shape)
            kept = torch.from_numpy(chance_kept) < chances[:, None]
            each.append(min(1, max(0, whole - chance(rows * kept)) / max(0, whole - zeros)))
        shares.append(float(np.mean(each)))
    return shares[0], 1 - shares[1]


def test_soft_tests_beside_their_definition() -> None:
    model, ids = small.lstm()
    explanation = ap.InputXGradient()(model, ids)
    settings = {"samples": 7, "seed": 3}
    found = [
        test(**settings)(model, ids, explanation) for test in (ap.SoftComprehensiveness, ap.SoftSufficiency)
    ]
    defined = (~found[0].values.isnan()).nonzero().flatten().tolist()
    assert defined
    for i in defined:
        expected = soft(model, ids[i : i + 1], explanation.values[i], 3, 7)
        assert [float(scores.values[i]) for scores in found] == pytest.approx(expected, rel=1e-5)


def test_soft_tests_do_not_depend_on_padding_or_chunks() -> None:
    pytest.importorskip("transformers")
    model, inputs = small.bert()
    found = []
    for extra, chunk in ((0, None), (9, 2)):
        padded = {name: nn.functional.pad(t, (0, extra)) for name, t in inputs.items()}
        explanation = ap.InputXGradient()(model, padded)
        found.append(ap.SoftSufficiency()(model, padded, explanation, chunk=chunk).values)
    torch.testing.assert_close(found[1], found[0], equal_nan=True)
