"""The weak learner: does a map tell a model that sees no context which tokens matter?"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from apportion.core.settings import Told, later
from apportion.core.trees import tensors_in
from apportion.errors import InputError, check, check_whole
from apportion.evaluation.by_training._training import check_seeds
from apportion.evaluation.by_training.weighting import NORMS, weights_of
from apportion.evaluation.reference_maps import RandomMap, UniformMap
from apportion.learning.documents import Documents
from apportion.learning.networks import TokenMLP
from apportion.learning.training import Training, kept_epoch, scores_by_model, train
from apportion.results.cost import Cost
from apportion.results.scores import Scores

EMBEDDING_SCALE = 0.1  # of the standard normal: rows of unit variance are learned too slowly in 8 epochs


@dataclass(frozen=True)
class WeakLearner(Told):
    """Measure the F1 of a perceptron for each token that a frozen map weights (Wiegreffe & Pinter 2019).

    A `TokenMLP` is trained on the model's task, once for each seed: without context, it can only know from the map
    which tokens matter. Maps are divided by their norm; signs stay. A score is the F1 on the
    test documents (of class 1, or the macro mean of more than two classes); higher is better. `notes` has for each
    seed the `accuracy`, the `validation_loss` of each epoch, and the number of the epoch kept.

    It is called with three sets of documents that have `maps`, and the size of the vocabulary. Compare it with the
    learners of `uniform_maps` and `random_maps`. Cost: a training for each seed. Raises InputError for documents
    without maps or of one class.

    Attributes:
        embedding (int, default 300): Dimensions of the embeddings.
        hidden (int, default 128): Hidden units for each token.
        seeds (tuple of int, default (0, 1, 2)): Seeds of the weights and batches, one training each.
        training (Training, default Training()): How each learner is trained; its seed is replaced.
        norm (int, default 1): Norm by which maps are divided: 1, the sum of the absolute values, or 2, the root of the
            sum of the squares.
    """

    embedding: int = 300
    hidden: int = 128
    seeds: tuple[int, ...] = (0, 1, 2)
    training: Training = field(default_factory=Training)
    norm: int = later(1)

    def __post_init__(self) -> None:
        check("norm", self.norm, lambda v: v in NORMS, "1 or 2")
        check_whole(1, embedding=self.embedding, hidden=self.hidden)
        check_seeds(self.seeds)

    def __call__(self, documents: Documents, validation: Documents, test: Documents, words: int) -> Scores:
        return self.learn(documents, validation, test, words)[0]

    def learn(
        self, documents: Documents, validation: Documents, test: Documents, words: int
    ) -> tuple[Scores, list[TokenMLP]]:
        """The scores, and the learners that were trained, one for each seed."""
        begin = time.perf_counter()
        parts = [normalise_maps(part, self.norm) for part in (documents, validation, test)]
        classes = 1 + max(int(part.labels.max()) for part in parts)
        f1s, notes, learners = [], [], []
        for seed in self.seeds:
            model = self.untrained(words, classes, seed).to(documents.labels.device)
            learners.append(model)
            history = train(model, parts[0], parts[1], replace(self.training, seed=seed))
            predicted = scores_by_model(model, parts[2]).argmax(1)
            f1s.append(f1(predicted, parts[2].labels))
            notes.append(
                {
                    "seed": seed,
                    "accuracy": float((predicted == parts[2].labels).double().mean()),
                    "validation_loss": [epoch.validation_loss for epoch in history],
                    "kept": kept_epoch(history, self.training),
                }
            )
        cost = Cost(0, 0, time.perf_counter() - begin)
        scores = Scores(
            torch.tensor(f1s), repr(self), True, each="seed", cost=cost, notes={"learners": notes}
        )
        return scores, learners

    def untrained(self, words: int, classes: int, seed: int) -> TokenMLP:
        """The perceptron before its training; the global random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = TokenMLP(words, self.embedding, self.hidden, max(2, classes))
            with torch.no_grad():
                model.embedding.weight.mul_(EMBEDDING_SCALE)
        return model


def normalise_maps(documents: Documents, norm: int = 1) -> Documents:
    """The documents with maps whose L1 or L2 norm is one; a map of zeros stays one."""
    if documents.maps is None:
        raise InputError("the documents have no maps; accepted: documents with one value per token")
    maps = (weights_of(m.float(), torch.ones_like(m, dtype=torch.bool), norm) for m in documents.maps)
    return replace(documents, maps=tuple(maps))


def uniform_maps(documents: Documents) -> Documents:
    """The documents with the map that holds all tokens equally important."""
    return _replace_maps(UniformMap(), documents)


def random_maps(documents: Documents, seed: int = 0) -> Documents:
    """The documents with maps of random numbers of both signs, one for each token."""
    return _replace_maps(RandomMap(seed), documents)


def _replace_maps(way: RandomMap | UniformMap, documents: Documents) -> Documents:
    like = tuple(torch.zeros(len(ids), device=ids.device) for ids in documents.ids)
    return replace(documents, maps=tuple(tensors_in(way.values(like))))


def f1(predicted: Tensor, labels: Tensor) -> float:
    """The F1 of class 1; of more than two classes the mean over all. 0 where nothing is found."""
    from sklearn.metrics import f1_score  # type: ignore[import-untyped]

    average = "binary" if int(labels.max()) < 2 and int(predicted.max()) < 2 else "macro"
    return float(f1_score(labels.cpu(), predicted.cpu(), average=average, zero_division=0))
