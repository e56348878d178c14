"""The answer of a language model: each of its tokens with what in the prompt it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from apportion.results.explanation import Explanation
from apportion.results.result import Result
from apportion.results.words import format_number, format_signed, write_share

SOURCES = 3  # features of the prompt beside each token


@dataclass(frozen=True)
class AnswerRow:
    """One thing that is explained of an answer: its values by feature of the prompt, and apart from these what went to
    tokens of the template and to the answer so far, neither of which is ever hidden."""

    name: str
    features: tuple[tuple[str, float], ...]
    template: float
    so_far: float
    score: float
    total: float | None
    left_over: float | None

    @property
    def strongest(self) -> list[tuple[str, float]]:
        """The features with the largest values, largest first."""
        return sorted(self.features, key=lambda each: -abs(each[1]))[:SOURCES]


def answer_of(result: Result) -> Mapping[str, Any] | None:
    """What is noted of the answer that a result explains; None if it is of no language model."""
    return result.notes.get("answer")


def rows_of(explanation: Explanation) -> list[AnswerRow]:
    """What is explained of the answer, in its order."""
    noted = answer_of(explanation)
    assert noted is not None
    found = []
    for index in range(len(explanation)):
        _, values, features = explanation.parts(index)[0]
        names, sums = explanation.relevance(index)
        apart = [0.0, 0.0]
        if features is not None:
            each = values.detach().reshape(len(values), -1).sum(1).tolist()
            for place, (word, value) in enumerate(zip(features.words, each, strict=False)):  # type: ignore[union-attr]
                if word is None:
                    apart[place >= noted["prompt"]] += value
        left = explanation.left_over
        total = explanation.total
        found.append(
            AnswerRow(
                explanation.label(index),
                tuple(zip(map(in_one_line, names), sums.tolist(), strict=True)),
                apart[0],
                apart[1],
                float(explanation.output[index, index]),
                None if total is None else float(total[index]),
                None if left is None else float(left[index]),
            )
        )
    return found


def in_one_line(text: str) -> str:
    """A text without line breaks.

    >>> in_one_line("two\\nlines")
    'two lines'
    """
    return " ".join(text.split()) or text.replace("\n", "↵")


def answer(explanation: Explanation) -> Table:
    """The tokens of the answer one below the other, each with its strongest sources and its balance."""
    noted, rows = answer_of(explanation), rows_of(explanation)
    assert noted is not None
    adds_up = rows[0].total is not None
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("answer", no_wrap=True, style="bold", overflow="ellipsis", max_width=24)
    table.add_column(str(noted["score"]), justify="right")
    table.add_column("strongest in the prompt")
    apart = {
        "template": any(row.template for row in rows),
        "answer so far": any(row.so_far for row in rows),
    }
    for name, there in apart.items():
        if there:
            table.add_column(name, justify="right")
    if adds_up:
        table.add_column("total", justify="right")
        table.add_column("left over", justify="right")
    for row in rows:
        scale = max((abs(value) for _, value in row.features), default=1.0)
        said = Text()
        for name, value in row.strongest:
            said.append(" · " if said else "").append(f"{name:.28} ")
            said.append(format_signed(value, scale), "#e06c00" if value >= 0 else "#4a90d9")
        cells: list[Any] = [row.name, format_number(row.score, abs(row.score)), said]
        cells += [format_signed(row.template, scale)] if apart["template"] else []
        cells += [format_signed(row.so_far, scale)] if apart["answer so far"] else []
        if row.total is not None:
            left = "" if row.left_over is None else write_share(row.left_over)
            cells += [format_number(row.total, abs(row.total)), left]
        table.add_row(*cells)
    return table
