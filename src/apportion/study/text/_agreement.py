"""Do the tests rank the maps alike, and does one test rank them alike on all corpora?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch

from apportion.results.agreement import kendall_tau, krippendorff_alpha
from apportion.results.grid import TextTable
from apportion.results.statistics import bootstrap_means, interval_of_mean, ranks
from apportion.study.text import _published as published
from apportion.study.text.faithfulness import FEW, Findings
from apportion.study.text.readings import DELETION, LEARNER, SHUFFLE, first_of, kind_of

RESAMPLES = 500
Numbers = npt.NDArray[np.float64]
Means = Mapping[tuple[str, str], Numbers]
"""(corpus, test) → the (resamples, maps) means, turned so that higher is better."""


def agreement_tables(findings: Sequence[Findings]) -> list[TextTable]:
    """Agreement of the tests on each corpus, of the corpora under each test, and of each two tests."""
    corpora = {found.corpus.name: found.corpus.title for found in findings}
    tests = one_of_each(list(findings[0].tests))
    three = [test for test in tests if kind_of(test) in (DELETION, SHUFFLE, LEARNER)]
    maps = ranked_maps(findings)
    means = resample_means(findings)
    reported = _published_means()
    by_corpus = [
        (
            title,
            _alpha([means[name, test] for test in tests]),
            _alpha([means[name, test] for test in three]),
            _alpha(_of(reported, corpus=name)),
        )
        for name, title in corpora.items()
    ]
    made = [
        TextTable(
            "Do the tests agree? (Krippendorff's α of the ranks, by corpus)",
            (
                "corpus",
                f"{len(tests)} tests, {len(maps)} maps",
                ", ".join(map(kind_of, three)),
                "the same of published numbers, 4 maps",
            ),
            by_corpus,
            (_ALPHA + f" Tests: {', '.join(tests)}. Maps: {', '.join(maps)}.",),
        )
    ]
    if len(corpora) > 1:
        by_test = [
            (
                test,
                _alpha([means[name, test] for name in corpora]),
                _alpha(_of(reported, test=kind_of(test)) if test in tests else []),
            )
            for test in findings[0].tests
        ]
        made.append(
            TextTable(
                "Do the corpora agree? (Krippendorff's α of the ranks, by test)",
                ("test", f"{len(corpora)} corpora, {len(maps)} maps", "published numbers: 4 corpora, 4 maps"),
                by_test,
                (_ALPHA,),
            )
        )
    made.append(per_text_table(findings))
    every = list(findings[0].tests)
    taus = np.mean([kendall_tau([means[name, test][0] for test in every]) for name in corpora], axis=0)
    rows = [(test, *(f"{tau:.2f}" for tau in row)) for test, row in zip(every, taus, strict=True)]
    note = "1: the same order of the maps, −1: the opposite, 0: unrelated."
    made.append(TextTable("Kendall's τ between tests, mean over the corpora", ("", *every), rows, (note,)))
    return made


def per_text_table(findings: Sequence[Findings]) -> TextTable:
    """Whether the tests of single documents order the maps alike on the same document."""
    tests = [test for test in one_of_each(list(findings[0].tests)) if kind_of(test) != LEARNER]
    pairs = list(combinations(tests, 2))
    rows = []
    for found in findings:
        taus, lengths = taus_of_texts(found, tests)  # (documents, pairs)
        with np.errstate(invalid="ignore"):
            of_all = np.nansum(taus, 1) / (~np.isnan(taus)).sum(1)
        taus = np.concatenate([taus, of_all[:, None]], 1)
        short = lengths <= np.median(lengths)
        for name, which in (("", np.full(len(lengths), True)), (", shorter", short), (", longer", ~short)):
            cells = [_mean(of_pair) for of_pair in taus[which].T]
            rows.append((f"{found.corpus.title}{name}", f"{which.sum()}", *cells))
    note = (
        f"Mean of Kendall's τ-b of the order of {len(ranked_maps(findings))} maps on each text, where both tests tell "
        f"any two of them apart; 0: unrelated. Shorter: of no more than the median length. {_INTERVALS}"
    )
    columns = ("corpus", "documents", *(f"{a} – {b}" for a, b in pairs), "all pairs")
    return TextTable("Do the tests agree on this text? (mean τ over the texts)", columns, rows, (note,))


def taus_of_texts(found: Findings, tests: Sequence[str]) -> tuple[Numbers, Numbers]:
    """τ-b of each two tests on each document that all have, (documents, pairs), and the lengths of these; NaN where a
    test gives all maps the same score."""
    names = ranked_maps([found])
    scores = [torch.stack([found.tests[test][name].oriented for name in names], 1) for test in tests]
    many = min(map(len, scores))
    by_text = torch.stack([score[:many] for score in scores], 1).numpy()  # (documents, tests, maps)
    upper = np.triu_indices(len(tests), 1)
    taus = np.stack([kendall_tau(ratings)[upper] for ratings in by_text])
    return taus, np.array(found.lengths[:many], dtype=np.float64)


def _mean(values: Numbers) -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return "–"
    low, high = interval_of_mean(known)
    return f"{known.mean():.2f} [{low:.2f}, {high:.2f}]"


def one_of_each(tests: Sequence[str]) -> list[str]:
    """The first reading of each test."""
    return [test for test in tests if first_of(kind_of(test), tests) == test]


def ranked_maps(findings: Sequence[Findings]) -> list[str]:
    """The maps that are ranked: those of methods that every test has on as many documents."""
    return [name for name in findings[0].notes if name not in FEW]


def resample_means(findings: Sequence[Findings], resamples: int = RESAMPLES) -> Means:
    """The means of each map under each test: first those found, then those of bootstrap samples, in which
    documents (for the weak learner, seeds) are drawn for all maps together."""
    means = {}
    for found in findings:
        for test, by_map in found.tests.items():
            values = np.stack([by_map[name].oriented.numpy() for name in ranked_maps(findings)], 1)
            means[found.corpus.name, test] = np.concatenate(
                [values.mean(0)[None], bootstrap_means(values, resamples)]
            )
    return means


def _alpha(raters: Sequence[Numbers]) -> str:
    """α of the first row of each rater, and its interval over the others; a dash without raters,
    and where no rater tells any two maps apart."""
    if not raters:
        return "–"
    alphas = [krippendorff_alpha([_ranks(rater[k]) for rater in raters]) for k in range(len(raters[0]))]
    if np.isnan(alphas[0]):
        return "–"
    if len(alphas) == 1:
        return f"{alphas[0]:.2f}"
    low, high = np.nanquantile(alphas[1:], [0.025, 0.975])
    return f"{alphas[0]:.2f} [{low:.2f}, {high:.2f}]"


def _ranks(values: Numbers) -> list[float]:
    return list(ranks({str(i): value for i, value in enumerate(values.tolist())}).values())


def _published_means() -> Means:
    """The published means in the same form, without resamples."""
    signs = {DELETION: -1, LEARNER: 1, SHUFFLE: 1}
    sources = {DELETION: published.DELETION, LEARNER: published.WEAK_LEARNER, SHUFFLE: published.SHUFFLE}
    return {
        (corpus, test): signs[test]
        * np.array([[row[at] for name, row in by_map.items() if name not in ("Uniform", "Random")]])
        for test, by_map in sources.items()
        for at, corpus in enumerate(published.ORDER)
    }


def _of(means: Means, corpus: str | None = None, test: str | None = None) -> list[Numbers]:
    return [m for (c, t), m in means.items() if corpus in (None, c) and test in (None, t)]


_INTERVALS = "In brackets: bootstrap interval, 95 %, over documents."

_ALPHA = (
    "1: the same ranks, 0: as by chance, below 0: opposite. In brackets: bootstrap interval, 95 %, over "
    "documents and seeds."
)
