"""What Python hands to the page has the types that the page was written for."""

from __future__ import annotations

import json
import runpy
import threading
from pathlib import Path
from typing import Any, get_type_hints, is_typeddict

import pytest
import torch

import apportion as ap
import small_language_models
from apportion.core.registry import described_methods
from apportion.display import page_data, sheet
from apportion.display.page import page
from apportion.results.scores import Scores
from apportion.serve import messages
from apportion.serve._jobs import Models, classes, explain
from apportion.serve.request import Ask, Given
from surfaces import answer, data_of, means, over_prototypes, overview, pairs, picture, row, rows, words
from typed import fits

ROOT = Path(__file__).parents[2]


def test_the_types_of_the_page_are_those_of_python():
    written = runpy.run_path(str(ROOT / "frontend" / "write_types.py"))["typescript"]()
    assert written == (ROOT / "frontend/src/data.ts").read_text(encoding="utf-8"), "run make page"


def test_the_page_says_where_its_types_come_from():
    head = (ROOT / "frontend/src/data.ts").read_text(encoding="utf-8").split("export")[0]
    for name in ("display/page_data.py", "serve/messages.py", "serve/request.py"):
        assert f"apportion/{name}" in head
        assert (ROOT / "src/apportion" / name).is_file()


def all_fields(module: Any) -> set[str]:
    return {
        f"{name}.{field}"
        for name, made in vars(module).items()
        if is_typeddict(made) and made.__module__ == module.__name__
        for field in get_type_hints(made)
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a small study."""
    pytest.importorskip("yaml")
    from apportion.study import comparison
    from apportion.study.config import read_study
    from apportion.study.page import write
    from apportion.study.store import Store

    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(
        "title: Short\nmodels: sentiment\ndata:\n  - name: short\n    texts: [a dull film, warm and funny]\n"
        "methods: [lrp, inputxgradient]\ntests: [pixel-flipping, deletion-rate]\nsamples: 2\n"
    )
    made = read_study(folder / "study.yaml")
    write(made, list(comparison.run(made, Store(folder / "out"))), folder / "out")
    return (folder / "out" / "report.html").read_text(encoding="utf-8")


def test_all_that_a_page_gets_is_typed_and_all_that_is_typed_is_sent(study: str):
    model = torch.nn.Linear(3, 2)
    ledger = ap.LRP("epsilon", ledger=True)(model, torch.ones(1, 3), target=1)
    curves = {"morf": {"share": [0.0, 1.0], "value": [0.9, 0.1]}}
    scores = [
        Scores([0.25], "DeletionRate()", False, notes={"curves": curves}),
        Scores([float("nan")], "T()", None, "no reason"),
    ]
    found = [words(), picture(), row(), pairs(), over_prototypes(), ledger]
    seen: set[str] = set()
    for text in (
        page(found, [scores, *[()] * 5]),
        sheet.sheet_page(rows()),
        sheet.sheet_page(means()),
        page([answer()]),
        overview().to_html(),
        study,
    ):
        fits(data_of(text), page_data.Page, seen)
    assert all_fields(page_data) - seen == {"Card.asked", "Workbench.kind"}  # those of the workbench


def test_all_that_the_server_says_is_typed(tmp_path):
    lm = str(small_language_models.saved(small_language_models.causal(), tmp_path))
    models, said, seen = Models([lm]), [], set()
    explain(
        Ask(model=lm, text="The capital", answer=" is", methods=["lrp"]),
        models,
        said.append,
        threading.Event(),
    )
    asks = {"text": "a funny movie", "methods": ["lrp", "nonsense"], "tests": True}
    explain(Ask(model="sentiment", **asks), models, said.append, threading.Event())
    fits(json.loads(json.dumps(said)), list[messages.Said], seen)
    for name in ("sentiment", "breast-cancer", lm):
        fits(json.loads(json.dumps(models.described(name))), messages.Loaded, seen)
    fits(models.listed(), list[messages.Model], seen)
    fits(described_methods(), list[messages.Method], seen)
    ranked = classes(Given(model="sentiment", text="a funny movie"), models)
    fits(json.loads(json.dumps(ranked)), messages.Classes, seen)
    assert "Card.asked" in seen
    missing = {field.split(".")[0] for field in all_fields(messages) - seen}
    assert missing <= {"Waiting", "Catalog"}  # which the server makes beside them
