"""Tables of methods by tests, plausibility, the command line, and what other packages find on the same maps."""

from __future__ import annotations

import importlib.util
import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import apportion as ap
import peers
import small
from apportion.cli.app import app
from apportion.core.features import TextFeatures
from apportion.engines.masking.partitions import Pixels
from apportion.engines.masking.replacements import Delete, Mean, NoisyLinear
from apportion.errors import InputError
from apportion.results.scores import Scores
from apportion.results.table import Table, join_tables


def needs(package: str) -> Any:
    found = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not found, reason=f"{package} is not installed")


# ---- tables ----


@pytest.fixture(scope="module")
def table() -> Any:
    model, x = small.cnn()
    return ap.compare(
        model, x, ["inputxgradient", "saliency"], ["pixel-flipping", "sufficiency", "complexity"]
    )


def test_rows_and_columns(table: Any) -> None:
    assert list(table.scores) == ["inputxgradient", "saliency", "random", "uniform", "reversed"]
    assert table.methods == ("inputxgradient", "saliency")
    assert table.tests == ("pixel-flipping", "sufficiency", "complexity")
    assert table.blind == ("complexity",)
    assert set(table.panel["pixel-flipping"]) == {"Constant(value=0.0)", "Mean()", "Blur(sigma=10.0)"}
    model, x = small.cnn()
    alone = ap.PixelFlipping(replacement=Mean())(model, x, ap.Saliency()(model, x))
    assert torch.equal(table.panel["pixel-flipping"]["Mean()"]["saliency"].values, alone.values)
    alone = ap.Sufficiency()(model, x, ap.InputXGradient()(model, x))
    assert torch.equal(table.scores["inputxgradient"]["sufficiency"].values, alone.values)


def test_direction_decides_what_is_best(table: Any) -> None:
    means = {m: table.scores[m]["sufficiency"].mean for m in table.methods}
    assert table.best("sufficiency") == min(means, key=means.__getitem__)
    assert table.ranks("sufficiency")[table.best("sufficiency")] == 1
    assert table.best("complexity") is None
    (comparison,) = table.paired("sufficiency")
    assert comparison.difference == pytest.approx(means["saliency"] - means["inputxgradient"])
    names, tau, _ = table.agreement()
    assert names == ["pixel-flipping", "sufficiency"]
    assert tau.shape == (2, 2)


def test_it_can_be_read_everywhere(table: Any, tmp_path: Any) -> None:
    found = json.loads(table.save(tmp_path / "table.json").read_text())
    assert found["scores"]["random"]["sufficiency"]["n"] == 3
    assert json.loads(json.dumps(table.to_dict(), allow_nan=False)) == found
    text = repr(table)
    assert all(name in text for name in (*table.scores, *table.tests))
    assert "<script" not in Table({"<script>": table.scores["random"]})._repr_html_()
    with pytest.raises(InputError, match="no scores of 'lrp'"):
        table._scores("lrp", "complexity")


def test_warnings_name_references_that_win_and_winners_that_change() -> None:
    model, x = small.mlp()
    good = ap.InputXGradient()(model, x)
    bad = ap.Explanation(**{**vars(good), "values": -good.values})
    table = ap.compare(model, x, {"good": good, "bad": bad}, ["pixel-flipping"])
    assert any("bad does worse than" in warning for warning in table.warnings)
    scores = {name: {"t": table.scores[name]["pixel-flipping"]} for name in ("good", "bad")}
    turned = {"good": scores["bad"]["t"], "bad": scores["good"]["t"]}
    panel = {"t": {"zero": {n: s["t"] for n, s in scores.items()}, "mean": turned}}
    (warning,) = Table(scores, panel=panel).warnings
    assert warning == "t: the best method depends on the replacement (good with zero, bad with mean)"


def test_maps_that_are_equal_but_for_rounding_share_their_rank() -> None:
    values = torch.rand(20, dtype=torch.float64)
    rows = {name: values * (1 + i * 1e-9) for i, name in enumerate("abc")} | {"d": values / 2}
    scores = {
        row: {test: Scores(v, test, test == "up") for test in ("up", "down")} for row, v in rows.items()
    }
    table = Table(scores, ("d",), {"up": {"x": {}, "y": {}}})
    assert table.ranks("up") == table.ranks("down") == {"a": 2, "b": 2, "c": 2}
    assert table.best("up") == table.best("down") == "a"
    assert not [warning for warning in table.warnings if "depends on" in warning]


def test_tables_of_several_inputs_are_joined(table: Any) -> None:
    both = join_tables([table, table])
    assert both.scores["saliency"]["sufficiency"].n == 6
    assert both.references == table.references
    with pytest.raises(InputError, match="other rows or tests"):
        join_tables([table, Table({"a": table.scores["random"]})])


@pytest.mark.parametrize(
    ("methods", "tests", "message"),
    [
        ("saliency", ["sufficiency"], "is one text"),
        ([], ["sufficiency"], "methods is empty"),
        (["saliency"], [], "tests is empty"),
        (["saliency", "saliency"], ["sufficiency"], "there twice"),
        (["saliency", "Saliency()"], ["sufficiency"], r"'Saliency\(\)' is the same as 'saliency'"),
        (["saliency"], ["sufficiency", "Sufficiency(of='probability')"], "is the same as 'sufficiency'"),
        (["saliency"], [ap.IoU()], "in no table"),
        (["salience"], ["sufficiency"], "did you mean 'saliency'"),
        (None, ["sufficiency"], "no list but NoneType"),
        ([ap.Saliency], ["sufficiency"], r"accepted: Saliency\(\), with"),
        (["saliency"], [ap.Sufficiency], r"accepted: Sufficiency\(\), with"),
        ([3], ["sufficiency"], "neither a method nor a map"),
    ],
)
def test_what_cannot_be_compared(methods: Any, tests: Any, message: str) -> None:
    model, x = small.mlp()
    with pytest.raises(InputError, match=message):
        ap.compare(model, x, methods, tests)


@pytest.mark.parametrize("values", [np.arange(24.0).reshape(3, 8), torch.arange(24).view(3, 8)])
def test_numbers_of_any_kind_are_maps_and_have_references(values: Any) -> None:
    model, x = torch.nn.Linear(8, 2), torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    table = ap.compare(model, x, {"mine": values}, ["pixel-flipping"])
    found = {row: by_test["pixel-flipping"].values.tolist() for row, by_test in table.scores.items()}
    assert table.references == ("random", "uniform", "reversed")
    assert found["mine"] == ap.PixelFlipping()(model, x, torch.as_tensor(values)).values.tolist()
    assert found["reversed"] == ap.PixelFlipping()(model, x, -torch.as_tensor(values)).values.tolist()
    assert len({str(values) for values in found.values()}) == 4


def test_each_input_has_its_own_class_label_and_random_map() -> None:
    classifier = ap.load("sentiment")
    texts, target = ["a good film", "a bad film", "not a bad film"], [0, 1, 0]
    table = ap.compare(classifier, texts, ["lrp"], ["infidelity"], target=target, labels=[1, 0, 1])
    for i, (text, goal) in enumerate(zip(texts, target, strict=True)):
        explanation = ap.explain(classifier, text, "lrp", target=goal)
        for row, values in {
            "lrp": explanation,
            "random": ap.references(explanation, seed=i)["random"],
        }.items():
            alone = ap.Infidelity()(classifier, text, values)
            assert table.scores[row]["infidelity"].values[i] == pytest.approx(alone.mean)
    with pytest.raises(InputError, match="2 labels for 3 inputs"):
        ap.compare(classifier, texts, ["lrp"], ["infidelity"], labels=[1, 0])
    with pytest.raises(InputError, match="3 of them, one per sample"):
        ap.compare(classifier, texts, ["lrp"], ["infidelity"], target=[1, 0])


def test_texts_with_a_mask_are_also_deleted_in_the_panel() -> None:
    pytest.importorskip("transformers")
    model, inputs = small.bert()
    table = ap.compare(model, inputs, ["inputxgradient"], ["pixel-flipping"])
    assert list(table.panel["pixel-flipping"]) == ["Constant(value=0.0)", repr(Delete())]


def test_a_method_is_not_called_as_a_reference() -> None:
    model, x = small.mlp()
    with pytest.raises(InputError, match="a method is called 'random', as a reference row is"):
        ap.compare(model, x, {"random": "inputxgradient"}, ["infidelity"])


def test_one_sample_proves_nothing() -> None:
    model, x = small.mlp()
    table = ap.compare(model, x[:1], ["saliency", "inputxgradient"], ["pixel-flipping"])
    assert "of one sample, so there are no intervals" in repr(table)
    assert "bold" not in repr(table) + table._repr_html_()
    assert "bold" in ap.compare(model, x, ["saliency"], ["pixel-flipping"])._repr_html_()


def test_a_seed_that_is_none_is_refused() -> None:
    model, x = small.mlp()
    with pytest.raises(InputError, match="seed is -1"):
        ap.compare(model, x, ["saliency"], ["infidelity"], seed=-1)


def test_explanations_of_other_classes_are_refused() -> None:
    model, x = small.mlp()
    with pytest.raises(InputError, match="explains the classes"):
        ap.compare(
            model, x, {f"class {k}": ap.Saliency()(model, x, target=k) for k in (0, 1)}, ["pixel-flipping"]
        )


def test_command_line(tmp_path: Any) -> None:
    run = CliRunner().invoke
    found = run(
        app, ["test", "not bad at all", "dull", "--tests", "deletion-rate", "--methods", "saliency", "--json"]
    )
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["scores"]["saliency"]["deletion-rate"]["n"] == 2
    out = tmp_path / "table.json"
    shown = run(
        app, ["test", "not bad", "--tests", "sparseness", "--methods", "lrp,saliency", "--out", str(out)]
    )
    assert "sparseness" in shown.stdout
    assert json.loads(out.read_text())["tests"] == ["sparseness"]
    assert run(app, ["test", "not bad", "--tests", "road"]).exit_code == 2
    assert run(app, ["test", "not bad", "--tests", "roads"]).exit_code == 2
    assert "deletion-rate" in run(app, ["tests"]).stdout


def test_a_method_that_cannot_explain_the_inputs_is_left_out_of_the_table() -> None:
    options = ["--tests", "deletion-rate", "--methods", "gradcam,saliency", "--json"]
    found = CliRunner().invoke(app, ["test", "not bad at all", "dull", *options])
    assert found.exit_code == 0, found.output
    assert list(json.loads(found.stdout)["scores"]) == ["saliency", "random", "uniform", "reversed"]
    said = CliRunner().invoke(app, ["test", "not bad", *options[:-1]]).stderr
    assert "left out: gradcam: GradCAM explains pictures: it needs one picture-like input" in said


def test_the_numbers_of_a_column_have_the_same_decimals_and_are_not_broken() -> None:
    model, x = small.mlp()
    table = ap.compare(model, x, ["inputxgradient", "saliency"], ["pixel-flipping", "infidelity"])
    for head, *column in table._columns().values():
        decimals = {len(n.partition(".")[2]) for cell in column for n in re.findall(r"[\d.]+", cell)}
        assert len(decimals) == 1, (head, column)
    assert all(cell in repr(table) for _, *column in table._columns().values() for cell in column)
    assert "bold" not in repr(table)
    assert "bold" in table._repr_html_()


# ---- plausibility ----


def test_plausibility_beside_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score, f1_score, jaccard_score

    generator = small.seeded(0)
    values = torch.randint(0, 6, (30, 9), generator=generator).double()  # with ties
    truth = torch.rand(30, 9, generator=generator) < 0.4
    kept = truth.any(1) & ~truth.all(1)
    found = ap.AUPRC()(values, truth).values
    expected = [average_precision_score(t, v) for t, v in zip(truth.numpy(), values.numpy(), strict=True)]
    assert found[kept].tolist() == pytest.approx(np.array(expected)[kept.numpy()])
    values = torch.randn(30, 9, generator=generator).double()
    for test, theirs in ((ap.TokenF1(), f1_score), (ap.IoU(), jaccard_score)):
        chosen = [values[i] >= values[i].topk(max(1, int(truth[i].sum()))).values[-1] for i in range(30)]
        expected = [theirs(t, c.numpy()) for t, c in zip(truth.numpy(), chosen, strict=True)]
        assert test(values, truth).values[kept].tolist() == pytest.approx(np.array(expected)[kept.numpy()])


def test_plausibility_of_maps_with_and_without_channels() -> None:
    values = torch.randn(2, 3, 5, 4, generator=small.seeded(2)).double()
    marked = torch.zeros(2, 5, 4)
    marked[:, 1:3, 1:3] = 1
    for test in (ap.IoU(), ap.AUPRC(), ap.PointingGame(), ap.RelevanceMass()):
        expected = test(values, marked).values
        torch.testing.assert_close(test(values.sum(1), marked).values, expected)
        torch.testing.assert_close(test(values, marked[:, None]).values, expected)


def test_plausibility_of_maps_and_marks_of_any_form() -> None:
    values, mark = torch.rand(2, 3, 5, 4), torch.zeros(2, 5, 4).bool()
    mark[:, 1:3] = True
    expected = ap.IoU()(values, mark).values
    for same_map in (values, values.numpy(), values.sum(1), values.sum(1, keepdim=True)):
        for same_mark in (mark, mark[:, None], mark.numpy(), mark.long()):
            assert torch.equal(ap.IoU()(same_map, same_mark).values, expected)
    with pytest.raises(InputError, match=r"the map has shape \(4,\); accepted: \(batch, places\)"):
        ap.AUPRC()(torch.rand(4), torch.tensor([1, 0, 0, 1]))
    with pytest.raises(InputError, match=r"truth has shape \(5, 4\)"):
        ap.AUPRC()(values, mark[0])
    for test in (ap.AUPRC(), ap.IoU(), ap.PointingGame()):
        for rows in (2, 0):
            with pytest.raises(InputError, match=rf"truth has shape \({rows},\)"):
                test(torch.rand(rows, 4), torch.zeros(rows))


def test_plausibility_of_pictures_and_texts() -> None:
    values, truth = torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
    values[0, :, 1, 2] = 1
    values[0, 0, 3, 3] = 2
    truth[0, 1] = True
    assert ap.PointingGame()(values, truth).values[0] == 1
    assert ap.RelevanceMass()(values, truth).values[0] == pytest.approx(3 / 5)
    nothing = ap.RelevanceMass()(values, truth)
    assert nothing.n == 1
    assert nothing.undefined == "nothing is marked, or everything is"
    truth[1, 0] = True
    assert "no positive value" in ap.RelevanceMass()(values, truth).undefined
    model, ids = small.lstm()
    words = TextFeatures("", ("",) * 5, ((0, 0),) * 5, (None, 0, 1, 2, None))
    explanation = ap.Saliency()(model, ids[:1]).with_features([words])
    marked = torch.tensor([[0, 1, 1, 1, 0]])
    assert ap.AUPRC()(explanation, marked).n == 0  # all that is a word is marked
    for wrong in (marked[:, :4], marked * 3):
        with pytest.raises(InputError, match="truth has"):
            ap.AUPRC()(explanation, wrong)


# ---- other packages ----


def one_channel() -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    x = torch.randn(4, 1, 8, 8)
    return model, x, ap.InputXGradient()(model, x)


@needs("quantus")
def test_pixel_flipping_beside_quantus() -> None:
    quantus = peers.quantus()
    model, x, explanation = one_channel()
    metric = quantus.PixelFlipping(
        features_in_step=4, perturb_baseline=0.0, disable_warnings=True, normalise=False, abs=False
    )
    curves = metric(
        model=model, x_batch=x.numpy(), y_batch=explanation.target.numpy(), a_batch=explanation.values.numpy(),
        device="cpu", softmax=True,
    )  # fmt: skip
    whole = model(x).softmax(1).amax(1).detach().numpy()
    # Theirs begins with the first four pixels gone; ours is the mean of the falls, with none gone first.
    expected = [(first - np.array(curve)).sum() / 17 for first, curve in zip(whole, curves, strict=True)]
    found = ap.PixelFlipping(partition=Pixels(), steps=16)(model, x, explanation).values
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


@needs("quantus")
def test_complexity_beside_quantus() -> None:
    quantus = peers.quantus()
    model, x, explanation = one_channel()
    known = {"model": model, "x_batch": x.numpy(), "y_batch": explanation.target.numpy(), "device": "cpu"}
    known["a_batch"] = explanation.values.numpy()
    settings = {"disable_warnings": True, "normalise": False, "abs": True}
    theirs = quantus.Complexity(**settings)(**known)
    assert ap.Complexity(Pixels())(model, x, explanation).values.tolist() == pytest.approx(theirs, rel=1e-4)
    theirs = quantus.Sparseness(**settings)(**known)
    # Theirs adds 1e-8 to every value and takes the index of the places from 1 on.
    assert ap.Sparseness(Pixels())(model, x, explanation).values.tolist() == pytest.approx(theirs, rel=1e-3)


@needs("captum")
def test_infidelity_and_sensitivity_beside_captum() -> None:
    metrics = importlib.import_module("captum.metrics")
    model, x, _ = one_channel()
    explanation = ap.Saliency()(model, x)

    def noise(inputs: Any) -> Any:
        drawn = 0.1 * torch.randn_like(inputs)
        return drawn, inputs - drawn

    theirs = metrics.infidelity(
        model, noise, x, explanation.values, target=explanation.target, n_perturb_samples=4000
    )
    test = ap.Infidelity(samples=4000, perturbation="noise", scaled=False)
    assert test(model, x, explanation).values.tolist() == pytest.approx(theirs.tolist(), rel=0.15)

    def explain(inputs: Any, target: Any) -> Any:
        return ap.Saliency()(model, inputs, target).values

    theirs = metrics.sensitivity_max(
        explain, x, perturb_radius=0.3, n_perturb_samples=200, target=explanation.target
    )
    ours = ap.MaxSensitivity(samples=200, radius=0.3)(model, x, explanation).values
    assert ours.tolist() == pytest.approx(theirs.tolist(), rel=0.5)


@needs("pytorch_grad_cam")
def test_road_beside_grad_cam() -> None:
    theirs = peers.grad_cam_road()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 10 * 8, 3)).eval()
    x, map_ = torch.rand(1, 3, 12, 10), torch.rand(1, 12, 10)
    label = int(model(x).argmax())
    imputer = theirs.NoisyLinearImputer(noise=0.0)
    shares = (0.1, 0.3, 0.5, 0.7, 0.9)
    falls = {}
    for order, relevance in (("morf", map_[0]), ("lerf", -map_[0])):
        scores = []
        for share in shares:
            keep = (relevance < relevance.flatten().topk(round(120 * share)).values[-1]).float()
            with torch.no_grad():
                scores.append(float(model(imputer(x[0], keep)[None])[0, label]))
        falls[order] = np.mean(scores)
    settings = {"of": "score", "shares": shares, "replacement": NoisyLinear(noise=0.0, accuracy=1e-7)}
    for order, expected in (*falls.items(), ("symmetric", (falls["lerf"] - falls["morf"]) / 2)):
        found = ap.ROAD(order=order, **settings)(model, x, map_).mean
        assert found == pytest.approx(expected, abs=1e-4)
