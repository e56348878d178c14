"""Train the shipped sentiment model on the Stanford Sentiment Treebank and write its weights.

    python training/train_sentiment.py DATA_FOLDER

DATA_FOLDER (or its subfolder `text`) holds `sst_trees_train.txt.gz`, `..._dev...` and `..._test...`: the
treebank's files `train.txt`, `dev.txt` and `test.txt`, one tree in brackets a line, gzipped or not.

Every phrase of the training trees is an example, the neutral ones too, with its mean label from 0 (very
negative) to 4 as a soft target: so single words are learned, and what joins them. Validation and test are the
whole sentences that are not neutral. What is kept is a running mean of the weights.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import re
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from apportion.domains.text import Vocabulary, encode_words
from apportion.learning.networks import AttentionClassifier
from apportion.models.shipped.sentiment import WEIGHTS, load, save

EMBEDDING, HIDDEN, ATTENTION, DROPOUT = 128, 128, 64, 0.3
EPOCHS, TOKENS_PER_BATCH, RATE, CLIP, MEAN_DECAY = 3, 3200, 3e-3, 1.0, 0.999
WORDS_DROPPED = 0.1  # so that <unk>, which also stands for a hidden word, is trained

Phrase = tuple[str, int]
Example = tuple[Tensor, float]

_PARTS = re.compile(r"\((\d)|([^()\s]+)|\)")
_ESCAPES = {"\\/": "/", "\\*": "*", "-LRB-": "(", "-RRB-": ")"}


def read_trees(folder: Path, part: str) -> Iterator[list[Phrase]]:
    """The phrases of each tree with their labels 0-4, the whole sentence last."""
    for name in (f"sst_trees_{part}.txt.gz", f"text/sst_trees_{part}.txt.gz", f"{part}.txt"):
        path = folder / name
        if path.is_file():
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            yield from (phrases_of(line) for line in content.decode().splitlines())
            return
    raise FileNotFoundError(f"{folder}: no sst_trees_{part}.txt.gz or {part}.txt here or in its folder text")


def phrases_of(tree: str) -> list[Phrase]:
    """The phrases of one tree in brackets, such as "(3 (2 not) (3 bad))"."""
    phrases: list[Phrase] = []
    words: list[str] = []
    open_phrases: list[tuple[int, int]] = []
    for part in _PARTS.finditer(tree):
        label, word = part.groups()
        if label:
            open_phrases.append((len(words), int(label)))
        elif word:
            for escape, character in _ESCAPES.items():
                word = word.replace(escape, character)
            words.append(word)
        else:
            first, degree = open_phrases.pop()
            phrases.append((" ".join(words[first:]), degree))
    return phrases


def training_examples(phrases: list[Phrase], vocabulary: Vocabulary) -> list[Example]:
    """Each distinct phrase with the probability of "positive" that its mean label stands for."""
    labels: dict[str, list[int]] = {}
    for text, label in phrases:
        labels.setdefault(text.lower(), []).append(label)
    return [
        (encode_words(text, vocabulary)[0][0], sum(given) / len(given) / 4) for text, given in labels.items()
    ]


def sentences(folder: Path, part: str, vocabulary: Vocabulary) -> list[Example]:
    """The whole sentences that are not neutral, 0 negative and 1 positive."""
    roots = (tree[-1] for tree in read_trees(folder, part))
    return [(encode_words(text, vocabulary)[0][0], float(label > 2)) for text, label in roots if label != 2]


def batches(examples: list[Example], shuffled: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Padded ids (batch, tokens) and targets (batch,), texts of like length together."""
    lengths = torch.tensor([float(len(ids)) for ids, _ in examples])
    order = (lengths + 2 * torch.rand(len(examples)) * shuffled).argsort(stable=True).tolist()
    chunks: list[list[int]] = [[]]
    for index in order:
        if (len(chunks[-1]) + 1) * len(examples[index][0]) > TOKENS_PER_BATCH or len(chunks[-1]) == 256:
            chunks.append([])
        chunks[-1].append(index)
    for chunk in torch.randperm(len(chunks)).tolist() if shuffled else range(len(chunks)):
        ids, targets = zip(*(examples[index] for index in chunks[chunk]), strict=True)
        yield pad_sequence(list(ids), batch_first=True), torch.tensor(targets)


def accuracy(model: AttentionClassifier, examples: list[Example]) -> float:
    with torch.no_grad():
        right = sum(int((model(ids).argmax(1) == y).sum()) for ids, y in batches(examples, shuffled=False))
    return right / len(examples)


def train(examples: list[Example], validation: list[Example], words: int, epochs: int) -> AttentionClassifier:
    """The mean model after all epochs; the validation accuracy is only shown, nothing is chosen by it."""
    model = AttentionClassifier(words, EMBEDDING, HIDDEN, ATTENTION, dropout=DROPOUT)
    with torch.no_grad():
        model.embedding.weight.mul_(0.1)
    mean = copy.deepcopy(model).eval()
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    steps = epochs * (sum(1 for _ in batches(examples, shuffled=True)) + 20)  # their number varies a little
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=RATE, total_steps=steps, pct_start=0.1)
    step = 0
    for epoch in range(epochs):
        for ids, positive in batches(examples, shuffled=True):
            dropped = (torch.rand(ids.shape) < WORDS_DROPPED) & (ids != Vocabulary.PADDING)
            scores = model(ids.masked_fill(dropped, Vocabulary.UNKNOWN))
            loss = F.cross_entropy(scores, torch.stack([1 - positive, positive], dim=1))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimiser.step()
            schedule.step()
            step += 1
            with torch.no_grad():
                share = 1 - min(MEAN_DECAY, step / (step + 10))
                torch._foreach_lerp_(list(mean.parameters()), list(model.parameters()), share)
        print(f"epoch {epoch + 1}/{epochs}: validation accuracy {accuracy(mean, validation):.4f}", flush=True)
    return mean


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data_folder", type=Path)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)  # the LSTM's steps are too small to share: two threads wait for each other

    started = time.perf_counter()
    trees = list(read_trees(arguments.data_folder, "train"))
    vocabulary = Vocabulary.of_texts(tree[-1][0] for tree in trees)
    examples = training_examples([phrase for tree in trees for phrase in tree], vocabulary)
    print(f"{len(examples)} training phrases, {len(vocabulary)} words", flush=True)
    validation = sentences(arguments.data_folder, "dev", vocabulary)
    save(train(examples, validation, len(vocabulary), arguments.epochs), vocabulary, arguments.out)
    print(f"trained in {time.perf_counter() - started:.0f} s")

    # Measured on what was written, not on what was trained: this is the model that ships.
    shipped, vocabulary = load(arguments.out)
    for part, name in (("dev", "validation"), ("test", "test")):
        examples = sentences(arguments.data_folder, part, vocabulary)
        print(f"{name} accuracy as shipped: {accuracy(shipped, examples):.4f} of {len(examples)} sentences")
    print(f"{arguments.out.name}: {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
