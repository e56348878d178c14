"""The study "does the evaluation of faithfulness depend on the data set and on the test?", on four corpora.

An attention classifier is trained on each corpus (Jain & Wallace 2019); feature maps of its predictions are
tested by the label-flip deletion rate, the weak learner and the shuffle test, in several readings (`readings.py`).
Every model, map, learner and score is a cell of a `Store`, so a killed run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from apportion.errors import InputError, check, check_seed, check_whole
from apportion.evaluation.by_training.weak_learner import WeakLearner, random_maps, uniform_maps
from apportion.evaluation.case import CurveTest
from apportion.learning.documents import Documents
from apportion.learning.networks import AttentionClassifier
from apportion.learning.training import Training, scores_by_model, train
from apportion.methods.gradients.attention import AttentionWeights
from apportion.methods.gradients.gradient import InputXGradient, Saliency
from apportion.methods.hiding.lime import LIME
from apportion.methods.paths.integrated_gradients import IntegratedGradients
from apportion.methods.propagation.lrp import LRP
from apportion.results.scores import Scores
from apportion.study.store import Cell, CellResult, Store
from apportion.study.text._maps import maps_of, run_test
from apportion.study.text.corpora import CORPORA, Corpus
from apportion.study.text.readings import SHUFFLE, Readings, kind_of, with_zero_word

EMBEDDING_SCALE = 0.1  # of the standard normal: rows of unit variance are learned too slowly in 8 epochs

METHODS: Mapping[str, Any] = {
    "Saliency": Saliency(),
    "Integrated Gradients": IntegratedGradients(nodes=16, chunk=64),
    "Input×Gradient": InputXGradient(),
    "Attention": AttentionWeights(),
    "LRP": LRP(),
    "LIME": LIME(samples=200),
}
FEW = ("LIME",)  # hundreds of passes for each document: on fewer documents, and not for the weak learner
REVERSED = "Integrated Gradients"  # the reference "Reversed" is this map times −1


@dataclass(frozen=True)
class Settings:
    """The extent of the study.

    Documents are drawn at random until they have so many tokens.

    Attributes:
        corpora (tuple of str, default all): Names of corpora.
        training (Training, default Training(patience=2)): How the models are trained.
        learner (WeakLearner, default WeakLearner()): The weak learner.
        train (int, default 600_000, tokens): Documents that the weak learner is trained on.
        valid (int, default 100_000, tokens): Documents that it is validated on.
        test (int, default 60_000, tokens): Documents of all tests.
        few (int, default 8_000, tokens): Documents for the methods in `FEW`.
        steps (int, default 10_000_000): Sum of squared lengths that bounds the tests that hide tokens, of which the
            deletion rate hides one after another.
        seed (int, default 0): Seed by which documents are drawn.
        models (tuple of int, default (0,)): Seeds of the explained models, of which each corpus has one each.
        readings (Readings, default Readings()): In which readings the tests are run.
    """

    corpora: tuple[str, ...] = tuple(CORPORA)
    training: Training = field(default_factory=lambda: Training(patience=2))
    learner: WeakLearner = field(default_factory=WeakLearner)
    train: int = 600_000
    valid: int = 100_000
    test: int = 60_000
    few: int = 8_000
    steps: int = 10_000_000
    seed: int = 0
    models: tuple[int, ...] = (0,)
    readings: Readings = field(default_factory=Readings)

    def __post_init__(self) -> None:
        check_whole(1, train=self.train, valid=self.valid, test=self.test, few=self.few, steps=self.steps)
        check_seed(self.seed)
        check("models", self.models, lambda v: len(set(v)) == len(v) > 0, "at least one seed, each once")
        for seed in self.models:
            check_seed(seed)
        if not self.corpora or not set(self.corpora) <= set(CORPORA):
            raise InputError(
                f"corpora is {', '.join(self.corpora) or 'empty'}; accepted: some of {', '.join(CORPORA)}"
            )


def fast_settings() -> Settings:
    """SST alone, with fewer documents and one seed of the weak learner."""
    return Settings(
        corpora=("sst",),
        training=Training(epochs=3, patience=1),
        learner=WeakLearner(seeds=(0,), training=Training(epochs=6)),
        train=24_000,
        valid=6_000,
        test=6_000,
        few=1_000,
        steps=80_000,
    )


@dataclass(frozen=True, eq=False)
class Findings:
    """What the study found for one corpus.

    `training` has the numbers of each epoch, `scores` are the model's on the test documents, `tests` has for
    each test the scores of each map, `notes` those of each method's maps, `documents` how many were used
    for what, `lengths` the tokens of those tested, and `seconds` what each kind of work took. Of several models,
    `tests` has the mean over them for each document, and `models` the findings of each; what else is here is that of
    the first.
    """

    corpus: Corpus
    training: list[dict[str, float]]
    scores: Tensor
    tests: Mapping[str, Mapping[str, Scores]]
    notes: Mapping[str, Mapping[str, Any]]
    documents: Mapping[str, int]
    lengths: list[int]
    seconds: Mapping[str, float]
    seed: int = 0
    models: tuple[Findings, ...] = ()


def run(corpus: Corpus, settings: Settings, store: Store) -> Findings:
    """Run all cells of one corpus, or take them from the store."""
    found = [_run_model(corpus, settings, store, seed) for seed in settings.models]
    if len(found) == 1:
        return found[0]
    tests = {
        test: {name: _together([one.tests[test][name] for one in found]) for name in by_map}
        for test, by_map in found[0].tests.items()
    }
    seconds = {kind: sum(one.seconds[kind] for one in found) for kind in found[0].seconds}
    return replace(found[0], tests=tests, seconds=seconds, models=tuple(found))


def _run_model(corpus: Corpus, settings: Settings, store: Store, seed: int) -> Findings:
    work = _Work(corpus, replace(settings, training=replace(settings.training, seed=seed)), store)
    history, output = work.train()
    made = {name: work.maps(name) for name in METHODS}
    maps = {name: parts for name, (parts, _) in made.items()}
    notes = {name: of_method for name, (_, of_method) in made.items()}
    maps |= references(maps[REVERSED], settings.seed)
    readings = settings.readings
    of_model = readings.tests(len(corpus.vocabulary))
    tests: dict[str, dict[str, Scores]] = {
        kind: {name: work.test(kind, test, name, found) for name, found in maps.items()}
        for kind, test in of_model.items()
    }
    for kind, (learner, shuffles) in readings.learners(settings.learner).items():
        tests |= {each: {} for each in (kind, *shuffles)}
        for name, found in maps.items():
            if "train" in found:
                for each, scores in work.learner(kind, learner, name, found, shuffles).items():
                    tests[each][name] = scores
    if readings.shuffle[0] == "learner":  # agreement is computed of the first test of a kind
        tests |= {each: tests.pop(each) for each in of_model if kind_of(each) == SHUFFLE}
    lengths = work.parts["test"].lengths.tolist()
    return Findings(corpus, history, output, tests, notes, work.amounts, lengths, work.seconds, seed)


def _together(found: list[Scores]) -> Scores:
    """The mean over models for each document; of tests that train learners, the scores of all."""
    first = found[0]
    if first.each == "seed":
        learners = [learner for one in found for learner in one.notes["learners"]]
        values = torch.cat([one.values for one in found])
        return replace(first, values=values, cost=None, notes={"learners": learners})
    return replace(first, values=torch.stack([one.values for one in found]).mean(0), cost=None)


def references(given: Mapping[str, Documents], seed: int) -> dict[str, dict[str, Documents]]:
    """Maps that know nothing (uniform, random), and the opposite of the given ones (reversed)."""
    return {
        "Uniform": {part: uniform_maps(documents) for part, documents in given.items()},
        "Random": {part: random_maps(documents, seed) for part, documents in given.items()},
        "Reversed": {
            part: replace(documents, maps=tuple(-m for m in documents.maps or ()))
            for part, documents in given.items()
        },
    }


def classifier(words: int, seed: int) -> AttentionClassifier:
    """The untrained model; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AttentionClassifier(words)
    with torch.no_grad():
        model.embedding.weight.mul_(EMBEDDING_SCALE)
    return model


class _Work:
    """The cells of one corpus; `seconds` grows with what they took."""

    def __init__(self, corpus: Corpus, settings: Settings, store: Store) -> None:
        self.corpus, self.settings, self.store = corpus, settings, store
        self.seconds: dict[str, float] = {}
        self.parts = {
            "train": draw_documents(corpus.train, settings.train, settings.seed),
            "valid": draw_documents(corpus.valid, settings.valid, settings.seed),
            "test": draw_documents(corpus.test, settings.test, settings.seed),
        }
        lengths = self.parts["test"].lengths
        self.amounts = {part: len(documents) for part, documents in self.parts.items()}
        self.amounts |= {
            "few": first_within(lengths, settings.few),
            "steps": first_within(lengths**2, settings.steps),
        }
        self.model = classifier(len(corpus.vocabulary), settings.training.seed)
        self.trained = Cell(
            f"model/{corpus.name}",
            {
                "train": corpus.train.fingerprint,
                "valid": corpus.valid.fingerprint,
                "test": corpus.test.fingerprint,
                "words": len(corpus.vocabulary),
                "embedding_scale": EMBEDDING_SCALE,
                "training": repr(settings.training),
            },
        )

    def train(self) -> tuple[list[dict[str, float]], Tensor]:
        """Train the model; the numbers of each epoch and the scores of the test documents."""
        corpus = self.corpus

        def compute() -> CellResult:
            history = train(
                self.model,
                corpus.train,
                corpus.valid,
                self.settings.training,
                self.store.checkpoint(self.trained),
                lambda line: self.store.say(f"{corpus.name}: {line}"),
            )
            parts = {"valid": corpus.valid, "test": corpus.test}
            scores = {f"scores/{name}": scores_by_model(self.model, part) for name, part in parts.items()}
            return CellResult([asdict(epoch) for epoch in history], scores | dict(self.model.state_dict()))

        found = self._get(self.trained, compute)
        weights = {name: t for name, t in found.tensors.items() if not name.startswith("scores/")}
        self.model.load_state_dict(weights)
        self.model.eval().requires_grad_(False)
        self.knows_zero = with_zero_word(self.model)
        return found.numbers, found.tensors["scores/test"]

    def maps(self, name: str) -> tuple[dict[str, Documents], dict[str, Any]]:
        """The documents with the maps of one method, by what they are for, and the notes on those for testing."""
        parts = dict(self.parts)
        if name in FEW:
            parts = {"test": parts["test"].select(range(self.amounts["few"]))}
        found: dict[str, Documents] = {}
        notes: dict[str, Any] = {}
        for part, documents in parts.items():
            settings = {
                "model": self.trained.fingerprint,
                "method": repr(METHODS[name]),
                "documents": documents.fingerprint,
            }

            def compute(documents: Documents = documents) -> CellResult:
                mapped, notes = maps_of(METHODS[name], self.model, documents)
                return CellResult(notes, {"maps": torch.cat(mapped.maps or ())})

            result = self._get(Cell(f"maps/{self.corpus.name}/{name}/{part}", settings), compute)
            flat = result.tensors["maps"].split(documents.lengths.tolist())
            found[part] = replace(documents, maps=flat)
            notes = result.numbers if part == "test" else notes
        return found, notes

    def test(self, kind: str, test: Any, name: str, maps: Mapping[str, Documents]) -> Scores:
        """The scores of one map under a test of the explained model."""
        most = self.amounts["steps" if isinstance(test, CurveTest) else "test"]
        documents = maps["test"].select(range(min(most, len(maps["test"]))))
        settings = {"model": self.trained.fingerprint, "test": repr(test), "documents": documents.fingerprint}
        cell = Cell(f"{kind}/{self.corpus.name}/{name}", settings)
        found = self._get(cell, lambda: CellResult(run_test(test, self.knows_zero, documents).to_dict()))
        return Scores.from_dict(found.numbers)

    def learner(
        self,
        kind: str,
        learner: WeakLearner,
        name: str,
        maps: Mapping[str, Documents],
        shuffles: Mapping[str, Any],
    ) -> dict[str, Scores]:
        """The scores of one map under the weak learner, one for each seed, and under the tests that shuffle the map in
        these learners: the mean over them for each document. Each learner is a cell, and each test of it."""
        parts = (maps["train"], maps["valid"], maps["test"])
        words = len(self.corpus.vocabulary)
        found: dict[str, list[Scores]] = {each: [] for each in (kind, *shuffles)}
        for seed in learner.seeds:
            one = replace(learner, seeds=(seed,))
            settings: dict[str, Any] = {
                "learner": repr(one),
                "words": words,
                "documents": [part.fingerprint for part in parts],
            }
            if shuffles:
                settings["kept"] = "weights"
            cell = Cell(f"{kind}/{self.corpus.name}/{name}", settings)

            def train(one: WeakLearner = one) -> CellResult:
                scores, (made,) = one.learn(*parts, words)
                weights = {f"{one.seeds[0]}/{key}": tensor for key, tensor in made.state_dict().items()}
                return CellResult(scores.to_dict(), weights if shuffles else {})

            trained = self._get(cell, train)
            found[kind].append(Scores.from_dict(trained.numbers))
            for each, test in shuffles.items():

                def shuffle(
                    test: Any = test, one: WeakLearner = one, found: CellResult = trained
                ) -> CellResult:
                    made = one.untrained(words, len(self.corpus.labels), one.seeds[0])
                    made.load_state_dict({key.partition("/")[2]: each for key, each in found.tensors.items()})
                    model = made.eval().requires_grad_(False)
                    return CellResult(run_test(test, model, maps["test"]).to_dict())

                settings = {"learners": cell.fingerprint, "test": repr(test)}
                shuffled = self._get(Cell(f"{each}/{self.corpus.name}/{name}", settings), shuffle)
                found[each].append(Scores.from_dict(shuffled.numbers))
        return {each: _together(scores) for each, scores in found.items()}

    def _get(self, cell: Cell, compute: Any) -> CellResult:
        result = self.store.get(cell, compute)
        kind = cell.name.split("/")[0]
        self.seconds[kind] = self.seconds.get(kind, 0.0) + result.seconds
        return result


def draw_documents(documents: Documents, tokens: int, seed: int) -> Documents:
    """Documents in random order, as many as have no more than so many tokens together, at least two."""
    order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed))
    return documents.select(order[: first_within(documents.lengths[order], tokens)].tolist())


def first_within(sizes: Tensor, most: int) -> int:
    """How many of the first sizes add up to at most `most`, but two where there are."""
    return max(int((sizes.cumsum(0) <= most).sum()), min(2, len(sizes)))
