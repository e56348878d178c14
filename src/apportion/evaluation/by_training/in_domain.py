"""The single deletion score of a model that has got used to single deletions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from apportion.core.inputs import Inputs
from apportion.core.settings import checked
from apportion.errors import InputError, check_seed
from apportion.evaluation.by_training._training import copy_model, train
from apportion.evaluation.by_training.retraining import check_classes, check_labels, check_training
from apportion.evaluation.case import Case, Measured, Test
from apportion.evaluation.measures.single_deletion import SingleDeletion
from apportion.evaluation.reference_maps import Map, method_of


@dataclass(frozen=True)
@checked
class IDSDS(Test):
    """In-domain single deletion score (Hesse, Schaub-Meyer & Roth 2024): `SingleDeletion` of a model trained with
    deletions, which compares models, too.

    A copy of the model is trained on, each sample half of the time with one feature hidden, drawn at random. This copy
    is then explained by the method of the map, and its maps are tested. Needs the true `labels`. The samples tested are
    those trained on; where there are others, say so: `trained` gives the copy, to be explained and tested on them with
    `SingleDeletion`. Cost: the training, once for all methods of a table, an explanation, and one pass a feature.

    Attributes:
        test (SingleDeletion, default SingleDeletion()): What is run on the copy; its features are those that are hidden
            in training. The paper has sixteen squares of a picture, which are zero.
        epochs (int, default 3): Epochs of training.
        batch (int, default 32, samples): Batch size of the training.
        rate (float, default 1e-4): Learning rate of Adam.
        seed (int, default 0): Seed of the deletions and batches.
    """

    test: Any = SingleDeletion()
    epochs: int = 3
    batch: int = 32
    rate: float = 1e-4
    seed: int = 0

    blind: ClassVar[bool] = False
    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.test, SingleDeletion):
            raise InputError(f"test is {self.test!r}; accepted: SingleDeletion(…)")
        check_seed(self.seed)
        check_training(self.epochs, self.batch, self.rate)

    def trained(self, model: nn.Module, inputs: Any, labels: Tensor) -> nn.Module:
        """A copy of the model, trained on with deletions."""
        return self._trained(Case(model, inputs, labels=labels))

    def _trained(self, case: Case) -> nn.Module:
        masking = case.masking(self.test.partition, self.test.replacement)
        check_classes(masking, self)
        labels, made = check_labels(case, self), copy_model(case.model)
        random, counts = np.random.default_rng(self.seed), masking.counts.cpu().numpy()

        def changed(rows: Tensor, step: int) -> Inputs:
            which = torch.from_numpy(random.integers(0, counts[rows.cpu().numpy()]))
            whole = torch.from_numpy(random.random(len(rows)) < 0.5)
            keep = (torch.arange(masking.many) != which[:, None]) | whole[:, None]
            return masking.masked(keep.to(masking.score.device), rows)

        every = torch.arange(masking.batch)
        train(
            made, masking.inputs, labels, every, self.epochs, self.batch, self.rate, self.seed,
            masking.gives_probabilities, changed,
        )  # fmt: skip
        return made

    def measure(self, case: Case, explanation: Map) -> Measured:
        method, masking = (
            method_of(explanation, self),
            case.masking(self.test.partition, self.test.replacement),
        )
        case.relevance(explanation, masking)  # refuses a map of other inputs

        def prepare() -> Case:
            made = self._trained(case)
            return Case(
                made, case.inputs, masking.resolved, features=case.features, mask=case.mask, chunk=case.chunk
            )

        again = case.once(self, prepare)
        before = again.passes
        found: Measured = self.test.measure(again, again.explain(method))
        case.forwards += again.passes[0] - before[0]
        case.backwards += again.passes[1] - before[1]
        return found
