"""The tests beside a picture: no score without those of maps that know nothing."""

from __future__ import annotations

import pytest

import apportion as ap
from apportion.evaluation.compare import compare
from apportion.models import load_classifier
from apportion.pipeline.given import recognise
from apportion.pipeline.prepared import prepare
from apportion.pipeline.quick_tests import TESTS, run_quick_tests
from apportion.results.scores import tied


def test_scores_stand_beside_those_of_reference_maps_as_a_comparison_has_them() -> None:
    classifier = load_classifier("sentiment")
    ready = prepare(recognise("not a bad film, but a slow one"), classifier)
    made = [ready.explain(method) for method in (ap.LRP(), ap.Saliency())]
    found = run_quick_tests(ready, made)
    for explanation, scores in zip(made, found, strict=True):
        tests = {repr(test): test for test in TESTS}
        table = compare(
            classifier, ready.inputs, {"it": explanation}, tests, features=ready.features, replacements=()
        )
        for score in scores:
            rows = {row: table.scores[row][score.test].mean for row in table.scores}
            assert score.mean == rows.pop("it")
            assert score.notes["beside"] == pytest.approx(rows)
    assert tied([found[0], found[0]]) == [repr(test) for test in TESTS]
