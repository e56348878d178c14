"""A study of methods by tests: for each model and data set a table, made of cells that are never done twice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from apportion.bulk.sources import Source, column_of, open_source
from apportion.core.classifier import Classifier
from apportion.core.fingerprints import model_fingerprint
from apportion.core.progress import progress
from apportion.core.registry import from_repr
from apportion.errors import InputError
from apportion.evaluation.reference_maps import references
from apportion.models import load_classifier
from apportion.pipeline.given import Given
from apportion.pipeline.prepared import Prepared, prepare
from apportion.results.explanation import Explanation
from apportion.results.scores import Scores, refused_scores
from apportion.results.table import Table
from apportion.results.words import format_number
from apportion.study.config import Data, Study
from apportion.study.store import Cell, CellResult, Store

REVISION = 2  # of what a cell computes
GRID = np.linspace(0, 1, 21)  # shares of hidden features at which the curves of several inputs are averaged

Curves = Mapping[str, npt.NDArray[np.float64]]
"""Method → (samples, 21) values as the most relevant features are hidden first."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the study found for one model on one data set. `left_out` says of methods why they are not there."""

    model: str
    data: str
    samples: int
    table: Table
    curves: Curves
    curve: str
    left_out: Mapping[str, str]


def run(study: Study, store: Store) -> Iterator[Outcome]:
    """Run the cells of each model on each data set, or take them from the store."""
    for name in study.models:
        model = load_classifier(name)
        # All data are opened before anything runs: what is wrong with the last is told at once.
        pairs = [_Pair(study, store, name, model, data) for data in study.data]
        yield from (pair.outcome() for pair in pairs)


class _Pair:
    """One model on one data set; inputs are encoded and explained only where a cell asks for them."""

    def __init__(self, study: Study, store: Store, name: str, model: Classifier, data: Data) -> None:
        self.study, self.store, self.name, self.model, self.data = study, store, name, model, data
        given: Any = list(data.texts) or data.path
        self.source: Source = open_source(given, model.domain, data.column, data.id)
        self.prints = {"weights and code": model_fingerprint(model), "data": self.source.fingerprint}
        many = len(self.source)
        drawn = np.random.default_rng(study.seed).permutation(many)[: study.samples]
        self.rows: list[int] = sorted(drawn.tolist())
        self._prepared: list[Prepared] | None = None
        self._explained: dict[str, list[Explanation]] = {}

    def outcome(self) -> Outcome:
        scores: dict[str, dict[str, Scores]] = {}
        curves: dict[str, npt.NDArray[np.float64]] = {}
        left_out, curve_of = {}, ""
        for method in [*self.study.methods, "random", "uniform", "reversed"]:
            row: dict[str, Scores] = {}
            for test in self.study.tests:
                result = self.store.get(self._cell(method, test), lambda m=method, t=test: self._score(m, t))  # type: ignore[misc]
                if (why := result.numbers.get("left_out")) is not None:
                    if not row and result.numbers.get("at_fault") != "test":
                        left_out[method] = why
                        break
                    row[test] = refused_scores(from_repr(test, "test"), len(self.rows), why)
                    continue
                row[test] = Scores.from_dict(result.numbers["scores"])
                if result.numbers["curves"] and curve_of in ("", test):
                    curve_of = test
                    curves[method] = np.asarray(result.numbers["curves"])
            else:
                scores[method] = row
        beside = tuple(row for row in ("random", "uniform", "reversed") if row in scores)
        if len(beside) == len(scores):
            reasons = "; ".join(dict.fromkeys(left_out.values()))
            raise InputError(f"no method can explain {self.name} on {self.data.name}: {reasons}")
        made = [row for method, row in scores.items() if method not in beside]
        if all(found.refusal for row in made for found in row.values()):
            reasons = "; ".join(dict.fromkeys(found.refusal for row in made for found in row.values()))
            raise InputError(f"no test can be run for {self.name} on {self.data.name}: {reasons}")
        blind = tuple(test for test in self.study.tests if from_repr(test, "test").blind)
        table = Table(scores, beside, seed=self.study.seed, blind=blind)
        return Outcome(self.name, self.data.name, len(self.rows), table, curves, curve_of, left_out)

    def _cell(self, method: str, test: str) -> Cell:
        known = method not in ("random", "uniform", "reversed")
        settings = {
            "revision": REVISION,
            "model": self.name,
            **self.prints,
            "column": column_of(self.source),
            "rows": self.rows,
            "seed": self.study.seed,
            "method": repr(from_repr(method)) if known else [method, repr(from_repr(self._first))],
            "test": repr(from_repr(test, "test")),
        }
        words = (self.name, self.data.name, method, test)
        return Cell(
            "/".join("".join(c if c.isalnum() else "-" for c in word)[:60] for word in words), settings
        )

    @property
    def _first(self) -> str:
        """The method that the reference rows are made of."""
        return self.study.methods[0]

    def _score(self, method: str, test: str) -> CellResult:
        """One test of one method on all inputs, one after the other."""
        measure = from_repr(test, "test")
        values, curves, why = [], [], ""
        try:
            explained = self._explanations(method)
        except InputError as error:
            return CellResult({"left_out": str(error)})
        try:
            pairs = list(zip(self.prepared, explained, strict=True))
            for ((ready, explanation),) in progress(
                [[pair] for pair in pairs], len(pairs), f"{method} · {test}"
            ):
                found = ready.case(explanation).score(measure, explanation)
                values.append(float(found.values[0]))
                why = why or found.undefined
                if "morf" in found.notes.get("curves", {}):
                    curve = found.notes["curves"]["morf"]
                    curves.append(np.interp(GRID, curve["share"], curve["value"]).tolist())
        except InputError as error:
            return CellResult({"left_out": str(error), "at_fault": "test"})
        scores = Scores(torch.tensor(values), repr(measure), measure.higher_is_better, undefined=why)
        return CellResult({"scores": scores.to_dict(), "curves": curves})

    def _explanations(self, method: str) -> list[Explanation]:
        if method not in self._explained:
            if method in ("random", "uniform", "reversed"):
                made = self._explanations(self._first)
                found = [references(e, self.study.seed + i)[method] for i, e in enumerate(made)]
            else:
                found = []
                for (ready,) in progress([[one] for one in self.prepared], len(self.prepared), method):
                    explanation = ready.explain(from_repr(method))
                    if not isinstance(explanation, Explanation):
                        raise InputError(f"{method} gives pairs of features, which have no order to test")
                    found.append(explanation)
            # One method at a time is held, and the first, which the references are made of.
            self._explained = {name: e for name, e in self._explained.items() if name == self._first}
            self._explained[method] = found
        return self._explained[method]

    @property
    def prepared(self) -> list[Prepared]:
        """The inputs, encoded."""
        if self._prepared is None:
            kind = self.model.domain
            given = [Given(kind, self.source.read(i), self.source.id(i)) for i in self.rows]
            self._prepared = [prepare(what, self.model) for what in given]
        return self._prepared


def mean_or_dash(value: float) -> str:
    return "–" if math.isnan(value) else format_number(value)


def ratings(outcomes: Sequence[Outcome], test: str) -> npt.NDArray[np.float64]:
    """The ranks (outcomes, methods) that a test gives the methods that all outcomes have; 1 is best."""
    common = [m for m in outcomes[0].table.methods if all(m in o.table.methods for o in outcomes)]
    return np.asarray([[o.table.ranks(test)[m] for m in common] for o in outcomes], dtype=np.float64)
