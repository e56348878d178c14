"""Do the tests of the text study agree better where the explained model is stronger?

    python studies/text_strength.py DATA OUT [--epochs 1,2,4,8]

SST, the model after so many epochs (the last is kept), and less of everything than in the fast study. OUT gets the
cells; the same command goes on where it was killed.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from apportion.evaluation.by_training.weak_learner import WeakLearner
from apportion.learning.training import Training
from apportion.results.statistics import interval_of_mean
from apportion.study.store import Store
from apportion.study.text._agreement import one_of_each, taus_of_texts
from apportion.study.text.corpora import load
from apportion.study.text.faithfulness import fast_settings, run
from apportion.study.text.readings import LEARNER, SHUFFLE, Readings, kind_of


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", default="1,2,4,8")
    given = parser.parse_args()
    torch.set_num_threads(1)
    corpus, store = load("sst", given.data), Store(given.out, lambda line: print(line, flush=True))
    rows = []
    for epochs in map(int, given.epochs.split(",")):
        settings = replace(
            fast_settings(),
            training=Training(epochs=epochs, keep="last"),
            learner=WeakLearner(seeds=(0,), training=Training(epochs=4)),
            train=12_000,
            valid=3_000,
            test=4_000,
            readings=Readings(shuffle=("learner",)),
        )
        found = run(corpus, settings, store)
        right = (found.scores.argmax(1) == found.corpus.test.labels).double()
        sure = found.scores.softmax(1).amax(1)
        tests = [test for test in one_of_each(list(found.tests)) if kind_of(test) != LEARNER]
        taus = taus_of_texts(found, tests)[0]  # (documents, pairs)
        shuffled = np.array([SHUFFLE in map(kind_of, pair) for pair in combinations(tests, 2)])
        rates = [
            f"{found.tests['deletion rate'][name].mean:.3f}"
            for name in ("Integrated Gradients", "Saliency", "Attention")
        ]
        rows.append(
            f"| {epochs} | {float(right.mean()):.3f} | {float(sure.mean()):.3f} | {mean(taus[:, ~shuffled])} | "
            f"{mean(taus[:, shuffled])} | {' | '.join(rates)} |"
        )
        print(rows[-1], flush=True)
    print(
        "\n| epochs | accuracy | mean confidence | τ of tests that hide, on a text | of these with the shuffle test | "
        "deletion rate of IG | of saliency | of attention |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


def mean(taus: np.ndarray) -> str:
    """The mean over texts of the mean τ of each text, with its interval."""
    known = taus[~np.isnan(taus).all(1)]
    each = np.nanmean(known, 1)
    low, high = interval_of_mean(each)
    return f"{each.mean():.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
