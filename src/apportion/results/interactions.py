"""The result of methods for pairs of features: how much each acts alone, and how much two act together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from apportion.core.features import Features, ImageFeatures, TextFeatures
from apportion.errors import InputError
from apportion.results.result import Result, Total


@dataclass(frozen=True, eq=False, repr=False)
class Interactions(Result[Total]):
    """A model's scores for a batch, apportioned to pairs of features.

    `values` is (batch, features, features) and symmetric: its diagonal holds the main effects, and the entry
    of a pair is half of what the pair contributes, since it stands in the matrix twice. Entries that were not
    asked for (`pairs=`) are NaN. `total` is the (batch,) amount that was to be apportioned, or None for
    methods that do not claim to add up, or that were asked for some pairs only; `remainder` is what `values`
    leave of it. `attributions` are the (batch, features) Integrated Gradients that each row is to add up to,
    taken from the same nodes; `row_gaps` is what the rows leave of them. `smoothing` is the (batch,) part of
    `total` that is due to smoothing the model. `names` has one name per feature, for each sample or for all.

    >>> import apportion as ap
    >>> i = ap.IntegratedHessians()(lambda x: x[:, :1] * x[:, 1:], torch.tensor([[2.0, 3.0]]))
    >>> i.values.round(decimals=4).tolist(), i.top(1)
    ([[[1.5, 1.5], [1.5, 1.5]]], [('0', '1', 3.0)])
    """

    kind: ClassVar[str] = "apportion-interactions"
    called: ClassVar[str] = "interactions"

    values: Tensor
    names: tuple[tuple[str, ...], ...] = field(kw_only=True)
    attributions: Tensor | None = field(default=None, kw_only=True)
    smoothing: Tensor | None = field(default=None, kw_only=True)

    @property
    def main(self) -> Tensor:
        """What each feature does alone: (batch, features)."""
        return self.values.diagonal(dim1=1, dim2=2)

    @property
    def apportioned(self) -> Tensor:
        """The (batch,) sums of all entries that are known."""
        return self.values.double().nansum((1, 2))

    @property
    def row_gaps(self) -> Tensor | None:
        """The attribution of each feature minus the sum of its row; NaN for rows that are not whole."""
        return None if self.attributions is None else self.attributions.double() - self.values.double().sum(2)

    def _of_one(self, part: slice) -> dict[str, Any]:
        own = {name: None if (t := getattr(self, name)) is None else t[part] for name in _OWN}
        return {**super()._of_one(part), **own, "names": (self.names_of(part.start),)}

    def names_of(self, index: int = 0) -> tuple[str, ...]:
        """The names of the features of one sample."""
        return self.names[index % len(self.names)]

    def _parts(self, index: int) -> dict[str, float]:
        main = float(self.main[index].double().sum())
        return {"alone": main, "in pairs": float(self.apportioned[index]) - main}

    def top(self, k: int = 10, index: int = 0) -> list[tuple[str, str, float]]:
        """The k pairs that contribute most, strongest first: both names, and both entries together."""
        values = self.values[index].detach().double().cpu()
        first, second = torch.triu_indices(values.shape[0], values.shape[1], 1)
        strength = values[first, second] + values[second, first]
        known = ~strength.isnan()
        first, second, strength = first[known], second[known], strength[known]
        order = strength.abs().argsort(descending=True, stable=True)[:k].tolist()
        names = self.names_of(index)
        return [(names[int(first[i])], names[int(second[i])], float(strength[i])) for i in order]

    def to_frame(self) -> Any:
        """A pandas frame with a line for each pair of features of each sample: `sample`, `target`, `first`, `second`,
        and `value`, both entries of the pair together; what a feature does alone has it twice. Pairs not asked for
        are left out, so that the lines of a sample add up to what is apportioned.

        >>> import apportion as ap
        >>> i = ap.IntegratedHessians()(lambda x: x[:, :1] * x[:, 1:], torch.tensor([[2.0, 3.0]]))
        >>> i.to_frame().round(3).to_dict("records")[1]
        {'sample': 0, 'target': 'score', 'first': '0', 'second': '1', 'value': 3.0}
        """
        columns = ("sample", "target", "first", "second", "value")
        values = self.values.detach().double().cpu()
        i, j = torch.triu_indices(values.shape[1], values.shape[2])
        entries = values[:, i, j] + torch.where(i == j, 0.0, values[:, j, i])  # (batch, pairs)
        lines: list[tuple[int, str, str, str, float]] = []
        for index, row in enumerate(entries.tolist()):
            names, target = self.names_of(index), self.label(index)
            pairs = zip(i.tolist(), j.tolist(), row, strict=True)
            lines += [(index, target, names[a], names[b], v) for a, b, v in pairs if v == v]
        return import_module("pandas").DataFrame(lines, columns=columns)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The values as a NumPy array, (batch, features, features), as `numpy.asarray(interactions)` asks for."""
        array = self.values.detach().cpu().numpy()
        return array.astype(dtype or array.dtype, copy=copy is not False)

    def named(self, names: Sequence[str]) -> Self:
        """The same interactions with other names of the features, for all samples."""
        if len(names) != self.values.shape[1]:
            raise InputError(
                f"{len(names)} names for {self.values.shape[1]} features; accepted: one per feature"
            )
        return replace(self, names=(tuple(names),))

    def with_features(self, features: Sequence[Features], labels: Sequence[str] | None = None) -> Self:
        """The same interactions, with the features of each sample, their names, and the class names."""
        known = super().with_features(features, labels)
        return replace(known, names=tuple(_names(f, self.names_of(i)) for i, f in enumerate(features)))

    def _own_packed(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {name: t for name in _OWN if (t := getattr(self, name)) is not None}
        return {"values": self.values, **tensors}, {"names": self.names}

    @classmethod
    def _check_file(cls, header: Any, tensors: dict[str, Tensor]) -> None:
        from apportion.results._schema import OfInteractions, check_file

        check_file(header, OfInteractions, tensors)

    @classmethod
    def _own_unpacked(cls, tensors: dict[str, Tensor], header: dict[str, Any]) -> dict[str, Any]:
        own = {name: tensors.get(name) for name in _OWN}
        return {"values": tensors["values"], **own, "names": tuple(tuple(names) for names in header["names"])}


# The tensors that explanations do not have.
_OWN = ("attributions", "smoothing")


def _names(feature: Features, before: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(feature, ImageFeatures):
        return before
    choices = [feature.names, feature.tokens] if isinstance(feature, TextFeatures) else [feature.names]
    return next((tuple(names) for names in choices if len(names) == len(before)), before)
