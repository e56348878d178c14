"""From a text to the characters that it consists of, and back: the input of a function of strings.

Each character is a token whose id is its code point, so that the ids are the text itself: nothing is normalised, looked
up or left out, and a function of strings becomes a function of ids that knows nothing but these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from apportion.core.classifier import Classifier
from apportion.core.features import TextFeatures
from apportion.core.numbers import is_frame, is_series, tensor_of
from apportion.domains.estimators import function_of, labels_of
from apportion.domains.text import check_text, tokenise
from apportion.errors import InputError, check

HIDDEN = 0
_END = 1  # of a piece: two hidden pieces are two hidden words
_FIRST = 2  # the id of character U+0000


@dataclass(frozen=True)
class RawText:
    """Explain functions of strings, such as `pipeline.predict_proba`, on the text itself.

    The text is cut into pieces where it stands, and given whole it is the original string, character by character. A
    hidden piece is taken out with the white space before it.

    Attributes:
        split (str or callable, default None): A regular expression that matches the pieces, or a function from the text
            to the list of its pieces in order, such as the tokenizer of a language. What lies between them is never
            hidden. None: words and punctuation, and single characters in scripts without spaces.
        hidden (str, default ""): A word that stands for each hidden piece, whose white space then stays; "": the piece
            is taken out.

    >>> encode = RawText()
    >>> ids, features = encode("It's  dull.")
    >>> features.names
    ('It', "'s", 'dull', '.')
    >>> encode.texts(ids), encode.texts(ids * (torch.tensor([features.groups]) != 2))
    (["It's  dull."], ["It's."])
    """

    split: str | Callable[[str], Iterable[str]] | None = None
    hidden: str = ""

    def __post_init__(self) -> None:
        accepted = "a regular expression, or a function from a text to its pieces"
        check("split", self.split, lambda v: v is None or isinstance(v, str) or callable(v), accepted)
        check("hidden", self.hidden, lambda v: isinstance(v, str), "a word, or '' to take hidden pieces out")
        if isinstance(self.split, str):
            try:
                re.compile(self.split)
            except re.error as error:
                raise InputError(
                    f"split is {self.split!r}, which is no regular expression: {error}"
                ) from None

    def __call__(self, text: str) -> tuple[Tensor, TextFeatures]:
        """The ids `(1, characters)` of a text, and the piece of each character."""
        check_text(text)
        tokens: list[tuple[int, str, tuple[int, int], int | None]] = []  # id, character, offsets, word
        end = 0

        def take(begin: int, stop: int, word: int | None, ink: int) -> None:
            for place in range(begin, stop):
                offsets = (0, 0) if word is None else (max(place, ink), max(place + 1, ink))
                tokens.append((ord(text[place]) + _FIRST, text[place], offsets, word))

        for number, (start, stop) in enumerate(self._spans(text)):
            begin = start if self.hidden else end + len(text[end:start].rstrip())
            take(end, begin, None, 0)
            take(begin, stop, number, start)
            if self.hidden:
                tokens.append((_END, "", (0, 0), None))
            end = stop
        take(end, len(text), None, 0)
        ids, *features = zip(*tokens, strict=True)
        return torch.tensor([ids]), TextFeatures(text, *features)

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where the pieces stand."""
        if self.split is None:
            return [(token.start, token.stop) for token in tokenise(text)]
        if isinstance(self.split, str):
            spans = [match.span() for match in re.finditer(self.split, text) if match.end() > match.start()]
        else:
            spans, end = [], 0
            for piece in self.split(text):
                start = text.find(piece, end) if isinstance(piece, str) else -1
                if start < 0:
                    raise InputError(
                        f"split gave the piece {piece!r:.60}, which does not stand in the rest of the text, "
                        f"{text[end:]!r:.60}; accepted: pieces of the text as they are, in order"
                    )
                end = start + len(piece)
                spans += [(start, end)] if piece.strip() else []
        if not spans:
            raise InputError(f"split finds no piece in the text {text!r:.80}")
        return spans

    def texts(self, ids: Tensor) -> list[str]:
        """The text of each row of ids, without what is hidden or with the word that stands for it."""
        return [self._text(row) for row in ids.cpu().numpy()]

    def _text(self, row: np.ndarray) -> str:
        if not self.hidden:
            return _joined(row)
        found = []
        for piece in np.split(row, np.flatnonzero(row == _END) + 1):
            begins = (piece == HIDDEN) & (np.r_[_END, piece[:-1]] != HIDDEN)
            parts = np.split(piece, np.flatnonzero(begins))
            found += [_joined(parts[0]), *(self.hidden + _joined(part) for part in parts[1:])]
        return "".join(found)

    def classifier(
        self, model: Any, labels: Sequence[str] | None = None, name: str | None = None
    ) -> Classifier:
        """A classifier of texts from a function of strings.

        Args:
            model (callable or estimator): From a list of strings to an array of scores (texts, classes); of an
                estimator of scikit-learn its `predict_proba`, or else its `decision_function` or `predict`.
            labels (sequence of str, default None): Names of the classes; None: those of the estimator.
            name (str, default None): What a person calls it; None: that of its class or function.
        """
        function = function_of(model, "a text", "a function from a list of strings to an array of scores")
        known = labels_of(function) if labels is None else tuple(labels)
        called: str = getattr(model, "__name__", type(model).__name__)
        return Classifier(StringModel(function, self), self, known, "text", name or called, HIDDEN)


@dataclass(frozen=True)
class StringModel:
    """A function of strings as one of ids."""

    function: Callable[[list[str]], Any]
    encoding: RawText

    def __call__(self, ids: Tensor) -> Any:
        texts = self.encoding.texts(ids)
        try:
            output = self.function(texts)
        except InputError:
            raise
        except Exception as error:
            error.add_note(f"the model was called with a list of {len(texts)} texts")
            raise
        if isinstance(output, np.ndarray | list | tuple | float) or is_frame(output) or is_series(output):
            return tensor_of("what the model returned for a list of texts", output)
        return output


def _joined(row: np.ndarray) -> str:
    letters = row[row >= _FIRST] - _FIRST
    return letters.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def read_as(model: Any, inputs: Any) -> Any:
    """The model, or a classifier of texts if it is a function of strings: one that is given a text and no encoding."""
    plain = isinstance(inputs, str) and not isinstance(model, Classifier | nn.Module)
    return RawText().classifier(model) if plain else model
