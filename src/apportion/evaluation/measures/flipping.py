"""Tests that hide features in the order of the map: pixel flipping, deletion and insertion, deletion rate, ROAD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from apportion.core.settings import checked
from apportion.core.target import classes_of
from apportion.engines.masking.partitions import Partition, Pixels
from apportion.engines.masking.replacements import NoisyLinear, Replacement
from apportion.errors import InputError, check_whole
from apportion.evaluation._curve_limits import aopc_limits
from apportion.evaluation.case import Case, CurveTest, Measured, nan_where
from apportion.evaluation.curves import WAYS, Curve, Order, Way, check_shares, counts_at_shares, even_steps
from apportion.evaluation.readings import EACH_ALONE
from apportion.evaluation.reference_maps import Map

HidingOrder = Literal["morf", "lerf", "symmetric"]
_WAYS: Mapping[str, tuple[Way, ...]] = {"morf": ("morf",), "lerf": ("lerf",), "symmetric": WAYS}


@dataclass(frozen=True)
@checked
class PixelFlipping(CurveTest):
    """Pixel flipping (Bach et al. 2015), region perturbation (Samek et al. 2017): the AOPC of a map.

    The mean of `f(x) − f(x with the first k features hidden)` over k = 0 … all. Cost: one forward pass a step, twice
    for "symmetric", and about `beam · features²` masks if normalised. Settings: those below and those of
    [CurveTest][apportion.evaluation.case.CurveTest].

    Attributes:
        order (str, default "morf"): "morf" hides the most relevant first: higher is better. "lerf" hides the least
            relevant first: lower is better. "symmetric" is the first minus the second, the symmetric relevance gain
            (Blücher et al. 2024): higher is better, and zero for a random order.
        steps (int, default 20): Even steps from no feature to all; None: one feature a step.
        normalised (bool, default False): Put AOPC between the least and the most that any order of this sample can
            reach, 0 to 1 (Edin et al. 2024): for some tens of features, and for "morf" only.
        beam (int, default 5): Candidates of the search for these limits.

    >>> model = lambda x: x @ torch.tensor([[4.0], [2.0], [1.0]])
    >>> PixelFlipping(of="score")(model, torch.ones(1, 3), torch.tensor([[4.0, 2.0, 1.0]])).mean
    4.25
    """

    order: HidingOrder = "morf"
    steps: int | None = 20
    normalised: bool = False
    beam: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_steps(self.steps)
        _check_order(self.order)
        check_whole(1, beam=self.beam)
        if self.normalised and self.order != "morf":
            raise InputError(f"normalised was given with order={self.order!r}; accepted: with 'morf' only")

    @property
    def higher_is_better(self) -> bool:
        return self.order != "lerf"

    def steps_of(self, counts: Tensor) -> Mapping[Way, Tensor]:
        return dict.fromkeys(_WAYS[self.order], even_steps(counts, self.steps))

    def measure(self, case: Case, explanation: Map) -> Measured:
        fall, curves = [], {}
        for way, curve in self.curves(case, explanation).items():
            read = curve.read(self.of)  # (batch, steps + 1)
            fall.append(curve.mean(read[:, :1] - read))  # (batch,)
            curves[way] = mean_curve(curve, read)
        notes = {"curves": curves}
        if not self.normalised:
            return Measured(fall[0] if len(fall) == 1 else fall[0] - fall[1], notes=notes)
        order = self.ordered(case, explanation)
        least, most = aopc_limits(order.masking, self.of, even_steps(order.counts, self.steps), self.beam)
        # The search does not try every order, so the map's own may lie beyond what it found.
        least, most = least.minimum(fall[0]), most.maximum(fall[0])
        why = "every order gives the same curve"
        return nan_where(most <= least, (fall[0] - least) / (most - least), why)._replace(notes=notes)


@dataclass(frozen=True)
class _Area(CurveTest):
    """The base of deletion and insertion: the area under a curve of even steps."""

    steps: int | None = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_steps(self.steps)

    def measure(self, case: Case, explanation: Map) -> Measured:
        ((way, curve),) = self.curves(case, explanation).items()
        read = curve.read(self.of)
        return Measured(curve.area(read), notes={"curves": {way: mean_curve(curve, read)}})


@dataclass(frozen=True)
@checked
class Deletion(_Area):
    """Deletion (Petsiuk et al. 2018): the area under the answer as the most relevant features are hidden first.

    Lower is better. Cost: one forward pass a step. Settings: those below and those of
    [CurveTest][apportion.evaluation.case.CurveTest].

    Attributes:
        steps (int, default 20): Even steps from no feature to all; None: one feature a step.

    >>> model = lambda x: x @ torch.tensor([[4.0], [2.0]])
    >>> Deletion(of="score")(model, torch.ones(1, 2), torch.tensor([[4.0, 2.0]])).mean
    2.5
    """

    higher_is_better: ClassVar[bool] = False

    def steps_of(self, counts: Tensor) -> Mapping[Way, Tensor]:
        return {"morf": even_steps(counts, self.steps)}


@dataclass(frozen=True)
@checked
class Insertion(_Area):
    """Insertion (Petsiuk et al. 2018): the area under the answer as features are put into an empty input.

    The most relevant come first, and higher is better. The paper starts from a blurred image: `replacement=Blur()`.
    Cost: one forward pass a step. Settings: those below and those of
    [CurveTest][apportion.evaluation.case.CurveTest].

    Attributes:
        steps (int, default 20): Even steps from no feature to all; None: one feature a step.

    >>> model = lambda x: x @ torch.tensor([[4.0], [2.0]])
    >>> Insertion(of="score")(model, torch.ones(1, 2), torch.tensor([[4.0, 2.0]])).mean
    3.5
    """

    higher_is_better: ClassVar[bool] = True

    def steps_of(self, counts: Tensor) -> Mapping[Way, Tensor]:
        # With all but the first k kept out, the least relevant are hidden: the same curve, read backwards.
        return {"lerf": even_steps(counts, self.steps)}


@dataclass(frozen=True)
@checked
class DeletionRate(CurveTest):
    """Label-flip deletion rate: the share of features that must be hidden until the predicted label changes.

    Features are hidden one by one, the most relevant first; the score is hidden / all, and 1 if the label never
    changes. Lower is better.

    What is no feature (padding, special tokens) is never hidden and not counted. With equal values, the score is the
    mean over several random orders. The label that must change is the *predicted* one, right or wrong; a map that
    explains another class is undefined. So is one of a single score that predicts class 0, since it speaks for class 1;
    the target `lambda scores: scores[:, 0].abs()` explains what is predicted. Where each score is a label of its own,
    its probability must fall to ½, and a label that is not above is undefined. InputError for a regression, which has
    no label. Samples whose label has changed are not run further. Cost: at most as many forward passes as there are
    features (and orders). Settings: those below and those of [CurveTest][apportion.evaluation.case.CurveTest].

    Attributes:
        block (int, default 4): Steps that run at once at first; each further block is twice as long.

    >>> model = lambda x: x @ torch.tensor([[0.0, 4.0], [0.0, 2.0], [7.0, 1.0], [0.0, 1.5]])
    >>> x, values = torch.ones(1, 4), torch.tensor([[4.0, 2.0, -6.0, 1.5]])
    >>> DeletionRate()(model, x, values).mean
    0.25
    """

    block: int = 4

    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(1, block=self.block)

    def measure(self, case: Case, explanation: Map) -> Measured:
        order = self.ordered(case, explanation)
        counts, device, masking = order.counts, order.counts.device, order.masking
        target, kind = masking.resolved, masking.kind
        target = classes_of(target) if isinstance(target, Tensor) else target
        if kind == "numbers" or (kind == "logit" and self.of == "score" and isinstance(target, Tensor)):
            raise InputError(
                "DeletionRate asks when the predicted label changes, and a regression has none; accepted: tests of its "
                "score, such as PixelFlipping(of='score')"
            )
        alone = kind in EACH_ALONE or self.of == "sigmoid"
        if alone and not isinstance(target, Tensor):
            raise InputError(
                "each score of the model is a label of its own, and a callable target says none; accepted: its number"
            )
        first = self._labels(order.curve(torch.zeros_like(counts)[:, None]), alone)[:, 0]  # (batch,)
        several = masking.output.shape[1] > 1
        if not isinstance(target, Tensor):
            wanted, why = first, ""
        elif alone:
            wanted, why = (
                torch.ones_like(first),
                "the explained label is not there: its probability is not above ½",
            )
        elif several:
            wanted, why = target.to(device), "the explained class is not the predicted one"
        else:
            wanted, why = torch.ones_like(first), "the one score speaks for class 1, and class 0 is predicted"
        other = wanted != first
        rate = torch.ones(order.rank.shape[:2], dtype=torch.float64, device=device)  # (batch, orders)
        along = torch.arange(rate.shape[1], device=device) == 0
        # Along one order where the values say it, along all where they are equal.
        going, which = ((along | order.tied[:, None]) & ~other[:, None]).nonzero().T
        done, block = 0, self.block
        while len(going):
            hidden = torch.arange(done + 1, done + block + 1, device=device).expand(len(going), -1)
            curve = order.curve(hidden, going, order=which)
            changed = (self._labels(curve, alone) != first[going, None]) & curve.own  # (going, block)
            flipped = changed.any(1)
            where = changed.int().argmax(1, keepdim=True)  # (going, 1)
            rate[going[flipped], which[flipped]] = curve.share.gather(1, where)[flipped, 0].to(rate)
            done, block = done + block, 2 * block
            on = ~flipped & (counts[going] > done)
            going, which = going[on], which[on]
        return nan_where(other, torch.where(order.tied, rate.mean(1), rate[:, 0]), why)

    def _labels(self, curve: Curve, alone: bool) -> Tensor:
        """The predicted class, or whether the explained label is there, (rows, steps)."""
        return (curve.alone > 0.5).long() if alone else curve.label


@dataclass(frozen=True)
@checked
class ROAD(CurveTest):
    """Remove and debias (Rong et al. 2022): hide shares of the pixels by noisy linear imputation.

    That hides them without leaving their outline to be read, and no model is trained again. The score is the mean
    over `shares` of the model's answer. Images only. Cost: one forward pass a share and order. Settings: those below
    and `of` of [CurveTest][apportion.evaluation.case.CurveTest].

    Attributes:
        order (str, default "symmetric"): "morf" hides the most relevant first (lower is better), "lerf" the least
            relevant first (higher is better), "symmetric" is half the second minus the first, as in
            pytorch-grad-cam's ROADCombined (higher is better).
        shares (tuple of float, default (0.1, 0.2, …, 0.9)): Shares of the pixels that are hidden.
        partition (Partition or Tensor, default Pixels()): How the image is cut into features.
        replacement (Replacement, default NoisyLinear()): What stands in the place of hidden pixels.
    """

    partition: Partition | Tensor | None = field(default=Pixels(), kw_only=True)
    replacement: Replacement | None = field(default=NoisyLinear(), kw_only=True)
    order: HidingOrder = "symmetric"
    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares("shares", self.shares)
        _check_order(self.order)

    @property
    def higher_is_better(self) -> bool:
        return self.order != "morf"

    def ordered(self, case: Case, explanation: Map) -> Order:
        x = case.inputs
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() != 4:
            raise InputError("ROAD fills pixels in; accepted: images (batch, channels, height, width)")
        return super().ordered(case, explanation)

    def steps_of(self, counts: Tensor) -> Mapping[Way, Tensor]:
        return dict.fromkeys(_WAYS[self.order], counts_at_shares(counts, self.shares))

    def measure(self, case: Case, explanation: Map) -> Measured:
        means = [curve.read(self.of).mean(1) for curve in self.curves(case, explanation).values()]
        return Measured(means[0] if len(means) == 1 else (means[1] - means[0]) / 2)


def mean_curve(curve: Curve, read: Tensor) -> dict[str, list[float]]:
    """The mean over the samples at each step, for a picture: the share of hidden features and the value."""
    own = curve.own.sum(0)
    shares, values = ((t * curve.own).sum(0) / own for t in (curve.share, read))
    return {"share": shares.tolist(), "value": values.tolist()}


def _check_steps(steps: int | None) -> None:
    if steps is not None:  # one feature a step
        check_whole(1, steps=steps)


def _check_order(order: str) -> None:
    if order not in _WAYS:
        raise InputError(f"order is {order!r}; accepted: {', '.join(map(repr, _WAYS))}")
