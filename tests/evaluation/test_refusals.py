"""A test that cannot take a method costs one cell, and one that can take no method its column."""

import json

import pytest
import torch

import apportion as ap
from apportion.errors import InputError
from apportion.results.scores import Scores
from apportion.results.table import join_tables
from apportion.study.comparison import run
from apportion.study.config import read_study
from apportion.study.page import tables
from apportion.study.store import Store

torch.manual_seed(0)
TABLE, HEAD = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 2)
IDS = torch.randint(0, 9, (3, 3))
WHY = "hides tokens and does not see them"


def model(ids):
    return HEAD(TABLE(ids).sum(1).tanh())


def test_a_test_that_cannot_take_a_method_costs_its_cell():
    methods, tests = ["saliency", "occlusion"], ["max-sensitivity", "pixel-flipping", "roar"]
    table = ap.compare(model, IDS, methods, tests, target=0)
    alone = ap.compare(model, IDS, methods, ["pixel-flipping"], target=0)
    for row in table.scores:
        assert torch.equal(
            table.scores[row]["pixel-flipping"].values, alone.scores[row]["pixel-flipping"].values
        )
    refused = table.scores["occlusion"]["max-sensitivity"]
    assert WHY in refused.refusal
    assert Scores.from_dict(refused.to_dict()).refusal == refused.refusal
    assert table.scores["saliency"]["max-sensitivity"].n == 3
    assert table.tests == ("max-sensitivity", "pixel-flipping")
    assert "needs the true classes" in table.left_out["roar"]
    said = " ".join(repr(table).split())
    assert "not applicable: max-sensitivity to occlusion: MaxSensitivity perturbs" in said
    assert "roar can take none of the methods: ROAR trains, so it needs the true classes" in said
    assert table.best("max-sensitivity") == "saliency"
    table.agreement()
    json.dumps(table.to_dict(), allow_nan=False)
    joined = join_tables([table, table])
    assert joined.tests == table.tests
    assert len(joined.scores["occlusion"]["max-sensitivity"]) == 6


def test_tests_of_which_none_can_be_run_are_refused():
    with pytest.raises(InputError, match=r"ROAR trains, so it needs the true classes[^;]*$"):
        ap.compare(model, IDS, ["saliency"], ["roar"], target=0)
    with pytest.raises(InputError, match="the map has shape"):
        ap.compare(model, IDS, {"a": torch.ones(3, 3), "b": torch.ones(3, 2)}, target=0)


def study(tmp_path, **changes):
    asked = {"models": "sentiment", "data": "reviews.txt", "methods": "[ig, occlusion]", "samples": 2}
    (tmp_path / "reviews.txt").write_text("a fine film\na dull film\nnot a good movie\n", encoding="utf-8")
    path = tmp_path / "study.yaml"
    path.write_text(
        "".join(f"{key}: {value}\n" for key, value in {**asked, **changes}.items()), encoding="utf-8"
    )
    return read_study(path)


def test_a_study_leaves_out_a_cell_or_a_column(tmp_path):
    asked = study(tmp_path, tests="[pixel-flipping, max-sensitivity, roar]")
    for _ in range(2):  # computed, and from the store
        (found,) = run(asked, Store(tmp_path / "store"))
        assert found.left_out == {}
        assert found.table.methods == ("ig", "occlusion")
        assert found.table.tests == ("pixel-flipping", "max-sensitivity")
        assert WHY in found.table.scores["occlusion"]["max-sensitivity"].refusal
        notes = " ".join(note for table in tables([found]) for note in table.notes)
        assert "Not applicable: max-sensitivity to occlusion" in notes
        assert "roar can take none of the methods" in notes
    with pytest.raises(InputError, match="no test can be run for sentiment on reviews"):
        list(run(study(tmp_path, tests="[roar]"), Store(tmp_path / "store")))
