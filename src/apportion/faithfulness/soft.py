"""Soft comprehensiveness and sufficiency: entries are dropped at random, the likelier the more relevant they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from apportion.entry import Slot
from apportion.errors import check_whole
from apportion.faithfulness.case import Case, Found, Test, nan_where
from apportion.faithfulness.curves import answers, one_reading
from apportion.faithfulness.maps import Map
from apportion.forward import Score, Subject
from apportion.inputs import offsets_of
from apportion.masking import Masking
from apportion.partitions import Partition

_NO_FALL = "an input of zeros is no less probable"


@dataclass(frozen=True)
class SoftComprehensiveness(Test):
    """Soft normalised comprehensiveness (Zhao & Aletras 2023): each entry (of a token's embedding) is set to zero
    with a probability that is the relevance of its feature, from 0 (least) to 1 (most) within the sample.

    `max(0, p(x) − p(x′))` over `max(0, p(x) − p(0))`, the mean of `samples` draws; higher is better. Undefined
    where an input of zeros is no less probable. Cost: `samples` forward passes and two more.
    """

    samples: int = 10
    seed: int = 0
    partition: Partition | None = field(default=None, kw_only=True)

    higher_is_better: ClassVar[bool] = True
    blind: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_whole(1, samples=self.samples)
        check_whole(0, seed=self.seed)

    def measure(self, case: Case, explanation: Map) -> Found:
        fall = _fall(self, case, explanation, drop_relevant=True)
        return nan_where(fall.zeros <= 0, fall.dropped / fall.zeros, _NO_FALL)


@dataclass(frozen=True)
class SoftSufficiency(Test):
    """Soft normalised sufficiency (Zhao & Aletras 2023): each entry is kept with a probability that is the
    relevance of its feature, from 0 (least) to 1 (most) within the sample.

    `1 − max(0, p(x) − p(x′)) / max(0, p(x) − p(0))`, the mean of `samples` draws; higher is better. Undefined
    where an input of zeros is no less probable. Cost: `samples` forward passes and two more.
    """

    samples: int = 10
    seed: int = 0
    partition: Partition | None = field(default=None, kw_only=True)

    higher_is_better: ClassVar[bool] = True
    blind: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_whole(1, samples=self.samples)
        check_whole(0, seed=self.seed)

    def measure(self, case: Case, explanation: Map) -> Found:
        fall = _fall(self, case, explanation, drop_relevant=False)
        return nan_where(fall.zeros <= 0, 1 - fall.dropped / fall.zeros, _NO_FALL)


class _Fall(NamedTuple):
    """How far the probability falls: when entries are dropped (the mean of the draws), and for zeros."""

    dropped: Tensor
    zeros: Tensor


def _fall(
    test: SoftComprehensiveness | SoftSufficiency, case: Case, explanation: Map, drop_relevant: bool
) -> _Fall:
    masking = case.masking(test.partition)
    subject = Subject(masking.model, masking.inputs, case.target)
    score = subject.forward(grad=False)
    scaled = _between_0_and_1(case.relevance(explanation, masking), masking.counts)
    kept = _at_leaves(score, masking, 1 - scaled if drop_relevant else scaled)
    none = _at_leaves(score, masking, torch.zeros_like(scaled))

    def probability(leaves: list[Tensor]) -> Tensor:
        output = subject.forward(leaves=leaves, grad=False).output
        read = answers(masking, output, torch.arange(subject.batch).repeat(len(output) // subject.batch))
        return one_reading("probability", read[0], read[1]).view(-1, subject.batch)

    random = np.random.default_rng(test.seed)
    draws: list[Tensor] = []
    together = max(1, masking.chunk // subject.batch)
    for begin in range(0, test.samples, together):
        many = min(together, test.samples - begin)
        draws.append(
            probability(
                [_dropped(leaf, keep, many, random) for leaf, keep in zip(score.leaves, kept, strict=True)]
            )
        )
    whole = probability(score.leaves)
    zeros = probability([leaf * keep for leaf, keep in zip(score.leaves, none, strict=True)])
    case.forwards += subject.forwards
    return _Fall((whole - torch.cat(draws)).clamp(min=0).mean(0), (whole - zeros)[0])


def _dropped(leaf: Tensor, keep: Tensor, many: int, random: np.random.Generator) -> Tensor:
    """`many` copies of a (batch, …) leaf, one after the other, each with other entries set to zero. The samples
    of the batch share the random numbers, so that none depends on which others are there."""
    drawn = torch.from_numpy(random.random((many, *leaf.shape[1:]), dtype=np.float32)).to(leaf.device)
    return (leaf * (drawn[:, None] < keep)).flatten(0, 1)


def _between_0_and_1(relevance: Tensor, counts: Tensor) -> Tensor:
    """The relevance from 0 (the least relevant feature of the sample) to 1; ½ where all have the same."""
    absent = torch.arange(relevance.shape[1], device=relevance.device) >= counts.to(relevance.device)[:, None]
    low = relevance.masked_fill(absent, torch.inf).amin(1, keepdim=True)
    high = relevance.masked_fill(absent, -torch.inf).amax(1, keepdim=True)
    return torch.where(high > low, (relevance - low) / (high - low).clamp(min=1e-38), 0.5).clamp(0, 1)


def _at_leaves(score: Score, masking: Masking, shown: Tensor) -> list[Tensor]:
    """The (batch, features) numbers at each leaf of the pass, 1 where there is no feature."""
    every = torch.arange(masking.batch)
    found = {
        part.key: part.keep(shown[:, None], every, torch.zeros_like(every), every).expand(part.x.shape)
        for part in masking.parts
    }
    return [
        _at_leaf(slot, leaf, found, score.subject)
        for slot, leaf in zip(score.slots, score.leaves, strict=True)
    ]


def _at_leaf(slot: Slot, leaf: Tensor, found: dict[object, Tensor], subject: Subject) -> Tensor:
    if slot.positions is None:
        return found.get(slot.key, torch.ones_like(leaf))
    offsets = offsets_of(subject.inputs)
    flat = torch.ones(max(begin + t.numel() for begin, t in offsets.values()), device=leaf.device)
    for key, (begin, ids) in offsets.items():
        if key in found:
            flat[begin : begin + ids.numel()] = found[key].flatten().to(flat)
    return flat[slot.positions.clamp(min=0)].masked_fill(slot.positions < 0, 1.0).unsqueeze(-1)
