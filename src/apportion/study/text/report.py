"""The tables and curves of the text study, beside what the literature reports."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apportion.core.files import write_whole
from apportion.results.grid import TextTable
from apportion.results.scores import Scores
from apportion.results.statistics import bootstrap_means
from apportion.study.tables import write_tables
from apportion.study.text import _published as published
from apportion.study.text.faithfulness import DELETION, FEW, LEARNER, SHUFFLE, Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Faithfulness of feature maps on text: does its evaluation depend on the data and on the test?"

WITH_PUBLISHED = {
    DELETION: ("Mean deletion rate", published.DELETION),
    LEARNER: ("F1 of the weak learner", published.WEAK_LEARNER),
    SHUFFLE: ("Mean TVD when the map is shuffled", published.SHUFFLE),
}


def tables(findings: Sequence[Findings]) -> list[TextTable]:
    """All tables of the corpora that are finished."""
    from apportion.study.text._agreement import agreement_tables

    made = [statistics(findings), models(findings)]
    made += [test_table(findings, test) for test in findings[0].tests]
    return [*made, *agreement_tables(findings), maps(findings), times(findings)]


def write(findings: Sequence[Findings], folder: Path) -> list[Path]:
    """Write the report of the corpora that are finished: tables and the picture of the loss curves."""
    drawn = io.BytesIO()
    loss_curves(findings).savefig(drawn, format="png", dpi=110)
    picture = write_whole(folder / "validation-loss.png", drawn.getvalue())
    return [*write_tables(folder, TITLE, tables(findings), [picture.name]), picture]


def statistics(findings: Sequence[Findings]) -> TextTable:
    """What the corpora are."""
    rows = []
    for found in findings:
        corpus = found.corpus
        parts = (corpus.train, corpus.valid, corpus.test)
        lengths = np.concatenate([part.lengths.numpy() for part in parts])
        labels = np.concatenate([part.labels.numpy() for part in parts])
        rows.append(
            (
                corpus.title,
                " / ".join(corpus.labels),
                *(f"{len(part)}" for part in parts),
                f"{len(corpus.vocabulary) - 2}",
                f"{lengths.mean():.1f}",
                f"{labels.mean():.1%}",
                f"{corpus.dropped}",
            )
        )
    columns = ("corpus", "classes", "train", "validation", "test", "words", "mean length", "second class")
    note = "Lengths are without the start and end tokens that published tables count. Dropped: too short or long."
    return TextTable("Data", (*columns, "dropped"), rows, (note,))


def models(findings: Sequence[Findings]) -> TextTable:
    """How well the models do."""
    rows = []
    for found in findings:
        labels = found.corpus.test.labels
        right = found.scores.argmax(1) == labels
        both = [(found.scores.argmax(1) == 1) & (labels == 1), ~right]
        accuracy = Scores(right.double(), "accuracy", True)
        counts = np.stack([both[0].numpy(), both[1].numpy()], 1).astype(float)
        means = bootstrap_means(counts)
        f1s = 2 * means[:, 0] / (2 * means[:, 0] + means[:, 1])
        mean = counts.mean(0)
        f1 = 2 * mean[0] / (2 * mean[0] + mean[1])
        aucs = [epoch["validation_auc"] for epoch in found.training]
        at = published.ORDER.index(found.corpus.name)
        rows.append(
            (
                found.corpus.title,
                _with_interval(accuracy.mean, accuracy.interval()),
                f"{published.ACCURACY[at]:.3f}",
                _with_interval(f1, tuple(np.quantile(f1s, [0.025, 0.975]))),
                f"{published.F1[at]:.3f}",
                f"{max(aucs):.3f}",
                f"{1 + int(np.argmax(aucs))} of {len(aucs)}",
            )
        )
    columns = ("corpus", "accuracy", "published", "F1", "published", "validation AUC", "epoch kept")
    return TextTable("Models", columns, rows, ("F1 is that of the second class. " + _INTERVALS,))


def test_table(findings: Sequence[Findings], test: str) -> TextTable:
    """One test: a row for each map, a column for each corpus, with the published mean where there is one."""
    title, known = WITH_PUBLISHED.get(test, (f"Mean {test}", {}))
    first = next(iter(findings[0].tests[test].values()))
    rows: list[list[str]] = []
    names = list(findings[0].tests[test])
    methods = [name for name in names if name in findings[0].notes and name not in FEW]
    best = []
    for name in names:
        cells = [name]
        for found in findings:
            scores = found.tests[test][name]
            if name in methods and scores.oriented.nanmean() == max(
                found.tests[test][other].oriented.nanmean() for other in methods
            ):
                best.append((len(rows), len(cells)))
            cells.append(_with_interval(scores.mean, scores.interval()))
            at = published.ORDER.index(found.corpus.name)
            cells += [f"{known[name][at]:.3f}" if name in known else "–"] if known else []
        rows.append(cells)
    columns = ["map"]
    for found in findings:
        columns += [found.corpus.title, "published"] if known else [found.corpus.title]
    many = ", ".join(f"{f.corpus.title} {len(f.tests[test]['Saliency'])}" for f in findings)
    note = f"{first.direction[0].upper()}{first.direction[1:]}; {first.each}s: {many}"
    if any(name in found.tests[test] for name in FEW for found in findings):
        few = ", ".join(f"{f.corpus.title} {len(f.tests[test][name])}" for f in findings for name in FEW)
        note += f" ({', '.join(FEW)}: {few})"
    beside = [name for name in names if name not in findings[0].notes]
    note += f". Bold: the best mean of a method on all documents. {_INTERVALS}"
    return TextTable(title, columns, rows, (note,), beside, best)


def maps(findings: Sequence[Findings]) -> TextTable:
    """How much each map leaves of what it apportions, and the settings of its method."""
    rows, methods = [], []
    for name in findings[0].notes:
        notes = [found.notes[name] for found in findings]
        methods.append(f"{name}: `{notes[0]['method']}`.")
        if "remainder median" in notes[0]:
            shares = [f"{n['remainder median']:.2g} ({n['remainder 90 %']:.2g})" for n in notes]
            rows.append((name, *shares))
    note = "Median (and 90 % quantile) over the documents; the other maps do not claim to add up."
    columns = ("map", *(found.corpus.title for found in findings))
    return TextTable("|remainder| / |total| of the maps", columns, rows, (note, " ".join(methods)))


def times(findings: Sequence[Findings]) -> TextTable:
    """What took how long."""
    kinds = list(findings[0].seconds)
    rows = [(f.corpus.title, *(f"{f.seconds[kind]:.0f}" for kind in kinds)) for f in findings]
    rows.append(("sum", *(f"{sum(f.seconds[kind] for f in findings):.0f}" for kind in kinds)))
    return TextTable("Seconds", ("corpus", *kinds), rows)


def loss_curves(findings: Sequence[Findings]) -> Figure:
    """The weak learners' validation loss by epoch, mean over the seeds, a panel for each corpus."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(findings) + 1.6, 3.2), layout="constrained")
    axes = figure.subplots(1, len(findings), squeeze=False)[0]
    for ax, found in zip(axes, findings, strict=True):
        for name, scores in found.tests[LEARNER].items():
            curves = [learner["validation_loss"] for learner in scores.notes["learners"]]
            epochs = range(1, min(map(len, curves)) + 1)
            mean = [float(np.mean([curve[e - 1] for curve in curves])) for e in epochs]
            ax.plot(epochs, mean, label=name, linestyle="--" if name not in found.notes else "-", marker=".")
        ax.set_title(found.corpus.title)
        ax.set_xlabel("epoch")
    axes[0].set_ylabel("validation loss")
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    return figure


_INTERVALS = "In brackets: bootstrap interval, 95 %."


def _with_interval(mean: float, interval: tuple[float, float]) -> str:
    return f"{mean:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
