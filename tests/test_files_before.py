"""Files that the code of commit 85d223a wrote are read and say what they said; work that it began goes on.

The files are in `files_of_85d223a`, with the script that wrote them. What is compared bit by bit was read from
a file; what is computed here is compared within rounding, since another machine may round otherwise.
"""

import json
import logging
import shutil
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import apportion as ap
from apportion.bulk import _shards as shards
from apportion.cli.app import app
from apportion.core.fingerprints import fingerprint, model_fingerprint
from apportion.learning.documents import Documents
from apportion.learning.networks import AttentionClassifier
from apportion.learning.training import Training, train
from apportion.models.prototypes.settings import Paper
from apportion.study.store import Store
from apportion.study.text import faithfulness as text_faithfulness
from apportion.study.text.corpora import CorpusSource, prepare
from files_of_85d223a import things, told

HERE = Path(things.__file__).parent
SAID = json.loads((HERE / "said.json").read_text(encoding="utf-8"))
PUBLIC = json.loads((HERE / "public.json").read_text(encoding="utf-8"))
PRINTS = json.loads((HERE / "fingerprints.json").read_text(encoding="utf-8"))


@pytest.fixture
def copy(tmp_path):
    """Puts a file or folder of before where it may be written to."""

    def copied(name):
        source, place = HERE / name, tmp_path / Path(name).name
        shutil.copytree(source, place) if source.is_dir() else shutil.copy(source, place)
        return place

    return copied


def close(found, wanted):
    """Whether two JSON-ready things are equal but for rounding."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(close(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(close, found, wanted))
    return found == (pytest.approx(wanted, rel=1e-3, abs=1e-4) if isinstance(wanted, float) else wanted)


# ---- results ----


@pytest.mark.parametrize("name", SAID["explanations"])
def test_an_explanation_says_what_it_said(name, tmp_path):
    found = ap.Explanation.load(HERE / f"explanations/{name}.safetensors")
    said = SAID["explanations"][name]
    said["cost"] = said["cost"].replace("1 backward passes", "1 backward pass")  # said better since
    assert json.loads(json.dumps(told.said(found))) == said
    assert ap.Explanation.load(found.save(tmp_path / "again")) == found


@pytest.mark.parametrize("name", SAID["interactions"])
def test_interactions_say_what_they_said(name, tmp_path):
    found = ap.Interactions.load(HERE / f"interactions/{name}.safetensors")
    assert json.loads(json.dumps(told.said(found))) == SAID["interactions"][name]
    assert ap.Interactions.load(found.save(tmp_path / "again")) == found


def test_the_methods_in_the_files_explain_the_same_again():
    rows = things.numbers(2, 6)
    found = ap.Explanation.load(HERE / "explanations/contrast.safetensors")
    again = found.method(things.network(), rows, ap.Contrast(0, 2))
    torch.testing.assert_close(again.values, found.values)
    assert again.target == found.target
    found = ap.Explanation.load(HERE / "explanations/background.safetensors")
    with pytest.raises(ap.InputError, match="without the data in its settings"):
        found.method(things.network(), rows, 1)


def test_scores_are_what_they_were():
    assert ap.Scores.load(HERE / "scores.json").to_dict() == SAID["retrained"]


# ---- runs ----

RUNS = {  # what `explain_dataset` is given, but for the folder
    "rows": lambda: (("breast-cancer", HERE / "data/rows.csv", "lrp"), {}),
    "pictures": lambda: (
        ("digits", HERE / "data/pictures", ap.IntegratedGradients(nodes=4)),
        {"pool": 14},
    ),
    "numbers": lambda: (
        (f"{HERE / 'things.py'}:network", HERE / "data/numbers.npy", things.background()),
        {"target": ap.Contrast(0, 2), "precision": "float32"},
    ),
}


def go_on(name, folder):
    given, settings = RUNS[name]()
    return ap.explain_dataset(*given, folder, **things.FEW, **settings)


@pytest.mark.parametrize("name", RUNS)
def test_a_finished_run_is_read(name):
    run = ap.open_run(HERE / "runs" / name)
    assert run.complete
    assert not run.check()
    assert list(run.rows()) == SAID["runs"][name]["rows"]
    assert list(run.errors()) == SAID["runs"][name]["errors"]
    for row, values in run.maps():
        assert float(values.sum()) == pytest.approx(row["sum"], rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("name", RUNS)
def test_a_finished_run_is_not_done_again(name, copy, monkeypatch):
    folder = copy(f"runs/{name}")
    monkeypatch.setattr(shards, "write", None)
    assert go_on(name, folder).complete


@pytest.mark.parametrize("name", RUNS)
def test_a_begun_run_goes_on_where_it_was(name, copy):
    folder = copy(f"begun/{name}")
    before = {path: path.read_bytes() for path in folder.glob("shards/[0-9]*/*")}
    times = {path: path.stat().st_mtime_ns for path in before}
    assert before
    assert not ap.open_run(folder).complete
    run = go_on(name, folder)
    assert run.complete
    assert {path: path.read_bytes() for path in before} == before
    assert {path: path.stat().st_mtime_ns for path in before} == times
    whole = ap.open_run(HERE / "runs" / name)
    for row, known in zip(run.rows(), whole.rows(), strict=True):
        told, before = row.pop("warnings"), known.pop("warnings")
        assert close(row, known)
        # A remainder is told in other words now, of each row, and from a fifth of the total on.
        of_remainder = ("left over: ", "the remainder ")
        others = ([w for w in found if not w.startswith(of_remainder)] for found in (told, before))
        assert next(others) == next(others)
    for (_, one), (_, other) in zip(run.maps(), whole.maps(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)
    assert [row["id"] for row in run.errors()] == [row["id"] for row in whole.errors()]
    assert not list(folder.glob("shards/.*"))  # what the killed one left


def test_a_run_of_before_is_still_refused_for_other_settings(copy):
    folder = copy("begun/numbers")
    given, settings = RUNS["numbers"]()
    with pytest.raises(ap.InputError, match="holds another run: target was"):
        ap.explain_dataset(*given, folder, **things.FEW, **settings | {"target": ap.Contrast(0, 1)})
    other = ap.KernelSHAP(samples=20, replacement=ap.Background(things.numbers(3, 6, start=6)))
    with pytest.raises(ap.InputError, match=r"holds another run: method was .*; method fingerprint was"):
        ap.explain_dataset(*given[:2], other, folder, **things.FEW, **settings)


# ---- fingerprints ----


def test_fingerprints_are_what_they_were():
    found = {name: fingerprint(value) for name, value in things.fingerprinted().items()}
    for name in ("bag-of-words", "bag-of-words-fisher", "bag-of-words-kernels", "prototypes-on-digits"):
        found[name] = model_fingerprint(ap.load(HERE / f"{name}.safetensors"))
    assert {name: found[name] for name in PRINTS} == PRINTS


# ---- studies ----


def lines(run):
    return {line for line in run.stderr.splitlines() if line.endswith("…")}


def test_a_finished_study_is_shown_and_not_done_again(copy):
    folder = copy("studies/finished")
    shown = CliRunner().invoke(app, ["study", "show", str(folder), "--json"], catch_exceptions=False)
    assert json.loads(shown.stdout)["tables"][0]["title"] == "sentiment on short"
    again = run_study(folder)
    assert not lines(again)
    assert json.loads((folder / "tables.json").read_text()) == SAID["studies"]["tables"]


def test_a_begun_study_goes_on_where_it_was(copy):
    folder = copy("studies/begun")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert len(before) == 3
    run = run_study(folder)
    every = {
        path.relative_to(HERE / "studies/finished") for path in (HERE / "studies/finished").rglob("*.s*")
    }
    assert {path.relative_to(folder) for path in folder.rglob("*.safetensors")} == every
    assert len(lines(run)) == len(every) - len(before)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    found, wanted = json.loads((folder / "tables.json").read_text()), SAID["studies"]["tables"]
    rows, said = found["tables"][0]["rows"], wanted["tables"][0]["rows"]
    assert [row[0] for row in rows] == [row[0] for row in said]
    # Equal values had one order, and have several.
    assert [row for row in rows if row[0] != "uniform"] == [row for row in said if row[0] != "uniform"]
    assert found["tables"][1:] == wanted["tables"][1:]


def test_a_begun_study_of_texts_goes_on_where_it_was(copy, monkeypatch):
    folder, said = copy("studies/begun-of-texts"), []
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    monkeypatch.setattr(
        text_faithfulness, "AttentionClassifier", partial(AttentionClassifier, embedding=8, hidden=6)
    )
    source = CorpusSource(lambda folder: {}, "SST", ("negative", "positive"), 1)
    corpus = prepare("sst", source, things.treebank())
    settings = things.of_study(text_faithfulness.Settings)
    found = text_faithfulness.run(corpus, settings, Store(folder, said.append))
    assert sorted(line for line in said if line.endswith("…")) == SAID["study of texts"]["left"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    scores = {
        test: {name: s.to_dict()["values"] for name, s in maps.items()} for test, maps in found.tests.items()
    }
    said = SAID["study of texts"]["scores"]
    for test, maps in said.items():
        assert scores[test].keys() == maps.keys()
        ordered = test in ("deletion rate", "comprehensiveness", "sufficiency")
        for name in maps.keys() - (
            {"Uniform"} if ordered else set()
        ):  # equal values had one order, and have several
            assert close(scores[test][name], maps[name])


def run_study(folder):
    given = ["study", "run", str(HERE / "study.yaml"), "--out", str(folder)]
    return CliRunner().invoke(app, given, catch_exceptions=False)


# ---- models and their trainings ----


def test_saved_prototypes_are_read():
    x, _ = things.squares()
    model = ap.ProtoPNet.load(HERE / "prototypes.safetensors", things.backbone())
    assert close(told.scores(model, x), SAID["prototypes"]["fast"])
    assert [[p.name, p.label, list(p.box)] for p in model.sources_] == SAID["prototypes"]["sources"]
    on_digits = ap.load(HERE / "prototypes-on-digits.safetensors")
    inputs, _ = on_digits.encode(things.drawing(0))
    assert close(on_digits.model(inputs).tolist(), SAID["prototypes"]["on digits"])


def test_a_begun_training_of_prototypes_goes_on_where_it_was(copy, caplog):
    checkpoint, recipe = copy("prototypes-training.safetensors"), Paper(**things.PAPER)
    with caplog.at_level(logging.INFO):
        model = things.prototypes(recipe).fit(*things.squares(), checkpoint=checkpoint)
    said = [str(record.msg % record.args) for record in caplog.records if record.name.startswith("apportion")]
    wanted, many = SAID["prototypes"]["history"], recipe.epochs
    assert len([line for line in said if "'epoch'" in line]) == many - 4
    assert model.history_[:4] == wanted[:4]
    assert len(model.history_) == len(wanted)
    # The epochs that follow make 0.2 to 0.5 % of what another processor rounds otherwise, and 76 % of an optimiser
    # whose state is forgotten, which more than doubles the next loss.
    losses = [[each["loss"] for each in history if "loss" in each] for history in (model.history_, wanted)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    found, wanted = np.array(told.scores(model, things.squares()[0])), np.array(SAID["prototypes"]["trained"])
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()


@pytest.mark.parametrize("name", SAID["bags of words"])
def test_a_saved_bag_of_words_is_read(name, tmp_path):
    pictures = [things.coloured(i) for i in range(8)]
    model = ap.BagOfWords.load(HERE / f"{name}.safetensors")
    assert repr(model) == SAID["bags of words"][name]["params"]
    assert close(model.decision_function(pictures).tolist(), SAID["bags of words"][name]["scores"])
    again = ap.BagOfWords.load(model.save(tmp_path / "again.safetensors"))
    assert again.predict(pictures).tolist() == model.predict(pictures).tolist() == ["dark", "light"] * 4


def test_a_begun_training_of_a_text_classifier_goes_on_where_it_was(copy):
    checkpoint, said = copy("text-training.safetensors"), []
    model = things.weighted(AttentionClassifier(**things.ATTENTION))
    parts = [Documents(*things.texts(60, 0)), Documents(*things.texts(40, 500))]
    history = train(model, *parts, Training(**things.TRAINING), checkpoint, said.append)
    assert [line.split(":")[0] for line in said] == ["epoch 3/4", "epoch 4/4"]
    found = [[epoch.validation_loss, epoch.validation_auc] for epoch in history]
    wanted = SAID["text training"]["validation"]
    assert found[:2] == wanted[:2]
    assert close(found, wanted)


def test_finished_trainings_of_a_test_are_done_again_and_say_the_same(copy):
    """Their names did not know the code of the model, so that they may be those of another."""
    folder, x = copy("trainings"), things.numbers(24, 6)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        explanation = ap.InputXGradient()(things.network(), x)
        found = ap.ROAR(**things.ROAR, folder=folder)(
            things.network(), x, explanation, labels=torch.arange(24) % 3
        )
    after = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(after) == 2 * len(before)
    assert before.items() <= after.items()
    torch.testing.assert_close(found.values, ap.Scores.load(HERE / "scores.json").values, equal_nan=True)


# ---- what is public ----


@pytest.fixture(scope="module")
def public():
    return told.public(app)


def test_every_public_name_is_still_there_with_its_parameters(public):
    assert not set(PUBLIC["names"]) - set(ap.__all__)
    gone = {
        name: left
        for name, parameters in PUBLIC["names"].items()
        if (left := [p for p in parameters if p not in public["names"][name]])
    }
    assert not gone


def test_every_command_is_still_there_with_its_options(public):
    assert not set(PUBLIC["commands"]) - set(public["commands"])
    gone = {
        name: left
        for name, options in PUBLIC["commands"].items()
        if (left := {each for each in options if each.startswith("-")} - set(public["commands"][name]))
    }  # the name of an argument is nothing that anybody types
    assert not gone
