"""What a study says, as tables for terminal and Markdown, and as one HTML page with curves and agreement."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from apportion.core.files import write_whole
from apportion.display.html import shell, versions
from apportion.display.page_data import Chart, Curve, Matrix, Table
from apportion.display.page_data import Study as StudyPage
from apportion.errors import InputError
from apportion.results.agreement import krippendorff_alpha
from apportion.results.grid import TextTable
from apportion.results.statistics import band_of_mean
from apportion.study.comparison import GRID, Outcome, mean_or_dash, ratings
from apportion.study.config import Study
from apportion.study.tables import read_tables, write_tables

EXTRA = "page.json"  # what the page has beyond the tables


def write(study: Study, outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
    """Write tables, curves and agreement of the outcomes so far into the folder."""
    settings = study.text
    extra = {
        "about": f"{', '.join(study.models)} · {study.samples} inputs of each data set · seed {study.seed}",
        "charts": [_chart(one) for one in outcomes if one.curves],
        "matrices": [matrix for one in outcomes if (matrix := _agreement(one)) is not None],
        "settings": settings,
    }
    write_whole(folder / EXTRA, json.dumps(extra, ensure_ascii=False, allow_nan=False).encode())
    return [*write_tables(folder, study.title, tables(outcomes)), write_page(folder, folder / "report.html")]


def write_page(folder: Path, path: Path) -> Path:
    """One self-contained HTML page of the study in this folder, whichever study wrote it."""
    title, found = read_tables(folder)
    data = StudyPage(
        kind="study",
        title=title,
        about="",
        tables=[_as_data(table) for table in found],
        charts=[],
        matrices=[],
        settings="",
        versions=versions(),
    )
    if (folder / EXTRA).is_file():
        try:
            data |= json.loads((folder / EXTRA).read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{folder / EXTRA} is not what a study wrote ({error})") from None
    plain = [table.markdown() for table in found]
    return write_whole(path, shell(data, title, plain).encode())


def _as_data(table: TextTable) -> Table:
    return {
        "title": table.title,
        "columns": list(table.columns),
        "rows": [list(row) for row in table.rows],
        "note": " ".join(table.notes),
        "references": list(table.references),
        "best": [(row, column) for row, column in table.best],
    }


def tables(outcomes: Sequence[Outcome]) -> list[TextTable]:
    """The scores and the ranks of each outcome, and whether the tests and the data agree."""
    made = []
    for one in outcomes:
        made += [_scores(one), _ranks(one)]
    return [*made, _tests_agree(outcomes), *([_data_agree(outcomes)] if len(outcomes) > 1 else [])]


def _scores(one: Outcome) -> TextTable:
    found = one.table.grid(f"{one.model} on {one.data}")
    notes = [f"Mean over {one.samples} inputs with its 95 % bootstrap interval; ↑ higher is better, ↓ lower."]
    notes += ["Bold: the best method, and those not clearly worse (paired, Holm-corrected p ≥ 0.05)."] * bool(
        found.best
    )
    notes += [f"Left out: {name}: {why}" for name, why in one.left_out.items()]
    notes += [note.capitalize() for note in found.notes if note.startswith("not applicable")]
    notes += [f"Note: {warning}." for warning in one.table.warnings]
    return replace(found, notes=notes)


def _ranks(one: Outcome) -> TextTable:
    ranks = {test: one.table.ranks(test) for test in one.table.tests}
    rows = [[m, *(_rank(ranks[test][m]) for test in one.table.tests)] for m in one.table.methods]
    return TextTable(
        f"Ranks: {one.model} on {one.data}", ["", *one.table.tests], rows, ["1 is best; ties share theirs."]
    )


def _rank(rank: float) -> str:
    return "–" if np.isnan(rank) else f"{rank:g}"


def _tests_agree(outcomes: Sequence[Outcome]) -> TextTable:
    rows = [[f"{o.model} on {o.data}", mean_or_dash(o.table.agreement()[2])] for o in outcomes]
    note = "Krippendorff's α of the ranks that the tests give the methods: 1 the same, 0 as by chance."
    return TextTable("Do the tests agree?", ["", "α"], rows, [note])


def _data_agree(outcomes: Sequence[Outcome]) -> TextTable:
    rows = []
    for test in (t for t in outcomes[0].table.tests if all(t in one.table.tests for one in outcomes)):
        ranks = ratings(outcomes, test)
        known = ranks.shape[1] > 1 and not np.isnan(ranks).any()
        rows.append([test, mean_or_dash(krippendorff_alpha(ranks) if known else float("nan"))])
    note = "Krippendorff's α of the ranks that the models and data sets give the methods, by test."
    return TextTable("Do the models and data agree?", ["", "α"], rows, [note])


def _chart(one: Outcome) -> Chart:
    curves: list[Curve] = []
    for method, values in one.curves.items():
        low, high = band_of_mean(values)
        curve = Curve(name=method, x=GRID.round(3).tolist(), y=values.mean(0).round(5).tolist())
        if method in one.table.references:
            curve["reference"] = True
        else:
            curve |= {"low": low.round(5).tolist(), "high": high.round(5).tolist()}
        curves.append(curve)
    return {
        "title": f"{one.model} on {one.data}: {one.curve}, the most relevant hidden first",
        "x": "share hidden",
        "y": "probability" if all(v.min() >= 0 and v.max() <= 1 for v in one.curves.values()) else "score",
        "curves": curves,
    }


def _agreement(one: Outcome) -> Matrix | None:
    names, tau, _ = one.table.agreement()
    if len(names) < 2 or len(one.table.methods) < 2:
        return None
    values = [[None if np.isnan(v) else round(float(v), 3) for v in row] for row in tau]
    title = f"{one.model} on {one.data}: Kendall's τ of the tests"
    return {"title": title, "names": names, "values": values}
