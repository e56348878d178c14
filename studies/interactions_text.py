"""Words that act together, in a transformer, a BiLSTM and a CNN: negation, intensifiers and saturation.

    python studies/interactions_text.py [DATA_FOLDER] [--cnn FILE] [--many 100] [--pictures FOLDER]

Four sentences by each model that is there: the two that ship, and with `--cnn` what `training/train_sentiment_cnn.py`
wrote. With DATA_FOLDER (as there) also statistics of test sentences in which a negation stands before a word with a
sentiment: does the interaction of the two turn that word round?

The score is the margin, positive minus negative. The path begins at masked words: `[MASK]`, or the `<unk>` that stood
for a hidden word in training.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from matplotlib.figure import Figure

import apportion as ap
from apportion.core.features import TextFeatures
from apportion.display.pictures.interactions import arcs, heatmap
from apportion.domains.text import Vocabulary, encode_words
from apportion.results.statistics import interval_of_mean

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from train_sentiment import read_trees
from train_sentiment_cnn import load as load_cnn

TEXTS = ("not bad", "not a good movie", "a painfully funny movie", "a bad, terrible, awful movie")
MARGIN = ap.Contrast(1, 0)
NEGATIONS = frozenset("not n't never no nothing nor neither without hardly barely".split())
REACH = 3  # words after a negation among which one with a sentiment is looked for
MOST_WORDS = 25  # of a sentence in the statistics


def models(cnn: Path | None) -> dict[str, ap.Classifier]:
    found = {"BiLSTM": ap.load("sentiment")}
    if cnn:
        network, vocabulary = load_cnn(cnn)
        encode = partial(encode_words, vocabulary=vocabulary)
        labels = ("negative", "positive")
        found["CNN"] = ap.Classifier(network, encode, labels, "text", "cnn", Vocabulary.UNKNOWN)
    try:
        found["MiniLM"] = ap.load("sentiment-transformer")
    except ap.InputError as error:
        print(error)
    return found


def explain(
    classifier: ap.Classifier, text: str, groups: list[int] | None = None, **settings: object
) -> tuple[ap.Interactions, float]:
    """The interactions of words, not of their pieces (or of other groups of tokens), and seconds."""
    inputs, features = classifier.encode(text)
    begun = time.perf_counter()
    found = ap.IntegratedHessians(**settings)(
        classifier.model,
        inputs,
        MARGIN,
        groups=torch.tensor([groups or features.groups]),
        mask=classifier.mask,
        features=(features,),
    )
    return found.with_features((features,), classifier.labels), time.perf_counter() - begun


# ---- four sentences ----


def show(name: str, classifier: ap.Classifier, text: str) -> ap.Interactions:
    found, seconds = explain(classifier, text)
    names = found.names_of(0)
    margin = float(found.output[0, 1] - found.output[0, 0])
    print(f"{name}: {text!r}, margin {margin:+.2f}, {found.notes['nodes']} nodes, {seconds:.1f} s")
    print(f"    {found.summary()}")
    alone = zip(names, found.main[0].tolist(), strict=True)
    print("    alone: " + ", ".join(f"{word} {value:+.2f}" for word, value in alone))
    print("    pairs: " + ", ".join(f"{a} · {b} {value:+.2f}" for a, b, value in found.top(6)), flush=True)
    return found


def draw(found: dict[str, list[ap.Interactions]], folder: Path) -> None:
    """Arcs of every model in a column each, and the matrices of the last one."""
    figure = Figure((4.8 * len(found), 2.5 * len(TEXTS)), layout="constrained")
    grid = figure.subplots(len(TEXTS), len(found), squeeze=False)
    for column, (name, each) in enumerate(found.items()):
        for row, one in enumerate(each):
            arcs(one, ax=grid[row][column], most=6)
            grid[row][column].set_title(name if row == 0 else "", fontsize=11)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "interactions_text.png", dpi=90)
    figure = Figure((4.2 * len(TEXTS), 3.6), layout="constrained")
    for ax, one in zip(figure.subplots(1, len(TEXTS)), list(found.values())[-1], strict=True):
        heatmap(one, ax=ax)
        ax.set_title("")
    for bar in figure.axes[len(TEXTS) :]:
        bar.set_ylabel("")
    figure.savefig(folder / "interactions_text_matrices.png", dpi=90)


# ---- test sentences with a negation ----


@dataclass
class Case:
    """A sentence in the words of the treebank, with the places of a negation, of the word with a sentiment after it
    (`sign` 1 or −1), and of the neutral word that is nearest to that one."""

    words: list[str]
    positive: bool
    negation: int
    word: int
    neutral: int
    sign: int


def cases(folder: Path) -> list[Case]:
    found = []
    for tree in read_trees(folder, "test"):
        text, label = tree[-1]
        words, labels = text.split(), [label for phrase, label in tree if " " not in phrase]
        if label == 2 or len(words) > MOST_WORDS:
            continue
        negating = [word.lower() in NEGATIONS for word in words]
        felt = [i for i, one in enumerate(labels) if one != 2 and not negating[i]]
        neutral = [i for i, one in enumerate(labels) if one == 2 and not negating[i] and words[i].isalpha()]
        for place in (i for i, one in enumerate(negating) if one):
            near = [i for i in felt if place < i <= place + REACH]
            if near and neutral:
                other = min(neutral, key=lambda i: abs(i - near[0]))
                sign = 1 if labels[near[0]] > 2 else -1
                found.append(Case(words, label > 2, place, near[0], other, sign))
                break
    return found


def tokens_by_word(words: list[str], features: TextFeatures) -> list[int]:
    """The treebank's word that each token is of; −1 for special tokens."""
    starts, at = [], 0
    for word in words:
        starts.append(at)
        at += len(word) + 1
    return [
        -1 if word is None else max(i for i, begin in enumerate(starts) if begin <= start)
        for word, (start, _) in zip(features.words, features.offsets, strict=True)
    ]


def measure(name: str, classifier: ap.Classifier, chosen: list[Case]) -> str:
    """A row of the table."""
    turns, controls, nodes, right, begun = [], [], [], 0, time.perf_counter()
    for case in chosen:
        text = " ".join(case.words)
        groups = tokens_by_word(case.words, classifier.encode(text)[1])
        found, _ = explain(
            classifier, text, groups, pairs=[(case.negation, case.word), (case.neutral, case.word)]
        )
        both = found.values[0] + found.values[0].T
        turns.append(-case.sign * float(both[case.negation, case.word]))
        controls.append(-case.sign * float(both[case.neutral, case.word]))
        nodes.append(found.notes["nodes"])
        right += bool(found.output[0].argmax()) == case.positive
    seconds = time.perf_counter() - begun

    def write(values: list[float]) -> str:
        shares = [float(value > 0) for value in values]
        (low, high), (least, most) = interval_of_mean(shares), interval_of_mean(values)
        share, mean = (sum(each) / len(each) for each in (shares, values))
        return f"{share:.0%} [{low:.0%}, {high:.0%}] | {mean:+.3f} [{least:+.3f}, {most:+.3f}]"

    cost = f"{median(nodes):.0f} (most {max(nodes)}), {seconds / len(chosen):.1f} s"
    return f"| {name} | {right / len(chosen):.1%} | {write(turns)} | {write(controls)} | {cost} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data_folder", type=Path, nargs="?")
    parser.add_argument("--cnn", type=Path)
    parser.add_argument("--many", type=int, default=100, help="sentences of the statistics, drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    there = models(given.cnn)
    found = {name: [show(name, classifier, text) for text in TEXTS] for name, classifier in there.items()}
    if given.pictures:
        draw(found, given.pictures)
    if given.data_folder:
        every = cases(given.data_folder)
        chosen = random.Random(given.seed).sample(every, min(given.many, len(every)))
        alike = sum(case.word == case.negation + 1 for case in chosen)
        print(f"\n{len(chosen)} of {len(every)} test sentences; in {alike} the two words stand side by side")
        print("| model | right | turned round | by | with a neutral word | by | nodes, time a sentence |")
        print("|---|---|---|---|---|---|---|")
        for name, classifier in there.items():
            print(measure(name, classifier, chosen), flush=True)


if __name__ == "__main__":
    main()
