"""Explanations as one self-contained HTML page, or as a fragment for a notebook: no request leaves it."""

from __future__ import annotations

import base64
import hashlib
import io
import platform
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

import apportion
from apportion.explanation import Explanation
from apportion.features import Features, TextFeatures
from apportion.views import Bars, Heat, View, Words, view
from apportion.wording import Decision, balance, decision, number, signed, target_name

if TYPE_CHECKING:
    from jinja2 import Environment

TOP = 6  # features in a card's table
BARS = 12
IN_A_NOTEBOOK = 4  # samples that a fragment shows
PHOTO = 512  # the most pixels a side of an embedded photo
KINDS = {Words: "words", Heat: "heat", Bars: "bars"}


def page(explanations: Sequence[Explanation]) -> str:
    """One HTML page: a section for each input, and in it a card for each method, side by side.

    Explanations of the same input (equal features and equal scores) share a section, whatever their order.

    >>> import apportion as ap
    >>> e = ap.Saliency()(torch.nn.Linear(2, 2), torch.ones(1, 2))
    >>> page([e]).startswith("<!doctype html>"), "://" in page([e])
    (True, False)
    """
    sections = [_section(group) for group in _by_input(explanations)]
    script = _file("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _environment().get_template("page.html").render(
        sections=sections,
        title=" · ".join(dict.fromkeys(section["title"] for section in sections))[:120],
        heat=any(card["kind"] == "heat" for section in sections for card in section["cards"]),
        style=_file("style.css"),
        script=script,
        script_hash=digest,
        versions=versions(),
    )  # fmt: skip


def fragment(explanation: Explanation) -> str:
    """The cards alone, with their style: what a notebook shows."""
    sections = [_section([(explanation, index)]) for index in range(min(len(explanation), IN_A_NOTEBOOK))]
    left_out = len(explanation) - len(sections)
    return _environment().get_template("fragment.html").render(
        sections=sections, left_out=left_out, style=_file("style.css")
    )  # fmt: skip


def summary(explanation: Explanation, index: int = 0) -> dict[str, Any]:
    """One sample as plain data for JSON: decision, sum, and named values (of a picture: of its regions)."""
    shown = view(explanation, index)
    made = decision(explanation, index)
    target = explanation.target
    remainder = explanation.remainder
    return {
        **{key: value for key, value in explanation.notes.items() if key in ("model", "input")},
        "method": repr(explanation.method),
        "prediction": {"label": made.label, "score": made.score, "probability": made.probability},
        "classes": [{"label": label, "score": score, "probability": p} for label, score, p in made.ranking],
        "target": target if isinstance(target, str) else int(target[index]),
        "target_label": target_name(explanation, index),
        "total": None if explanation.total is None else float(explanation.total[index]),
        "apportioned": float(explanation.apportioned[index]),
        "remainder": None if remainder is None else float(remainder[index]),
        "kind": KINDS[type(shown)],
        "features": _listed(shown),
        "warnings": list(explanation.warnings),
        "cost": vars(explanation.cost),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    return {
        "apportion": apportion.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _listed(shown: View) -> list[dict[str, Any]]:
    if isinstance(shown, Words):
        return [
            {"name": piece.text, "value": piece.value, **({"special": True} if piece.special else {})}
            for piece in shown.pieces
            if piece.value is not None
        ]
    pairs = zip(shown.names, shown.values, strict=True) if isinstance(shown, Bars) else shown.top(10**6)
    return [{"name": name, "value": value} for name, value in pairs]


# ---- what the templates show ----


def _by_input(explanations: Iterable[Explanation]) -> list[list[tuple[Explanation, int]]]:
    groups: list[list[tuple[Explanation, int]]] = []
    for explanation in explanations:
        for index in range(len(explanation)):
            home = next((group for group in groups if _same_input(group[0], (explanation, index))), None)
            if home is None:
                groups.append(home := [])
            home.append((explanation, index))
    return groups


def _same_input(one: tuple[Explanation, int], other: tuple[Explanation, int]) -> bool:
    if one[0] is other[0]:  # two samples of one batch are two inputs, even if they are equal
        return False
    scores = [explanation.output[index].double().cpu() for explanation, index in (one, other)]
    if scores[0].shape != scores[1].shape or not torch.allclose(scores[0], scores[1], rtol=1e-4, atol=1e-5):
        return False
    return _features(*one) == _features(*other) and one[0].notes.get("input") == other[0].notes.get("input")


def _features(explanation: Explanation, index: int) -> Features | None:
    return None if explanation.features is None else explanation.features[index]


def _section(group: Sequence[tuple[Explanation, int]]) -> dict[str, Any]:
    explanation, index = group[0]
    features, shown = _features(explanation, index), view(explanation, index)
    notes = explanation.notes
    cards = [_card(*member) for member in group]
    made = decision(explanation, index)
    photo = shown.photo if isinstance(shown, Heat) else None
    text = features.text if isinstance(features, TextFeatures) else None
    return {
        "title": str(notes.get("input", text or f"sample {index}")),
        "text": text,
        "model": notes.get("model"),
        "decision": made,
        "ranking": _ranking(made),
        "photo": None if photo is None else _jpeg(_at_most(photo)),
        "note": shown.note if isinstance(shown, Heat) else "",
        "cards": cards,
    }


def _ranking(made: Decision) -> list[dict[str, Any]]:
    return [
        {
            "label": label,
            "score": number(score),
            "share": chance,
            "chance": None if chance is None else f"{chance:.1%}",
        }
        for label, score, chance in made.ranking
    ]


def _card(explanation: Explanation, index: int) -> dict[str, Any]:
    shown = view(explanation, index)
    top = shown.top(TOP)
    largest = abs(top[0][1]) if top else 1.0
    total, apportioned = explanation.total, float(explanation.apportioned[index])
    card = {
        "kind": KINDS[type(shown)],
        "method": type(explanation.method).__name__,
        "repr": repr(explanation.method),
        "target": target_name(explanation, index),
        "balance": balance(explanation, index),
        "share": None if total is None else _share(float(total[index]), apportioned),
        "cost": str(explanation.cost),
        "warnings": explanation.warnings,
        "notes": {key: value for key, value in explanation.notes.items() if key not in ("model", "input")},
        "top": [(name, signed(value, largest), value >= 0) for name, value in top],
        "strongest": "; ".join(f"{name} {signed(value, largest)}" for name, value in top[:3]) or "all zero",
    }
    if isinstance(shown, Heat):
        height, width = shown.shape
        return card | {
            "heat": _png(_overlay(shown)),
            "photo": None if shown.photo is None else _jpeg(_quiet(_at_most(shown.photo))),
            "width": width,
            "height": height,
            "clip": shown.legend,
        }
    if isinstance(shown, Words):
        return card | {"pieces": [_piece(piece, shown.scale) for piece in shown.pieces]}
    left_out = max(0, len(shown.names) - BARS)
    rows = [
        {
            "name": name,
            "value": signed(value, shown.scale),
            "for": value >= 0,
            "length": abs(value) / shown.scale,
        }
        for name, value in shown.top(BARS)
    ]
    return card | {"bars": rows, "left_out": left_out}


def _piece(piece: Any, scale: float) -> dict[str, Any]:
    if piece.value is None:
        return {"text": piece.text, "value": None}
    return {
        "text": piece.text,
        "value": signed(piece.value, scale),
        "for": piece.value >= 0,
        "strength": f"{abs(piece.value) / scale:.3f}",
        "special": piece.special,
    }


def _share(total: float, apportioned: float) -> float | None:
    """How much of |total| + |remainder| is apportioned, for the bar under the balance."""
    whole = abs(apportioned) + abs(total - apportioned)
    return abs(apportioned) / whole if whole else None


# ---- pictures in the page ----


def _overlay(shown: Heat) -> npt.NDArray[np.uint8]:
    from apportion.pictures import coloured

    return coloured(shown)


def _quiet(photo: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    from apportion.pictures import quiet

    return quiet(photo)


def _at_most(photo: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    image = Image.fromarray(photo)
    image.thumbnail((PHOTO, PHOTO))
    return np.asarray(image)


def _jpeg(pixels: npt.NDArray[np.uint8]) -> str:
    return _data(pixels, "jpeg", quality=90)


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    return _data(pixels, "png", optimize=True)


def _data(pixels: npt.NDArray[np.uint8], kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


# ---- templates ----


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("apportion"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _file(name: str) -> Any:
    """Style and script go into the page as they are."""
    from importlib.resources import files

    from markupsafe import Markup

    return Markup((files("apportion") / "templates" / name).read_text(encoding="utf-8"))
