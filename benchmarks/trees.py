"""TreeSHAP of 1000 rows, beside Kernel SHAP of 4 of them and the tree explainer of shap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor

import apportion as ap
from gradient import Row


def ensembles() -> Iterator[Row]:
    """100 trees, 30 columns, 1000 rows, 100 rows of data; the first run of each model also reads its trees."""
    draw = np.random.default_rng(0)
    X = draw.normal(size=(2000, 30))
    y = X[:, 0] * X[:, 1] + X[:, 2:8].sum(1) + np.sin(3 * X[:, 9])
    made: dict[str, Any] = {
        "histogram boosting": HistGradientBoostingRegressor(max_iter=100),
        "random forest, depth 8": RandomForestRegressor(100, max_depth=8, random_state=0),
    }
    for name, model in made.items():
        yield f"{name}, 1000 rows", "TreeSHAP", runs(model.fit(X, y), X[:1000], ap.Background(X[-100:]))


def runs(model: Any, rows: np.ndarray, data: Any) -> dict[str, Callable[[], object]]:
    trees, kernel = ap.TreeSHAP(replacement=data), ap.KernelSHAP(replacement=data)

    def others() -> object:
        import shap

        explainer = shap.TreeExplainer(model, data.data.numpy(), feature_perturbation="interventional")
        return explainer.shap_values(rows, check_additivity=False)

    return {
        "TreeSHAP": lambda: trees(model, rows),
        "Kernel SHAP, 4 of the rows": lambda: kernel(model.predict, rows[:4]),
        "shap.TreeExplainer": others,
    }
