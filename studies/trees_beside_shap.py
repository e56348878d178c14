"""Shapley values of histogram boosting without missing values: ours and shap's beside all coalitions.

python studies/trees_beside_shap.py
"""

from __future__ import annotations

import numpy as np
import shap
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

import apportion as ap

if __name__ == "__main__":
    random = np.random.default_rng(0)
    for columns in (6, 8):
        x = random.normal(size=(2000, columns))
        y = x[:, 0] * x[:, 1] + np.sin(3 * x[:, 2]) + x[:, 3]
        background, rows = x[:50], x[100:104]
        for model, target in (
            (HistGradientBoostingRegressor().fit(x, y), 0),
            (HistGradientBoostingClassifier().fit(x, y > 0), 1),
        ):
            score = getattr(model, "decision_function", model.predict)
            replacement = ap.Background(background)
            exact = ap.KernelSHAP(exact=columns, replacement=replacement)(score, rows, 0).values.numpy()
            ours = ap.TreeSHAP(replacement=replacement)(model, rows, target).values.numpy()
            theirs = shap.TreeExplainer(model, background, feature_perturbation="interventional")
            found = theirs.shap_values(rows, check_additivity=False)
            missed = np.abs(found.sum(1) + theirs.expected_value - score(rows)).max()
            off = [np.abs(values - exact).max() for values in (ours, found)]
            print(
                f"{type(model).__name__}, {columns} columns: off all coalitions, ours {off[0]:.1e}, shap {off[1]:.1e}; "
                f"shap's sums miss the score by {missed:.1e}"
            )
