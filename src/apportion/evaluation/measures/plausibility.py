"""Plausibility: does a map look where a person looked? That is another question than whether it is true to the
model, and its scores are never averaged with those of faithfulness.

Every measure is called as `measure(explanation, truth)`; `truth` is True (or 1) where a person marked what matters:
a segmentation mask (batch, height, width), a box drawn as a mask, or the tokens of a rationale (batch, tokens).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from apportion.core.features import TextFeatures
from apportion.core.numbers import check_dense, tensor_of
from apportion.core.trees import tensors_in
from apportion.errors import InputError, check
from apportion.evaluation.reference_maps import Map
from apportion.results.explanation import Explanation
from apportion.results.scores import Scores

_NOTHING = "nothing is marked, or everything is"
_NOT_POSITIVE = "the map has no positive value"


class Marked(NamedTuple):
    """A map and what was marked, (batch, places) each: the values, whether a place is marked, and whether it is one
    at all (padding and special tokens are not)."""

    values: Tensor
    truth: Tensor
    place: Tensor


@dataclass(frozen=True)
class _Measure:
    """What all of these share: the call, and NaN where nothing, or everything, is marked."""

    higher_is_better: ClassVar[bool] = True

    def __call__(self, explanation: Map, truth: Tensor) -> Scores:
        found = _mark_places(explanation, truth)
        many = found.truth.sum(1)
        trivial = (many == 0) | (many == found.place.sum(1))
        values = self.measure(found).double()
        reasons = [_NOTHING] * bool(trivial.any()) + [_NOT_POSITIVE] * bool((values.isnan() & ~trivial).any())
        return Scores(values.masked_fill(trivial, torch.nan), repr(self), True, undefined="; ".join(reasons))

    def measure(self, found: Marked) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class _OfShare(_Measure):
    """What the next two share: which values of the map are its highest."""

    share: float | None = None

    def __post_init__(self) -> None:
        accepted = "above 0 up to 1, or None for as many as are marked"
        check("share", self.share, lambda v: v is None or 0 < v <= 1, accepted)

    def chosen(self, found: Marked) -> Tensor:
        if self.share is None:
            return _share_of_highest(found, found.truth.sum(1))
        return _share_of_highest(found, (self.share * found.place.sum(1)).round().long().clamp(min=1))


@dataclass(frozen=True)
class IoU(_OfShare):
    """Intersection over union of what was marked and the highest values of the map. Higher is better.

    Attributes:
        share (float, default None): Share of all places that count as the highest; None: as many as are marked.

    >>> IoU()(torch.tensor([[3.0, 2.0, 1.0, 0.0]]), torch.tensor([[1, 0, 1, 0]])).mean.__round__(3)
    0.333
    """

    def measure(self, found: Marked) -> Tensor:
        chosen = self.chosen(found)
        both = (chosen * found.truth).sum(1)
        return both / (chosen.sum(1) + found.truth.sum(1) - both)


@dataclass(frozen=True)
class TokenF1(_OfShare):
    """Token F1 (DeYoung et al. 2020): the harmonic mean of precision and recall of the highest values of the map.

    Higher is better. Where as many are taken as are marked, precision and recall are the same.

    Attributes:
        share (float, default None): Share of all places that count as the highest; None: as many as are marked.

    >>> TokenF1(share=0.75)(torch.tensor([[3.0, 2.0, 1.0, 0.0]]), torch.tensor([[1, 0, 1, 0]])).mean
    0.8
    """

    def measure(self, found: Marked) -> Tensor:
        chosen = self.chosen(found)
        return 2 * (chosen * found.truth).sum(1) / (chosen.sum(1) + found.truth.sum(1))


@dataclass(frozen=True)
class AUPRC(_Measure):
    """The area under the precision-recall curve, as average precision: the soft score of DeYoung et al. (2020).

    Equal values are taken up together, so that a constant map has the share that is marked.

    >>> round(AUPRC()(torch.tensor([[3.0, 2.0, 1.0, 0.0]]), torch.tensor([[1, 0, 1, 0]])).mean, 4)
    0.8333
    """

    def measure(self, found: Marked) -> Tensor:
        fallen, order = found.values.masked_fill(~found.place, -torch.inf).neg().sort(1)
        truth = found.truth.gather(1, order).double()
        last = torch.searchsorted(fallen, fallen, right=True) - 1
        precision = truth.cumsum(1) / torch.arange(1, truth.shape[1] + 1, device=truth.device)
        return (truth * precision.gather(1, last)).sum(1) / truth.sum(1)


@dataclass(frozen=True)
class PointingGame(_Measure):
    """The pointing game (Zhang et al. 2018): 1 if the highest value is at a marked place, else 0; with several
    highest, the share of them that is marked. No tolerance around the mark: give a mark that has it.

    >>> PointingGame()(torch.tensor([[3.0, 3.0, 1.0]]), torch.tensor([[1, 0, 0]])).mean
    0.5
    """

    def measure(self, found: Marked) -> Tensor:
        return (_share_of_highest(found, torch.ones_like(found.place.sum(1))) * found.truth).sum(1)


@dataclass(frozen=True)
class RelevanceMass(_Measure):
    """Relevance mass accuracy (Arras et al. 2022): the share of the positive values that lies in what was marked.

    Higher is better. Undefined for a map without positive values.

    >>> RelevanceMass()(torch.tensor([[3.0, 1.0, -5.0]]), torch.tensor([[1, 0, 0]])).mean
    0.75
    """

    def measure(self, found: Marked) -> Tensor:
        positive = found.values.clamp(min=0) * found.place
        return (positive * found.truth).sum(1) / positive.sum(1)


@dataclass(frozen=True)
class RelevanceRank(_Measure):
    """Relevance rank accuracy (Arras et al. 2022): of the highest values, as many as are marked, the share that is.

    >>> RelevanceRank()(torch.tensor([[3.0, 2.0, 1.0, 0.0]]), torch.tensor([[1, 0, 1, 0]])).mean
    0.5
    """

    def measure(self, found: Marked) -> Tensor:
        return (_share_of_highest(found, found.truth.sum(1)) * found.truth).sum(1) / found.truth.sum(1)


def _mark_places(explanation: Map, truth: Tensor) -> Marked:
    values = explanation.values if isinstance(explanation, Explanation) else explanation
    tensors = [torch.from_numpy(values)] if isinstance(values, np.ndarray) else list(tensors_in(values))
    if len(tensors) != 1:
        raise InputError(f"the map has {len(tensors)} tensors; accepted: one, which a person could mark")
    check_dense("the map", tensors[0])
    values = tensors[0].detach().double()
    if values.dim() < 2:
        raise InputError(
            f"the map has shape {tuple(values.shape)}; accepted: (batch, places) or (batch, channels, height, width)"
        )
    if not bool(values.isfinite().all()):
        raise InputError("the map has NaN or infinite values")
    mark = tensor_of("truth", truth, "a tensor of True and False, or 1 and 0").to(values.device)
    if mark.dtype != torch.bool and bool(((mark != 0) & (mark != 1)).any()):
        raise InputError(
            f"truth has values from {mark.min()} to {mark.max()}; accepted: True and False, or 1 and 0"
        )
    mark = mark.bool()
    if mark.shape != values.shape and mark.dim() > 2 and mark.shape[1] == 1:
        mark = mark[:, 0]
    if values.dim() == mark.dim() + 1 > 2:
        values = values.sum(1)  # channels are of one place
    if mark.shape != values.shape:
        raise InputError(
            f"truth has shape {tuple(mark.shape)}, but the map has places {tuple(values.shape)}; accepted: the same"
        )
    place = torch.ones_like(mark)
    features = explanation.features if isinstance(explanation, Explanation) else None
    for row, feature in zip(place, features or (), strict=False):
        if isinstance(feature, TextFeatures):
            words = torch.tensor([word is not None for word in feature.words], device=row.device)
            row[: len(words)] = words
            row[len(words) :] = False
    return Marked(values.flatten(1), (mark & place).flatten(1), place.flatten(1))


def _share_of_highest(found: Marked, many: Tensor) -> Tensor:
    """How much of each place is among the `many` highest, (batch, places): 1 or 0, and between for places that tie
    for the last ones."""
    values = found.values.masked_fill(~found.place, -torch.inf)
    ordered = values.sort(1, descending=True).values
    last = ordered.gather(1, (many - 1).clamp(min=0)[:, None])
    above, equal = values > last, values == last
    share = (many - above.sum(1)) / equal.sum(1)
    return above.double() + equal * share[:, None]
