"""What a page shows of explanations, as plain data for JSON: a section for each input, in it a card for each
method. `page_data` has the types."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from apportion.core.features import Features, TextFeatures, writable
from apportion.display import page_data
from apportion.display.html import PHOTO, data_uri
from apportion.display.page_data import Card, Chart, LedgerRow, Piece, Section, Shown, TestScore
from apportion.display.views import BarsView, HeatView, PairsView, TextView, View, in_what, view
from apportion.results.result import Result, decision
from apportion.results.scores import Scores
from apportion.results.words import describe_method

TOP = 8  # features in a card's table
ROWS = 10  # of a ledger
NAMED = ("model", "input", "panels")  # notes that are shown at a place of their own

Tests = Sequence[Scores]


def sections(found: Sequence[Result], tests: Sequence[Tests] | None = None) -> list[Section]:
    """One section for each input; explanations of the same input (equal features and equal scores) share one,
    whatever their order. `tests` are the scores of each explanation, one value a sample.

    >>> import apportion as ap
    >>> e = ap.Saliency()(torch.nn.Linear(2, 2), torch.ones(1, 2))
    >>> [card["method"] for card in sections([e, e])[0]["cards"]]
    ['Saliency', 'Saliency']
    """
    given: Sequence[Tests] = [()] * len(found) if tests is None else tests
    members = [(e, i, scores) for e, scores in zip(found, given, strict=True) for i in range(len(e))]
    return [_section(group) for group in _by_input(members)]


Member = tuple[Result, int, Tests]


def _by_input(members: Iterable[Member]) -> list[list[Member]]:
    groups: list[list[Member]] = []
    for member in members:
        home = next((group for group in groups if _same_input(group, member)), None)
        if home is None:
            groups.append(home := [])
        home.append(member)
    return groups


def _same_input(group: list[Member], member: Member) -> bool:
    (one, i, _), (other, j, _) = group[0], member
    # Two samples of one batch are two inputs, even if equal, but for the classes of one input.
    classes = other.notes.get("classes", 1)
    if any(e is other and k // classes != j // classes for e, k, _ in group):
        return False
    scores = one.output[i].double().cpu(), other.output[j].double().cpu()
    if scores[0].shape != scores[1].shape or not torch.allclose(*scores, rtol=1e-4, atol=1e-5):
        return False
    # And not over the features of the input.
    over_prototypes = "panels" in one.notes or "panels" in other.notes
    same_features = over_prototypes or _features(one, i) == _features(other, j)
    return same_features and one.notes.get("input") == other.notes.get("input")


def _features(explanation: Result, index: int) -> Features | None:
    return None if explanation.features is None else explanation.features[index]


def _section(group: Sequence[Member]) -> Section:
    explanation, index, _ = group[0]
    features = _features(explanation, index)
    shown = [view(e, i) for e, i, _ in group]
    heat = next((s for s in shown if isinstance(s, HeatView) and s.photo is not None), None)
    panels = next((e.notes["panels"] for e, _, _ in group if "panels" in e.notes), None)
    photo = panels and panels["picture"]
    if heat is not None and heat.photo is not None:
        photo = data_uri(heat.photo, PHOTO)
    made = decision(explanation, index)
    text = writable(features.text) if isinstance(features, TextFeatures) else None
    return {
        "title": str(explanation.notes.get("input", text or f"sample {index}")),
        "text": text,
        "model": explanation.notes.get("model"),
        "photo": photo,
        "note": "" if heat is None else heat.note,
        "label": made.label,
        "classes": made.classes,
        "ranking": [(label, _seven_digits(score), chance) for label, score, chance in made.ranking],
        "cards": [_card(member, s) for member, s in zip(group, shown, strict=True)],
    }


def _card(member: Member, shown: View) -> Card:
    explanation, index, tests = member
    total, apportioned = explanation.total, float(explanation.apportioned[index])
    ledger = getattr(explanation, "ledger", None)
    # The curves of a test are means over its samples: they are those of this one if it is alone.
    drawn = next((s.notes for s in tests if "curves" in s.notes), None) if len(explanation) == 1 else None
    return {
        "method": describe_method(explanation.method),
        "repr": repr(explanation.method),
        "target": explanation.label(index),
        "balance": explanation.account(index),
        "share": None if total is None else _share(float(total[index]), apportioned),
        "unit": in_what(explanation.unit),
        "cost": str(explanation.cost),
        "warnings": list(explanation.warnings),
        "notes": {key: v for key, v in explanation.notes.items() if key not in NAMED},
        "shown": _view_as_data(shown),
        "panels": explanation.notes.get("panels", {}).get("rows", []),
        "top": [(name, _seven_digits(value)) for name, value in shown.top(TOP)],
        "ledger": None if ledger is None else _ledger_as_data(ledger),
        "tests": [test_as_data(scores, index) for scores in tests],
        "chart": None if drawn is None else chart(drawn["curves"], drawn.get("reading", "")),
    }


def _view_as_data(shown: View) -> Shown:
    if isinstance(shown, TextView):
        pieces: list[Piece] = [
            (p.text, _seven_digits(p.value), True)
            if p.special and p.value is not None
            else (p.text, None if p.value is None else _seven_digits(p.value))
            for p in shown.pieces
        ]
        return {"kind": "words", "pieces": pieces}
    if isinstance(shown, BarsView):
        return {
            "kind": "bars",
            "names": list(shown.names),
            "values": [_seven_digits(v) for v in shown.values],
        }
    if isinstance(shown, PairsView):
        return {
            "kind": "pairs",
            "names": list(shown.names),
            "alone": [_seven_digits(v) for v in shown.alone],
            "values": [
                [None if np.isnan(v) else _seven_digits(v) for v in row] for row in shown.values.tolist()
            ],
            "text": shown.text,
        }
    cells, (height, width) = shown.drawn, shown.shape
    return {
        "kind": "heat",
        "rows": cells.shape[0],
        "columns": cells.shape[1],
        "cells": base64.b64encode(cells.astype("<f4").tobytes()).decode(),
        "scale": shown.scale,
        "width": width,
        "height": height,
        "legend": shown.legend,
        "pixels_of": shown.pixels_of,
        "size": shown.size or (width, height),
        "frame": shown.frame,
    }


def test_as_data(scores: Scores, index: int) -> TestScore:
    """What a test says of one sample."""
    value = float(scores.values[index])
    return {
        "test": scores.test,
        "value": None if np.isnan(value) else value,
        "direction": scores.direction,
        "beside": scores.notes.get("beside", {}),
    }


def chart(curves: Mapping[str, Mapping[str, list[float]]], reading: str) -> Chart:
    """The curves of a test of hidden features (`Scores.notes["curves"]`), and what it read, for drawing."""
    names = {"morf": "most relevant first", "lerf": "least relevant first"}
    return {
        "title": "",
        "x": "share hidden",
        "y": "score" if reading == "the score" or reading.endswith("of a regression") else "probability",
        "curves": [
            {
                "name": names[way],
                "x": list(map(_seven_digits, c["share"])),
                "y": list(map(_seven_digits, c["value"])),
            }
            for way, c in curves.items()
        ],
    }


def _ledger_as_data(ledger: Any) -> page_data.Ledger:
    rows: list[LedgerRow] = [
        {
            "name": " · ".join(filter(None, (row.module, row.operation))),
            "rule": row.rule,
            "bias": _seven_digits(row.bias),
            "stabiliser": _seven_digits(row.stabiliser),
            "unruled": _seven_digits(row.unruled),
            "softmax": _seven_digits(row.softmax),
        }
        for row in ledger.largest(ROWS)
        if row.bias or row.stabiliser or row.unruled or row.softmax
    ]
    return {"rows": rows, "left_out": max(0, len(ledger) - ROWS)}


def _share(total: float, apportioned: float) -> float | None:
    """How much of |apportioned| + |remainder| is apportioned, for the bar under the balance."""
    whole = abs(apportioned) + abs(total - apportioned)
    return abs(apportioned) / whole if whole else None


def _seven_digits(value: float) -> float:
    """Seven digits: what a float32 holds."""
    return float(f"{value:.7g}")
