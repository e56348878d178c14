"""Estimators and tables in files, as people have them: --model, --background, --sep, --encoding, --decimal."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import apportion as ap
from apportion.cli.app import app
from apportion.domains.table_files import Dialect, read_table
from apportion.errors import InputError

pandas = pytest.importorskip("pandas")
joblib = pytest.importorskip("joblib")
sklearn = pytest.importorskip("sklearn")

from sklearn.compose import make_column_transformer  # noqa: E402
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import OneHotEncoder  # noqa: E402


def people(rows: int = 60) -> Any:
    draw = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "age": draw.integers(18, 80, rows),
            "hours": draw.normal(40, 10, rows).round(2),
            "city": ["a", "b", "ü"] * 20,
        }
    )
    frame.loc[::7, "hours"] = np.nan
    return frame


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    frame = people()
    columns = make_column_transformer((OneHotEncoder(sparse_output=False), ["city"]), remainder="passthrough")
    trees = HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=3)
    model = make_pipeline(columns, trees).fit(frame, (frame.age > 40).astype(int))
    joblib.dump(model, "model.joblib")
    frame.to_csv("rows.csv", index=False)
    frame.to_csv("semicolons.csv", index=False, sep=";", decimal=",")
    frame.to_csv("bars.csv", index=False, sep="|")
    frame.to_csv("western.csv", index=False, encoding="cp1252")
    frame.to_json("rows.jsonl", orient="records", lines=True)
    return tmp_path


def run(*typed: str) -> Any:
    return CliRunner().invoke(app, list(typed), catch_exceptions=False)


TRUSTED = ("--model", "model.joblib", "--trust-model-code")


@pytest.mark.parametrize("name", ["rows.csv", "semicolons.csv", "bars.csv", "western.csv", "rows.jsonl"])
def test_a_row_is_the_same_in_every_file(here: Path, name: str) -> None:
    how = ("--encoding", "cp1252") if name == "western.csv" else ()
    found = run("explain", name, "--row", "2", *TRUSTED, "--background", name, *how, "--json")
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    exact = ap.explain(ap.Tabular(joblib.load("model.joblib"), people()), people().iloc[[2]])
    assert told["total"] == pytest.approx(float(exact.total[0]), rel=1e-6)


@pytest.mark.parametrize("name", ["parquet", "feather"])
def test_so_is_it_in_files_of_arrow(here: Path, name: str) -> None:
    pytest.importorskip("pyarrow")
    getattr(people(), f"to_{name}")(f"rows.{name}")
    found = run("explain", f"rows.{name}", *TRUSTED, "--background", f"rows.{name}", "--json")
    assert found.exit_code == 0, found.output


def test_what_was_guessed_is_shown(here: Path) -> None:
    found = run("explain", "semicolons.csv", *TRUSTED, "--background", "semicolons.csv")
    assert "was read with sep=';', decimal=',', which was guessed" in found.stderr
    told = ("--sep", ";", "--decimal", ",")
    found = run("explain", "semicolons.csv", *TRUSTED, "--background", "semicolons.csv", *told)
    assert "guessed" not in found.stderr


def test_the_same_model_goes_to_compare_test_and_bulk(here: Path) -> None:
    rows = ("--background", "rows.csv")
    assert run("compare", "rows.csv", *TRUSTED, *rows, "--methods", "auto,occlusion", "--json").exit_code == 0
    tested = run(
        "test", "rows.csv", *TRUSTED, *rows, "--methods", "auto", "--tests", "deletion-rate", "--json"
    )
    assert tested.exit_code == 0, tested.output
    told = ("--sep", ";", "--decimal", ",")
    made = run("bulk", *TRUSTED, "--background", "semicolons.csv", "--data", "semicolons.csv", *told, "--out", "run",
               "--workers", "1")  # fmt: skip
    assert made.exit_code == 0, made.output
    assert len(ap.open_run("run")) == 60


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (("--model", "model.joblib", "--background", "rows.csv"), "is a pickle, which can run any code"),
        (TRUSTED, "needs rows to take the values of hidden columns from: --background"),
        ((*TRUSTED, "--background", "none.csv"), "none.csv: no such file"),
        ((*TRUSTED, "--background", "western.csv"), "is not UTF-8 text .* such as --encoding cp1252"),
        ((*TRUSTED, "--background", "renamed.csv"), "background has no column 'age'; did you mean 'Age'"),
        ((*TRUSTED, "--background", "doubled.csv"), "names the column 'age' twice"),
        ((*TRUSTED, "--background", "empty.csv"), "has no rows below its header"),
        ((*TRUSTED, "--background", "rows.csv", "--sep", "::"), "sep is '::'; accepted: one character"),
        (
            ("--model", "damaged.joblib", "--trust-model-code", "--background", "rows.csv"),
            "cannot be read with",
        ),
        (
            ("--model", "older.joblib", "--trust-model-code", "--background", "rows.csv"),
            "fitted with scikit-learn 0.1",
        ),
        (("--background", "rows.csv"), "--background goes with --model"),
    ],
)
def test_a_mistake_is_one_line(here: Path, typed: tuple[str, ...], line: str) -> None:
    people().rename(columns={"age": "Age"}).to_csv("renamed.csv", index=False)
    Path("doubled.csv").write_text("age,hours,age\n1,2,3\n")
    Path("empty.csv").write_text("age,hours,city\n")
    Path("damaged.joblib").write_bytes(b"nothing")
    here_now = sklearn.__version__.encode()
    older = Path("model.joblib").read_bytes().replace(here_now, b"0.1" + b"0" * (len(here_now) - 3))
    Path("older.joblib").write_bytes(older)
    found = run("explain", "rows.csv", *typed)
    assert found.exit_code == 2
    (told,) = found.stderr.strip().splitlines()
    assert re.search(line, told), told


def test_skops_files_are_read_without_running_code(here: Path) -> None:
    skops = pytest.importorskip("skops.io")
    skops.dump(joblib.load("model.joblib"), "model.skops")
    found = run("explain", "rows.csv", "--model", "model.skops", "--background", "rows.csv", "--json")
    assert found.exit_code == 0, found.output

    from sklearn.preprocessing import FunctionTransformer

    own = make_pipeline(FunctionTransformer(people), joblib.load("model.joblib"))
    skops.dump(own, "own.skops")
    with pytest.raises(InputError, match="which skops does not know to be harmless"):
        ap.load("own.skops", people())


def test_tables_that_are_no_table_are_named(here: Path) -> None:
    Path("ragged.csv").write_text("a;b\n1;2;3\n4;5;6\n")
    with pytest.raises(InputError, match="the first row has 3 values, the header 2"):
        read_table(Path("ragged.csv"))
    with pytest.raises(InputError, match=r"rows.jsonl is a .jsonl file, which has no separators"):
        read_table(Path("rows.jsonl"), Dialect(sep=";"))
    with pytest.raises(InputError, match="encoding is 'klingon'"):
        read_table(Path("rows.csv"), Dialect(encoding="klingon"))


def test_texts_of_the_background_stay_texts_in_files_of_rows(here: Path) -> None:
    from sklearn.linear_model import LinearRegression
    from sklearn.preprocessing import OneHotEncoder

    frame = pandas.DataFrame({"zip": ["3011", "A12", "8001", "A12"], "n": [1.0, 2.0, 3.0, 4.0]})
    columns = make_column_transformer((OneHotEncoder(), ["zip"]), remainder="passthrough")
    joblib.dump(make_pipeline(columns, LinearRegression()).fit(frame, [5.0, 2, 8, 3]), "zips.joblib")
    frame.to_csv("zips.csv", index=False)
    frame.iloc[[0]].to_csv("one.csv", index=False)  # in which all zips look like numbers
    frame.iloc[[0]].to_csv("one-semicolon.csv", index=False, sep=";", decimal=",")
    frame.iloc[[0]].to_json("one.jsonl", orient="records", lines=True)
    model = ("--model", "zips.joblib", "--trust-model-code", "--background", "zips.csv")
    for name in ("one.csv", "one-semicolon.csv", "one.jsonl"):
        found = run("explain", name, *model, "--json")
        assert found.exit_code == 0, found.output
        assert json.loads(found.stdout)["prediction"]["score"] == pytest.approx(5.0)
        made = run("bulk", *model, "--data", name, "--out", f"run-{name}", "--workers", "1")
        assert made.exit_code == 0, made.output
        (row,) = ap.open_run(f"run-{name}").rows()
        assert row["output"] == pytest.approx([5.0])
    frame.assign(zip=["007", "A12", "8001", "A12"]).to_json("zips.jsonl", orient="records", lines=True)
    assert list(read_table(Path("zips.jsonl"))[0]["zip"]) == ["007", "A12", "8001", "A12"]


def test_bulk_reads_decimal_commas_as_explain_does(here: Path) -> None:
    made = run("bulk", *TRUSTED, "--background", "rows.csv", "--data", "semicolons.csv", "--out", "run",
               "--workers", "1")  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "which was guessed" in made.stderr
    assert (len(ap.open_run("run")), ap.open_run("run").failed) == (60, 0)


def test_a_table_without_a_header_is_read_by_number(here: Path) -> None:
    rows = people().drop(columns="city").dropna()
    trees = HistGradientBoostingClassifier(min_samples_leaf=3).fit(rows.to_numpy(), rows.age > 40)
    joblib.dump(trees, "unnamed.joblib")
    rows.to_csv("bare.csv", index=False, header=False)
    model = ("--model", "unnamed.joblib", "--trust-model-code", "--background", "bare.csv", "--no-header")
    for row in (0, len(rows) - 1):
        found = run("explain", "bare.csv", "--row", str(row), *model, "--json")
        assert found.exit_code == 0, found.output
        assert json.loads(found.stdout)["prediction"]["score"] == pytest.approx(
            abs(float(trees.decision_function(rows.to_numpy()[[row]])[0])), abs=1e-6
        )
    made = run("bulk", *model, "--data", "bare.csv", "--out", "run", "--workers", "1")
    assert made.exit_code == 0, made.output
    assert len(ap.open_run("run")) == len(rows)
    found = run("explain", "bare.csv", *TRUSTED, "--background", "rows.csv")
    assert re.search("its columns are called .*: is that the header of a table", found.stderr)


def test_a_background_that_the_model_does_not_take_is_one_line(here: Path) -> None:
    people().assign(age="soon").to_csv("words.csv", index=False)
    for command in (("explain", "rows.csv"), ("bulk", "--data", "rows.csv", "--out", "run")):
        found = run(*command, *TRUSTED, "--background", "words.csv")
        assert found.exit_code == 2
        assert "does not run on the background: ValueError: could not convert" in found.stderr


def test_inputs_that_failed_are_told_with_a_reason(here: Path) -> None:
    people().drop(columns="age").iloc[:3].to_csv("short.csv", index=False)
    made = run("bulk", *TRUSTED, "--background", "rows.csv", "--data", "short.csv", "--out", "run",
               "--workers", "1")  # fmt: skip
    assert "3 inputs failed, such as 0: the row has no column 'age'" in made.stderr


def test_a_regressor_has_no_classes_in_any_command(here: Path) -> None:
    frame = people().dropna()
    columns = make_column_transformer((OneHotEncoder(sparse_output=False), ["city"]), remainder="passthrough")
    trees = make_pipeline(columns, HistGradientBoostingRegressor(max_iter=5, min_samples_leaf=3))
    joblib.dump(trees.fit(frame, 100 * frame.age + frame.hours), "pay.joblib")
    pay = ("--model", "pay.joblib", "--trust-model-code", "--background", "rows.csv")
    score = float(trees.predict(people().iloc[[2]])[0])
    for method in ("auto", "kernelshap", "occlusion"):
        told = json.loads(run("explain", "rows.csv", "--row", "2", *pay, "--method", method, "--json").stdout)
        assert told["prediction"] == {"label": "score", "score": pytest.approx(score), "probability": None}
        assert (told["target_label"], told["unit"]) == ("score", "units of the score")
    shown = run("explain", "rows.csv", "--row", "2", *pay).stdout
    assert not re.search("class|probability", shown)
    beside = run("compare", "rows.csv", *pay, "--methods", "auto,occlusion", "--html", "pay.html")
    assert beside.exit_code == 0, beside.stderr
    assert "PixelFlipping" in beside.stdout
    assert "DeletionRate" not in beside.stdout
    made = run("bulk", *pay, "--data", "rows.csv", "--out", "pay", "--workers", "1")
    assert made.exit_code == 0, made.output
    for typed in ((), ("--html", "s.html"), ("--by", "city"), ("--json",)):
        summed = run("runs", "summary", "pay", *typed)
        assert summed.exit_code == 0, summed.output
        assert "class" not in re.sub('"class": "score"', "", summed.stdout)
    refused = run("runs", "summary", "pay", "--truth", "age")
    assert "truth is of classes, but the model has one score" in refused.stderr


def test_every_class_is_explained_at_once(here: Path) -> None:
    base = ("explain", "rows.csv", *TRUSTED, "--background", "rows.csv")
    each = [json.loads(run(*base, "--target", name, "--json").stdout) for name in ("0", "1")]
    every = json.loads(run(*base, "--target", "all", "--json").stdout)
    assert [one["target"] for one in every] == [0, 1]
    for one, alone in zip(every, each, strict=True):
        assert [f["value"] for f in one["features"]] == pytest.approx([f["value"] for f in alone["features"]])
    shown = run(*base, "--target", "all", "--html", "all.html")
    assert shown.exit_code == 0
    assert shown.stdout.count("nothing left over") == 2
    for typed, line in (
        ((*base, "--target", "all", "--png", "all.png"), "--png is of one class"),
        (("compare", *base[1:], "--target", "all"), "where methods are compared: one class"),
    ):
        refused = run(*typed)
        assert (refused.exit_code, line in refused.stderr) == (2, True), refused.stderr


def test_the_options_of_a_summary(here: Path) -> None:
    made = run(
        "bulk", *TRUSTED, "--background", "rows.csv", "--data", "rows.csv", "--out", "run", "--workers", "1"
    )
    assert made.exit_code == 0, made.output
    frame, found = people(), ap.open_run("run")
    right = (frame.age > 40).astype(int)
    frame.assign(right=right).to_csv("rows.csv.new", index=False)
    labels = [row["target"] for row in found.rows()]

    def summed(*typed: str) -> Any:
        return json.loads(run("runs", "summary", "run", *typed, "--json").stdout)

    by_city = summed("--by", "city")
    assert sorted(one["rows"] for one in by_city) == sorted([labels.count(0), labels.count(1)])
    assert all(set(one["cohorts"]) <= {"a", "b", "ü"} for one in by_city)
    (only,) = summed("--target", by_city[0]["class"], "--by", "city")
    assert only == by_city[0]
    kept = [i for i, label in enumerate(labels) if str(label) == only["class"]]
    values = np.array([found.map(i).tolist() for i in kept])
    sizes = dict(zip(frame.columns, np.abs(values).mean(0), strict=True))
    assert {each["name"]: each["size"] for each in only["features"]} == pytest.approx(sizes, rel=1e-3)
    ages = summed("--by", "age")
    assert max(len(one["cohorts"]) for one in ages) == 4  # the quarters of numbers
    page = run("runs", "summary", "run", "--by", "city", "--html", "page.html")
    assert page.exit_code == 0
    assert "wrote page.html" in page.stdout
    for typed, line in (
        (("--by", "town"), "town"),
        (("--by", "city", "--truth", "age"), "by and truth are both given"),
        (("--target", "9"), "target is '9'; accepted: "),
        (("--truth", "right"), "the data have no column 'right'"),
    ):
        refused = run("runs", "summary", "run", *typed)
        assert (refused.exit_code, line in refused.stderr) == (2, True), refused.stderr
    assert len(summed("--top", "2")["features"][only["class"]]) == 2


@pytest.mark.parametrize("options", [(), ("--sep", ";", "--decimal", ",")])
def test_right_and_wrong_predictions_are_cohorts(here: Path, options: tuple[str, ...]) -> None:
    frame = people()
    right = np.where(frame.index % 5 == 0, 1 - (frame.age > 40), frame.age > 40).astype(int)
    for name in ("told.csv", "other.csv"):
        said = {"sep": ";", "decimal": ","} if options else {}
        frame.assign(right=right if name == "told.csv" else 0).to_csv(name, index=False, **said)
    background = "semicolons.csv" if options else "rows.csv"
    made = run("bulk", *TRUSTED, "--background", background, "--data", "told.csv", *options, "--out", "run",
               "--workers", "1")  # fmt: skip
    assert made.exit_code == 0, made.output
    wrong = sum(
        str(row["target"]) != str(right) for row, right in zip(ap.open_run("run").rows(), right, strict=True)
    )
    again = ("--data", "told.csv", *options) if options else ()
    if options:
        assert "accepted: --data FILE" in run("runs", "summary", "run", "--truth", "right").stderr
        other = run("runs", "summary", "run", "--truth", "right", "--data", "other.csv", *options)
        assert (other.exit_code, "are not as they were for the run" in other.stderr) == (2, True)
    shown = run("runs", "summary", "run", "--truth", "right", *again).stdout
    assert sum(map(int, re.findall(r"wrong \((\d+)\)", shown))) == wrong
