"""Explanations as one self-contained HTML page, as a frame for a notebook, or as JSON: no request leaves them.

The page is the bundle of `frontend/`, with its data beside it; the workbench is the same bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apportion.display.answers import answer_of, answer_page, part_of, rows_of
from apportion.display.cards import Tests, sections
from apportion.display.html import shell, versions
from apportion.display.notebook import answer_card, cards
from apportion.display.page_data import Report
from apportion.display.views import BarsView, HeatView, PairsView, TextView, View, view
from apportion.results.explanation import Explanation
from apportion.results.result import Result, decision

KINDS = {TextView: "words", HeatView: "heat", BarsView: "bars", PairsView: "pairs"}


def page(
    explanations: Sequence[Result], tests: Sequence[Tests] | None = None, same_scale: bool = False
) -> str:
    """One HTML page: a section for each input, and in it a card for each method, side by side.

    `tests` are the scores of each explanation, shown beside its picture; with `same_scale` all methods of an
    input begin with one colour scale.

    >>> import apportion as ap
    >>> e = ap.Saliency()(torch.nn.Linear(2, 2), torch.ones(1, 2))
    >>> page([e]).startswith("<!doctype html>")
    True
    """
    answers = [e for e in explanations if isinstance(e, Explanation) and answer_of(e) is not None]
    if answers and len(answers) == len(explanations):
        return _page_of_answers(answers, tests)
    found = sections(explanations, tests)
    data = Report(kind="report", sections=found, versions=versions(), same_scale=same_scale)
    plain = [
        f"{e.notes.get('input', f'sample {i}')}: {e.label(i)}: {e.account(i)}"
        for e in explanations
        for i in range(len(e))
    ]
    return shell(data, " · ".join(dict.fromkeys(section["title"] for section in found)), plain)


def _page_of_answers(explanations: Sequence[Explanation], tests: Sequence[Tests] | None) -> str:
    data = answer_page(explanations, tests)
    plain = [f"{e.label(i)}: {e.account(i)}" for e in explanations for i in range(len(e))]
    return shell(data, "".join(data["answer"]).strip(), plain)


def frame(explanation: Result) -> str:
    """What a notebook shows: a card for each of the first samples, and one for an answer of a language model."""
    if isinstance(explanation, Explanation) and answer_of(explanation) is not None:
        return answer_card(explanation)
    return cards(explanation)


def told(explanation: Result, top: int | None = None) -> dict[str, Any]:
    """A result as plain data for JSON: of an answer all of it, of others the first sample; of each list of features
    the `top` largest, or all as they stand."""
    if not isinstance(explanation, Explanation) or answer_of(explanation) is None:
        found = summary(explanation)
        return found if top is None else {**found, "features": _largest(found["features"], top)}
    found = summary_of_answer(explanation)
    if top is not None:
        found["explained"] = [
            {**each, "features": _largest(each["features"], top)} for each in found["explained"]
        ]
    return found


def _largest(listed: list[dict[str, Any]], top: int) -> list[dict[str, Any]]:
    return sorted(listed, key=lambda each: -abs(each["value"]))[:top]


def summary(explanation: Result, index: int = 0) -> dict[str, Any]:
    """One sample as plain data for JSON: decision, sum, and named values (of a picture: of its regions)."""
    shown = view(explanation, index)
    made = decision(explanation, index)
    target = explanation.target
    remainder, left_over = explanation.remainder, explanation.left_over
    return {
        **{key: value for key, value in explanation.notes.items() if key in ("model", "input")},
        "method": repr(explanation.method),
        "prediction": {"label": made.label, "score": made.score, "probability": made.probability},
        "classes": [{"label": label, "score": score, "probability": p} for label, score, p in made.ranking],
        "target": target if isinstance(target, str) else target[index].tolist(),
        "target_label": explanation.label(index),
        "total": None if explanation.total is None else float(explanation.total[index]),
        "apportioned": float(explanation.apportioned[index]),
        "remainder": None if remainder is None else float(remainder[index]),
        "left_over": None if left_over is None else float(left_over[index]),
        "unit": explanation.unit or None,
        "kind": KINDS[type(shown)],
        **({"pixels_of": shown.pixels_of} if isinstance(shown, HeatView) else {}),
        "features": _list_features(shown),
        "warnings": list(explanation.warnings),
        "cost": vars(explanation.cost),
        "versions": versions(),
    }


def summary_of_answer(explanation: Explanation) -> dict[str, Any]:
    """All that is explained of an answer as plain data for JSON: the answer, and for each part its score, its sum, the
    values of the features of the prompt, and apart what went to the template and to the answer so far."""
    noted, told = answer_of(explanation), summary(explanation)
    assert noted is not None
    kept = ("model", "input", "method", "warnings", "cost", "versions")
    return {
        **{key: told[key] for key in kept if key in told},
        "answer": "".join(noted["pieces"]),
        "pieces": list(noted["pieces"]),
        "score": noted["score"],
        "rather_than": noted["rather_than"],
        "unit": noted["unit"],
        "explained": [
            {
                "name": row.name,
                "tokens": list(noted["spans"][part_of(explanation, i)]),
                "score": row.score,
                "total": row.total,
                "apportioned": float(explanation.apportioned[i]),
                "remainder": None if explanation.remainder is None else float(explanation.remainder[i]),
                "left_over": row.left_over,
                "template": row.template,
                "answer_so_far": row.so_far,
                "features": [{"name": name, "value": value} for name, value in row.features],
            }
            for i, row in enumerate(rows_of(explanation))
        ],
    }


def _list_features(shown: View) -> list[dict[str, Any]]:
    if isinstance(shown, TextView):
        return [
            {"name": piece.text, "value": piece.value, **({"special": True} if piece.special else {})}
            for piece in shown.pieces
            if piece.value is not None
        ]
    listed = shown.named if isinstance(shown, BarsView) else shown.top(10**6)
    return [{"name": name, "value": value} for name, value in listed]
