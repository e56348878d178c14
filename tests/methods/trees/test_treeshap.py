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

pandas = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from sklearn import ensemble, tree  # noqa: E402


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
