"""The tests that stand beside the picture of one explanation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from apportion.domains.language import Question
from apportion.evaluation.case import Case
from apportion.evaluation.measures.flipping import DeletionRate, PixelFlipping
from apportion.evaluation.measures.linear_datamodeling import LDS
from apportion.evaluation.measures.top_k_drop import TopKDrop
from apportion.pipeline.prepared import Prepared
from apportion.results.explanation import Explanation
from apportion.results.result import Result
from apportion.results.scores import Scores

# The curves of the first are drawn.
TESTS = (PixelFlipping(order="symmetric"), DeletionRate())
OF_ANSWERS = {"drop": TopKDrop(), "lds": LDS(samples=32)}


def is_testable(explanation: Result, ready: Prepared) -> TypeGuard[Explanation]:
    """True if the features of the input can be hidden in the order of an explanation: pairs of features have no
    order, and prototypes are not features of the input."""
    return isinstance(explanation, Explanation) and (explanation.features or ()) == ready.features


def run_quick_tests(ready: Prepared, explanation: Result) -> list[Scores]:
    """The scores of one explanation, none for what `is_testable` refuses."""
    if not is_testable(explanation, ready):
        return []
    case = ready.case(explanation)
    return [case.score(test, explanation) for test in TESTS]


def test_answers(question: Question, explanations: Sequence[Explanation]) -> list[list[Scores]]:
    """The scores of each explanation of the answer to a question."""
    case = Case(question.classifier, question)
    return [list(case.scores(OF_ANSWERS, each).values()) for each in explanations]
