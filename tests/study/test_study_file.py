"""Studies that a YAML file describes: what is refused and where, what is kept, and what the report says."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("yaml")
from apportion import InputError
from apportion.cli.app import app
from apportion.study import comparison
from apportion.study.config import Data, TextFaithfulness, read_study
from apportion.study.page import write
from apportion.study.store import Store
from apportion.study.text.readings import Readings
from browser import Browser, needs_chromium

STUDY = """\
title: Short reviews
models: sentiment
data:
  - name: short
    texts:
      - a painfully dull film
      - warm and funny
      - not a bad movie at all
methods: [lrp, inputxgradient, gradcam]
tests: [pixel-flipping, deletion-rate]
samples: 2
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "reviews.txt").write_text("a dull film\na funny film\n")
    (tmp_path / "t.csv").write_text("words,other\na dull film,a funny film\n")
    return tmp_path / "study.yaml"


# ---- the file ----


def test_what_a_file_says(file):
    study = read_study(file)
    assert study.title == "Short reviews"
    assert study.models == ("sentiment",)
    assert study.data == (
        Data("short", texts=("a painfully dull film", "warm and funny", "not a bad movie at all")),
    )
    assert (study.samples, study.seed) == (2, 0)
    file.write_text(STUDY.replace("data:\n", "data:\n  - reviews.txt\n"))
    assert read_study(file).data[0] == Data("reviews", str(file.parent / "reviews.txt"))
    file.write_text("kind: text-faithfulness\ndata: corpora\ncorpora: [sst]\nfast: true\n")
    assert read_study(file) == TextFaithfulness("study", "corpora", ("sst",), True)
    file.write_text("kind: text-faithfulness\ndata: corpora\nmodels: [0, 2]\nhiding: zero\nnorms: [L2, L1]\n")
    readings = Readings(("zero",), ("learner", "model"), ("L2", "L1"))
    assert read_study(file) == TextFaithfulness("study", "corpora", models=(0, 2), readings=readings)
    file.write_text("kind: text-faithfulness\ndata: corpora\nlearners: [0, 1]\ntrain: 9000\nsteps: 500\n")
    study = read_study(file)
    assert (study.learners, study.extents) == ((0, 1), {"train": 9000, "steps": 500})
    file.write_text("kind: text-faithfulness\ndata: corpora\ntrain: 0\n")
    with pytest.raises(InputError, match="line 3: train: this is 0; accepted: at least 1"):
        read_study(file)
    file.write_text("kind: text-faithfulness\ndata: corpora\nfast: !!bool maybe\n")
    with pytest.raises(InputError, match="line 3: fast: this is 'maybe'; accepted: true or false"):
        read_study(file)
    file.write_text("kind: text-faithfulness\ndata: corpora\nnorms: [L1, L3]\n")
    with pytest.raises(InputError, match=r"line 3: norms\[1\]: this is 'L3'; accepted: L1, L2"):
        read_study(file)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("methods: [lrp", "methods: [lpr", "line 9: methods[0]: unknown method 'lpr'; did you mean 'lrp'?"),
        ("deletion-rate]", "deletion-rat]", "line 10: tests[1]: unknown test 'deletion-rat'; did you mean"),
        ("samples: 2", "samples: two", "line 11: samples: this is 'two'; accepted: a whole number"),
        ("samples: 2", "samples: 0", "line 11: samples: this is 0; accepted: at least 1"),
        ("samples: 2", "samples: 1:30", "line 11: samples: this is '1:30'; accepted: a whole number"),
        ("samples: 2", "samples: !!int two", "line 11: samples: this is 'two'; accepted: a whole number"),
        ("samples: 2", f"samples: {'9' * 5000}", "accepted: a whole number"),
        ("samples: 2", f"samples: {'[' * 3000}", "lists lie in lists too deep to be read"),
        ("data:\n", f"data:\n  - {'a' * 5000}.csv\n", "accepted: a path (File name too long)"),
        ("samples: 2", "sample: 2", "line 11: sample: there is no such field; did you mean 'samples'?"),
        ("samples: 2", "samples: 2\nsamples: 3", "line 12: samples: this field is there twice"),
        ("title: Short reviews", "title: [a]", "line 1: title: this is a list; accepted: a text"),
        ("models: sentiment", "models: []", "line 2: models: the list is empty"),
        ("models: sentiment", "models: [a, a]", "line 2: models[1]: this is there twice"),
        ("methods: [lrp", "methods: [lrp, LRP()", "line 9: methods[1]: this is the same as lrp"),
        (", deletion-rate]", ", PixelFlipping(steps=20)]", "line 10: tests[1]: this is the same as pixel-flipping"),
        ("tests: [pixel-flipping, deletion-rate]\n", "", "the field 'tests' is missing"),
        ("    texts:", "    path: none.csv\n    texts:", "line 4: data[0]: accepted: either path or texts"),
        ("data:\n", "data:\n  - none.csv\n", "line 4: data[0]: no such file or folder: none.csv"),
        ("- a painfully dull film", "- {a: b}", "line 6: data[0].texts[0]: this is a mapping; accepted: a text"),
        ("name: short", "nam: short", "line 4: data[0].nam: there is no such field; did you mean 'name'?"),
        ("    texts:", "    column: a\n    texts:", "line 5: data[0].column: there is no column 'a'; the data have no"),
        ("data:\n", "data:\n  - path: t.csv\n    column: txt\n", "line 5: data[0].column: there is no column 'txt'"),
        ("data:\n", "data:\n  - path: t.csv\n    id: no\n", "line 5: data[0].id: there is no column 'no'"),
        ("methods: [lrp", "methods: [lrp: {", "this is not YAML"),
        ("title: Short reviews", "kind: comparisons", "line 1: kind: this is 'comparisons'; accepted: comparison,"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line_and_field(file, old, new, said):
    assert old in STUDY
    file.write_text(STUDY.replace(old, new))
    with pytest.raises(InputError) as caught:
        read_study(file)
    assert str(caught.value).startswith(str(file))
    assert said in str(caught.value)


def test_no_file_and_an_empty_one(file):
    with pytest.raises(InputError, match="no such file"):
        read_study(file.with_name("none.yaml"))
    file.write_text("# nothing\n")
    with pytest.raises(InputError, match="is empty"):
        read_study(file)


# ---- running ----


def test_a_study_killed_half_way_does_nothing_twice(file, monkeypatch):
    said: list[str] = []
    store = Store(file.parent / "out", said.append)
    real, left = comparison._Pair._score, [3]

    def dies(self, method, test):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(self, method, test)

    monkeypatch.setattr(comparison._Pair, "_score", dies)
    with pytest.raises(KeyboardInterrupt):
        list(comparison.run(read_study(file), store))
    first = said[:3]
    said.clear()
    monkeypatch.setattr(comparison._Pair, "_score", real)
    (outcome,) = comparison.run(read_study(file), store)
    assert not set(first) & set(said)
    assert list(outcome.table.scores) == ["lrp", "inputxgradient", "random", "uniform", "reversed"]
    assert outcome.left_out["gradcam"].startswith("GradCAM explains pictures")
    assert outcome.samples == 2
    assert outcome.curves["lrp"].shape == (2, 21)
    said.clear()
    (again,) = comparison.run(read_study(file), store)
    assert said == []
    assert again.table.to_dict() == outcome.table.to_dict()


def test_what_changes_a_cell_is_done_again_and_nothing_else(file):
    said: list[str] = []
    store = Store(file.parent / "out", said.append)
    list(comparison.run(read_study(file), store))
    said.clear()
    file.write_text(STUDY.replace("deletion-rate]", "deletion-rate, sufficiency]"))
    list(comparison.run(read_study(file), store))
    assert {line.split("/")[3].split()[0] for line in said} == {"sufficiency"}


def test_another_column_of_the_same_file_is_done_anew(file):
    said: list[str] = []
    store = Store(file.parent / "out", said.append)
    means = []
    for column in ("words", "other"):
        data = f"data: [{{path: t.csv, column: {column}}}]\nmethods: inputxgradient\ntests: sufficiency\n"
        file.write_text(f"models: sentiment\n{data}")
        (outcome,) = comparison.run(read_study(file), store)
        means.append(outcome.table.scores["inputxgradient"]["sufficiency"].mean)
    assert means[0] != means[1]


def test_no_method_is_blamed_by_a_test_that_cannot_tell(file):
    study = STUDY.replace("[pixel-flipping, deletion-rate]", "[parameter-randomisation]")
    file.write_text(study.replace(", gradcam", ""))
    (outcome,) = comparison.run(read_study(file), Store(file.parent / "out"))
    assert outcome.table.blind == ("parameter-randomisation",)
    assert outcome.table.warnings == ()


OWN = """\
from dataclasses import replace
import torch
import apportion as ap

class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = ap.load("sentiment").model
    def forward(self, *args, **kwargs):
        return FACTOR * self.inner(*args, **kwargs)

def make():
    return replace(ap.load("sentiment"), model=Scaled())
"""


def test_a_model_whose_code_was_edited_is_tested_again(file):
    model = file.parent / "own.py"
    file.write_text(STUDY.replace("models: sentiment", "models: own.py:make"))
    tables = []
    for factor in ("1", "1", "-5"):
        model.write_text(OWN.replace("FACTOR", factor))
        said: list[str] = []
        (outcome,) = comparison.run(read_study(file), Store(file.parent / "out", said.append))
        tables.append((outcome.table.to_dict(), bool(said)))
    assert [ran for _, ran in tables] == [True, False, True]
    assert tables[0][0] == tables[1][0] != tables[2][0]


def test_a_study_without_a_method_that_works_is_refused(file):
    file.write_text(STUDY.replace("[lrp, inputxgradient, gradcam]", "[gradcam]"))
    with pytest.raises(InputError, match="no method can explain sentiment on short"):
        list(comparison.run(read_study(file), Store(file.parent / "out")))


def test_all_data_are_opened_before_anything_runs(file):
    said: list[str] = []
    file.write_text(STUDY.replace("methods:", "  - t.csv\nmethods:"))
    with pytest.raises(InputError, match="no column that is known to hold texts; name one of: words, other"):
        list(comparison.run(read_study(file), Store(file.parent / "out", said.append)))
    assert not said


def test_a_reason_is_given_once(file):
    file.with_name("blank.csv").write_text('text\n"   "\n')
    file.write_text(STUDY.replace("data:\n", "data:\n  - blank.csv\n"))
    with pytest.raises(InputError, match=r"no method can explain sentiment on blank: ([^;]+)$"):
        list(comparison.run(read_study(file), Store(file.parent / "out")))


# ---- the report ----


def test_run_and_show(file):
    runner = CliRunner()
    ran = runner.invoke(app, ["study", "run", str(file)], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    assert "sentiment on short" in ran.stdout
    assert "Left out: gradcam" in ran.stdout.replace("\n", " ")
    folder = file.with_suffix("")
    assert {"cells", "report.html", "report.md", "tables.json", "page.json"} == {
        p.name for p in folder.iterdir()
    }
    shown = runner.invoke(app, ["study", "show", str(folder), "--html", "page.html"], catch_exceptions=False)
    assert "Do the tests agree?" in shown.stdout
    told = json.loads(runner.invoke(app, ["study", "show", str(folder), "--json"]).stdout)
    assert told["tables"][0]["title"] == "sentiment on short"
    text = Path("page.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'json">(.*?)</script>', text).group(1))
    assert data["kind"] == "study"
    scores = data["tables"][0]
    assert scores["title"] == "sentiment on short"
    assert scores["references"] == ["random", "uniform", "reversed"]
    assert {row for row, _ in scores["best"]} <= {0, 1}
    assert {column for _, column in scores["best"]} == {1, 2}
    row, column = scores["best"][0]
    assert f"**{scores['rows'][row][column]}**" in (folder / "report.md").read_text(encoding="utf-8")
    assert "low" in data["charts"][0]["curves"][0]
    assert data["matrices"][0]["names"] == ["pixel-flipping", "deletion-rate"]
    assert data["settings"] == STUDY


def test_a_wrong_file_is_one_line(file):
    file.write_text(STUDY.replace("lrp", "lpr"))
    ran = CliRunner().invoke(app, ["study", "run", str(file)], catch_exceptions=False)
    assert ran.exit_code == 2
    assert ran.stderr.count("\n") == 1
    assert "line 9: methods[0]" in ran.stderr


@needs_chromium
def test_a_browser_draws_the_report(file, tmp_path):
    study = read_study(file)
    write(study, list(comparison.run(study, Store(tmp_path / "out"))), tmp_path / "out")
    browser = Browser(tmp_path / "profile")
    try:
        browser.open((tmp_path / "out" / "report.html").as_uri())
        browser.wait("document.querySelectorAll('.chart polyline').length == 5")
        assert browser.run("document.querySelectorAll('.chart polygon').length") == 2  # methods have bands
        assert browser.run("document.querySelectorAll('table.matrix').length") == 1
        assert browser.run("document.querySelectorAll('tr.reference').length") == 3
        assert browser.run("document.querySelectorAll('tr.reference .best').length") == 0
        assert browser.run("getComputedStyle(document.querySelector('td.best')).fontWeight") == "700"
        assert len(browser.requests) == 1
        browser.size(360, 800)
        assert browser.run("document.documentElement.scrollWidth") <= 360
    finally:
        browser.close()
