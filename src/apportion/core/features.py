"""What the numbers of an explanation stand for: tokens of a text, pixels of a picture, columns of a row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

ELSEWHERE = "elsewhere"
"""What is of no word of a text, such as special tokens, where that is one feature."""


@dataclass(frozen=True)
class TextFeatures:
    """The tokens of one text, with their places in it.

    `offsets[i]` is the half-open range of token `i` in `text` ((0, 0) for special tokens); `words[i]`
    is the word that it belongs to (None for special tokens and padding, which are never masked).

    >>> TextFeatures("not bad", ("not", "bad"), ((0, 3), (4, 7)), (0, 1)).names
    ('not', 'bad')
    """

    text: str
    tokens: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    words: tuple[int | None, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each word, as it stands in the text, where that can be written."""
        spans: dict[int, tuple[int, int]] = {}
        for word, (start, end) in zip(self.words, self.offsets, strict=True):
            if word is not None:
                first, last = spans.get(word, (start, end))
                spans[word] = (min(first, start), max(last, end))
        return tuple(writable(self.text[start:end]) for _, (start, end) in sorted(spans.items()))

    @property
    def groups(self) -> tuple[int, ...]:
        """For each token the index of its word; -1 for special tokens."""
        order = {word: index for index, word in enumerate(sorted({w for w in self.words if w is not None}))}
        return tuple(-1 if word is None else order[word] for word in self.words)


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """The picture that the model saw: `picture` is (height, width, 3) uint8, aligned with its input;
    `note` says in words how it was prepared. `photo` is the width and height of what it was made from, and `part` what
    it shows of that: left, top, right and bottom in the photo's own pixels; None: not known."""

    picture: Tensor
    note: str = ""
    photo: tuple[int, int] | None = None
    part: tuple[float, float, float, float] | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ImageFeatures):
            return NotImplemented
        return self.note == other.note and torch.equal(self.picture, other.picture)


@dataclass(frozen=True)
class TabularFeatures:
    """The columns of one table row: `cells` are its values as text; `groups[i]` is the column that model
    input `i` comes from (the inputs of a one-hot block share a column).

    >>> TabularFeatures(("age", "sex"), ("41", "female"), (0, 1, 1)).names
    ('age = 41', 'sex = female')
    """

    columns: tuple[str, ...]
    cells: tuple[str, ...]
    groups: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Each column with its value."""
        return tuple(f"{column} = {cell}" for column, cell in zip(self.columns, self.cells, strict=True))


def writable(text: str) -> str:
    """The text with a sign for each half of a surrogate pair, which no file, terminal or picture takes.

    >>> writable("so\\ud800").encode()
    b'so\\xef\\xbf\\xbd'
    """
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


Features = TextFeatures | ImageFeatures | TabularFeatures


def as_cut(features: Features, labels: Sequence[int]) -> Features:
    """The features of one input as they were cut by a partition, of which `labels` are the numbers: tokens where words
    were cut into them, groups of columns or words where several were hidden together.

    >>> row = TabularFeatures(("age", "sex", "size"), ("41", "female", "3"), (0, 1, 1, 2))
    >>> as_cut(row, [0, 0, 0, 1]).names
    ('age + sex = 41 + female', 'size = 3')
    >>> as_cut(TextFeatures("so-so", ("so", "-", "so"), ((0, 2), (2, 3), (3, 5)), (0, 0, 0)), [0, 1, 2]).names
    ('so', '-', 'so')
    """
    if isinstance(features, TextFeatures):
        labels = labels[: len(features.tokens)]
        if tuple(labels) == features.groups:
            return features
        return replace(features, words=tuple(None if label < 0 else label for label in labels))
    if isinstance(features, ImageFeatures) or len(labels) != len(features.groups):
        return features
    if tuple(labels) == features.groups:
        return features
    columns: dict[int, list[int]] = {label: [] for label in sorted(set(labels)) if label >= 0}
    for label, column in zip(labels, features.groups, strict=True):
        if label >= 0 and column not in columns[label]:
            columns[label].append(column)
    if all(len(together) == 1 for together in columns.values()):
        return features
    return TabularFeatures(
        tuple(_joined([features.columns[i] for i in each]) for each in columns.values()),
        tuple(_joined([features.cells[i] for i in each]) for each in columns.values()),
        tuple(labels),
    )


def _joined(names: Sequence[str]) -> str:
    return " + ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def same_input(one: Features, other: Features) -> bool:
    """Whether two features are of the same input, which may be cut differently."""
    if isinstance(one, TextFeatures) and isinstance(other, TextFeatures):
        return one.tokens == other.tokens and one.text == other.text
    if (
        isinstance(one, TabularFeatures)
        and isinstance(other, TabularFeatures)
        and one.columns != other.columns
    ):
        return len(one.groups) == len(other.groups)
    return one == other


def to_json(features: Features) -> dict[str, Any]:
    """A JSON-ready description; a picture is left out (it is stored as a tensor beside it)."""
    fields = {
        name: value
        for name, value in vars(features).items()
        if value is not None and not isinstance(value, Tensor)
    }
    return {"kind": type(features).__name__, **fields}


def from_json(description: dict[str, Any], picture: Tensor | None = None) -> Features:
    """Rebuild what `to_json` described."""
    fields = dict(description)
    kind = fields.pop("kind")
    if kind == "ImageFeatures":
        assert picture is not None
        return ImageFeatures(picture, **{name: _tuples(value) for name, value in fields.items()})
    fields = {name: _tuples(value) for name, value in fields.items()}
    return TextFeatures(**fields) if kind == "TextFeatures" else TabularFeatures(**fields)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
