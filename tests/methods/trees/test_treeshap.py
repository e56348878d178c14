"""TreeSHAP against Shapley values by their definition, on the scores of the libraries themselves."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import factorial
from typing import Any

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.errors import InputError

pandas = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from sklearn import compose, ensemble, pipeline, preprocessing, tree  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402


def values_of_coalitions(
    score: Callable[[Any], Any], row: Any, data: Any, features: list[list[int]]
) -> dict[tuple[int, ...], Any]:
    """The mean score over the data with only these features of the row in place."""
    found = {}
    for many in range(len(features) + 1):
        for shown in itertools.combinations(range(len(features)), many):
            mixed = data.copy()
            for feature in shown:
                mixed[:, features[feature]] = row[features[feature]]
            found[shown] = np.asarray(score(mixed), float).mean(0)
    return found


def shapley(worth: dict[tuple[int, ...], Any], many: int) -> Any:
    found = []
    for i in range(many):
        rest = [j for j in range(many) if j != i]
        found.append(
            sum(
                factorial(len(s))
                * factorial(many - len(s) - 1)
                / factorial(many)
                * (worth[tuple(sorted((*s, i)))] - worth[s])
                for size in range(many)
                for s in itertools.combinations(rest, size)
            )
        )
    return np.array(found)


def table(rows: int = 240, holes: bool = False) -> tuple[Any, Any]:
    draw = np.random.default_rng(0)
    X = np.round(draw.normal(size=(rows, 5)), 2)
    if holes:
        X[draw.random(X.shape) < 0.15] = np.nan
    z = np.nan_to_num(X, nan=-1.0)
    return X, z[:, 0] * z[:, 1] + z[:, 2] + np.sin(3 * z[:, 3])


def classes(y: Any, many: int) -> Any:
    return np.digitize(y, np.quantile(y, np.arange(1, many) / many))


def boosted(library: str, kind: str, **settings: Any) -> Any:
    made = getattr(pytest.importorskip(library), kind)
    quiet = {
        "xgboost": {"n_estimators": 12, "max_depth": 4},
        "lightgbm": {"n_estimators": 12, "verbose": -1, "num_leaves": 12, "min_child_samples": 5},
        "catboost": {"iterations": 12, "depth": 4, "verbose": 0, "allow_writing_files": False},
    }[library]
    return made(**{**quiet, **settings})


FOREST = {"n_estimators": 8, "random_state": 0, "min_samples_leaf": 3}
HIST = {"max_iter": 8, "min_samples_leaf": 5}

# A model, its classes (0: a number), whether it takes missing values, and its raw scores where these are explained.
MODELS: dict[str, tuple[Callable[[], Any], int, bool, Callable[[Any], Callable[[Any], Any]] | None]] = {
    "tree": (lambda: tree.DecisionTreeRegressor(min_samples_leaf=4), 0, True, None),
    "tree of classes": (lambda: tree.DecisionTreeClassifier(min_samples_leaf=4), 3, True, None),
    "forest": (lambda: ensemble.RandomForestRegressor(**FOREST), 0, True, None),
    "forest of classes": (lambda: ensemble.RandomForestClassifier(**FOREST), 3, True, None),
    "extra trees": (lambda: ensemble.ExtraTreesRegressor(**FOREST), 0, True, None),
    "boosting": (lambda: ensemble.GradientBoostingRegressor(n_estimators=8), 0, False, None),
    "boosting of two": (
        lambda: ensemble.GradientBoostingClassifier(n_estimators=8),
        2,
        False,
        lambda m: m.decision_function,
    ),
    "boosting of three": (
        lambda: ensemble.GradientBoostingClassifier(n_estimators=8),
        3,
        False,
        lambda m: m.decision_function,
    ),
    "boosting that has only leaves": (
        lambda: ensemble.GradientBoostingRegressor(n_estimators=2, min_samples_leaf=200),
        0,
        False,
        None,
    ),
    "histogram that has only leaves": (
        lambda: ensemble.HistGradientBoostingRegressor(max_iter=2, min_samples_leaf=200),
        0,
        True,
        None,
    ),
    "histogram": (lambda: ensemble.HistGradientBoostingRegressor(**HIST), 0, True, None),
    "histogram of counts": (
        lambda: ensemble.HistGradientBoostingRegressor(loss="poisson", **HIST),
        0,
        True,
        lambda m: lambda X: np.log(m.predict(X)),
    ),
    "histogram of two": (
        lambda: ensemble.HistGradientBoostingClassifier(**HIST),
        2,
        True,
        lambda m: m.decision_function,
    ),
    "histogram of three": (
        lambda: ensemble.HistGradientBoostingClassifier(**HIST),
        3,
        True,
        lambda m: m.decision_function,
    ),
    "xgboost": (lambda: boosted("xgboost", "XGBRegressor"), 0, True, None),
    "xgboost of two": (
        lambda: boosted("xgboost", "XGBClassifier"),
        2,
        True,
        lambda m: lambda X: m.predict(X, output_margin=True),
    ),
    "xgboost of three": (
        lambda: boosted("xgboost", "XGBClassifier"),
        3,
        True,
        lambda m: lambda X: m.predict(X, output_margin=True),
    ),
    "xgboost of counts": (
        lambda: boosted("xgboost", "XGBRegressor", objective="count:poisson"),
        0,
        True,
        lambda m: lambda X: m.predict(X, output_margin=True),
    ),
    "xgboost with dropout": (
        lambda: boosted("xgboost", "XGBRegressor", booster="dart", rate_drop=0.3),
        0,
        True,
        None,
    ),
    "xgboost forest": (
        lambda: boosted("xgboost", "XGBRFRegressor", subsample=0.7),
        0,
        True,
        None,
    ),
    "lightgbm": (lambda: boosted("lightgbm", "LGBMRegressor"), 0, True, None),
    "lightgbm of two": (
        lambda: boosted("lightgbm", "LGBMClassifier"),
        2,
        True,
        lambda m: lambda X: m.predict(X, raw_score=True),
    ),
    "lightgbm of three": (
        lambda: boosted("lightgbm", "LGBMClassifier"),
        3,
        True,
        lambda m: lambda X: m.predict(X, raw_score=True),
    ),
    "lightgbm forest": (
        lambda: boosted(
            "lightgbm", "LGBMRegressor", boosting_type="rf", bagging_freq=1, bagging_fraction=0.6
        ),
        0,
        True,
        None,
    ),
    "catboost": (lambda: boosted("catboost", "CatBoostRegressor"), 0, True, None),
    "catboost of two": (
        lambda: boosted("catboost", "CatBoostClassifier"),
        2,
        True,
        lambda m: lambda X: m.predict(X, prediction_type="RawFormulaVal"),
    ),
    "catboost of three": (
        lambda: boosted("catboost", "CatBoostClassifier"),
        3,
        True,
        lambda m: lambda X: m.predict(X, prediction_type="RawFormulaVal"),
    ),
}

every_model = pytest.mark.parametrize("name", list(MODELS))


def fitted(name: str) -> tuple[Any, Any, Callable[[Any], Any]]:
    """A model, its rows, and the scores that are explained, (rows, classes)."""
    make, many, holes, raw = MODELS[name]
    X, y = table(holes=holes)
    if "counts" in name:
        y = np.round(np.exp(np.clip(y, -1, 2)))
    model = make()
    model.fit(X, classes(y, many) if many else y)
    own = model.predict_proba if many else model.predict
    score = own if raw is None else raw(model)

    def scores(rows: Any) -> Any:
        found = np.asarray(score(rows), float).reshape(len(rows), -1)
        return np.concatenate([-found, found], 1) if many == 2 and found.shape[1] == 1 else found

    return model, X, scores


@every_model
def test_values_are_those_of_the_definition(name: str) -> None:
    model, X, scores = fitted(name)
    rows, data = X[:3], X[100:113]
    explained = ap.TreeSHAP(replacement=ap.Background(data))(model, rows, target=0)
    for row, values in zip(rows, explained.values, strict=True):
        worth = values_of_coalitions(scores, row, data, [[i] for i in range(5)])
        np.testing.assert_allclose(values, shapley(worth, 5)[:, 0], atol=2e-6)
    total = scores(rows)[:, 0] - scores(data)[:, 0].mean()
    np.testing.assert_allclose(explained.total, total, atol=2e-6)
    np.testing.assert_allclose(explained.output, scores(rows), atol=2e-6)
    np.testing.assert_allclose(explained.notes["intercept"], scores(data)[:, 0].mean(), atol=2e-6)
    assert float(explained.remainder.abs().max()) < 1e-5
    assert ("scores" in explained.notes) == (MODELS[name][3] is not None)


@every_model
def test_columns_hidden_together_are_one_feature(name: str) -> None:
    model, X, scores = fitted(name)
    data = X[100:109]
    method = ap.TreeSHAP(replacement=ap.Background(data), partition=[[0, 3], [1], [2, 4]])
    explained = method(model, X[:1], target=0)
    worth = values_of_coalitions(scores, X[0], data, [[0, 3], [1], [2, 4]])
    together = explained.values[0, [0, 1, 2]] * torch.tensor([2, 1, 2])
    np.testing.assert_allclose(together, shapley(worth, 3)[:, 0], atol=2e-6)


def interactions(worth: dict[tuple[int, ...], Any], many: int) -> Any:
    """Shapley values less half of the interaction indices on the diagonal, half of these beside it."""
    found = np.zeros((many, many))
    for i, j in itertools.combinations(range(many), 2):
        rest = [k for k in range(many) if k not in (i, j)]
        for size in range(many - 1):
            for s in itertools.combinations(rest, size):
                weight = factorial(size) * factorial(many - size - 2) / factorial(many - 1)
                with_i, with_j, both = (tuple(sorted((*s, *more))) for more in ((i,), (j,), (i, j)))
                found[i, j] += weight * (worth[both] - worth[with_i] - worth[with_j] + worth[s]) / 2
    found += found.T
    alone = np.array(shapley(worth, many)) - found.sum(1)
    return found + np.diag(alone)


@every_model
def test_interactions_are_those_of_the_definition(name: str) -> None:
    model, X, scores = fitted(name)
    data = X[100:111]
    explained = ap.TreeInteractions(replacement=ap.Background(data))(model, X[:2], target=0)
    for row, values in zip(X[:2], explained.values, strict=True):
        worth = values_of_coalitions(lambda rows: scores(rows)[:, 0], row, data, [[i] for i in range(5)])
        np.testing.assert_allclose(values, interactions(worth, 5), atol=2e-6)
    assert float(explained.remainder.abs().max()) < 1e-5


def people(rows: int = 160) -> tuple[Any, Any]:
    draw = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "age": draw.integers(18, 80, rows),
            "hours": draw.normal(40, 10, rows),
            "city": draw.choice(["a", "b", "c", "d"], rows),
            "job": draw.choice(["x", "y", None], rows),
        }
    )
    frame.loc[::7, "hours"] = np.nan
    return frame, ((frame.age > 40) & (frame.city == "a") | (frame.hours.fillna(30) > 45)).astype(int)


def made_columns(sparse: bool = False) -> Any:
    return compose.make_column_transformer(
        (preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=sparse), ["city", "job"]),
        remainder="passthrough",
        sparse_threshold=1,
    )


PIPELINES: dict[str, Callable[[], tuple[Any, Callable[[Any], Callable[[Any], Any]]]]] = {
    "histogram": lambda: (
        pipeline.make_pipeline(made_columns(), ensemble.HistGradientBoostingClassifier(max_iter=6)),
        lambda m: m.decision_function,
    ),
    "forest": lambda: (
        pipeline.make_pipeline(
            compose.make_column_transformer(
                (preprocessing.OneHotEncoder(), ["city", "job"]),
                (preprocessing.StandardScaler(), ["age"]),
                remainder="drop",
                sparse_threshold=0,
            ),
            ensemble.RandomForestClassifier(6, random_state=0),
        ),
        lambda m: lambda rows: m.predict_proba(rows)[:, 1],
    ),
    "xgboost, whose sparse zeros are missing": lambda: (
        pipeline.make_pipeline(made_columns(sparse=True), boosted("xgboost", "XGBClassifier")),
        lambda m: lambda rows: m.predict(rows, output_margin=True),
    ),
    "lightgbm, of a sparse matrix": lambda: (
        pipeline.make_pipeline(made_columns(sparse=True), boosted("lightgbm", "LGBMClassifier")),
        lambda m: lambda rows: m.predict(rows, raw_score=True),
    ),
}


@pytest.mark.parametrize("name", list(PIPELINES))
def test_values_of_a_pipeline_are_of_its_own_columns(name: str) -> None:
    model, raw = PIPELINES[name]()
    frame, y = people()
    model.fit(frame, y)
    data = frame.iloc[30:42]
    explained = ap.explain(ap.Tabular(model, data), frame.iloc[[0, 7]], "treeshap", target=1)
    exact = ap.explain(ap.Tabular(raw(model), data), frame.iloc[[0, 7]], "kernelshap", target=0)
    np.testing.assert_allclose(explained.values, exact.values, atol=2e-6)
    np.testing.assert_allclose(explained.total, exact.total, atol=2e-6)
    assert explained.features[0].columns == tuple(model.feature_names_in_)


# Estimators that take categories themselves.
NATIVE = {
    "histogram": lambda: (
        ensemble.HistGradientBoostingClassifier(max_iter=6, categorical_features="from_dtype"),
        lambda m: m.decision_function,
    ),
    "xgboost": lambda: (
        boosted("xgboost", "XGBClassifier", enable_categorical=True, max_cat_to_onehot=1),
        lambda m: lambda rows: m.predict(rows, output_margin=True),
    ),
    "lightgbm": lambda: (
        boosted("lightgbm", "LGBMClassifier", min_data_per_group=2, cat_smooth=1),
        lambda m: lambda rows: m.predict(rows, raw_score=True),
    ),
}


@pytest.mark.parametrize("name", list(NATIVE))
def test_splits_by_category_are_read(name: str) -> None:
    model, raw = NATIVE[name]()
    frame, y = people()
    frame = frame.astype({"city": "category", "job": "category"})
    model.fit(frame, y)
    data = frame.iloc[30:42]
    explained = ap.explain(ap.Tabular(model, data), frame.iloc[[0, 7]], "treeshap", target=1)
    exact = ap.explain(ap.Tabular(raw(model), data), frame.iloc[[0, 7]], "kernelshap", target=0)
    np.testing.assert_allclose(explained.values, exact.values, atol=2e-6)


def test_columns_that_are_mixed_before_the_trees_are_refused_unless_they_are_hidden_together() -> None:
    X, y = table()
    model = pipeline.make_pipeline(PCA(3), ensemble.RandomForestRegressor(4, random_state=0)).fit(X, y)
    method = ap.TreeSHAP(replacement=ap.Background(X[50:60]))
    with pytest.raises(InputError, match="depends on several features"):
        method(model, X[:2])
    halves = compose.make_column_transformer((PCA(2), [0, 1, 2]), (PCA(1), [3, 4]))
    model = pipeline.make_pipeline(halves, ensemble.RandomForestRegressor(4, random_state=0)).fit(X, y)
    method = ap.TreeSHAP(replacement=ap.Background(X[50:60]), partition=[[0, 1, 2], [3, 4]])
    worth = values_of_coalitions(model.predict, X[0], X[50:60], [[0, 1, 2], [3, 4]])
    found = method(model, X[:1]).values[0, [0, 3]] * torch.tensor([3, 2])
    np.testing.assert_allclose(found, shapley(worth, 2), atol=1e-9)


def with_a_product(X: Any) -> Any:
    return np.column_stack([X, (X[:, 0] > X[:, 1]) * X[:, 2]])


def test_a_made_column_of_several_is_seen() -> None:
    X, y = table()
    model = pipeline.make_pipeline(
        preprocessing.FunctionTransformer(with_a_product), ensemble.RandomForestRegressor(4, random_state=0)
    ).fit(X, y)
    with pytest.raises(InputError, match="depends on several features"):
        ap.TreeSHAP(replacement=ap.Background(X[50:60]))(model, X[:1])


def test_targets_are_weighted_sums_of_scores() -> None:
    model, X, scores = fitted("histogram of three")
    method, rows = ap.TreeSHAP(replacement=ap.Background(X[50:60])), X[:4]
    one, two = (method(model, rows, target=k) for k in (1, 2))
    contrast = method(model, rows, target=ap.Contrast(1, 2))
    np.testing.assert_allclose(contrast.values, one.values - two.values, atol=1e-12)
    np.testing.assert_allclose(contrast.total, one.total - two.total, atol=1e-12)
    predicted = method(model, rows)
    assert predicted.target.tolist() == scores(rows).argmax(1).tolist()
    with pytest.raises(InputError, match="no weighted sum of the scores"):
        method(model, rows, target=lambda scores: scores[:, 0] ** 2)


def test_other_models_and_replacements_are_refused_in_a_line() -> None:
    from sklearn.ensemble import AdaBoostRegressor, IsolationForest
    from sklearn.linear_model import LinearRegression

    X, y = table()
    method = ap.TreeSHAP(replacement=ap.Background(X[50:60]))
    for model in (LinearRegression(), AdaBoostRegressor(n_estimators=3)):
        with pytest.raises(InputError, match="no sum of trees; accepted"):
            method(model.fit(X, y), X[:1])
    with pytest.raises(InputError, match="no sum of trees; accepted"):
        method(IsolationForest(n_estimators=3).fit(X).decision_function, X[:1])
    forest = ensemble.RandomForestRegressor(3).fit(X, y)
    with pytest.raises(InputError, match="behind which no trees are seen"):
        method(lambda rows: forest.predict(rows), X[:1])
    with pytest.raises(InputError, match="accepted for a sum of trees: Background"):
        ap.TreeSHAP(replacement=ap.Background(X, many=3))(forest, X[:1])
    chosen = ensemble.RandomForestClassifier(3).fit(X, classes(y, 3) + 0.5 - 0.5)
    with pytest.raises(InputError, match="no sum of the trees"):
        method(chosen.predict, X[:1])


def test_an_estimator_that_is_fitted_anew_is_read_anew() -> None:
    X, y = table()
    forest = ensemble.RandomForestRegressor(3, random_state=0).fit(X, y)
    method = ap.TreeSHAP(replacement=ap.Background(X[50:60]))
    method(forest, X[:1])
    forest.fit(X, -3 * y)
    found = method(forest, X[:1])
    np.testing.assert_allclose(found.values.sum(), forest.predict(X[:1])[0] - forest.predict(X[50:60]).mean())


def test_the_default_explains_what_was_asked() -> None:
    X, y = table()
    forest = ensemble.RandomForestClassifier(3, random_state=0).fit(X, classes(y, 2))
    boosting = ensemble.HistGradientBoostingClassifier(max_iter=3).fit(X, classes(y, 2))
    for model in (forest, forest.predict_proba, boosting, boosting.decision_function):
        assert type(ap.explain(model, X[:1]).method) is ap.TreeSHAP
    told = ap.explain(boosting, X[:1])
    assert told.notes["scores"] == "log-odds of predict_proba"
    asked = ap.explain(boosting.predict_proba, X[:1])
    assert type(asked.method) is ap.KernelSHAP
    assert "log-odds of predict_proba" in asked.notes["chosen"]


def test_what_it_took_is_said() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3))
    forest = ensemble.RandomForestRegressor(5, max_leaf_nodes=4, random_state=0).fit(
        rows, rows[:, 0] * rows[:, 1]
    )
    found = ap.TreeSHAP(replacement=ap.Background(rows[:10]))(forest, rows[:2])
    leaves = sum(tree.tree_.n_leaves for tree in forest.estimators_)
    assert found.notes["work"] == f"{leaves} leaves of 5 trees over 10 rows; the passes check them"


def test_a_test_of_the_numbers_themselves_refuses_values_of_other_scores() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3))
    boosted = ensemble.GradientBoostingClassifier(n_estimators=5).fit(rows, rows[:, 0] > 0)
    made = ap.TreeSHAP(replacement=ap.Background(rows))
    found = ap.explain(boosted, rows[:2], made)
    assert ap.Infidelity()(boosted.predict_proba, rows[:2], found).mean < 1
    with pytest.raises(
        InputError, match=r"the values are of the log-odds of predict_proba, .* accepted: scaled=True"
    ):
        ap.Infidelity(scaled=False)(boosted.predict_proba, rows[:2], found)
    of_margins = ap.explain(boosted.decision_function, rows[:2], made)
    assert ap.Infidelity(scaled=False)(boosted.decision_function, rows[:2], of_margins).mean >= 0


def test_what_was_learnt_of_the_data_holds_for_other_rows() -> None:
    """A column that is the same everywhere in one call tells nothing of where it comes from in the next."""
    rows = np.random.default_rng(0).normal(size=(60, 3))
    forest = ensemble.RandomForestRegressor(5, random_state=0).fit(rows, rows[:, 0] + 3 * rows[:, 2])
    scaled = pipeline.make_pipeline(preprocessing.FunctionTransformer(lambda x: x * 1.0), forest)
    data = rows[:10].copy()
    data[:, 2] = 0.5
    first, second = data[:1] + np.array([1.0, 0, 0]), data[:2] + np.array([1.0, 0, -2.0])
    made = ap.TreeSHAP(replacement=ap.Background(data))
    for given in (first, second, first):
        expected = ap.KernelSHAP(replacement=ap.Background(data))(forest.predict, given).values
        torch.testing.assert_close(made(scaled, given).values, expected.double(), rtol=1e-9, atol=1e-9)


def test_patterns_are_the_same_counted_and_sorted(monkeypatch) -> None:
    from apportion.methods.trees import _leaf_games as games

    missed = np.random.default_rng(0).integers(0, 37, (11, 60))
    counted = games.Patterns.of(missed)
    monkeypatch.setattr(games, "_ROWS", 0)
    monkeypatch.setattr(games.np, "bincount", None)
    sparse = np.where(missed > 30, missed << 30, missed)
    for found, of in ((counted, missed), (games.Patterns.of(sparse), sparse)):
        keys = np.unique(np.stack([np.repeat(np.arange(11), 60), of.ravel()]), axis=1, return_counts=True)
        np.testing.assert_array_equal(np.stack([found.leaf, found.missed]), keys[0])
        np.testing.assert_array_equal(found.times, keys[1])
        np.testing.assert_array_equal(found.missed[found.inverse], of)
        assert found.begins.tolist() == np.searchsorted(found.leaf, range(12)).tolist()
