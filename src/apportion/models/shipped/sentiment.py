"""The sentiment model that ships: an attention classifier trained on the phrases of the Stanford Sentiment
Treebank (Socher et al. 2013) by `training/train_sentiment.py`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from apportion.core.classifier import Classifier
from apportion.core.files import stored
from apportion.domains.text import Vocabulary, encode_words
from apportion.learning.networks import AttentionClassifier

WEIGHTS = Path(__file__).parent / "weights" / "sentiment.safetensors"
LABELS = ("negative", "positive")


def sentiment() -> Classifier[Tensor]:
    """The shipped classifier of English film reviews; its `encode` takes a sentence.

    Labels are "negative" and "positive", scores are before softmax. It knows words better than what they do
    to each other: "not bad" and "a painfully funny movie" are negative to it. A hidden word is the `<unk>`
    that it met in training. Each call returns a model of its own, so what is done to one shows in no other.

    >>> classifier = sentiment()
    >>> ids, features = classifier.encode("A warm and funny movie.")
    >>> features.tokens, classifier.labels[int(classifier.model(ids).argmax())]
    (('a', 'warm', 'and', 'funny', 'movie', '.'), 'positive')
    """
    model, vocabulary = load(WEIGHTS)
    return Classifier(
        model=model,
        encode=partial(encode_words, vocabulary=vocabulary),
        labels=LABELS,
        domain="text",
        name="sentiment",
        mask=Vocabulary.UNKNOWN,
    )


def save(model: AttentionClassifier, vocabulary: Vocabulary, path: Path) -> None:
    """Write weights (float16) and vocabulary to one safetensors file."""
    weights = {name: weight.half().contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, path, metadata={"words": "\n".join(vocabulary.words)})


def load(path: Path) -> tuple[AttentionClassifier, Vocabulary]:
    """The model, in float32 and eval mode with its gradients off, and the vocabulary that `save` wrote."""
    notes, halves = stored(path)
    vocabulary = Vocabulary(tuple(notes["words"].split("\n")))
    weights = {name: half.float() for name, half in halves.items()}
    words, embedding = weights["embedding.weight"].shape
    with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away, and so are their draws
        model = AttentionClassifier(
            words,
            embedding=embedding,
            hidden=weights["rightward.weight_hh_l0"].shape[1],
            attention=weights["key.weight"].shape[0],
            classes=weights["output.weight"].shape[0],
        )
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False), vocabulary
