"""The code of `docs/tables.md` below its table, on other tables and models: real ones where a folder has them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pandas = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

PAGE = Path(__file__).parent.parent / "docs" / "tables.md"
ADULT = "age work weight degree years family job relation race sex gains losses hours country income".split()
PENGUINS = "species island bill_length_mm bill_depth_mm flipper_length_mm body_mass_g sex year".split()


def real(name: str) -> tuple[Any, Any]:
    """A table and what is to be predicted, of a folder with `adult.csv.gz` and `penguins.csv.gz`."""
    folder = os.environ.get("APPORTION_TABLES")
    if folder is None:
        pytest.skip("APPORTION_TABLES names no folder with adult.csv.gz and penguins.csv.gz")
    path = Path(folder) / f"{name}.csv.gz"
    if name == "adult":
        table = pandas.read_csv(path, names=ADULT, skipinitialspace=True, na_values="?").iloc[:3000]
        return table.drop(columns="income"), table.income.to_numpy()
    table = pandas.read_csv(path)[PENGUINS]
    return table.drop(columns="species"), table.species.to_numpy()


def small() -> tuple[Any, Any]:
    draw = np.random.default_rng(1)
    table = pandas.DataFrame({"size": draw.normal(size=240), "colour": draw.choice(["red", "blue"], 240)})
    answer = np.where((table["size"] > 0) ^ (table.colour == "red"), "a", "b")
    table.loc[::9, "size"] = np.nan
    table.loc[::7, "colour"] = None
    return table, answer


def run_page(table: Any, answer: Any, trees: str | None = None) -> dict[str, Any]:
    """What the blocks between the table and the command line make."""
    text = PAGE.read_text(encoding="utf-8").partition("## On the command line")[0]
    made: dict[str, Any] = {"table": table, "answer": answer}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[1:]:
        if trees is not None:
            block = re.sub(r"HistGradientBoostingClassifier\(.*\)", trees, block)
        exec(block, made)
    return made


@pytest.mark.parametrize(
    "trees", [None, "__import__('lightgbm').LGBMClassifier(n_estimators=20, verbose=-1)"]
)
@pytest.mark.parametrize("data", ["small", "penguins", "adult"])
def test_the_page_runs_and_its_values_add_up(data: str, trees: str | None) -> None:
    if trees is not None:
        pytest.importorskip("lightgbm")
    table, answer = small() if data == "small" else real(data)
    made = run_page(table, answer, trees)
    explanation, fitted = made["explanation"], made["fitted"]
    assert type(explanation.method).__name__ == "TreeSHAP"
    assert explanation.features[0].columns == tuple(table.columns)
    assert float(explanation.remainder.abs().max()) < 1e-6
    chances = fitted.predict_proba(table.iloc[[3]])[0]
    assert str(explanation.label()) == str(fitted.classes_[chances.argmax()])
    of_scores = explanation.output[0].double()
    assert of_scores.softmax(0).tolist() == pytest.approx(chances.tolist(), abs=1e-6) or (
        of_scores.sigmoid().tolist() == pytest.approx(chances.tolist(), abs=1e-6)
    )
    assert len(made["overview"]) == min(200, len(table))
