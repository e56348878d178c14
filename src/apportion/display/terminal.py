"""Explanations in a terminal: coloured words, pictures in half-block characters, bars. What colour says is
also said in numbers, so that nothing is lost in a pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.color import Color
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from apportion.core.visible import visible
from apportion.display.answers import JOINT, answer, answer_of, in_one_line, part_of
from apportion.display.views import AGAINST, FOR, HeatView, TextView, View, in_what, scale_of, view
from apportion.results.explanation import Explanation
from apportion.results.ledger import CAUSES, Ledger
from apportion.results.result import Result, decision
from apportion.results.scores import Scores, say_tie, tied
from apportion.results.words import NOTHING, describe_method, format_number, format_signed

WIDEST = 64  # columns of a picture
ROWS = 10  # entries of a list
LARGEST = 3  # the same of one method among several
ABSORBED = 5  # rows of a ledger
BAR = 24  # columns of the longest bars, those of both sides together

Pixels = npt.NDArray[np.float64]


def show(explanation: Result, console: Console, name: str, index: int = 0, top: int | None = None) -> None:
    """Print the decision, the picture of why, and the balance; of an answer that of each token. `top` features are
    listed."""
    piped = not console.is_terminal  # where a line is what others read, it stays one
    noted = answer_of(explanation)
    console.print(
        heading(explanation, name, index) if noted is None else Visible(said(noted, name, explanation))
    )
    if noted is not None and isinstance(explanation, Explanation) and len(explanation) > 1:
        console.print(Padding(Visible(answer(explanation, top or LARGEST)), (1, 0)))
    else:
        console.print(Padding(Visible(body(explanation, console, index, top)), (1, 0)))
        for line in explanation.account(index).split("; "):
            console.print(Text(visible(line), style="bold"), soft_wrap=piped)
    for told in explanation.warnings:
        console.print(Text(visible(f"warning: {told}"), style="yellow"), soft_wrap=piped)
    ledger = getattr(explanation, "ledger", None)
    if ledger is not None:
        console.print(Padding(Visible(absorbed(ledger)), (1, 0)))
    how = f"{describe_method(explanation.method)} · {in_what(explanation.unit)} · {explanation.cost}"
    if work := explanation.notes.get("work"):  # where the passes are not what it took
        how = f"{how} · {work}"
    chosen = explanation.notes.get("chosen")
    console.print(Text(visible(f"{how} · chosen: {chosen}" if chosen else how), style="dim"), soft_wrap=piped)


@dataclass(frozen=True)
class Visible:
    """What is printed, without the control characters in it that were in names and texts."""

    printed: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.printed, options):
            text = visible(segment.text.replace(JOINT, " "))
            yield segment if segment.control else Segment(text, segment.style)


def heading(explanation: Result, name: str, index: int = 0) -> Text:
    """`imagenet: tabby cat  score 7.10, probability 55.2 %`, and what is explained if it is not that."""
    made, target = decision(explanation, index), explanation.label(index)
    text = Text.assemble((visible(f"{name}: "), "dim"), (visible(made.label), "bold"))
    text.append(f"{' ' if made.label == 'score' else '  score '}{format_number(made.score)}")
    if made.probability is not None:
        text.append(f", probability {made.probability:.1%}")
    if target != made.label:
        text.append(visible(f"; explained: {target}"))
    return text


def said(noted: Mapping[str, Any], name: str, explanation: Result) -> Text:
    """What a language model answered, and what of it is explained if it is not each token."""
    text = Text.assemble((f"{name}: ", "dim"), (in_one_line("".join(noted["pieces"])), "bold"))
    if len(explanation) == 1:
        score = float(explanation.output[0, part_of(explanation, 0)])
        text.append(
            f"\n{noted['score']} of {explanation.label(0)!r}: {format_number(score, abs(score))}", "dim"
        )
    else:
        text.append(f"\n{noted['score']} of each token: what in the prompt raised (+), lowered (−) it", "dim")
    return text


def body(explanation: Result, console: Console, index: int = 0, top: int | None = None) -> RenderableType:
    """Colours where the console has them, and the largest values as a list: of a picture only the `top` asked for."""
    shown = view(explanation, index)
    coloured = console.is_terminal and not console.no_color and console.color_system is not None
    listed = bars(shown, console.width, top or ROWS)
    if isinstance(shown, TextView) and coloured:
        return Group(words(shown), "", listed)
    if isinstance(shown, HeatView) and coloured:
        drawn = picture(shown, min(WIDEST, console.width - 1))
        return drawn if top is None else Group(drawn, "", listed)
    return listed


def words(shown: TextView) -> Text:
    """The text, each word on orange (for) or blue (against) as strong as its value."""
    text = Text()
    for piece in shown.pieces:
        if piece.value is None:
            text.append(piece.text)
            continue
        strength = abs(piece.value) / shown.scale
        colour = np.array(FOR if piece.value >= 0 else AGAINST)
        back = (0.85 * colour * strength).round().astype(int)
        style = Style(
            color="white" if strength > 0.05 else None, bgcolor=_rgb(back) if strength > 0.05 else None
        )
        text.append(piece.text, style)
    return text


def picture(shown: HeatView, columns: int) -> Text:
    """The map over its photo in dim grey; each character is two cells, one above the other."""
    height, width = shown.shape
    columns = max(2, min(columns, width))
    rows = max(2, 2 * round(height * columns / width / 2))
    cells = shown.pooled(rows, columns)
    cells = _stretch(cells, rows, columns)
    strength = np.clip(np.abs(cells) / scale_of(cells), 0, 1)[..., None]
    base = np.full((rows, columns, 3), 30.0)
    if shown.photo is not None:
        grey = shown.photo.astype(np.float64) @ (0.299, 0.587, 0.114)
        base = np.repeat(0.55 * _shrink(grey, rows, columns)[..., None], 3, 2)
    colour = np.where((cells >= 0)[..., None], FOR, AGAINST)
    # Colours that glow on a dark ground: the map must win over the photo where it is strong.
    mixed = (base * (1 - strength) + np.minimum(colour * 1.15, 255) * strength).round().astype(int)
    text = Text()
    for row in range(0, rows, 2):
        for upper, lower in zip(mixed[row], mixed[row + 1], strict=True):
            text.append("▀", Style(color=_rgb(upper), bgcolor=_rgb(lower)))
        text.append("\n")
    text.append("orange speaks for it, blue against", "dim")
    return text


def bars(shown: View, columns: int = 80, top: int = ROWS) -> Table:
    """The `top` largest values with bars to both sides of a line, shorter ones where there are few columns, and what
    all others come to."""
    rows, others = shown.top(top), shown.top(len(shown.named))[top:]
    largest = max((abs(value) for _, value in rows), default=1.0)
    numbers = [_in_sight(value, largest) for _, value in rows]
    longest = max(4, min(BAR, columns // 3))
    both = any(value < 0 for _, value in rows)
    half = longest // 2 if both else longest
    left_for_names = columns - max(map(len, numbers), default=0) - longest - 3
    table = Table.grid(padding=(0, 1))
    table.add_column(
        justify="right", overflow="ellipsis", max_width=max(4, min(36, left_for_names)), no_wrap=True
    )
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for (name, value), said in zip(rows, numbers, strict=True):
        length = max(1, round(half * abs(value) / largest))
        left = "" if value >= 0 else "█" * length
        bar = Text(left.rjust(half if both else 0), _style(AGAINST)).append("│", "dim")
        table.add_row(
            Text(" ".join(name.split())), said, bar.append("█" * length if value >= 0 else "", _style(FOR))
        )
    if others:
        together = _in_sight(sum(value for _, value in others), largest)
        called = f"{len(others)} others together" if len(others) > 1 else "1 other"
        table.add_row(Text(called, "dim"), Text(together, "dim"), "")
    if not rows:
        table.add_row("every value is zero", "", "")
    return table


def _plain(value: float, scale: float) -> str:
    return format_number(value if abs(value) > NOTHING * scale else 0.0, scale)


def _in_sight(value: float, largest: float) -> str:
    """A value beside the largest, of which one too small to see is none."""
    return format_signed(value, largest) if abs(value) > NOTHING * largest else "≈ 0"


def absorbed(ledger: Ledger) -> Table:
    """The operations that absorbed most of the remainder, and for what cause."""
    rows = ledger.largest(ABSORBED)
    largest = max((abs(getattr(row, cause)) for row in rows for cause in CAUSES), default=0.0)
    table = Table.grid(padding=(0, 2))
    table.add_row(Text("what is left over, by operation", "bold"))
    for row in rows:
        amounts = {cause: getattr(row, cause) for cause in CAUSES}
        # What is a thousandth of the largest is rounding, or no news.
        said = [
            f"{cause} {format_signed(v, largest)}" for cause, v in amounts.items() if abs(v) > 1e-3 * largest
        ]
        if said:
            table.add_row(Text(" · ".join(filter(None, (row.module, row.operation)))), ", ".join(said))
    return table


def compared(explanations: Sequence[Result], name: str) -> Text:
    """What stands over a comparison: the decision, or the answer."""
    noted = answer_of(explanations[0])
    return heading(explanations[0], name) if noted is None else said(noted, name, explanations[0])


def comparison(
    explanations: Sequence[Result], tests: Sequence[Sequence[Scores]] | None = None, top: int = LARGEST
) -> Visible:
    """Each method with its balance, its `top` largest values and, where it was tested, its scores."""
    found: list[RenderableType] = []
    for explanation, scores in zip(explanations, tests or [()] * len(explanations), strict=True):
        most = view(explanation).top(top)
        largest = [
            f"{' '.join(name.split()):.30} {format_signed(value, abs(most[0][1]))}".replace(" ", JOINT)
            for name, value in most
        ]
        lines: list[RenderableType] = [Text(explanation.account())]
        lines.append(Text(" · ".join(largest) or "every value is zero", "dim"))
        if len(explanation) > 1 and answer_of(explanation) is not None:
            assert isinstance(explanation, Explanation)
            lines = [answer(explanation, top)]
        lines += [Text(_test_in_words(s), "dim") for s in scores]
        found += [Text(describe_method(explanation.method), "bold"), Padding(Group(*lines), (0, 0, 0, 2))]
    many = sum(bool(scores) for scores in tests or ())
    ties = [say_tie(test.split("(")[0], many) for test in tied(tests or ())]
    return Visible(Group(*found, *(Text(f"note: {tie}", "yellow") for tie in ties)))


def _test_in_words(scores: Scores) -> str:
    """`DeletionRate 0.09 (lower is better; random 0.42, uniform 0.39, reversed 1.00)`."""
    mean = scores.mean if scores.n else None
    rows = {"": mean, **scores.notes.get("beside", {})}
    scale = max((abs(value) for value in rows.values() if value is not None), default=1.0)
    said = {name: "undefined" if value is None else _plain(value, scale) for name, value in rows.items()}
    mean_said = said.pop("")
    beside = "; " + ", ".join(f"{name} {text}" for name, text in said.items()) if said else ""
    return f"{scores.test.split('(')[0]} {mean_said} ({scores.direction}{beside})"


def _style(colour: tuple[int, int, int]) -> Style:
    return Style(color=_rgb(np.array(colour)))


def _rgb(colour: npt.NDArray[np.int64]) -> Color:
    return Color.from_rgb(*(float(channel) for channel in colour))


def _shrink(grey: Pixels, rows: int, columns: int) -> Pixels:
    """The mean of the pixels under each cell."""
    ones = HeatView(np.ones_like(grey)).pooled(rows, columns)
    return _stretch(HeatView(grey).pooled(rows, columns) / ones, rows, columns)


def _stretch(cells: Pixels, rows: int, columns: int) -> Pixels:
    """A coarse map repeated to so many cells."""
    down = np.arange(rows) * cells.shape[0] // rows
    across = np.arange(columns) * cells.shape[1] // columns
    stretched: Pixels = cells[down[:, None], across]
    return stretched
