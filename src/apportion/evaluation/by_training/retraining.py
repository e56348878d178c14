"""Tests that train: ROAR and KAR train anew on what a map leaves, F-Fidelity lets the model get used to masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from apportion.core.inputs import Inputs, rows_of
from apportion.core.progress import progress
from apportion.core.settings import checked
from apportion.engines.masking.engine import Masking
from apportion.errors import InputError, check, check_seed, check_whole
from apportion.evaluation.by_training._training import (
    check_seeds,
    copy_model,
    load_finished,
    predict_classes,
    reinitialise,
    train,
    training_digest,
)
from apportion.evaluation.case import Case, CurveTest, Measured, Test
from apportion.evaluation.curves import check_shares, counts_at_shares
from apportion.evaluation.measures.fidelity import random_subsets
from apportion.evaluation.measures.rationales import Comprehensiveness
from apportion.evaluation.readings import EACH_ALONE, read_answers
from apportion.evaluation.reference_maps import Map
from apportion.results.scores import Scores

_TRAINED_ON = "the sample was trained on"


@dataclass(frozen=True)
@checked
class ROAR(CurveTest):
    """Remove and retrain (Hooker et al. 2019): the accuracy of fresh models without the most relevant features.

    The most relevant share of the features of every sample is hidden, a fresh model is trained on what is left, and
    its accuracy on held-out samples, masked likewise, is taken: the mean over `shares` and `seeds`. Lower is better.
    With `keep` the least relevant share is hidden instead (keep and retrain, KAR), and higher is better.

    So nothing is asked of a model that it was not trained for, which pixel flipping may be blamed for. Needs the true
    `labels`; the samples are those to train on, and all that are not held out are undefined. The model is trained in
    copies with Adam, its weights drawn anew by `reset_parameters`. Cost: a training for each share, for none hidden,
    and each seed. Features of equal value are hidden in one random order, each sample in its own. Settings: those below
    and those of [CurveTest][apportion.evaluation.case.CurveTest].

    Attributes:
        shares (tuple of float, default (0.1, 0.3, 0.5, 0.7, 0.9)): Shares of the features that are hidden.
        keep (bool, default False): Hide the least relevant features instead of the most relevant.
        seeds (tuple of int, default (0,)): Seeds of the weights and batches, one training each.
        epochs (int, default 10): Epochs of each training.
        batch (int, default 32, samples): Batch size of the training.
        rate (float, default 1e-3): Learning rate of Adam.
        held_out (float, default 0.2): Share of the samples that the accuracy is taken on.
        folder (str, default None): Folder that keeps every finished training, so that a killed run goes on where it
            was; None: none is kept.
    """

    shares: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    keep: bool = False
    seeds: tuple[int, ...] = (0,)
    epochs: int = 10
    batch: int = 32
    rate: float = 1e-3
    held_out: float = 0.2
    folder: str | Path | None = field(default=None, kw_only=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares("shares", self.shares)
        check_training(self.epochs, self.batch, self.rate)
        check("held_out", self.held_out, lambda v: 0 < v < 1, "a share between 0 and 1")
        check_seeds(self.seeds)

    ranks: ClassVar[bool] = False

    @property
    def higher_is_better(self) -> bool:
        return self.keep

    def measure(self, case: Case, explanation: Map) -> Measured:
        labels = check_labels(case, self)
        order = self.ordered(case, explanation)
        check_classes(order.masking, self)
        counts = order.counts[:, None]
        rank = order.rank[:, 0]  # another order of equal values would be another training
        place = counts - 1 - rank if self.keep else rank
        shuffled = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
        held, known = shuffled.tensor_split([max(1, round(self.held_out * len(labels)))])
        hidden = torch.cat([torch.zeros_like(counts), counts_at_shares(order.counts, self.shares)], 1)
        runs = [(column, seed) for column in range(hidden.shape[1]) for seed in self.seeds]
        right = torch.zeros(hidden.shape[1], len(held), dtype=torch.float64)
        for ((column, seed),) in progress([(run,) for run in runs], len(runs), "models to train"):
            inputs = order.masking.masked(place >= hidden[:, column, None])
            right[column] += self._train_and_judge(order.masking, inputs, labels, known, held, seed) / len(
                self.seeds
            )
        values = torch.full((len(labels),), torch.nan, dtype=torch.float64)
        values[held] = right[1:].mean(0)
        curve = {"share": [0.0, *self.shares], "value": right.mean(1).tolist()}
        return Measured(values, _TRAINED_ON, {"curves": {"accuracy": curve}})

    def _train_and_judge(
        self, masking: Masking, inputs: Inputs, labels: Tensor, known: Tensor, held: Tensor, seed: int
    ) -> Tensor:
        """Whether a model trained on the known samples is right (1) on each held-out one, or not (0)."""
        made, probable = reinitialise(masking.model, seed), masking.gives_probabilities
        path = None
        if self.folder is not None:
            settings = f"{self.epochs} {self.batch} {self.rate} {seed}{' of probabilities' * probable}"
            path = Path(self.folder) / f"{training_digest(settings, made, inputs, labels, known)}.json"
            if (kept := load_finished(path)) is not None:
                return kept
        train(made, inputs, labels, known, self.epochs, self.batch, self.rate, seed, probable)
        found = predict_classes(made, rows_of(inputs, held), self.batch, probable)
        right = found == labels[held.to(labels.device)].to(found.device)
        scores = Scores(right, f"one training of {self!r}", higher_is_better=True)
        if path is not None:
            scores.save(path)
        return scores.values


def KAR(**settings: Any) -> ROAR:  # noqa: N802 (the name that the literature has)
    """Keep and retrain (Hooker et al. 2019): make `ROAR(keep=True)`.

    Args:
        **settings (Any): The settings of `ROAR`.

    >>> KAR(epochs=3).higher_is_better
    True
    """
    return ROAR(keep=True, **settings)


@dataclass(frozen=True)
@checked
class FFidelity(Test):
    """Run a test on a model that has got used to masks (the idea of F-Fidelity, Zheng et al. 2024).

    A copy of the model is trained on for a few epochs with random shares of the features hidden, so that hidden
    features are nothing that it has never seen. It learns the true `labels` where given, else its own predictions.
    The test is then run on the copy with the map of the original model; its direction is that of `test`. Cost: the
    training, and the test.

    Attributes:
        test (CurveTest, default Comprehensiveness()): The test to run; one that hides features.
        share (float, default 0.5): Largest share of the features hidden during training.
        epochs (int, default 3): Epochs of training.
        batch (int, default 32, samples): Batch size of the training.
        rate (float, default 1e-4): Learning rate of Adam.
        seed (int, default 0): Seed of the masks and batches.
    """

    test: Any = Comprehensiveness()
    share: float = 0.5
    epochs: int = 3
    batch: int = 32
    rate: float = 1e-4
    seed: int = 0

    blind: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.test, CurveTest) or isinstance(self.test, ROAR):
            raise InputError(f"test is {self.test!r}; accepted: a test that hides features, such as ROAD()")
        check_shares("share", (self.share,))
        check_seed(self.seed)
        check_training(self.epochs, self.batch, self.rate)

    @property
    def higher_is_better(self) -> bool:
        return bool(self.test.higher_is_better)

    def measure(self, case: Case, explanation: Map) -> Measured:
        masking = case.masking(self.test.partition, self.test.replacement)
        every = torch.arange(masking.batch)
        check_classes(masking, self)
        own = read_answers(masking, masking.output, every)[3].long()
        labels = own if case.labels is None else check_labels(case, self, classes=1)
        made = copy_model(case.model)
        masks = random_subsets(masking.counts, masking.many, self.epochs * 8, self.seed, self.share)

        def changed(rows: Tensor, step: int) -> Inputs:
            return masking.masked(~masks[:, step % masks.shape[1]].to(masking.score.device)[rows], rows)

        train(
            made, masking.inputs, labels, every, self.epochs, self.batch, self.rate, self.seed,
            masking.gives_probabilities, changed,
        )  # fmt: skip
        again = Case(
            made,
            case.inputs,
            masking.resolved,
            labels=case.labels,
            features=case.features,
            mask=case.mask,
            chunk=case.chunk,
        )
        again.names_classes = case.names_classes
        self.test.ask(again, explanation)
        found: Measured = self.test.measure(again, explanation)
        case.forwards += again.passes[0]
        return found._replace(notes={**found.notes, **again.said(self.test, explanation)})


def check_classes(masking: Masking, test: object) -> None:
    if masking.kind in ("numbers", *EACH_ALONE):
        what = "predicts numbers" if masking.kind == "numbers" else "has a score for each label by itself"
        raise InputError(
            f"{type(test).__name__} trains a model of classes, and this one {what}; accepted: another test"
        )


def check_labels(case: Case, test: object, classes: int = 2) -> Tensor:
    name = type(test).__name__
    if case.labels is None:
        raise InputError(
            f"{name} trains, so it needs the true classes, one per sample, which are given in Python alone: labels=…"
        )
    try:
        labels = torch.as_tensor(case.labels)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"labels are {case.labels!r:.60}; accepted: class numbers, one per sample") from None
    many = case.masking().batch
    if labels.shape != (many,) or labels.is_floating_point():
        raise InputError(
            f"labels have shape {tuple(labels.shape)} and type {labels.dtype}; accepted: {many} class numbers"
        )
    known = max(2, case.masking().output.shape[1])
    if int(labels.min()) < 0 or int(labels.max()) >= known:
        raise InputError(
            f"labels are from {int(labels.min())} to {int(labels.max())}; accepted: 0 to {known - 1}, one number for "
            "each class of the model"
        )
    if len(labels.unique()) < classes:
        raise InputError(f"{name} needs samples of two classes at least; all labels are {int(labels[0])}")
    return labels.long()


def check_training(epochs: int, batch: int, rate: float) -> None:
    check_whole(1, epochs=epochs, batch=batch)
    check("rate", rate, lambda v: 0 < v <= 1e6, "a positive number, at most a million")
