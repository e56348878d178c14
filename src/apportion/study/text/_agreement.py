"""Do the tests rank the maps alike, and does one test rank them alike on all corpora?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from apportion.results.agreement import kendall_tau, krippendorff_alpha
from apportion.results.grid import TextTable
from apportion.results.statistics import bootstrap_means, ranks
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
    every = list(findings[0].tests)
    taus = np.mean([kendall_tau([means[name, test][0] for test in every]) for name in corpora], axis=0)
    rows = [(test, *(f"{tau:.2f}" for tau in row)) for test, row in zip(every, taus, strict=True)]
    note = "1: the same order of the maps, −1: the opposite, 0: unrelated."
    made.append(TextTable("Kendall's τ between tests, mean over the corpora", ("", *every), rows, (note,)))
    return made


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


_ALPHA = (
    "1: the same ranks, 0: as by chance, below 0: opposite. In brackets: bootstrap interval, 95 %, over "
    "documents and seeds."
)
