"""The answer of a language model: each of its tokens with what in the prompt it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor

from apportion.core.features import TextFeatures, writable
from apportion.display import page_data
from apportion.display.cards import Tests, test_as_data
from apportion.display.html import versions
from apportion.results.explanation import Explanation
from apportion.results.result import Result
from apportion.results.words import describe_method, format_signed

# A space at which no line ends, so that a number stays with its name; Rich breaks at every space that Unicode knows.
JOINT = "\ue000"


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

    def strongest(self, top: int) -> list[tuple[str, float]]:
        """The `top` features with the largest values, largest first."""
        return sorted(self.features, key=lambda each: -abs(each[1]))[:top]


def answer_of(result: Result) -> Mapping[str, Any] | None:
    """What is noted of the answer that a result explains; None if it is of no language model."""
    return result.notes.get("answer")


def part_of(explanation: Result, index: int) -> int:
    """Which part of the answer a sample explains, also where samples were taken out of an explanation."""
    target: Any = explanation.target
    return int(target[index])


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
                float(explanation.output[index, part_of(explanation, index)]),
                None if total is None else float(total[index]),
                None if left is None else float(left[index]),
            )
        )
    return found


def answer_page(
    explanations: Sequence[Explanation], tests: Sequence[Tests] | None = None
) -> page_data.Answer:
    """What a page shows of explanations of one answer, by one method each, with the scores of each."""
    noted = answer_of(explanations[0])
    assert noted is not None
    notes = explanations[0].notes
    features = (explanations[0].features or (None,))[0]
    text = features.text[: noted["characters"]] if isinstance(features, TextFeatures) else ""
    return {
        "kind": "answer",
        "model": str(notes.get("model", "")),
        "prompt": str(notes.get("input", text)),
        "answer": [writable(piece) for piece in noted["pieces"]],
        "score": noted["score"],
        "maps": [
            _map(each, scores)
            for each, scores in zip(explanations, tests or [()] * len(explanations), strict=True)
        ],
        "versions": versions(),
    }


def _map(explanation: Explanation, tests: Tests) -> page_data.AnswerMap:
    noted, rows = answer_of(explanation), range(len(explanation))
    assert noted is not None
    parts = [explanation.parts(i)[0] for i in rows]
    values = torch.stack([part[1].detach().double().cpu().reshape(len(part[1]), -1).sum(1) for part in parts])
    prompt, features = noted["prompt"], parts[0][2]
    assert isinstance(features, TextFeatures)
    so_far = values[:, prompt:].tolist()
    return {
        "method": describe_method(explanation.method),
        "repr": repr(explanation.method),
        "cost": str(explanation.cost),
        "chosen": str(explanation.notes.get("chosen", "")),
        "warnings": list(explanation.warnings),
        "pieces": _pieces(features, values[:, :prompt], noted["characters"]),
        "rows": [
            {
                "name": explanation.label(i),
                "first": noted["spans"][part_of(explanation, i)][0],
                "last": noted["spans"][part_of(explanation, i)][1],
                "score": float(explanation.output[i, part_of(explanation, i)]),
                "balance": explanation.account(i),
                "before": so_far[i],
                "tests": [test_as_data(scores, i) for scores in tests],
            }
            for i in rows
        ],
    }


def _pieces(features: TextFeatures, values: Tensor, end: int) -> list[page_data.PromptPiece]:
    """The prompt in pieces that join to the whole; special tokens, where they have a value, where they stood."""
    found: list[page_data.PromptPiece] = []
    groups, at, seen = features.groups, 0, set()
    names = features.names
    for place in range(values.shape[1]):
        group, (start, _) = groups[place], features.offsets[place]
        if group < 0:
            if bool(values[:, place].any()):
                token = writable(features.tokens[place])
                found.append({"text": token, "values": values[:, place].tolist(), "special": True})
        elif group not in seen:
            seen.add(group)
            if start > at:
                between = writable(features.text[at:start])
                found.append({"text": between, "values": None, "special": False})
            mine = torch.tensor(groups[: values.shape[1]]) == group
            found.append({"text": names[group], "values": values[:, mine].sum(1).tolist(), "special": False})
            at = start + len(names[group])
    if at < end:
        found.append({"text": writable(features.text[at:end]), "values": None, "special": False})
    return found


def in_one_line(text: str) -> str:
    """A text without line breaks.

    >>> in_one_line("two\\nlines")
    'two lines'
    """
    return " ".join(text.split()) or text.replace("\n", "↵")


def in_short(text: str, most: int) -> str:
    """A text in one line of at most so many characters.

    >>> in_short("a long sentence", 8)
    'a long …'
    """
    flat = in_one_line(text)
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"


def answer(explanation: Explanation, top: int) -> Table:
    """The tokens of the answer one below the other, each with its balance, its `top` sources in the prompt, and what
    went to the template and to the answer so far."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold", overflow="ellipsis", max_width=24)
    table.add_column()
    for i, row in enumerate(rows_of(explanation)):
        scale = max((abs(value) for _, value in row.features), default=1.0)
        apart = {"(template)": row.template, "(answer so far)": row.so_far}
        sources = [*row.strongest(top), *((name, value) for name, value in apart.items() if value)]
        said = Text()
        for name, value in sources:
            # A number stays with its name, at the end of a line too.
            said.append(" · " if said else "").append(f"{in_short(name, 28)} ".replace(" ", JOINT))
            said.append(format_signed(value, scale), "#e06c00" if value >= 0 else "#4a90d9")
        table.add_row(row.name, said)
        table.add_row("", Text(explanation.account(i), "dim"))
    return table
