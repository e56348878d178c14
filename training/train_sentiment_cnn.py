"""Train a convolutional network for sentences (Kim 2014) on the Stanford Sentiment Treebank; it does not ship.

    python training/train_sentiment_cnn.py DATA_FOLDER FILE

Its size is the paper's: embeddings of 300, 100 filters each of 3, 4 and 5 words, maximum over the sentence, dropout of
a half. Embeddings are learned, and examples are those of `train_sentiment.py`, which also says what is in DATA_FOLDER.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from apportion.core.files import stored
from apportion.domains.text import Vocabulary
from train_sentiment import accuracy, batches, read_trees, sentences, training_examples

EMBEDDING, FILTERS, WIDTHS, DROPOUT = 300, 100, (3, 4, 5), 0.5
EPOCHS, RATE, WORDS_DROPPED = 2, 1e-3, 0.1


class KimCNN(nn.Module):
    """Token ids (batch, tokens) to scores (batch, 2) before softmax.

    >>> KimCNN(words=10).eval()(torch.tensor([[2, 7, 0]])).shape
    torch.Size([1, 2])
    """

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, EMBEDDING, padding_idx=Vocabulary.PADDING)
        self.filters = nn.ModuleList(nn.Conv1d(EMBEDDING, FILTERS, w, padding=w - 1) for w in WIDTHS)
        self.dropout = nn.Dropout(DROPOUT)
        self.output = nn.Linear(FILTERS * len(WIDTHS), 2)

    def forward(self, ids: Tensor) -> Tensor:
        words = self.embedding(ids).transpose(1, 2)  # (batch, embedding, tokens)
        there = (ids != Vocabulary.PADDING).to(words.dtype)[:, None]  # (batch, 1, tokens)
        found = []
        for each in self.filters:
            (width,) = each.kernel_size
            sees = F.conv1d(there, there.new_ones(1, 1, width), padding=width - 1) > 0
            # Nothing is below 0 after ReLU, so a place that sees padding only is never the maximum.
            found.append(F.relu(each(words)).masked_fill(~sees, 0.0).amax(2))
        scores: Tensor = self.output(self.dropout(torch.cat(found, 1)))
        return scores


def load(path: Path) -> tuple[KimCNN, Vocabulary]:
    """The model in eval mode, and the vocabulary."""
    notes, weights = stored(path)
    vocabulary = Vocabulary(tuple(notes["words"].split("\n")))
    model = KimCNN(len(vocabulary))
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False), vocabulary


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data_folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)

    started = time.perf_counter()
    trees = list(read_trees(arguments.data_folder, "train"))
    vocabulary = Vocabulary.of_texts(tree[-1][0] for tree in trees)
    examples = training_examples([phrase for tree in trees for phrase in tree], vocabulary)
    model = KimCNN(len(vocabulary))
    with torch.no_grad():
        model.embedding.weight.mul_(0.1)
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    for epoch in range(arguments.epochs):
        model.train()
        for ids, positive in batches(examples, shuffled=True):
            dropped = (torch.rand(ids.shape) < WORDS_DROPPED) & (ids != Vocabulary.PADDING)
            scores = model(ids.masked_fill(dropped, Vocabulary.UNKNOWN))
            loss = F.cross_entropy(scores, torch.stack([1 - positive, positive], dim=1))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        measured = accuracy(model.eval(), sentences(arguments.data_folder, "dev", vocabulary))
        print(f"epoch {epoch + 1}/{arguments.epochs}: validation accuracy {measured:.4f}", flush=True)
    save_file(model.state_dict(), arguments.out, metadata={"words": "\n".join(vocabulary.words)})
    print(f"trained in {time.perf_counter() - started:.0f} s")
    found, vocabulary = load(arguments.out)
    examples = sentences(arguments.data_folder, "test", vocabulary)
    print(f"test accuracy as written: {accuracy(found, examples):.4f} of {len(examples)} sentences")


if __name__ == "__main__":
    main()
