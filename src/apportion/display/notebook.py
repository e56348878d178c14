"""What a notebook shows of a result: a small card for each sample, as high as what is in it, without a script.

It is plain markup with styles of its own, so that it is there in notebooks that are not trusted, in what they are
exported to, and in the dark. The page with sliders is `to_html`.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from apportion.core.features import TextFeatures, writable
from apportion.display.answers import answer_of, in_short, rows_of
from apportion.display.html import data_uri, paragraph
from apportion.display.views import AGAINST, FOR, HeatView, PairsView, TextView, View, view
from apportion.results.explanation import Explanation
from apportion.results.result import Result, decision
from apportion.results.words import describe_method, format_number, format_signed, write_share

SAMPLES = 4
TOP = 8  # rows of a table
PARTS = 24  # of an answer
SOURCES = 3  # in the prompt, beside each
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


def card_of_answer(explanation: Explanation) -> str:
    """The parts of a language model's answer below one another, each beside its strongest sources in the prompt."""
    noted, rows = answer_of(explanation), rows_of(explanation)
    assert noted is not None
    adds_up = rows[0].total is not None
    titles = ("answer", str(noted["score"]), "strongest in the prompt", *(["left over"] if adds_up else []))
    lines = [_line("th", titles, "; font-weight: normal; opacity: .7")]
    for row in rows[:PARTS]:
        scale = max((abs(value) for _, value in row.features), default=0.0) or 1.0
        said = " ".join(
            _word(f"{in_short(name, 40)} {format_signed(value, scale)}", value / scale, value)
            for name, value in row.strongest(SOURCES)
        )
        name = f"<b>{escape(in_short(writable(row.name), 40))}</b>"
        left = [escape("" if row.left_over is None else write_share(row.left_over))] if adds_up else []
        lines.append(_line("td", [name, format_number(row.score, abs(row.score)), said, *left]))
    left_out = len(rows) - len(rows[:PARTS])
    answer = escape(in_short(writable("".join(noted["pieces"])), 400))
    parts = [
        f"<div><b>{escape(describe_method(explanation.method))}</b> of {answer}</div>",
        f'<table style="border: 0; margin: .3em 0; font-size: .9em">{"".join(lines)}</table>',
        f'<div style="{_QUIET}">… and {left_out} more; to_html() has all of them</div>' if left_out else "",
        *(f'<div style="margin-top: .35em">⚠ {escape(each)}</div>' for each in explanation.warnings),
        f'<div style="{_QUIET}">{escape(str(explanation.cost))}</div>',
    ]
    return f'<div style="{_CARD}; overflow-x: auto">{"".join(parts)}</div>'


def _line(kind: str, cells: Sequence[str], style: str = "") -> str:
    inside = "".join(f'<{kind} style="{_CELL}{style}">{cell}</{kind}>' for cell in cells)
    return f'<tr style="background: none">{inside}</tr>'


def _card(result: Result, index: int) -> str:
    shown = view(result, index)
    made = decision(result, index, 1)
    chance = "" if made.probability is None else f", probability {100 * made.probability:.1f} %"
    # Of a number that is predicted, the score is all that has a name.
    decided, explained = (
        "" if name == "score" else f"{before}{name}{after}"
        for before, name, after in (("", made.label, "  "), (" of ", result.label(index), ""))
    )
    scored = f"{decided}score {format_number(made.score, abs(made.score))}{chance}"
    features = None if result.features is None else result.features[index]
    text = isinstance(features, TextFeatures) and not isinstance(shown, TextView)
    parts = [
        f"<div><b>{escape(describe_method(result.method))}</b>{escape(explained)}"
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
    what = ("pair" if isinstance(shown, PairsView) else "other") + "s" * (known - most > 1)
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
