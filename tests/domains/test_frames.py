"""Estimators and functions of data frames: columns of every type, as they are; hidden ones are taken from rows."""

from __future__ import annotations

import datetime
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import apportion as ap
from apportion.errors import InputError

pandas = pytest.importorskip("pandas")
sklearn = pytest.importorskip("sklearn")


def every_kind(rows: int = 6) -> Any:
    """A frame with a column of each kind that pandas has, with holes."""
    random = np.random.default_rng(0)
    days = pandas.date_range("2024-01-31", periods=rows, freq="37h")
    return pandas.DataFrame(
        {
            "float": [1.5, np.nan, *random.normal(size=rows - 2)],
            "small": random.normal(size=rows).astype(np.float32),
            "int": range(20240101, 20240101 + rows),
            "huge": [2**60 + i for i in range(rows)],
            "bool": [True, False] * (rows // 2),
            "nullable": pandas.array([1, None, *range(rows - 2)], dtype="Int64"),
            "maybe": pandas.array([True, None, *[False] * (rows - 2)], dtype="boolean"),
            "text": ["a", "NA", "ü"] * (rows // 3),
            "mixed": ["a", None, np.nan, 1, 1.0, True],
            "string": pandas.array(["x", None] * (rows // 2), dtype="string"),
            "category": pandas.Categorical(
                ["low", "high", None] * (rows // 3), ["low", "mid", "high"], ordered=True
            ),
            "when": days,
            "zone": days.tz_localize("Europe/Berlin"),
            "span": days - days[0],
        }
    )


def test_columns_of_every_kind_come_back_as_they_were() -> None:
    frame = every_kind()
    seen = []

    def model(rows: Any) -> Any:
        seen.append(rows)
        return np.zeros(len(rows))

    table = ap.Tabular(model, frame)
    numbers, features = table.encode.several(frame)
    table(numbers)
    pandas.testing.assert_frame_equal(seen[0], frame)
    assert [type(value) for value in seen[0]["mixed"]] == [type(value) for value in frame["mixed"]]
    assert features[1].cells[:2] == ("missing", f"{frame['small'][1]:.7g}")


def brute_force(function: Any, row: Any, background: Any) -> list[float]:
    """Shapley values by their definition, on frames that are put together cell by cell."""
    names = list(row.columns)

    def value(kept: tuple[str, ...]) -> float:
        rows = background.copy()
        for name in kept:
            rows[name] = pandas.Series(
                [row[name].iloc[0]] * len(rows), index=rows.index, dtype=row[name].dtype
            )
        return float(np.mean(function(rows)))

    many, found = len(names), []
    for name in names:
        rest = [other for other in names if other != name]
        found.append(
            sum(
                math.factorial(size) * math.factorial(many - size - 1) / math.factorial(many)
                * (value((*kept, name)) - value(kept))
                for size in range(many)
                for kept in itertools.combinations(rest, size)
            )
        )  # fmt: skip
    return found


def train() -> tuple[Any, Any]:
    random = np.random.default_rng(1)
    frame = pandas.DataFrame(
        {
            "age": random.integers(18, 80, 60),
            "income": np.where(random.random(60) < 0.2, np.nan, random.normal(3, 1, 60)),
            "city": random.choice(["Paris", "Rome", "Oslo"], 60),
            "member": random.random(60) < 0.5,
        }
    )
    right = (frame.age > 40) ^ (frame.city == "Rome") ^ frame.income.isna()
    return frame, np.where(right, "yes", "no")


def pipeline() -> tuple[Any, Any]:
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    frame, right = train()
    columns = make_column_transformer((OneHotEncoder(sparse_output=False), ["city"]), remainder="passthrough")
    trees = HistGradientBoostingClassifier(max_iter=20, min_samples_leaf=5, random_state=0)
    return make_pipeline(columns, trees).fit(frame, right), frame


def test_a_pipeline_of_columns_has_its_shapley_values() -> None:
    fitted, frame = pipeline()
    table = ap.Tabular(fitted, frame.iloc[:8])
    for place in (10, int(frame.income.isna().to_numpy().nonzero()[0][-1])):
        row = frame.iloc[[place]]
        found = ap.explain(table, row, "kernelshap", target="yes")
        expected = brute_force(lambda rows: fitted.predict_proba(rows)[:, 1], row, frame.iloc[:8])
        assert found.values[0].tolist() == pytest.approx(expected, abs=1e-9)
        assert found.features[0].columns == tuple(frame.columns)
        assert found.notes["background"] == "8 rows"
        pairs = ap.explain(table, row, ap.ShapleyInteractions(), target="yes")
        assert pairs.values[0].sum(1).tolist() == pytest.approx(expected, abs=1e-8)


def test_the_default_explains_a_frame_against_its_own_rows() -> None:
    fitted, frame = pipeline()
    several = ap.explain(fitted, frame.iloc[:5])
    for i in range(5):
        alone = ap.explain(ap.Tabular(fitted, frame.iloc[:5]), frame.iloc[[i]])
        torch.testing.assert_close(alone.values[0], several.values[i])
    assert several.notes["background"] == "5 rows"
    assert "not the first choice" not in several.notes["chosen"]
    assert several.labels == ("no", "yes")


def test_rows_may_be_frames_series_dicts_or_lists_in_any_order() -> None:
    fitted, frame = pipeline()
    table = ap.Tabular(fitted, frame.iloc[:8])
    row = frame.iloc[12]
    expected = ap.explain(table, frame.iloc[[12]], "occlusion").values
    shuffled = frame.iloc[[12]][["member", "city", "income", "age"]].assign(other=1)
    texts = {name: str(value) for name, value in row.items()}
    for same in (row, row.to_dict(), list(row), shuffled, texts):
        assert torch.equal(ap.explain(table, same, "occlusion").values, expected)


def test_tests_hide_columns_as_methods_do() -> None:
    fitted, frame = pipeline()
    table, row = ap.Tabular(fitted, frame.iloc[:8]), frame.iloc[[12]]
    found = ap.explain(table, row, "kernelshap")
    best = ap.Comprehensiveness()(table, row, found).mean
    worst = ap.Comprehensiveness()(table, row, -found.values).mean
    assert best > worst
    with pytest.raises(InputError, match=r"column 'city' holds no numbers, but .* was put into it"):
        ap.KernelSHAP(replacement=ap.Constant(0.0))(table, table.encode(row)[0])
    with pytest.raises(InputError, match="another input"):
        ap.Comprehensiveness()(table, frame.iloc[[13]], found)


def test_a_regressor_has_no_classes() -> None:
    from sklearn.linear_model import LinearRegression

    frame = train()[0][["age", "member"]]
    fitted = LinearRegression().fit(frame, frame.age * 2 + frame.member)
    found = ap.explain(ap.Tabular(fitted, frame), frame.iloc[[3]])
    means = frame.astype(float).mean()
    expected = [(frame.age[3] - means.age) * 2, float(frame.member[3]) - means.member]
    assert found.values[0].tolist() == pytest.approx(expected, abs=1e-9)
    assert not found.labels


def test_more_background_rows_than_are_used_are_drawn_and_told() -> None:
    frame = pandas.DataFrame({"a": range(1000), "b": range(1000)})

    def model(rows: Any) -> Any:
        return rows.a.to_numpy() + 0.0

    table = ap.Tabular(model, frame)
    found = ap.explain(table, frame.iloc[[0]])
    assert found.notes["background"] == "100 of 1000 rows"
    assert len(table.mask) == 100
    whole = ap.Tabular(model, frame, rows=None)
    assert ap.explain(whole, frame.iloc[[0]]).values[0, 0].item() == pytest.approx(-499.5)
    assert torch.equal(ap.Tabular(model, frame).mask, table.mask)


class Careless:
    """Writes into what it is given, and gives names of classes."""

    def __init__(self, names: bool = False) -> None:
        self.names = names

    def predict(self, rows: Any) -> Any:
        rows["a"] = 0
        return np.array(["x"] * len(rows)) if self.names else np.zeros(len(rows))


def test_the_frame_is_not_written_into_and_names_are_refused() -> None:
    frame = pandas.DataFrame({"a": [1, 2], "b": [3, 4]})
    before = frame.copy()
    ap.explain(ap.Tabular(Careless(), frame), frame.iloc[[0]])
    pandas.testing.assert_frame_equal(frame, before)
    with pytest.raises(InputError, match="the model returned words, such as 'x'; accepted: a score for each"):
        ap.explain(ap.Tabular(Careless(names=True), frame), frame.iloc[[0]])


def of_sizes(rows: Any) -> Any:
    return np.zeros(len(rows))


@pytest.mark.parametrize(
    ("frame", "row", "message"),
    [
        ({"a": [1]}, {"b": 2}, "the row has no column 'a'"),
        ({"city": [1]}, {"City": 2}, "no column 'city'; did you mean 'City'"),
        ({"a": [1]}, {"a": "much"}, "column 'a': 'much' is no number"),
        ({"a": [1]}, {"a": 2**60 + 1}, "column 'a': .* too large to be told from its neighbours"),
        ({"a": pandas.Categorical(["low", "high"])}, {"a": "hgih"}, "'hgih' is no category of it; .*'high'"),
        ({"a": pandas.to_datetime(["2024-01-01"])}, {"a": "soon"}, "column 'a': 'soon' is no date"),
        ({"a": [1j]}, {"a": 1}, "column 'a' holds complex numbers"),
        ({"a": [1]}, 3, "a row is int; accepted: a frame, a pandas row, a dict, or 1 values in order"),
        ({"a": []}, {"a": 1}, r"background has shape \(0, 1\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(frame: dict[str, Any], row: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ap.explain(ap.Tabular(of_sizes, pandas.DataFrame(frame)), row)
    assert "\n" not in str(caught.value)


def test_frames_that_are_none_or_name_a_column_twice_are_refused() -> None:
    twice = pandas.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(InputError, match="background names the column 'a' twice"):
        ap.Tabular(of_sizes, twice)
    with pytest.raises(InputError, match="background is list; accepted: a data frame"):
        ap.Tabular(of_sizes, [[1]])
    with pytest.raises(InputError, match=r"apportion.Tabular\(model, background=frame\)"):
        ap.explain(of_sizes, pandas.DataFrame({"a": [1]}))
    with pytest.raises(InputError, match="accepted for a table"):
        ap.Tabular(3, twice)


@given(
    st.lists(
        st.one_of(st.none(), st.text(), st.integers(), st.floats(allow_nan=False), st.booleans()), min_size=1
    )
)
@settings(max_examples=60, deadline=None)
def test_values_of_any_kind_survive(values: list[Any]) -> None:
    frame = pandas.DataFrame({"any": pandas.Series(values, dtype=object)})
    table = ap.Tabular(of_sizes, frame, rows=None)
    back = list(table.encode.frame(table.mask)["any"])
    assert list(map(repr, back)) == list(map(repr, values))


def test_an_estimator_that_only_predicts_classes_is_told_so() -> None:
    from sklearn.neighbors import NearestCentroid

    class Bare:
        classes_ = (0, 1)

        def predict(self, rows: Any) -> Any:
            return np.zeros(len(rows), int)

    frame = pandas.DataFrame({"a": [1.0, 2.0]})
    with pytest.raises(InputError, match="Bare, which predicts classes and has no scores"):
        ap.Tabular(Bare(), frame)
    assert ap.Tabular(NearestCentroid().fit(frame, [0, 1]), frame).labels == ("0", "1")


@pytest.mark.parametrize(("held", "cell", "given"), [
    (["a", None], "NA", None),
    (["a", np.nan], "", np.nan),
    (["a", "NA"], "NA", "NA"),
    (["a", "NA", None], "NA", "NA"),
    (["a", "b"], "NA", "NA"),
])  # fmt: skip
def test_a_cell_of_a_file_is_missing_where_the_background_has_missing_ones(
    held: Any, cell: str, given: Any
) -> None:
    table = ap.Tabular(of_sizes, pandas.DataFrame({"any": pandas.Series(held, dtype=object)}))
    found = table.encode.frame(table.encode({"any": cell})[0])["any"][0]
    assert found is given or found == given


def dates() -> Any:
    return ap.Tabular(
        lambda rows: (rows.when.dt.day + rows.span.dt.days + rows.n).to_numpy(float),
        pandas.DataFrame(
            {
                "when": pandas.date_range("2024-01-01", periods=5),
                "span": pandas.to_timedelta(range(5), "D"),
                "n": range(5),
            }
        ),
    )


@pytest.mark.parametrize("value", ["19999-12-31", "2024-02-31", 20240131, 1.5, np.int64(3), ["x"]])
@pytest.mark.parametrize("column", ["when", "span"])
def test_what_is_no_date_is_refused(column: str, value: Any) -> None:
    row = {"when": "2024-03-01", "span": "2 days", "n": 1}
    assert float(ap.explain(dates(), row, "occlusion").output) == 4
    with pytest.raises(InputError, match=f"column '{column}': .* or is out of range; accepted: a "):
        ap.explain(dates(), {**row, column: value}, "occlusion")


def test_a_date_that_its_column_cannot_hold_is_refused() -> None:
    days = pandas.DataFrame({"when": pandas.date_range("2024-01-01", periods=3, unit="ns")})
    with pytest.raises(InputError, match=r"of type datetime64\[ns\] in the background, which does not hold"):
        ap.explain(
            ap.Tabular(lambda rows: rows.when.dt.day.to_numpy(float), days),
            {"when": "9999-12-31"},
            "occlusion",
        )


def test_a_value_that_the_model_has_never_seen_is_named_with_the_nearest() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    frame, right = train()
    cities = frame[["city"]]
    fitted = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(cities, right)
    with pytest.raises(
        InputError, match=r"column 'city' is 'Romee', .*; nearest: 'Rome', .*, .*; the model does not take it"
    ):
        ap.explain(ap.Tabular(fitted, cities), {"city": "Romee"})
    as_categories = cities.astype("category")
    with pytest.raises(
        InputError, match=r"'Romee' is no category of it; accepted: one of 3, such as 'Rome', .*, "
    ):
        ap.explain(ap.Tabular(fitted, as_categories), {"city": "Romee"})


def test_columns_named_twice_are_refused_in_rows_of_every_kind(tmp_path: Any) -> None:
    frame = pandas.DataFrame({"a": [1.0, 2], "b": [3.0, 4]})
    table = ap.Tabular(lambda rows: rows.a.to_numpy(), frame)
    doubled = pandas.concat([frame, frame[["a"]]], axis=1)
    for rows in (doubled.iloc[[0]], doubled.iloc[0]):
        with pytest.raises(InputError, match="names the column 'a' twice"):
            ap.explain(table, rows)
    with pytest.raises(InputError, match="names the column 'a' twice"):
        ap.explain_dataset(table, doubled, out=tmp_path, progress=False)
    with pytest.raises(InputError, match="a frame without rows"):
        ap.explain_dataset(table, frame.iloc[:0], out=tmp_path, progress=False)


def test_models_that_return_no_scores_are_refused_and_frames_of_scores_are_read() -> None:
    fitted, frame = pipeline()
    row, expected = (
        frame.iloc[[3]],
        ap.explain(ap.Tabular(fitted.predict_proba, frame), frame.iloc[[3]]).values,
    )
    same: Any = [
        lambda rows: pandas.DataFrame(fitted.predict_proba(rows), columns=fitted.classes_),
        lambda rows: fitted.predict_proba(rows).tolist(),
        lambda rows: torch.from_numpy(fitted.predict_proba(rows)),
    ]
    for model in same:
        torch.testing.assert_close(ap.explain(ap.Tabular(model, frame), row).values, expected)
    words: Any = [
        lambda rows: fitted.predict(rows),
        lambda rows: pandas.Series(fitted.predict(rows)),
        lambda rows: pandas.DataFrame({"answer": fitted.predict(rows)}),
        lambda rows: fitted.predict(rows).tolist(),
        lambda rows: fitted.predict(rows).astype("U"),
    ]
    for model in words:
        with pytest.raises(InputError, match=r"returned words, such as '(yes|no)'; accepted: a score"):
            ap.explain(ap.Tabular(model, frame), row)
    with pytest.raises(InputError, match="returned 2 arrays, as one of several outputs does"):
        ap.explain(ap.Tabular(lambda rows: [fitted.predict_proba(rows)] * 2, frame), row)
    with pytest.raises(InputError, match="predicts classes; accepted for a table: its predict_proba"):
        ap.Tabular(fitted.predict, frame)
    with pytest.raises(InputError, match="names 1 classes, but has 2 scores"):
        ap.explain(ap.Tabular(fitted, frame, labels=["no"]), row)


def test_an_estimator_of_arrays_is_given_arrays(recwarn: Any) -> None:
    from sklearn.linear_model import LinearRegression

    rows = np.random.default_rng(0).normal(size=(20, 2))
    fitted = LinearRegression().fit(rows, rows @ [2.0, 3.0])
    frame = pandas.DataFrame(rows, columns=["a", "b"])
    found = ap.explain(ap.Tabular(fitted, frame), frame.iloc[[0]])
    assert found.values[0].tolist() == pytest.approx(list((rows[0] - rows.mean(0)) * [2, 3]))
    assert not [one for one in recwarn if "feature names" in str(one.message)]
    with pytest.raises(
        InputError, match="background has 3 columns; accepted: the 2 that LinearRegression was"
    ):
        ap.Tabular(fitted, frame.assign(c=1))


def test_what_was_explained_is_no_part_of_the_model(tmp_path: Any) -> None:
    frame = pandas.DataFrame({"a": ["x", "y"], "b": [1.0, 2]})
    table = ap.Tabular(lambda rows: rows.b.to_numpy(), frame)
    for place in ("one", "two"):
        run = ap.explain_dataset(table, [{"a": "new", "b": 3.0}], out=tmp_path / place, progress=False)
        assert run.manifest.model_fingerprint == ap.open_run(tmp_path / "one").manifest.model_fingerprint


def test_a_model_that_writes_into_its_rows_has_the_same_values() -> None:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = np.random.default_rng(0).normal(3, 2, size=(30, 3))
    writing = make_pipeline(StandardScaler(copy=False), RandomForestRegressor(5, random_state=0))
    writing.fit(rows.copy(), rows[:, 0] * rows[:, 1])
    kept = make_pipeline(StandardScaler().fit(rows), writing[-1])
    for method in (ap.TreeSHAP, ap.KernelSHAP):
        made = method(replacement=ap.Background(rows[:8].copy()))
        given = rows[10:12].copy()
        expected = ap.explain(kept.predict, rows[10:12], made).values
        torch.testing.assert_close(ap.explain(writing.predict, given, made).values, expected)
        assert np.array_equal(given, rows[10:12])


def in_polars() -> tuple[Any, Any]:
    """A frame with a column of each kind that polars has, with holes, and the same in pandas."""
    polars = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    days = [datetime.date(2024, 1, 1), None, datetime.date(2024, 1, 3), datetime.date(2024, 2, 1)]
    made = polars.DataFrame(
        {
            "int": [1, None, 3, 20240101],
            "small": polars.Series([1, 2, 255, 7], dtype=polars.UInt8),
            "float": [1.5, None, -2.0, 0.25],
            "bool": [True, False, True, True],
            "maybe": [True, None, False, True],
            "text": ["a", None, "NA", "ü"],
            "category": polars.Series(["x", "y", None, "x"], dtype=polars.Categorical),
            "level": polars.Series(["low", "high", None, "low"], dtype=polars.Enum(["low", "mid", "high"])),
            "day": days,
            "when": [None if day is None else datetime.datetime(2024, 1, day.day, 3) for day in days],
        }
    )
    return made, made.to_pandas()


def test_frames_of_polars_come_back_as_they_were() -> None:
    frame, _ = in_polars()
    seen = []

    def model(rows: Any) -> Any:
        seen.append(rows)
        return np.zeros(len(rows))

    table = ap.Tabular(model, frame)
    table(table.encode.several(frame)[0])
    assert seen[0].schema == frame.schema
    assert seen[0].equals(frame)
    ap.explain(table, frame[1], "kernelshap")
    assert all(rows.schema == frame.schema for rows in seen)


def test_frames_of_polars_have_the_values_of_pandas() -> None:
    of_polars, of_pandas = in_polars()

    def score(rows: Any) -> Any:
        number = np.asarray(rows["int"], float)
        return np.where(np.isnan(number), 2.0, number) + 3.0 * (np.asarray(rows["text"]) == "a")

    expected = ap.explain(ap.Tabular(score, of_pandas), of_pandas.iloc[[0]], "kernelshap")
    for background in (of_polars, of_pandas):
        table = ap.Tabular(score, background)
        for row in (of_polars[0], of_pandas.iloc[[0]], of_polars.row(0, named=True)):
            found = ap.explain(table, row, "kernelshap")
            torch.testing.assert_close(found.values, expected.values)
            assert found.features[0].columns == expected.features[0].columns
    fitted, frame = pipeline()
    polars = pytest.importorskip("polars")
    for method in ("auto", "kernelshap"):
        several = ap.explain(fitted, polars.from_pandas(frame.iloc[:5]), method)
        torch.testing.assert_close(several.values, ap.explain(fitted, frame.iloc[:5], method).values)
    with pytest.raises(InputError, match=r"background is LazyFrame; accepted: .* such as its collect"):
        ap.Tabular(score, of_polars.lazy())


def test_frames_of_polars_are_data_backgrounds_and_runs(tmp_path: Any) -> None:
    polars = pytest.importorskip("polars")
    numbers = pandas.DataFrame({"a": [1.0, 2, 4], "b": [3.0, -1, 0]})

    def score(rows: Any) -> Any:
        return rows[:, 0] * rows[:, 1]

    rows = numbers.to_numpy()[:1]
    made = [
        ap.explain(score, rows, ap.KernelSHAP(replacement=ap.Background(given))).values
        for given in (numbers, polars.from_pandas(numbers))
    ]
    torch.testing.assert_close(*made)
    table = ap.Tabular(
        lambda rows: np.asarray(rows["a"]) * np.asarray(rows["b"]), polars.from_pandas(numbers)
    )
    run = ap.explain_dataset(table, polars.from_pandas(numbers), "kernelshap", tmp_path, progress=False)
    assert [row["output"] for row in run.rows()] == [pytest.approx([p]) for p in (3.0, -2.0, 0.0)]


def test_values_that_the_background_lacks_are_not_kept_for_ever(monkeypatch) -> None:
    from apportion.domains import frames

    monkeypatch.setattr(frames, "_MET", 50)
    model = ap.Tabular(
        lambda rows: rows.note.str.len().to_numpy(float), pandas.DataFrame({"note": ["a", "bcd"]})
    )
    (column,) = model.encode.columns  # type: ignore[attr-defined]
    for begin in range(0, 2000, 20):
        rows = pandas.DataFrame({"note": ["x" * (begin + i) for i in range(5, 25)]})
        found = ap.explain(model, rows, "kernelshap")
        assert found.output.flatten().tolist() == [float(begin + i) for i in range(5, 25)]
        assert len(column._met) <= 120
    # Of one call all are kept, however many they are.
    many = pandas.DataFrame({"note": [f"{i:05}" for i in range(300)]})
    assert ap.explain(model, many, "kernelshap").output.flatten().tolist() == [5.0] * 300
    model.encode(many.iloc[0])
    assert len(column._met) <= 120
