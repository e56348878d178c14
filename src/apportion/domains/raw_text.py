"""From a text to the characters that it consists of, and back: the input of a function of strings.

Each character is a token whose id is its code point, so that the ids are the text itself: nothing is normalised, looked
up or left out, and a function of strings becomes a function of ids that knows nothing but these.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from apportion.core.classifier import Classifier
from apportion.core.features import TextFeatures
from apportion.core.numbers import is_frame, is_series, tensor_of
from apportion.domains.estimators import answer_to, function_of, labels_of
from apportion.domains.remote import Remote
from apportion.domains.text import check_text, tokenise
from apportion.errors import InputError, check

HIDDEN = 0
_END = 1  # of a piece: two hidden pieces are two hidden words
_FIRST = 2  # the id of character U+0000
Messages = Sequence[Mapping[str, str]]
_ROLE, _CONTENT = 0x110000 + _FIRST, 0x110001 + _FIRST  # what begins a role and a content of chat messages
_JOINERS = "\u200c\u200d"
# Variation selectors, shades of skin, and the letters in a flag of a region, which follow their sign.
_FOLLOWING = re.compile("[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")


@dataclass(frozen=True)
class RawText:
    """Explain functions of strings, such as `pipeline.predict_proba`, on the text itself.

    The text is cut into pieces where it stands, and given whole it is the original string, character by character. A
    hidden piece is taken out with the white space before it. No piece begins with a combining mark, or within
    characters that are joined to one sign. Of chat messages, a list of `{"role": …, "content": …}`, pieces of the
    contents are hidden; the function is given a list of such lists.

    Attributes:
        split (str or callable, default None): A regular expression that matches the pieces, or a function from the text
            to the list of its pieces in order, such as `ap.sentences` or the tokenizer of a language. What lies between
            them is never hidden. None: words and punctuation, and single characters in scripts without spaces.
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

    def __call__(self, text: str | Messages) -> tuple[Tensor, TextFeatures]:
        """The ids `(1, characters)` of a text or of chat messages, and the piece of each character."""
        if isinstance(text, str):
            check_text(text)
            tokens = self._tokens(text)
            if all(token.piece is None for token in tokens):
                raise InputError(f"split finds no piece in the text {text!r:.80}")
            return _of_tokens(text, tokens)
        turns = checked_messages(text)
        tokens, shown, pieces = [], "", 0
        for role, content in turns:
            shown += ("\n\n" if shown else "") + f"{role}: "
            tokens += [_Token(_ROLE, ""), *map(_character, role), _Token(_CONTENT, "")]
            found = self._tokens(content, len(shown), pieces)
            pieces = max([pieces, *(token.piece + 1 for token in found if token.piece is not None)])
            tokens += found
            shown += content
        if not pieces:
            raise InputError("the messages hold no piece that may be hidden; accepted: contents with a word")
        return _of_tokens(shown, tokens)

    def _tokens(self, text: str, at: int = 0, pieces: int = 0) -> list[_Token]:
        """The characters of a text that stands at `at` in what is shown, whose pieces are numbered from `pieces` on."""
        tokens: list[_Token] = []
        end = 0

        def take(begin: int, stop: int, piece: int | None, ink: int) -> None:
            for place in range(begin, stop):
                offsets = (0, 0) if piece is None else (at + max(place, ink), at + max(place + 1, ink))
                tokens.append(_character(text[place])._replace(offsets=offsets, piece=piece))

        for number, (start, stop) in enumerate(self._whole_signs(text), pieces):
            begin = start if self.hidden else end + len(text[end:start].rstrip())
            take(end, begin, None, 0)
            take(begin, stop, number, start)
            if self.hidden:
                tokens.append(_Token(_END, ""))
            end = stop
        take(end, len(text), None, 0)
        return tokens

    def _whole_signs(self, text: str) -> list[tuple[int, int]]:
        """Where the pieces stand, with what belongs to their first and last letters."""
        spans: list[tuple[int, int]] = []
        end = 0
        for start, stop in self._spans(text):
            while start > end and _is_within_a_sign(text, start):
                start -= 1
            while stop < len(text) and _is_within_a_sign(text, stop):
                stop += 1
            if spans and start < end < stop:  # it begins within the last sign of the one before
                spans[-1] = spans[-1][0], stop
            elif stop > end:
                spans.append((start, stop))
            end = max(end, stop)
        return spans

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
        return spans

    def texts(self, ids: Tensor) -> list[Any]:
        """The text, or the messages, of each row of ids, without what is hidden or with the word that stands for it."""
        return [self._messages(row) if row[0] == _ROLE else self._text(row) for row in ids.cpu().numpy()]

    def _messages(self, row: np.ndarray) -> list[dict[str, str]]:
        roles, contents = np.flatnonzero(row == _ROLE), np.flatnonzero(row == _CONTENT)
        ends = [*roles[1:], len(row)]
        return [
            {"role": _joined(row[role + 1 : content]), "content": self._text(row[content + 1 : end])}
            for role, content, end in zip(roles, contents, ends, strict=True)
        ]

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
        function = _function_of(model)
        asked = model.function if isinstance(model, Remote) else model
        known = labels_of(_function_of(asked)) if labels is None else tuple(labels)
        called: str = getattr(asked, "__name__", type(asked).__name__)
        return Classifier(StringModel(function, self), self, known, "text", name or called, HIDDEN)


@dataclass(frozen=True)
class StringModel:
    """A function of strings as one of ids."""

    function: Callable[[list[Any]], Any]
    encoding: RawText

    @property
    def rows_at_once(self) -> int | None:
        """How many texts the function wants at once; None: any number."""
        return getattr(self.function, "rows_at_once", None)

    def __call__(self, ids: Tensor) -> Any:
        texts = self.encoding.texts(ids)
        output = answer_to(self.function, texts, f"a list of {len(texts)} texts")
        if isinstance(output, np.ndarray | list | tuple | float) or is_frame(output) or is_series(output):
            return tensor_of("what the model returned for a list of texts", output)
        return output


class _Token(NamedTuple):
    """A character, or a sign of ours: its id, itself, where it is seen, and the piece that it is of."""

    id: int
    surface: str
    offsets: tuple[int, int] = (0, 0)
    piece: int | None = None


def _character(letter: str) -> _Token:
    return _Token(ord(letter) + _FIRST, letter)


def _of_tokens(text: str, tokens: Sequence[_Token]) -> tuple[Tensor, TextFeatures]:
    ids, *features = zip(*tokens, strict=True)
    return torch.tensor([ids]), TextFeatures(text, *features)


def checked_messages(messages: Any) -> list[tuple[str, str]]:
    """The role and the content of each chat message."""
    accepted = 'a list of chat messages {"role": "user", "content": "a text"}'
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes) or not messages:
        raise InputError(f"the input is {messages!r:.80}; accepted: a text, or {accepted}")
    for number, each in enumerate(messages):
        fine = isinstance(each, Mapping) and set(each) == {"role", "content"}
        if not fine or not all(isinstance(part, str) for part in each.values()):
            raise InputError(f"message {number} is {each!r:.80}; accepted: {accepted}, with these two keys")
    return [(each["role"], each["content"]) for each in messages]


def _is_within_a_sign(text: str, place: int) -> bool:
    """Whether the character at this place belongs to the one before it: a mark, or one that is joined to it."""
    before, letter = text[place - 1 : place], text[place]
    if not before.strip() or letter.isspace():
        return False
    joined = before in _JOINERS or letter in _JOINERS or _FOLLOWING.match(letter) is not None
    return joined or unicodedata.category(letter)[0] == "M"


def _joined(row: np.ndarray) -> str:
    letters = row[row >= _FIRST] - _FIRST
    return letters.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def read_as(model: Any, inputs: Any) -> Any:
    """The model, or a classifier of texts if it is a function of strings: one that is given a text, or chat messages,
    and no encoding."""
    messages = isinstance(inputs, list) and any(
        isinstance(each, Mapping) and "role" in each for each in inputs
    )
    plain = (isinstance(inputs, str) or messages) and not isinstance(model, Classifier | nn.Module)
    return RawText().classifier(model) if plain else model


def _function_of(model: Any) -> Callable[[list[str]], Any]:
    return function_of(model, "a text", "a function from a list of strings to an array of scores")
