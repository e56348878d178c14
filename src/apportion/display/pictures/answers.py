"""The answer of a language model as one picture: each part that is explained against each feature of the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apportion.display.answers import answer_of, rows_of
from apportion.display.pictures.explanations import INK, MUTED, _shorten, colours
from apportion.results.explanation import Explanation
from apportion.results.words import describe_method, format_signed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEATURES = 40  # of the prompt, those with the largest values
NUMBERS = 600  # cells that have their value written


def draw_answer(explanation: Explanation) -> Figure:
    """Draw the parts of the answer as columns, the features of the prompt as rows in their order; what went to the
    template and the answer so far below them."""
    from matplotlib.figure import Figure

    rows, noted = rows_of(explanation), answer_of(explanation)
    assert noted is not None
    names = [name for name, _ in rows[0].features]
    values = np.array([[value for _, value in row.features] for row in rows]).T  # (features, parts)
    largest = sorted(np.argsort(-np.abs(values).max(1), kind="stable")[:FEATURES].tolist())
    shown, labels = values[largest], [names[i] for i in largest]
    for name, apart in (
        ("template", [row.template for row in rows]),
        ("answer so far", [row.so_far for row in rows]),
    ):
        if any(apart):
            shown, labels = np.vstack([shown, apart]), [*labels, f"({name})"]
    many, parts = shown.shape
    wide = min(0.75, 30 / parts)
    figure = Figure(figsize=(max(7.0, 4.2 + wide * parts), 1.5 + 0.3 * many), layout="constrained")
    ax = figure.add_subplot()
    scale = float(np.abs(shown).max()) or 1.0
    ax.imshow(shown, cmap=colours(), vmin=-scale, vmax=scale, aspect="auto")
    ax.set_xticks(range(parts), [_shorten(row.name, 14) for row in rows], rotation=40, ha="left")
    ax.xaxis.tick_top()
    ax.set_yticks(range(many), [_shorten(label, 48) for label in labels])
    ax.tick_params(length=0, labelsize=9, colors=INK)
    ax.spines[:].set_visible(False)
    if shown.size <= NUMBERS:
        for (i, j), value in np.ndenumerate(shown):
            ax.text(j, i, format_signed(float(value), scale), ha="center", va="center", fontsize=7, color=INK)
    answer = _shorten("".join(noted["pieces"]), 60)
    figure.suptitle(
        f"{answer} · {noted['score']} by {_shorten(describe_method(explanation.method), 50)}",
        x=0.02, ha="left", fontsize=11, fontweight="bold", color=INK,
    )  # fmt: skip
    left = (
        "" if len(names) == len(largest) else f"the {len(largest)} of {len(names)} with the largest values; "
    )
    figure.supxlabel(
        f"{left}orange speaks for the word above, blue against", x=0.02, ha="left", fontsize=8, color=MUTED
    )
    return figure
