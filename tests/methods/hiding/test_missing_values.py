"""A missing value (NaN) is a value like another for functions that take it, and refused elsewhere with advice."""

import itertools
import math

import numpy as np
import pandas
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import apportion as ap
from apportion import InputError
from apportion.domains.tabular import Categorical, Numeric, OrMissing, TabularPreparation


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    rows = random.normal(size=(300, 4))
    rows[random.random(rows.shape) < 0.2] = np.nan
    score = np.nan_to_num(rows[:, 0]) + 2 * np.isnan(rows[:, 1]) * np.nan_to_num(rows[:, 2])
    return rows, HistGradientBoostingClassifier(max_iter=20).fit(rows, score > 0.2)


def shapley(function, row, background):
    """The definition over all subsets of columns: hidden ones are those of a background row, averaged over all."""
    columns = range(len(row))

    def value(kept):
        return function(np.where([i in kept for i in columns], row, background)).mean()

    found = np.zeros(len(row))
    for size in columns:
        weight = math.factorial(size) * math.factorial(len(row) - size - 1) / math.factorial(len(row))
        for column in columns:
            for others in itertools.combinations([i for i in columns if i != column], size):
                found[column] += weight * (value({*others, column}) - value(set(others)))
    return found


def test_rows_with_missing_values_have_the_values_of_the_definition(data):
    rows, trees = data
    few = rows[np.isnan(rows).any(1)][:5]
    background = rows[:20]
    method = ap.KernelSHAP(replacement=ap.Background(background))
    found = ap.explain(trees.predict_proba, few, method, target=1)
    right = [shapley(lambda x: trees.predict_proba(x)[:, 1], row, background) for row in few]
    np.testing.assert_allclose(found.values, right, atol=1e-9)
    np.testing.assert_allclose(found.output, trees.predict_proba(few))
    through_tensors = method(
        lambda x: torch.from_numpy(trees.predict_proba(x.numpy())), torch.from_numpy(few), 1
    )
    np.testing.assert_allclose(through_tensors.values, right, atol=1e-9)
    alone = ap.Occlusion(replacement=ap.Constant(np.nan))(trees.predict_proba, few, 1)
    missing = np.where(np.arange(4) == 2, np.nan, few)
    taken = trees.predict_proba(few)[:, 1] - trees.predict_proba(missing)[:, 1]
    np.testing.assert_allclose(alone.values[:, 2], taken, atol=1e-12)


def test_what_computes_with_missing_values_is_refused_with_advice(data):
    rows, trees = data
    few = torch.from_numpy(rows[np.isnan(rows).any(1)][:2])
    taken_by = r"NaN or infinite numbers; missing values as NaN are taken from functions .* KernelSHAP"
    for method in ("ig", "saliency", "lrp"):
        with pytest.raises(InputError, match=taken_by):
            ap.explain(lambda x: x.sum(1), few, method)
    with pytest.raises(InputError, match=taken_by):
        ap.explain(torch.nn.Linear(4, 2).double(), few, "kernelshap")
    with pytest.raises(InputError, match="contain infinite numbers"):
        ap.explain(trees.predict_proba, np.array([[1.0, np.inf, 2.0, 3.0]]), "kernelshap")
    with pytest.raises(
        InputError, match=r"replacement is Mean, which computes with .* missing \(NaN\).* Background"
    ):
        ap.Occlusion(replacement=ap.Mean())(trees.predict_proba, few.numpy())


FRAME = pandas.DataFrame(
    {
        "sex": ["male", None, "female", "male", None, "female", "male", "female"],
        "mass": [3750, 3800, 3250, np.nan, 3450, 5200, 5700, np.nan],
        "kind": ["A", "A", "A", "A", "B", "B", "B", "B"],
    }
)


def classifier():
    """A pipeline that fills in, behind the inputs of a preparation that knows what is missing."""
    columns = ColumnTransformer(
        [
            (
                "sex",
                make_pipeline(SimpleImputer(strategy="constant", fill_value="?"), OneHotEncoder()),
                ["sex"],
            ),
            ("mass", SimpleImputer(add_indicator=True), ["mass"]),
        ]
    )
    fitted = make_pipeline(columns, LogisticRegression(C=1e-4)).fit(FRAME[["sex", "mass"]], FRAME.kind)
    encode = TabularPreparation.fit(FRAME, exclude=["kind"], missing=True)
    scale = encode.columns[1].column

    def frame(inputs):
        inputs = inputs.double().numpy()
        names = np.array(["female", "male", None], dtype=object)
        mass = inputs[:, 3] * scale.std + scale.mean
        return pandas.DataFrame({"sex": names[inputs[:, :3].argmax(1)], "mass": mass})

    def probabilities(inputs):
        return torch.from_numpy(fitted.predict_proba(frame(inputs)))

    return fitted, ap.Classifier(probabilities, encode, ("A", "B"), "tabular", "penguins")


def test_a_preparation_takes_missing_values_for_a_pipeline_that_fills_them_in(tmp_path):
    fitted, model = classifier()
    assert model.encode.columns == (
        OrMissing(Categorical("sex", ("female", "male"))),
        OrMissing(Numeric("mass", float(FRAME.mass.mean()), float(FRAME.mass.std(ddof=0)))),
    )
    assert TabularPreparation.from_json(model.encode.to_json()) == model.encode
    found = ap.explain(model, FRAME.iloc[3], "kernelshap", target="B")
    np.testing.assert_allclose(found.output[0], fitted.predict_proba(FRAME.iloc[[3]])[0], atol=1e-12)
    assert found.features[0].names == ("sex = male", "mass = missing")
    run = ap.explain_dataset(model, FRAME, "kernelshap", tmp_path, target=1, progress=False)
    assert (len(run), run.failed) == (8, 0)
    np.testing.assert_allclose([row["output"] for row in run.rows()], fitted.predict_proba(FRAME), atol=1e-6)


def test_missing_values_that_were_not_there_before_are_refused_with_advice():
    encode = TabularPreparation.fit(FRAME.dropna(), exclude=["kind"], missing=True)
    assert encode.columns[0] == Categorical("sex", ("female", "male"))
    with pytest.raises(
        InputError, match=r"'mass': the value is missing \(nan\); for a model that takes missing"
    ):
        encode({"sex": "male", "mass": np.nan})


def test_a_category_called_na_is_there_in_a_frame_and_told_where_a_file_cannot_say(tmp_path):
    frame = pandas.DataFrame({"country": ["DE", "NA", "FR", "nan", None], "size": [1.0, 2.0, 3.0, 4.0, 5.0]})
    encode = TabularPreparation.fit(frame)
    assert encode.columns[0] == Categorical("country", ("DE", "FR", "NA"))
    assert encode({"country": "NA", "size": 2})[1].names == ("country = NA", "size = 2")
    assert OrMissing(encode.columns[0]).inputs("NA") == (0.0, 0.0, 1.0, 0.0)
    frame.to_csv(tmp_path / "table.csv", index=False)
    with pytest.warns(UserWarning, match="column 'country': 'NA' is taken for a missing value; .* .Namibia"):
        assert TabularPreparation.fit(tmp_path / "table.csv").columns[0].categories == ("DE", "FR")
    numbers = pandas.DataFrame({"size": ["1", "2", "NA"]})
    assert TabularPreparation.fit(numbers).columns == (Numeric("size", 1.5, 0.5),)
