"""The tables and curves of the text study, beside what the literature reports."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from apportion.core.files import write_whole
from apportion.results.agreement import kendall_tau
from apportion.results.grid import TextTable
from apportion.results.scores import Scores
from apportion.results.statistics import bootstrap_means, say_if_few
from apportion.study.tables import write_tables
from apportion.study.text import _published as published
from apportion.study.text.faithfulness import FEW, Findings
from apportion.study.text.readings import DELETION, LEARNER, SHUFFLE, first_of, kind_of, reading_of

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
    made += [distances(findings), epochs_to_best(findings), *agreement_tables(findings)]
    if any(found.models for found in findings):
        made.append(spread(findings))
    return [*made, maps(findings), times(findings)]


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
                f"{np.median(lengths):.0f}",
                f"{np.quantile(lengths, 0.9):.0f}",
                f"{labels.mean():.1%}",
                f"{corpus.dropped}",
            )
        )
    columns = ("corpus", "classes", "train", "validation", "test", "words", "mean length", "median", "90 %")
    note = "Lengths are without the start and end tokens that published tables count. Dropped: too short or long."
    return TextTable("Data", (*columns, "second class", "dropped"), rows, (note,))


def models(findings: Sequence[Findings]) -> TextTable:
    """How well the models do."""
    rows = []
    several = any(found.models for found in findings)
    for found in [one for each in findings for one in each.models or (each,)]:
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
                found.corpus.title + (f", seed {found.seed}" if several else ""),
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
    title, known = WITH_PUBLISHED.get(kind_of(test), (f"Mean {test}", {}))
    title += f" ({reading_of(test)})" if known and reading_of(test) else ""
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
    if said := say_if_few(max(len(found.tests[test]["Uniform"]) for found in findings)):
        note += f", {said}"
    note += f". Bold: the best mean of a method on all documents. {_INTERVALS}"
    return TextTable(title, columns, rows, (note,), beside, best)


def distances(findings: Sequence[Findings]) -> TextTable:
    """How far each reading of each test is from the published means, over the maps that were published."""
    rows: list[list[str]] = []
    smallest: dict[tuple[str, int], tuple[float, int]] = {}
    for test in findings[0].tests:
        known = WITH_PUBLISHED.get(kind_of(test), ("", {}))[1]
        if not known:
            continue
        cells = [f"{kind_of(test)} ({said})" if (said := reading_of(test)) else test]
        for found in findings:
            at, scores = published.ORDER.index(found.corpus.name), found.tests[test]
            here = {name: scores[name].mean for name in known if name in scores}
            apart = [abs(mean - known[name][at]) for name, mean in here.items()]
            ranked = [name for name in here if name in found.notes]
            tau = kendall_tau([[here[n] for n in ranked], [known[n][at] for n in ranked]])[0, 1]
            key = (kind_of(test), len(cells))
            smallest[key] = min(smallest.get(key, (np.inf, 0)), (float(np.mean(apart)), len(rows)))
            cells.append(f"{np.mean(apart):.3f} ({tau:.2f})")
        rows.append(cells)
    best = [(row, column) for (_, column), (_, row) in smallest.items()]
    note = (
        "Mean of |ours − published| over the maps that were published, the references Uniform and Random of the weak "
        "learner among them; in brackets Kendall's τ of the methods' order with the published one. Bold: the closest "
        "reading of each test."
    )
    return TextTable(
        "Distance to the published means",
        ("test", *(f.corpus.title for f in findings)),
        rows,
        (note,),
        (),
        best,
    )


def epochs_to_best(findings: Sequence[Findings]) -> TextTable:
    """When the weak learners' validation loss is lowest, and how low."""
    test = first_of(LEARNER, list(findings[0].tests)) or LEARNER
    rows = []
    for name in findings[0].tests[test]:
        cells = [name]
        for found in findings:
            losses = [np.array(one["validation_loss"]) for one in found.tests[test][name].notes["learners"]]
            epochs = Scores(torch.tensor([1 + int(loss.argmin()) for loss in losses]), test, False)
            cells += [
                _with_interval(epochs.mean, epochs.interval(), 1),
                f"{np.mean([loss.min() for loss in losses]):.3f}",
                f"{np.mean([loss[-1] for loss in losses]):.3f}",
            ]
        rows.append(cells)
    columns = ["map"]
    for found in findings:
        columns += [f"{found.corpus.title}, epoch", "lowest loss", "last loss"]
    many = ", ".join(
        f"{f.corpus.title} {len(f.tests[test][f_name].notes['learners'])} of "
        f"{max(len(one['validation_loss']) for one in f.tests[test][f_name].notes['learners'])} epochs"
        for f in findings
        for f_name in ("Uniform",)
    )
    note = f"Learners of each map: {many}. {_INTERVALS}"
    beside = [name for name in findings[0].tests[test] if name not in findings[0].notes]
    return TextTable(
        "Epoch of the lowest validation loss of the weak learner", columns, rows, (note,), beside
    )


def spread(findings: Sequence[Findings]) -> TextTable:
    """The lowest and the highest mean among the explained models."""
    rows = []
    for test in findings[0].tests:
        for name in findings[0].tests[test]:
            cells = [f"{test}: {name}"]
            for found in findings:
                means = [one.tests[test][name].mean for one in found.models or (found,)]
                cells.append(f"{min(means):.3f} – {max(means):.3f}")
            rows.append(cells)
    many = ", ".join(f"{f.corpus.title} {len(f.models) or 1}" for f in findings)
    note = f"Explained models, trained from different seeds: {many}."
    return TextTable(
        "Lowest and highest mean among the explained models",
        ("test: map", *(f.corpus.title for f in findings)),
        rows,
        (note,),
    )


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
        learner = first_of(LEARNER, list(found.tests)) or LEARNER
        for name, scores in found.tests[learner].items():
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


def _with_interval(mean: float, interval: tuple[float, float], digits: int = 3) -> str:
    return f"{mean:.{digits}f} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
