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
from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: E402
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
