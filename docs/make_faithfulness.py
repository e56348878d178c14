"""The measured tables of `docs/faithfulness.md`, on models that ship: `python docs/make_faithfulness.py`."""

from __future__ import annotations

import torch

import apportion as ap
from apportion.results.table import Table, format_cells

SENTENCES = [
    "A painfully funny movie with a heart.",
    "The plot is thin, but the acting is superb.",
    "Not bad at all.",
    "A dull, lifeless film that never finds its tone.",
    "It is not the worst film of the year, but the muddled plot never earns its cast.",
    "Warm, witty and wonderfully acted.",
    "Two hours of noise and not one idea.",
    "I expected little and was charmed.",
    "The jokes fall flat and the ending is absurd.",
    "Beautifully shot, and boring.",
    "An unforgettable performance saves a weak script.",
    "Neither funny nor sad, just long.",
]
TESTS = ("pixel-flipping", "deletion-rate", "comprehensiveness", "sufficiency", "infidelity")


def markdown(table: Table) -> None:
    """The table for the page: the leading methods in bold, references in italics, and the remarks below."""
    arrows = {True: " ↑", False: " ↓", None: ""}
    first = table.scores[table.methods[0]]
    print(f"| | {' | '.join(test + arrows[first[test].higher_is_better] for test in table.tests)} |")
    print("|---" * (1 + len(table.tests)) + "|")
    columns = [format_cells([row[test] for row in table.scores.values()]) for test in table.tests]
    leading = [table.leading(test) for test in table.tests]
    for name, found in zip(table.scores, zip(*columns, strict=True), strict=True):
        bold = [f"**{c}**" if name in best else c for c, best in zip(found, leading, strict=True)]
        print(f"| {f'*{name}*' if name in table.references else f'`{name}`'} | {' | '.join(bold)} |")
    print(f"\nα = {table.agreement()[2]:.2f}", *table.warnings, sep="\n")


def sentences() -> None:
    classifier = ap.load("sentiment")
    methods = ("lrp", "IntegratedGradients(nodes=24)", "inputxgradient", "saliency", "occlusion", "attention")
    markdown(ap.compare(classifier, SENTENCES, methods, TESTS))


def rows() -> None:
    from sklearn.datasets import load_breast_cancer

    classifier = ap.load("breast-cancer")
    data = load_breast_cancer(as_frame=True).data
    encoded = [classifier.encode(row.to_dict()) for _, row in data.iloc[:100].iterrows()]
    x = torch.cat([inputs for inputs, _ in encoded])
    features = tuple(feature for _, feature in encoded)
    methods = ("lrp", "IntegratedGradients(nodes=24)", "inputxgradient", "saliency")
    markdown(ap.compare(classifier, x, methods, TESTS, features=features))


if __name__ == "__main__":
    sentences()
    print()
    rows()
