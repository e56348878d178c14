"""Soft comprehensiveness and sufficiency: entries are dropped at random, the likelier the more relevant they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from apportion.core.calling import Model
from apportion.core.inputs import offsets_of
from apportion.core.settings import checked
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import Partition
from apportion.engines.substitution import Gradients, Score
from apportion.engines.substitution.leaves import Slot
from apportion.errors import check_seed, check_whole
from apportion.evaluation.case import Case, Measured, Test, nan_where, random_draws
from apportion.evaluation.readings import Reading, pick_reading, read_answers
from apportion.evaluation.reference_maps import Map

_NO_FALL = "an input of zeros is no less probable"


@dataclass(frozen=True)
class _Soft(Test):
    """What both tests share."""

    samples: int = 10
    seed: int = 0
    partition: Partition | None = field(default=None, kw_only=True)

    of: ClassVar[Reading] = "probability"
    higher_is_better: ClassVar[bool] = True
    blind: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(1, samples=self.samples)
        check_seed(self.seed)


@dataclass(frozen=True)
@checked
class SoftComprehensiveness(_Soft):
    """Soft normalised comprehensiveness (Zhao & Aletras 2023): entries are dropped the likelier the more relevant.

    Each entry (of a token's embedding) is set to zero with a probability that is the relevance of its feature, from 0
    (least) to 1 (most) within the sample. `max(0, p(x) − p(x′))` over `max(0, p(x) − p(0))`, at most 1, the mean of
    some draws; higher is better. Undefined where an input of zeros is no less probable. Cost: `samples` forward
    passes and two more.

    Attributes:
        samples (int, default 10): Draws.
        seed (int, default 0): Seed of the draws.
        partition (Partition, default None): How the inputs are cut into features; None: as `Masking` does.
    """

    def measure(self, case: Case, explanation: Map) -> Measured:
        share, zeros = _relative_fall(self, case, explanation, drop_relevant=True)
        return nan_where(zeros <= 0, share, _NO_FALL)


@dataclass(frozen=True)
@checked
class SoftSufficiency(_Soft):
    """Soft normalised sufficiency (Zhao & Aletras 2023): entries are kept the likelier the more relevant.

    Each entry is kept with a probability that is the relevance of its feature, from 0 (least) to 1 (most) within the
    sample. `1 − max(0, p(x) − p(x′)) / max(0, p(x) − p(0))`, at least 0, the mean of some draws; higher is better.
    Undefined where an input of zeros is no less probable. Cost: `samples` forward passes and two more.

    Attributes:
        samples (int, default 10): Draws.
        seed (int, default 0): Seed of the draws.
        partition (Partition, default None): How the inputs are cut into features; None: as `Masking` does.
    """

    def measure(self, case: Case, explanation: Map) -> Measured:
        share, zeros = _relative_fall(self, case, explanation, drop_relevant=False)
        return nan_where(zeros <= 0, 1 - share, _NO_FALL)


def _relative_fall(test: _Soft, case: Case, explanation: Map, drop_relevant: bool) -> tuple[Tensor, Tensor]:
    """How far the probability falls when entries are dropped, as a share, 0 to 1, of how far it falls for zeros (the
    mean of the draws), and the latter."""
    masking = case.masking(test.partition)
    subject = Gradients(
        _take_tensors(masking.model) if masking.numpy else masking.model, masking.inputs, case.target
    )
    score = subject.forward(grad=False)
    scaled = _scale_to_unit(case.relevance(explanation, masking), masking.counts)  # (batch, features)
    kept = _spread_to_leaves(score, masking, 1 - scaled if drop_relevant else scaled)
    none = _spread_to_leaves(score, masking, torch.zeros_like(scaled))

    def probability(leaves: list[Tensor]) -> Tensor:
        output = subject.forward(leaves=leaves, grad=False).output
        read = read_answers(masking, output, torch.arange(subject.batch).repeat(len(output) // subject.batch))
        return pick_reading(test.of, *read[:3]).view(-1, subject.batch)  # (draws, batch)

    draws: list[Tensor] = []
    together = max(1, masking.chunk // subject.batch)
    for begin in range(0, test.samples, together):
        which = range(begin, min(begin + together, test.samples))
        chances = [
            random_draws("random", leaf.shape[1:], which, test.seed, i) for i, leaf in enumerate(score.leaves)
        ]
        draws.append(probability(list(map(_drop_entries, score.leaves, kept, chances))))
    whole = probability(score.leaves)  # (1, batch)
    zeros = whole - probability([leaf * keep.to(leaf) for leaf, keep in zip(score.leaves, none, strict=True)])
    case.forwards += subject.cost.forwards
    return ((whole - torch.cat(draws)) / zeros).clamp(0, 1).mean(0), zeros[0]


def _take_tensors(model: Model) -> Model:
    """A NumPy model that takes and gives tensors."""
    return lambda x: torch.as_tensor(np.asarray(model(x.numpy())))


def _drop_entries(leaf: Tensor, keep: Tensor, chance: Tensor) -> Tensor:
    """A copy of a (batch, …) leaf for each of the (draws, …) random numbers, one after the other, with other entries
    set to zero; all samples share the random numbers."""
    return (leaf * (chance.to(leaf.device)[:, None] < keep)).flatten(0, 1)  # (draws · batch, …)


def _scale_to_unit(relevance: Tensor, counts: Tensor) -> Tensor:
    """The relevance from 0 (the least relevant feature of the sample) to 1; ½ where all have the same."""
    absent = torch.arange(relevance.shape[1], device=relevance.device) >= counts.to(relevance.device)[:, None]
    low = relevance.masked_fill(absent, torch.inf).amin(1, keepdim=True)
    high = relevance.masked_fill(absent, -torch.inf).amax(1, keepdim=True)
    return torch.where(high > low, (relevance - low) / (high - low).clamp(min=1e-38), 0.5).clamp(0, 1)


def _spread_to_leaves(score: Score, masking: Masking, shown: Tensor) -> list[Tensor]:
    """The (batch, features) numbers at each leaf of the pass, 1 where there is no feature."""
    every = torch.arange(masking.batch)
    found = {
        part.key: part.keep(shown[:, None], every, torch.zeros_like(every), every).expand(part.x.shape)
        for part in masking.parts
    }
    return [
        _spread_to_leaf(slot, leaf, found, score.subject)
        for slot, leaf in zip(score.slots, score.leaves, strict=True)
    ]


def _spread_to_leaf(slot: Slot, leaf: Tensor, found: dict[object, Tensor], subject: Gradients) -> Tensor:
    if slot.positions is None:
        return found.get(slot.key, torch.ones_like(leaf))
    offsets = offsets_of(subject.inputs)
    flat = torch.ones(max(begin + t.numel() for begin, t in offsets.values()), device=leaf.device)
    for key, (begin, ids) in offsets.items():
        if key in found:
            flat[begin : begin + ids.numel()] = found[key].flatten().to(flat)
    return flat[slot.positions.clamp(min=0)].masked_fill(slot.positions < 0, 1.0).unsqueeze(-1)
