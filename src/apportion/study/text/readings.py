"""How the tests of the study are read: as published, and what else their descriptions allow, a column each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from apportion.domains.text import Vocabulary
from apportion.engines.masking.replacements import Constant, Delete, Replacement
from apportion.errors import InputError
from apportion.evaluation.by_training.weak_learner import WeakLearner
from apportion.evaluation.measures.flipping import DeletionRate
from apportion.evaluation.measures.rationales import Comprehensiveness, Sufficiency
from apportion.evaluation.measures.shuffle import ShuffleTVD
from apportion.learning.networks import PADDING, AttentionClassifier

LEARNER, DELETION, SHUFFLE = "weak learner", "deletion rate", "shuffle"
# What the names of tests say of their readings: nothing of those that were there first.
HIDING = {"unknown": "unknown word", "deleted": "", "zero": "zero embedding"}
SHUFFLED = {"learner": "in the learner", "model": ""}
NORMS = {"L1": 1, "L2": 2}
KEPT = {"best": "", "last": "last epoch"}

CHOICES: Mapping[str, Sequence[str]] = {
    "hiding": tuple(HIDING),
    "shuffle": tuple(SHUFFLED),
    "norms": tuple(NORMS),
    "kept": tuple(KEPT),
}


@dataclass(frozen=True)
class Readings:
    """What of the tests' descriptions may be read in several ways. Agreement is computed of the first reading of each.

    Attributes:
        hiding (tuple of str, default ("deleted",)): What becomes of a token in the deletion rate: the
            unknown word ("mask" in the literature), none, or a word whose embedding is zero.
        shuffle (tuple of str, default ("model",)): Where the map is shuffled: in the weak learners that were trained
            with it ("learner"), or in the place of the explained model's attention ("model", Jain & Wallace 2019).
        norms (tuple of str, default ("L1",)): By which norm maps are divided before they weight anything: "L1", "L2".
        kept (tuple of str, default ("best",)): Which epoch of a weak learner is kept: that of the "best" validation
            AUC, or the "last".
    """

    hiding: tuple[str, ...] = ("deleted",)
    shuffle: tuple[str, ...] = ("model",)
    norms: tuple[str, ...] = ("L1",)
    kept: tuple[str, ...] = ("best",)

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            given = getattr(self, name)
            if not given or not set(given) <= set(known) or len(set(given)) < len(given):
                raise InputError(
                    f"{name} is {', '.join(map(str, given)) or 'empty'}; accepted: each once, some of "
                    f"{', '.join(known)}"
                )

    def tests(self, words: int) -> dict[str, Any]:
        """The tests of the explained model by name; its vocabulary has so many words."""
        found: dict[str, Any] = {
            _named(DELETION, HIDING[way]): DeletionRate(replacement=replacement(way, words))
            for way in self.hiding
        }
        if "model" in self.shuffle:
            for norm in self.norms:
                found[_shuffle("model", norm)] = ShuffleTVD(norm=NORMS[norm])
        gone = replacement("deleted", words)
        return found | {
            "comprehensiveness": Comprehensiveness(replacement=gone),
            "sufficiency": Sufficiency(replacement=gone),
        }

    def learners(self, learner: WeakLearner) -> dict[str, tuple[WeakLearner, dict[str, ShuffleTVD]]]:
        """The weak learners by name, each with the shuffle tests, by name, that are run in it: all but one choice are
        the first."""
        found = {}
        ways = [(norm, self.kept[0]) for norm in self.norms] + [
            (self.norms[0], kept) for kept in self.kept[1:]
        ]
        for norm, kept in ways:
            training = replace(learner.training, keep=kept)  # type: ignore[arg-type]
            made = replace(learner, norm=NORMS[norm], training=training)
            inside = {_shuffle("learner", norm, kept): ShuffleTVD(norm=NORMS[norm])}
            name = _named(LEARNER, _unless_l1(norm), KEPT[kept])
            found[name] = (made, inside if "learner" in self.shuffle else {})
        return found


AS_PUBLISHED_AND_BEFORE = Readings(tuple(HIDING), tuple(SHUFFLED))


def replacement(way: str, words: int) -> Replacement:
    """What a hidden token becomes; the zero word is the one behind the others (see `with_zero_word`)."""
    if way == "deleted":
        return Delete(padding=PADDING)
    return Constant(Vocabulary.UNKNOWN if way == "unknown" else words)


def with_zero_word(model: AttentionClassifier) -> nn.Module:
    """A copy of the model that knows one word more, whose embedding is zero."""
    weight = model.embedding.weight
    copied = deepcopy(model)
    more = torch.cat([weight, torch.zeros_like(weight[:1])])
    copied.embedding = nn.Embedding.from_pretrained(more, padding_idx=PADDING)
    return copied


def first_of(kind: str, tests: Sequence[str]) -> str | None:
    """The first test of a kind among names of tests."""
    return next((name for name in tests if kind_of(name) == kind), None)


def kind_of(test: str) -> str:
    """The test without its reading.

    >>> kind_of("deletion rate (unknown word)")
    'deletion rate'
    """
    return test.partition(" (")[0]


def reading_of(test: str) -> str:
    """The reading without its test.

    >>> reading_of("deletion rate (unknown word)"), reading_of("shuffle (L2)"), reading_of("sufficiency")
    ('unknown word', 'in the model, L2', '')
    """
    said = test.partition(" (")[2].removesuffix(")")
    if kind_of(test) == DELETION:
        return said or "deleted"
    if kind_of(test) == SHUFFLE and not said.startswith(SHUFFLED["learner"]):
        return f"in the model{', ' * bool(said)}{said}"
    return said


def _shuffle(where: str, norm: str, kept: str = "best") -> str:
    return _named(SHUFFLE, SHUFFLED[where], _unless_l1(norm), KEPT[kept])


def _unless_l1(norm: str) -> str:
    return "" if norm == "L1" else norm


def _named(kind: str, *readings: str) -> str:
    said = ", ".join(filter(None, readings))
    return f"{kind} ({said})" if said else kind
