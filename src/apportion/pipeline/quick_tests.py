"""The tests that stand beside the picture of one explanation."""

from __future__ import annotations

from typing import TypeGuard

from apportion.evaluation.measures.flipping import DeletionRate, PixelFlipping
from apportion.pipeline.prepared import Prepared
from apportion.results.explanation import Explanation
from apportion.results.result import Result
from apportion.results.scores import Scores

# The curves of the first are drawn.
TESTS = (PixelFlipping(order="symmetric"), DeletionRate())


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
