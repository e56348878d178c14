"""Whether tests order the maps alike on single documents."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from apportion.results.scores import Scores
from apportion.study.text._agreement import per_text_table, taus_of_texts


def found() -> Any:
    """Four documents of four maps: on the first the tests agree, on the second they are opposite, on the third one
    test tells no maps apart, on the fourth two of six pairs of maps are turned; one test has only these, one more."""
    rates = torch.tensor(
        [[0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 1.0, 1.0], [0.1, 0.2, 0.3, 0.4]]
    )
    drops = torch.tensor(
        [
            [0.9, 0.8, 0.7, 0.6],
            [0.6, 0.7, 0.8, 0.9],
            [0.9, 0.8, 0.7, 0.6],
            [0.8, 0.9, 0.6, 0.7],
            [0.1, 0.2, 0.3, 0.4],
        ]
    )
    names = ["a", "b", "c", "d"]

    def scores(values: torch.Tensor, higher: bool) -> dict[str, Scores]:
        return {name: Scores(values[:, i], "a test", higher) for i, name in enumerate(names)}

    return SimpleNamespace(
        tests={"deletion rate": scores(rates, False), "shuffle": scores(drops, True), "weak learner": {}},
        notes=dict.fromkeys(names),
        lengths=[3, 9, 4, 8, 5],
        corpus=SimpleNamespace(title="Corpus", name="corpus"),
    )


def test_tau_of_each_document_is_what_is_counted_by_hand() -> None:
    taus, lengths = taus_of_texts(found(), ["deletion rate", "shuffle"])
    assert lengths.tolist() == [3, 9, 4, 8]
    np.testing.assert_allclose(taus[:, 0], [1, -1, np.nan, (4 - 2) / 6])


def test_the_table_leaves_out_learners_and_halves_by_length() -> None:
    table = per_text_table([found()])
    assert table.columns == ("corpus", "documents", "deletion rate – shuffle", "all pairs")
    whole, shorter, longer = table.rows
    assert [row[0] for row in table.rows] == ["Corpus", "Corpus, shorter", "Corpus, longer"]
    assert [row[1] for row in table.rows] == ["4", "2", "2"]
    assert whole[2].startswith("0.11 [")  # the mean of three
    assert shorter[2].startswith("1.00 [")  # of the first and the third, of which one is known
    assert longer[2].startswith("-0.33 [")
