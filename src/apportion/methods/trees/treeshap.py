"""TreeSHAP: exact Shapley values of sums of decision trees over rows of data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from apportion.core.features import Features
from apportion.core.inputs import Inputs
from apportion.core.settings import checked
from apportion.core.target import Target
from apportion.domains.estimators import answering
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import Partition
from apportion.methods.hiding.base import Hiding
from apportion.methods.trees._sums import SumOfTrees
from apportion.results.explanation import Explanation


@dataclass(frozen=True)
@checked
class TreeSHAP(Hiding[Tensor]):
    """Compute the Shapley values of a sum of trees exactly, over rows of data (Lundberg et al. 2020, interventional).

    The model is a forest, a decision tree or gradient boosting of scikit-learn, XGBoost, LightGBM or CatBoost, a
    pipeline that ends in one, or a `predict_proba`, `decision_function` or `predict` of these; also behind a
    `Tabular`. The values are those that `KernelSHAP` has where it runs all coalitions, for any number of columns.
    Columns that a pipeline makes of one column, such as a one-hot block, are hidden together, so that the values are
    of the column itself.

    They add up to the score less its mean over the background rows. Boosted trees add up to log-odds (to scores
    before a softmax for several classes, to a logarithm for counts), and this is what is explained then, also of a
    `predict_proba`: `notes["scores"]` says so, and `output` has these scores. `notes["intercept"]` is the mean over
    the background. Nothing is taken on trust: InputError where the leaves, as they were read, do not add up to the
    scores of the library, at the rows, the background, and 64 rows or more that are mixed of both, or where such a
    mixed row goes through a pipeline otherwise than its columns do one by one. Cost: time for
    each leaf and each pattern of its path that is met by the rows (`notes["work"]`); the forward passes, of the rows,
    the background and the mixed rows, only check what was read.

    Settings: those below and those of [Hiding][apportion.methods.hiding.base.Hiding], of which the replacement is a
    `Background` with all its rows, or a `Constant`.

    Attributes:
        partition (Partition or Tensor, default None): The features; None: each column.

    >>> from sklearn.tree import DecisionTreeRegressor
    >>> import numpy as np, apportion as ap
    >>> rows = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> both = DecisionTreeRegressor().fit(rows, rows.prod(1))
    >>> TreeSHAP(replacement=ap.Background(rows))(both, rows[3:]).values.tolist()
    [[0.375, 0.375]]
    """

    partition: Partition | Tensor | None = None

    def __call__(  # type: ignore[override]  # the rows of one table, whatever they come as
        self,
        model: Any,
        inputs: Any,
        target: Target = None,
        *,
        features: Sequence[Features] | None = None,
        mask: int | Tensor | None = None,
    ) -> Explanation[Tensor, Tensor]:
        """`features` and `mask` are those of the domain, as of other methods that hide features."""
        return super().__call__(answering(model), inputs, target, features=features, mask=mask)

    def cut(self, inputs: Inputs) -> Partition | None:
        return self.partition  # type: ignore[return-value]

    def explain(self, masking: Masking) -> Explanation[Any, Tensor]:
        trees = SumOfTrees.of(masking)
        weights = trees.weights()
        effects = torch.from_numpy((trees.shapley() * weights[:, None, :]).sum(2))
        base = (weights * trees.of_data.mean(0)).sum(1)
        scores = torch.from_numpy(trees.scores)
        total = torch.from_numpy((weights * trees.scores).sum(1) - base)
        notes = {**trees.notes, "intercept": tuple(base.tolist())}
        made = masking.explanation(self, masking.spread(effects), total, notes=notes)
        return replace(made, output=scores)
