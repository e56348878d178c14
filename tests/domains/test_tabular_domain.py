"""Rows as people have them, and what the model gets of them."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.core.classifier import Classifier
from apportion.domains.tabular import Categorical, Numeric, TabularPreparation, read_row
from apportion.errors import InputError
from apportion.methods.explain import explain

PENGUINS = pd.DataFrame(
    {
        "species": ["Adelie", "Adelie", "Gentoo", "Chinstrap", "Gentoo"],
        "island": ["Torgersen", "Biscoe", "Biscoe", "Dream", "Biscoe"],
        "bill_length_mm": [39.1, 37.8, 46.1, 46.5, None],
        "body_mass_g": [3750, 3400, 4500, 3500, 5700],
        "sex": ["male", "female", "female", "female", None],
        "year": [2007, 2007, 2008, 2009, 2009],
    }
)
PREPARATION = TabularPreparation.fit(PENGUINS, categorical=["year"], exclude=["species"])


def raises(said: str) -> pytest.RaisesExc[ValueError]:
    return pytest.raises(ValueError, match=said)


def test_fit_finds_the_columns() -> None:
    assert [column.name for column in PREPARATION.columns] == list(PENGUINS.columns)[1:]
    island, bill, mass, sex, year = PREPARATION.columns
    assert island == Categorical("island", ("Biscoe", "Dream", "Torgersen"))
    assert sex == Categorical("sex", ("female", "male"))  # a missing value is no category
    assert year == Categorical("year", ("2007", "2008", "2009"))
    assert isinstance(bill, Numeric)
    assert bill.mean == pytest.approx(np.mean([39.1, 37.8, 46.1, 46.5]))
    assert isinstance(mass, Numeric)
    assert mass.std == pytest.approx(np.std(PENGUINS["body_mass_g"]))


def test_a_row_becomes_standardised_numbers_and_one_hot_blocks() -> None:
    inputs, features = PREPARATION(PENGUINS.iloc[0])
    _, bill, mass, _, _ = PREPARATION.columns
    assert isinstance(bill, Numeric)
    assert isinstance(mass, Numeric)
    expected = [0, 0, 1, (39.1 - bill.mean) / bill.std, (3750 - mass.mean) / mass.std, 0, 1, 1, 0, 0]
    assert torch.allclose(inputs, torch.tensor([expected]))
    assert inputs.dtype == torch.float32
    assert features.groups == (0, 0, 0, 1, 2, 3, 3, 4, 4, 4)
    assert features.columns == ("island", "bill_length_mm", "body_mass_g", "sex", "year")
    assert features.cells == ("Torgersen", "39.1", "3750", "male", "2007")


def test_every_form_of_a_row_is_the_same_row(tmp_path: Path) -> None:
    PENGUINS.to_csv(tmp_path / "penguins.csv", index=False)
    PENGUINS.iloc[[1]].to_csv(tmp_path / "one.csv", index=False, sep=";")
    (tmp_path / "penguins.csv.gz").write_bytes(gzip.compress((tmp_path / "penguins.csv").read_bytes()))
    row = PENGUINS.iloc[1]
    expected, features = PREPARATION(row)
    forms = [
        row.to_dict(),
        PENGUINS.iloc[[1]],
        read_row(tmp_path / "penguins.csv", 1),
        read_row(str(tmp_path / "penguins.csv.gz"), 1),
        tmp_path / "one.csv",
        list(row.iloc[1:]),
        tuple(row.iloc[1:]),
    ]
    for form in forms:
        inputs, same = PREPARATION(form)
        assert torch.equal(inputs, expected)
        assert same == features
    assert TabularPreparation.fit(tmp_path / "penguins.csv", categorical=["year"], exclude=["species"]) == (
        PREPARATION
    )


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20),
    st.lists(st.sampled_from(["low", "mid", "high, or more", 'with "quotes"', "ä"]), min_size=2, max_size=20),
)
def test_fitted_rows_have_mean_zero_and_one_hot(numbers: list[float], words: list[str]) -> None:
    count = min(len(numbers), len(words))
    frame = pd.DataFrame({"number": numbers[:count], "word": words[:count]})
    preparation = TabularPreparation.fit(frame)
    inputs = torch.cat([preparation(row)[0] for _, row in frame.iterrows()]).double()
    if np.std(numbers[:count]) > 1e-3:
        assert abs(inputs[:, 0].mean()) < 1e-4
        assert abs(inputs[:, 0].std(correction=0) - 1) < 1e-4
    assert (inputs[:, 1:].sum(1) == 1).all()
    assert TabularPreparation.from_json(preparation.to_json()) == preparation


@pytest.mark.parametrize("value", [0.1, 1e6 + 0.1, -3.3])
def test_a_column_of_equal_numbers_is_not_blown_up(value: float) -> None:
    preparation = TabularPreparation.fit(pd.DataFrame({"same": [value] * 7}))
    assert preparation({"same": value})[0].item() == pytest.approx(0, abs=1e-6)
    assert preparation({"same": value + 1})[0].item() == pytest.approx(1)


def test_a_constant_column_and_arrays() -> None:
    assert TabularPreparation.fit(pd.DataFrame({"a": [0.0, 5e-324]})).columns[0].std == 1.0
    preparation = TabularPreparation.fit(pd.DataFrame({"a": [2.0, 2.0], "b": [1.0, 3.0]}))
    assert preparation.columns[0] == Numeric("a", 2.0, 1.0)
    for row in (np.array([2.0, 3.0]), torch.tensor([[2.0, 3.0]]), np.array([[2.0, 3.0]], np.float32)):
        assert torch.equal(preparation(row)[0], torch.tensor([[0.0, 1.0]]))


def test_a_bad_row_names_the_column_and_the_value() -> None:
    good = PENGUINS.iloc[0].to_dict()
    for bad, said in [
        ({"island": "Skye"}, r"column 'island': 'Skye' .* accepted: 'Biscoe', 'Dream', 'Torgersen'"),
        ({"body_mass_g": "heavy"}, r"column 'body_mass_g': 'heavy' is not a finite number"),
        ({"body_mass_g": float("inf")}, r"column 'body_mass_g': inf is not a finite number"),
        ({"body_mass_g": float("nan")}, r"column 'body_mass_g': the value is missing"),
        ({"sex": None}, r"column 'sex': the value is missing"),
        ({"sex": " "}, r"column 'sex': the value is missing"),
    ]:
        with raises(said):
            PREPARATION({**good, **bad})
    with raises("no column 'sex', 'year'; it has 'island'"):
        PREPARATION({key: good[key] for key in ("island", "bill_length_mm", "body_mass_g")})
    with raises("this frame has 5"):
        PREPARATION(PENGUINS)
    with raises("2 values for 5 columns"):
        PREPARATION([1, 2])
    with raises("not int"):
        PREPARATION(7)


def test_a_bad_table_names_the_column_and_the_value() -> None:
    with raises("column 'mass': 'heavy' is not a number, and most values are"):
        TabularPreparation.fit(pd.DataFrame({"mass": [1, 2, "heavy"]}))
    with raises("column 'mass' has no values"):
        TabularPreparation.fit(pd.DataFrame({"mass": [None, None]}))
    with raises("column 'mass' has an infinite value"):
        TabularPreparation.fit(pd.DataFrame({"mass": [1.0, float("inf")]}))
    with raises("has no rows"):
        TabularPreparation.fit(pd.DataFrame({"mass": []}))
    with raises("no column 'specis'"):
        TabularPreparation.fit(PENGUINS, exclude=["specis"])
    with raises("exclude takes a list of column names, not the text 'species'"):
        TabularPreparation.fit(PENGUINS, exclude="species")
    with raises("names a column twice"):
        TabularPreparation.fit(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with raises("not list"):
        TabularPreparation.fit([1, 2])


def test_a_bad_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv: no such file"):
        read_row(tmp_path / "nowhere.csv")
    with raises("is a folder"):
        read_row(tmp_path)
    for content, said in [
        (b"", "has no content"),
        (b"a,b\n", "has no rows below its header"),
        (b"a,b\n1,2\n3\n", "row 1 has 1 values, the header 2"),
        (b"a,a\n1,2\n", "names a column twice"),
        (b"\xff\xfe\x00", "cannot be read as UTF-8"),
        (b'a,b\n"1,2\n', "is not a CSV file"),
    ]:
        (tmp_path / "bad.csv").write_bytes(content)
        with raises(said):
            read_row(tmp_path / "bad.csv")
    (tmp_path / "bad.csv.gz").write_bytes(b"a,b\n1,2\n")
    with raises("cannot be read"):
        read_row(tmp_path / "bad.csv.gz")
    (tmp_path / "two.csv").write_text("a,b\n1,2\n3,4\n")
    for row in (2, -1):
        with raises(f"no row {row}; there are rows 0 to 1"):
            read_row(tmp_path / "two.csv", row)
    with raises("has 2 rows; choose one"):
        TabularPreparation((Numeric("a"),))(tmp_path / "two.csv")


def test_json_and_bad_preparations() -> None:
    assert TabularPreparation.from_json(PREPARATION.to_json()) == PREPARATION
    for text in ("", "{}", "[1]", '[{"kind": "date", "name": "a"}]', '[{"kind": "numeric", "name": "a"}]'):
        with raises("tabular preparation|needs columns"):
            TabularPreparation.from_json(text)
    with raises("different names"):
        TabularPreparation((Numeric("a"), Numeric("a")))
    with raises("no scale"):
        TabularPreparation((Numeric("a", std=0.0),))


def test_pandas_is_not_needed(tmp_path: Path) -> None:
    PENGUINS.dropna().to_csv(tmp_path / "penguins.csv", index=False)
    program = (
        "import sys; sys.modules['pandas'] = None\n"
        "from apportion.domains.tabular import TabularPreparation, read_row\n"
        "path = sys.argv[1]\n"
        "print(TabularPreparation.fit(path)(read_row(path, 1))[1].cells[0])"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "penguins.csv")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.stdout == "Adelie\n", done.stderr


def test_a_row_reaches_a_function_as_it_is():
    preparation = TabularPreparation((Numeric("date"), Numeric("share")))
    seen = []

    def rule(rows):
        seen.append(rows)
        return (rows[:, 0] % 2 + 4 * (rows[:, 1] <= 0.1)).double()

    classifier = Classifier(rule, preparation, (), domain="tabular", name="rule")
    e = explain(classifier, {"date": 20240121, "share": 0.1}, "occlusion")
    assert e.output.item() == 5
    assert e.values.tolist() == [[1, 0]]


def test_a_function_that_computes_in_single_precision_gets_it_and_rounded_dates_are_told():
    preparation = TabularPreparation((Numeric("date"), Numeric("share")))
    layer = torch.nn.Linear(2, 1)
    classifier = Classifier(lambda rows: layer(rows), preparation, (), domain="tabular", name="layer")
    assert explain(classifier, {"date": 5, "share": 0.1}, "occlusion").output.dtype == torch.float32
    with pytest.warns(UserWarning, match="rounds whole numbers"):
        explain(classifier, {"date": 20240121, "share": 0.1}, "occlusion")
    with pytest.raises(InputError, match=r"'share': .* is too large"):
        preparation({"date": 5, "share": 1e39 + 0.5})


def test_categories_keep_all_their_digits_and_many_are_not_all_told():
    frame = pd.DataFrame({"code": [12345678.5, 12345679.5]})
    preparation = TabularPreparation.fit(frame, categorical=["code"])
    assert preparation.columns[0].categories == ("12345678.5", "12345679.5")
    assert preparation({"code": 12345679.5})[0].tolist() == [[0, 1]]
    assert TabularPreparation((Categorical("x", ("0.3333333",)),))({"x": 1 / 3})[0].item() == 1
    many = Categorical("city", tuple(f"city {i}" for i in range(8000)))
    with pytest.raises(InputError, match="one of 8000, such as") as told:
        many.inputs("citi 77")
    assert len(str(told.value)) < 200


@pytest.mark.parametrize(
    "text", ['"a,b,c";d\n1;2\n', "sep=;\na,b,c;d\n1;2\n", "a,b,c\td\n1\t2\n".replace("a,b,c", '"a,b,c"')]
)
def test_separators_are_those_of_the_file(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    assert read_row(tmp_path / "x.csv") == {"a,b,c": "1", "d": "2"}


def test_old_line_ends_and_bars_are_read(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"a|b\r1|2\r")
    assert read_row(tmp_path / "x.csv") == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["1,5", "2,25"], "comma in a number"),
        (["1,500", "2,250"], "comma in a number"),
        (pd.to_datetime(["2024-01-01", "2024-01-02"]), "is a date"),
    ],
)
def test_numbers_and_dates_in_disguise_are_no_categories(values, words):
    frame = pd.DataFrame({"x": values})
    with pytest.raises(InputError, match=words):
        TabularPreparation.fit(frame)
    assert len(TabularPreparation.fit(frame, categorical=["x"]).columns[0].categories) == 2


def test_rows_by_number_and_dates_that_are_missing():
    assert TabularPreparation((Numeric("0"), Numeric("1")))({0: 1, 1: 2})[0].tolist() == [[1, 2]]
    with pytest.raises(InputError, match="missing"):
        TabularPreparation((Categorical("day", ("NaT",)),))({"day": pd.NaT})
