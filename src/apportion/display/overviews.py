"""Explanations of rows summed up, as one self-contained HTML page: a part for each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from apportion.display import page_data
from apportion.display.html import shell, versions
from apportion.display.page_data import ColumnMean, OverviewColumn, OverviewPart
from apportion.display.pictures.overviews import shares_of
from apportion.results.overview import SURE, Column, Overview

DRAWN = 400  # rows that have a point


def overview_page(parts: Sequence[Overview]) -> str:
    """One HTML page."""
    data = page_data.Overview(
        kind="overview",
        title=parts[0].title if len(parts) == 1 else " · ".join(dict.fromkeys(part.method for part in parts)),
        parts=[_part(part) for part in parts],
        versions=versions(),
    )
    return shell(data, data["title"], [repr(part) for part in parts])


def _part(of: Overview) -> OverviewPart:
    many = len(of)
    rows = np.arange(many)
    if many > DRAWN:
        rows = np.sort(np.random.default_rng(0).choice(many, DRAWN, replace=False))
    sure = {(d.column, d.cohort) for d in of.differences if d.corrected < SURE}
    if len(of.cohort_names) == 2:
        sure |= {(column, of.cohort_names[1]) for column, _ in sure}
    drawn = [of.explanations[i] for i in rows]
    return {
        "title": of.title,
        "unit": of.unit,
        "told": of.told,
        "drawn": f"{DRAWN} of {many} rows are drawn, by lot" if many > DRAWN else "",
        "columns": [_column(of, one, rows) for one in of.features],
        "left": None if of.remainder is None else _seven(float(np.abs(of.remainder).mean())),
        "rows": [e.input_name or f"row {i}" for i, e in zip(rows, drawn, strict=True)],
        "starts": [_first(e.start) for e in drawn],
        "scores": [_first(e.score) for e in drawn],
        "left_over": [None] * len(rows) if of.remainder is None else [_seven(v) for v in of.remainder[rows]],
        "by": of.by,
        "cohorts": [
            {
                "name": name,
                "rows": (of.cohorts or ()).count(name),
                "means": [_mean(one) for one in of.cohort(name)],
                "sure": [(one.name, name) in sure for one in of.features],
            }
            for name in of.cohort_names
        ],
    }


def _column(of: Overview, one: Column, rows: np.ndarray) -> OverviewColumn:
    values = [_seven(v) for v in of.values[rows, of.place(one.name)]]
    if of.cells is None:
        return {
            "name": one.name, "mean": _mean(one), "values": values, "cells": None, "shares": None, "partner": None,
            "why": "",
        }  # fmt: skip
    cells, (partner, why) = of.of(one.name), of.partner(one.name)
    shares = shares_of(cells)
    shown: list[float | None] | list[str]
    if isinstance(cells, tuple):
        shown = [cells[i] for i in rows]
    else:
        shown = [None if np.isnan(v) else _seven(v) for v in cells[rows]]
    return {
        "name": one.name,
        "mean": _mean(one),
        "values": values,
        "cells": shown,
        "shares": None
        if shares is None
        else [None if np.isnan(s) else round(float(s), 3) for s in shares[rows]],
        "partner": partner,
        "why": why,
    }


def _first(of: Tensor | None) -> float | None:
    return None if of is None else _seven(float(of[0]))


def _mean(one: Column) -> ColumnMean:
    return {"size": _seven(one.size), "low": _seven(one.low), "high": _seven(one.high)}


def _seven(value: float) -> float:
    """Seven digits: what a float32 holds."""
    return float(f"{value:.7g}")
