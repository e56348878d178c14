"""Exact Shapley interactions of pairs of features in sums of decision trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.core.features import Features, TabularFeatures
from apportion.core.inputs import Inputs
from apportion.core.settings import checked
from apportion.core.target import Target
from apportion.domains.estimators import answering
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import Partition, keep_label_map
from apportion.engines.masking.replacements import Background, Replacement
from apportion.methods.trees._sums import SumOfTrees
from apportion.results.interactions import Interactions


@dataclass(frozen=True)
@checked
class TreeInteractions:
    """Compute the Shapley interactions of pairs exactly in a sum of trees, over rows of data.

    They are what `ShapleyInteractions` with its index "k-SII" samples: the Shapley interaction index of a pair
    (Grabisch & Roubens 1999), half of it in both entries of the matrix, and on the diagonal what is left of the
    Shapley value, so that rows add up to the values of `TreeSHAP`, and all to the same total. Models, pipelines, and
    what is explained of them are those of [TreeSHAP][apportion.methods.trees.treeshap.TreeSHAP]. Cost: as many
    times that of TreeSHAP as a path has pairs of features.

    Attributes:
        replacement (Replacement, default None): `Background(rows)`, whose rows hidden features take their values from,
            or a `Constant`; None: rows of the model's own data, else zero.
        partition (Partition or Tensor, default None): The features; None: each column.

    >>> from sklearn.tree import DecisionTreeRegressor
    >>> import apportion as ap
    >>> rows = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> both = DecisionTreeRegressor().fit(rows, rows.prod(1))
    >>> TreeInteractions(replacement=ap.Background(rows))(both, rows[3:]).values.tolist()
    [[[0.25, 0.125], [0.125, 0.25]]]
    """

    replacement: Replacement | None = None
    partition: Partition | Tensor | None = None

    def __post_init__(self) -> None:
        keep_label_map(self)

    def __call__(
        self,
        model: Any,
        inputs: Inputs,
        target: Target = None,
        *,
        features: Sequence[Features] | None = None,
        mask: int | Tensor | None = None,
    ) -> Interactions:
        """`features` and `mask` are those of the domain, as of methods that hide features."""
        if isinstance(mask, Tensor):
            method = self if self.replacement else replace(self, replacement=Background(mask))
            return method(model, inputs, target, features=features)
        masking = Masking(
            answering(model),
            inputs,
            target,
            partition=self.partition,
            replacement=self.replacement,
            features=features,
            mask=mask,
        )
        trees = SumOfTrees.of(masking)
        weights = trees.weights()
        pairs = (trees.pairs() * weights[:, None, None, :]).sum(3) / 2
        alone = (trees.shapley() * weights[:, None, :]).sum(2) - pairs.sum(2)
        each = np.arange(masking.many)
        pairs[:, each, each] += alone
        base = (weights * trees.of_data.mean(0)).sum(1)
        total = torch.from_numpy((weights * trees.scores).sum(1) - base)
        notes = {**trees.notes, "intercept": tuple(base.tolist())}
        known = masking.features_as_cut()
        first = known[0] if known else None
        names = first.names if isinstance(first, TabularFeatures) else tuple(map(str, each))
        return masking.result(
            Interactions,
            self,
            torch.from_numpy(pairs),
            total,
            torch.from_numpy(trees.scores),
            names=(names,),
            features=known,
            notes=notes,
        )
