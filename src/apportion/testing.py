"""The tests that stand beside the picture of one explanation."""

from __future__ import annotations

from apportion.explanation import Explanation
from apportion.faithfulness.flipping import DeletionRate, PixelFlipping
from apportion.faithfulness.scores import Scores
from apportion.running import Prepared
from apportion.wording import Explained

# The curves of the first are drawn.
TESTS = (PixelFlipping(order="symmetric"), DeletionRate())


def beside(ready: Prepared, explanation: Explained) -> list[Scores]:
    """The scores of one explanation; pairs of features have no order, and so none."""
    if not isinstance(explanation, Explanation):
        return []
    case = ready.case(explanation)
    return [case.score(test, explanation) for test in TESTS]
