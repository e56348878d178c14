"""What a notebook shows of a result: a small card for each sample, as high as what is in it, without a script.

It is plain markup with styles of its own, so that it is there in notebooks that are not trusted, in what they are
exported to, and in the dark. The page with sliders is `to_html`.
"""

from __future__ import annotations

from html import escape

import numpy as np
import numpy.typing as npt

from apportion.core.features import TextFeatures, writable
from apportion.display.answers import answer_of, answer_page, in_one_line
from apportion.display.html import data_uri, paragraph
from apportion.display.views import AGAINST, FOR, HeatView, PairsView, TextView, View, view
from apportion.results.explanation import Explanation
from apportion.results.result import Result, decision
from apportion.results.words import describe_method, format_number

SAMPLES = 4
TOP = 8  # rows of a table
WORDS = 200  # that are written out; of longer texts a table of the strongest

_EDGE = "border: 1px solid rgba(128, 128, 128, .4); border-radius: 8px"
_CARD = f"max-width: 44rem; margin: .4em 0; padding: .6em .9em; {_EDGE}"
_PICTURE = "display: block; width: min(20rem, 100%); margin: .4em 0; image-rendering: pixelated"
_QUIET = "opacity: .7; font-size: .85em; margin: .35em 0 0"
_WORDS = "line-height: 1.9; white-space: pre-wrap; margin: .4em 0"
_CELL = "text-align: left; padding: 0 .8em 0 0; border: 0; background: none"


def cards(result: Result) -> str:
    """The first samples, one card each.

    >>> import torch, apportion as ap
    >>> "left over" in cards(ap.InputXGradient()(torch.nn.Linear(2, 1), torch.ones(1, 2)))
    True
    """
    shown = [_card(result, i) for i in range(min(len(result), SAMPLES))]
    left_out = len(result) - len(shown)
    more = [paragraph(f"… and {left_out} more; explanation[i] shows one of them")] if left_out else []
    return "".join([*shown, *more])


def answer_card(explanation: Explanation) -> str:
    """One card for the answer of a language model: the prompt in colours and the balance, for its first tokens."""
    noted = answer_of(explanation)
    assert noted is not None
    many = min(len(explanation), TOP)
    parts = [
        f"<div><b>{escape(describe_method(explanation.method))}</b>"
        f'<span style="{_QUIET}"> · {escape(str(noted["score"]))} of each token of the answer</span></div>',
        f'<div style="margin: .35em 0">{escape(writable("".join(noted["pieces"])).strip())}</div>',
    ]
    shown = answer_page([explanation])["maps"][0]
    for i, row in enumerate(shown["rows"][:many]):
        values = [abs(piece["values"][i]) for piece in shown["pieces"] if piece["values"]]
        scale, before = max(values, default=0.0) or 1.0, sum(row["before"])
        words = "".join(
            _word(piece["text"], piece["values"][i] / scale, piece["values"][i])
            if piece["values"]
            else escape(piece["text"])
            for piece in shown["pieces"]
        )
        parts.append(f'<div style="margin-top: .8em"><b>{escape(in_one_line(row["name"]))}</b></div>')
        parts.append(f'<div style="{_WORDS}">{words}</div>')
        so_far = f"; the answer so far {_signed(before)}" if before else ""
        parts.append(f'<div style="{_QUIET}">{escape(row["balance"] + so_far)}</div>')
    if many < len(explanation):
        parts.append(
            paragraph(f"… and {len(explanation) - many} more tokens; explanation[i] shows one of them")
        )
    parts += [f'<div style="margin-top: .35em">⚠ {escape(told)}</div>' for told in explanation.warnings]
    parts.append(f'<div style="{_QUIET}">{escape(str(explanation.cost))}</div>')
    return f'<div style="{_CARD}">{"".join(parts)}</div>'


def _card(result: Result, index: int) -> str:
    shown = view(result, index)
    made = decision(result, index, 1)
    chance = "" if made.probability is None else f", probability {100 * made.probability:.1f} %"
    scored = f"{made.label}  score {format_number(made.score, abs(made.score))}{chance}"
    features = None if result.features is None else result.features[index]
    text = isinstance(features, TextFeatures) and not isinstance(shown, TextView)
    parts = [
        f"<div><b>{escape(describe_method(result.method))}</b> of {escape(result.label(index))}"
        f'<span style="{_QUIET}"> · {escape(scored)}</span></div>',
        f"<div>{escape(writable(features.text))}</div>" if text else "",  # type: ignore[union-attr]
        _drawn(shown),
        f'<div style="margin-top: .35em">{escape(result.account(index))}</div>',
        *(f'<div style="margin-top: .35em">⚠ {escape(told)}</div>' for told in result.warnings),
        f'<div style="{_QUIET}">{escape(str(result.cost))}</div>',
    ]
    return f'<div style="{_CARD}">{"".join(parts)}</div>'


def _drawn(shown: View) -> str:
    if isinstance(shown, HeatView):
        picture = f'<img alt="" src="{data_uri(_painted(shown))}" style="{_PICTURE}">'
        return f'{picture}<div style="{_QUIET}">{escape(shown.legend)}</div>{_bars(shown, 4)}'
    if isinstance(shown, TextView) and len(shown.pieces) <= 2 * WORDS:
        words = "".join(
            escape(piece.text)
            if piece.value is None
            else _word(piece.text, piece.value / shown.scale, piece.value)
            for piece in shown.pieces
        )
        return f'<div style="{_WORDS}">{words}</div>{_bars(shown, 4)}'
    return _bars(shown, TOP)


def _word(text: str, strength: float, value: float) -> str:
    told = format_number(value, abs(value))
    return f'<span title="{told}" style="background: {_colour(strength)}; border-radius: 3px">{escape(text)}</span>'


def _bars(shown: View, most: int) -> str:
    top = shown.top(most)
    largest = max((abs(value) for _, value in top), default=1.0)
    rows = "".join(
        f'<tr style="background: none"><td style="{_CELL}">{escape(name)}</td>'
        f'<td style="{_CELL}; text-align: right; font-variant-numeric: tabular-nums">{_signed(value)}</td>'
        f'<td style="{_CELL}; width: 10rem"><div style="height: .6em; width: {100 * abs(value) / largest:.0f}%; '
        f'background: {_colour(1 if value > 0 else -1)}"></div></td></tr>'
        for name, value in top
    )
    known = len([value for _, value in shown.named if value])
    what = "pairs" if isinstance(shown, PairsView) else "others"
    more = f'<div style="{_QUIET}">… and {known - most} {what}</div>' if known > most else ""
    return f'<table style="border: 0; margin: .3em 0; font-size: .9em">{rows}</table>{more}'


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")


def _colour(strength: float) -> str:
    """Orange for, blue against, see-through for little: on light ground and on dark."""
    red, green, blue = FOR if strength > 0 else AGAINST
    return f"rgba({red}, {green}, {blue}, {0.6 * min(1.0, abs(strength)):.2f})"


def _painted(shown: HeatView) -> npt.NDArray[np.uint8]:
    """The map on its photo in grey, in cells of the map where there is no photo."""
    cells = shown.drawn
    strength = np.clip(np.abs(cells) / shown.scale, 0, 1)[..., None]
    colour = np.where(cells[..., None] >= 0, FOR, AGAINST)
    ground: npt.NDArray[np.float64] = np.full((*cells.shape, 3), 255.0)
    if shown.photo is not None:
        rows, columns = (
            (np.arange(224) * n // 224 for n in cells.shape)
            if max(shown.shape) > 112
            else map(np.arange, cells.shape)
        )
        strength, colour = strength[rows][:, columns], colour[rows][:, columns]
        high, wide = (
            np.arange(len(a)) * n // len(a) for a, n in zip((rows, columns), shown.shape, strict=True)
        )
        grey = shown.photo[high][:, wide] @ (0.299, 0.587, 0.114)
        ground = np.repeat((160 + grey * 95 / 255)[..., None], 3, 2)
    painted: npt.NDArray[np.uint8] = (ground + strength * (colour - ground)).round().astype(np.uint8)
    return painted
