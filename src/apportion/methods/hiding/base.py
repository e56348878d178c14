"""The base of methods that hide features: three settings, and the call that prepares the masking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, overload

import numpy as np
from torch import Tensor

from apportion.core.calling import Model
from apportion.core.features import Features
from apportion.core.inputs import Given, Inputs
from apportion.core.settings import Told, later
from apportion.core.target import Target
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import Partition, keep_label_map
from apportion.engines.masking.replacements import Background, Replacement
from apportion.errors import check_seed, check_whole
from apportion.results.explanation import Explanation
from apportion.results.result import Total


@dataclass(frozen=True)
class Hiding(Told, Generic[Total]):
    """Hide features and see what the score becomes: the base of all methods that do so.

    A method says how inputs are `cut` into features, and how the answers of the model under masks become an
    explanation (`explain`).

    Attributes:
        replacement (Replacement, default None): Stands in the place of hidden features; None: the mask token for
            token ids (id 0 where none is known), zero for numbers.
        seed (int, default 0): Fixes random replacements and random masks.
        chunk (int, default None, rows): Rows that run at once; None: by the size of the model.
        mask (int, default None): Id of the mask token, which the call may give; None: 0.
    """

    in_score: ClassVar[bool] = True
    """Values are differences or means of scores, so they have the unit of the score even where they do not add up."""

    replacement: Replacement | None = field(default=None, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    chunk: int | None = field(default=None, kw_only=True)
    mask: int | None = later(None, kw_only=True)

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_whole(0, mask=0 if self.mask is None else self.mask)
        check_whole(1, chunk=1 if self.chunk is None else self.chunk)
        keep_label_map(self)

    @overload
    def __call__(
        self,
        model: Model,
        inputs: Given,
        target: Target = None,
        *,
        features: Sequence[Features] | None = None,
        mask: int | Tensor | None = None,
    ) -> Explanation[Given, Total]: ...
    @overload
    def __call__(
        self,
        model: Model,
        inputs: np.ndarray,
        target: Target = None,
        *,
        features: Sequence[Features] | None = None,
        mask: int | Tensor | None = None,
    ) -> Explanation[Tensor, Total]: ...
    def __call__(
        self,
        model: Model,
        inputs: Any,
        target: Target = None,
        *,
        features: Sequence[Features] | None = None,
        mask: int | Tensor | None = None,
    ) -> Explanation[Any, Total]:
        """`features` are those of the domain, one for each sample; `mask` is the id of a mask token, or rows of data to
        take hidden values from, which the result keeps with its method."""
        if isinstance(mask, Tensor):
            method = self if self.replacement else replace(self, replacement=Background(mask))
            return method(model, inputs, target, features=features)
        if mask is not None and mask != self.mask:
            check_whole(0, mask=mask)
            return replace(self, mask=mask)(model, inputs, target, features=features)
        return self.explain(
            Masking(
                model,
                inputs,
                target,
                partition=self.cut(inputs),
                replacement=self.replacement,
                features=features,
                mask=self.mask,
                chunk=self.chunk,
                seed=self.seed,
            )
        )

    def cut(self, inputs: Inputs) -> Partition | None:
        """The features of these inputs; None for the default of `Masking`."""
        raise NotImplementedError

    def explain(self, masking: Masking) -> Explanation[Any, Total]:
        raise NotImplementedError
