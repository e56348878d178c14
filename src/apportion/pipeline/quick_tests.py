"""The tests that stand beside the picture of one explanation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeGuard

from apportion.domains.language import Question
from apportion.evaluation.case import Case
from apportion.evaluation.measures.flipping import DeletionRate, PixelFlipping
from apportion.evaluation.measures.linear_datamodeling import LDS
from apportion.evaluation.measures.top_k_drop import TopKDrop
from apportion.evaluation.reference_maps import references
from apportion.pipeline.prepared import Prepared
from apportion.results.explanation import Explanation
from apportion.results.result import Result
from apportion.results.scores import Scores

# The curves of the first are drawn.
TESTS = (PixelFlipping(order="symmetric"), DeletionRate())
OF_ANSWERS = (TopKDrop(), LDS(samples=32))


def tests_of(case: Case) -> tuple[Any, ...]:
    """Those of the tests that can be asked: no label changes where the scores are numbers."""
    return TESTS[:1] if case.masking().kind == "numbers" else TESTS


def is_testable(explanation: Result, ready: Prepared) -> TypeGuard[Explanation]:
    """True if the features of the input can be hidden in the order of an explanation: pairs of features have no
    order, and prototypes are not features of the input."""
    return isinstance(explanation, Explanation) and (explanation.features or ()) == ready.features


Known = dict[str, list[float | None]]
"""Row of a reference map → its score in each test."""


def run_quick_tests(ready: Prepared, explanations: Sequence[Result]) -> list[list[Scores]]:
    """The scores of explanations of one input, none for what `is_testable` refuses."""
    known: Known = {}
    found: list[list[Scores]] = []
    for explanation in explanations:
        if not is_testable(explanation, ready):
            found.append([])
            continue
        case = ready.case(explanation)
        scores = [case.score(test, explanation) for test in tests_of(case)]
        found.append(beside_references(case, explanation, scores, known, tests_of(case)))
    return found


def test_answers(question: Question, explanations: Sequence[Explanation]) -> list[list[Scores]]:
    """The scores of each explanation of the answer to a question."""
    case, known = Case(question.classifier, question), Known()
    return [
        beside_references(case, each, [case.score(test, each) for test in OF_ANSWERS], known, OF_ANSWERS)
        for each in explanations
    ]


def beside_references(
    case: Case, explanation: Explanation, scores: Sequence[Scores], known: Known, tests: Sequence[Any]
) -> list[Scores]:
    """The scores with those of the maps random, uniform and reversed in their notes, without which none can be read.
    `known` keeps those that are the same for all methods of an input."""
    rows = {
        name: row for name, row in references(explanation).items() if name == "reversed" or name not in known
    }
    for name, row in rows.items():
        known[name] = [_or_none(case.score(test, row).mean) for test in tests]
    return [
        replace(s, notes={**s.notes, "beside": {name: values[i] for name, values in known.items()}})
        for i, s in enumerate(scores)
    ]


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
