"""From a sentence to token ids, and back: every token knows which characters of the text it covers."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from apportion.core.features import TextFeatures
from apportion.errors import InputError

# Letters of scripts that put no space between words: Thai and Lao, Myanmar, Khmer, kana, ideographs.
_NO_SPACES = (
    r"\u0e00-\u0e2f\u0e30\u0e32\u0e33\u0e40-\u0e46\u0e80-\u0eaf\u0eb0\u0eb2\u0eb3\u0ebd-\u0ec6\u1000-\u102a\u1050-\u1055"
    r"\u1780-\u17b3\u3005-\u3007\u3040-\u3098\u309b-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0003ffff"
)
# Accents and vowel signs, which follow their letter as characters of their own.
_MARKS = (
    "".join(chr(i) for i in range(0x300, 0x1D00) if unicodedata.category(chr(i))[0] == "M") + r"\u3099\u309a"
)
# A letter or digit with these (not "_": _emphasis_).
_LETTER = rf"[^\W_{_NO_SPACES}][{_MARKS}]*"
_WORD = rf"(?:{_LETTER})+"
_APOSTROPHE = r"['’]"
_END = r"(?![^\W_])"
_NOT = rf"(?i:n{_APOSTROPHE}t){_END}"
_CLITIC = rf"{_APOSTROPHE}(?i:s|m|re|ve|ll|d){_END}"

# The Penn Treebank's conventions, in order of precedence; the last line takes any character left over. Case is
# ignored where it matters alone: it takes re a tenth of a second to fold the ranges of ideographs.
_TOKEN = re.compile(
    "|".join(
        [
            r"</?[a-zA-Z][a-zA-Z0-9]*\s*/?>",  # <br />
            _NOT,
            _CLITIC,
            rf"{_APOSTROPHE}\d\d[sS]{_END}",  # the '80s
            rf"(?i:can)(?=(?i:not){_END})",
            rf"(?:{_LETTER})+?(?={_NOT})",  # do|n't, ca|n't
            r"\d+(?:[.,:/]\d+)+",
            r"(?:[^\W\d_]\.){2,}|(?i:mr|mrs|ms|dr|jr|sr|st|vs|etc|inc|co|no|bros|prof)\.(?=\s)",
            r"[A-HJ-Z]\.(?=\s+[A-Z])",  # J. Smith
            rf"(?![\W_])[{_NO_SPACES}][{_MARKS}]*",
            rf"{_WORD}(?:-{_WORD}|(?!{_CLITIC}){_APOSTROPHE}{_WORD})*",
            r"\.{2,}|-{2,}|\*+|``|''",
            r"[\U0001f1e6-\U0001f1ff]{2}",  # flags
            r"\S(?:[\u0300-\u036f\ufe0e\ufe0f\u20e3\U0001f3fb-\U0001f3ff]|\u200d\S)*",  # emoji
        ]
    )
)

_SPELLINGS = str.maketrans(
    {"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'", "’": "'", "`": "'"}
) | {ord("–"): "--", ord("—"): "--", ord("…"): "..."}


class Token(NamedTuple):
    """A piece of a text and the characters that it covers: `text[start:stop] == surface`."""

    surface: str
    start: int
    stop: int


def tokenise(text: str) -> list[Token]:
    """Split a text the way the Penn Treebank does, knowing where each token stands in the original.

    Every character that is not white space belongs to exactly one token.

    >>> [token.surface for token in tokenise("It doesn't work -- the film's dull.")]
    ['It', 'does', "n't", 'work', '--', 'the', 'film', "'s", 'dull', '.']
    """
    return [Token(match.group(), *match.span()) for match in _TOKEN.finditer(text)]


def normalise(surface: str) -> str:
    """One spelling for what means the same: lower case, straight quotes, no accents.

    >>> [normalise(surface) for surface in ("Cliché", "N’T", "“", "``", "<BR>")]
    ['cliche', "n't", '"', '"', '<br />']
    """
    word = surface.lower()
    if word.startswith("<") and word.strip("<>/ ") == "br":
        return "<br />"
    if word in ("``", "''"):
        return '"'
    return _plain(word.translate(_SPELLINGS)) or word


@dataclass(frozen=True)
class Vocabulary:
    """The words that a model knows, each at its id; id 0 is padding and id 1 any other word.

    Attributes:
        words (tuple of str): The words by id.

    >>> vocabulary = Vocabulary.of_texts(["A dull film.", "a funny film"], documents=2)
    >>> vocabulary.words, vocabulary["film"], vocabulary["kerfuffle"]
    (('<pad>', '<unk>', 'a', 'film'), 3, 1)
    """

    words: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    PADDING = 0
    UNKNOWN = 1

    def __post_init__(self) -> None:
        if self.words[:2] != ("<pad>", "<unk>"):
            raise ValueError(f"a vocabulary starts with '<pad>' and '<unk>', not with {self.words[:2]!r}")
        ids = {word: index for index, word in enumerate(self.words)}
        if len(ids) != len(self.words):
            twice = next(word for index, word in enumerate(self.words) if ids[word] != index)
            raise ValueError(f"a vocabulary has each word once, but {twice!r} is there again")
        del ids["<pad>"]  # a text that says "<pad>" has an unknown word there, not padding
        object.__setattr__(self, "_ids", ids)

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, word: str) -> int:
        """The id of a normalised word."""
        return self._ids.get(word, self.UNKNOWN)

    @classmethod
    def of_texts(cls, texts: Iterable[str], documents: int = 1, limit: int | None = None) -> Vocabulary:
        """Take the words found in texts, most frequent first.

        Args:
            texts (iterable of str): The texts.
            documents (int, default 1): Texts that a word must be in.
            limit (int, default None): Words at most; None: all.
        """
        return cls.of_words(
            ([normalise(token.surface) for token in tokenise(text)] for text in texts), documents, limit
        )

    @classmethod
    def of_words(
        cls, texts: Iterable[Iterable[str]], documents: int = 1, limit: int | None = None
    ) -> Vocabulary:
        """The same for texts that are split into words already."""
        counts = Counter(word for text in texts for word in dict.fromkeys(text))
        frequent = [word for word, count in counts.most_common(limit) if count >= documents]
        return cls(("<pad>", "<unk>", *frequent))


def encode_words(text: str, vocabulary: Vocabulary) -> tuple[Tensor, TextFeatures]:
    """The ids `(1, tokens)` of a text and where its words stand; each token is a word of its own.

    `TextFeatures.tokens` are what the model sees: lower case, and `<unk>` for a word that it does not know.

    >>> vocabulary = Vocabulary(("<pad>", "<unk>", "not", "dull"))
    >>> ids, features = encode_words("Not dull!", vocabulary)
    >>> ids.tolist(), features.tokens, features.offsets
    ([[2, 3, 1]], ('not', 'dull', '<unk>'), ((0, 3), (4, 8), (8, 9)))
    """
    check_text(text)
    tokens = tokenise(text)
    ids = [vocabulary[normalise(token.surface)] for token in tokens]
    features = TextFeatures(
        text=text,
        tokens=tuple(vocabulary.words[index] for index in ids),
        offsets=tuple((token.start, token.stop) for token in tokens),
        words=tuple(range(len(tokens))),
    )
    return torch.tensor([ids]), features


def encode_subwords(
    text: str, tokenizer: Any, special: bool = True
) -> tuple[dict[str, Tensor], TextFeatures]:
    """What a Hugging Face model takes (a batch of one), and where its tokens stand in the text.

    `TextFeatures.words` merges sub-words: tokens are of one word if the tokenizer says so and no white
    space is between them. A text beyond the model's length is an error, never cut.
    A tokenizer without offsets ("slow") has its tokens searched for in the text. Without `special` it adds no tokens
    of its own, as to a text that has them already.
    """
    check_text(text)
    check_whole_signs(text, "text")
    fast = tokenizer.is_fast
    encoding = tokenizer(
        text,
        truncation=False,
        padding=False,
        add_special_tokens=special,
        return_offsets_mapping=fast,
        verbose=False,  # its own warning about length; ours is an error
    )
    ids: list[int] = encoding["input_ids"]
    limit = tokenizer.model_max_length
    if len(ids) > limit:
        raise InputError(f"text: expected at most {limit} tokens (the model's limit), received {len(ids)}")
    tokens = tuple(tokenizer.convert_ids_to_tokens(ids))
    if fast:
        spans = [_trim(text, *span) for span in encoding.pop("offset_mapping")]
        labels = encoding.word_ids(0)
    else:
        own = tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True)
        spans = _find(text, tokens, own, tokenizer)
        labels = [
            None if hidden else text[start].isalnum() for hidden, (start, _) in zip(own, spans, strict=True)
        ]
    words = _words(text, labels, spans)
    if all(word is None for word in words):
        raise InputError(f"text: the tokenizer finds no word in {text!r:.80}")
    inked = [(word, span) for word, span in zip(words, spans, strict=True) if span[0] < span[1]]
    first = {word: start for word, (start, _) in reversed(inked)}
    offsets = tuple(
        (0, 0) if word is None else (start, stop) if start < stop else (first.get(word, start),) * 2
        for word, (start, stop) in zip(words, spans, strict=True)
    )
    inputs = {name: torch.tensor([values]) for name, values in encoding.items()}
    return inputs, TextFeatures(text, tokens, offsets, words)


def _trim(text: str, start: int, stop: int) -> tuple[int, int]:
    """Byte-level tokens hold the space before their word; what is left of mere space is its end."""
    surface = text[start:stop]
    start += len(surface) - len(surface.lstrip())
    return start, max(start, stop - len(surface) + len(surface.rstrip()))


def _words(
    text: str, labels: Sequence[int | None], spans: Sequence[tuple[int, int]]
) -> tuple[int | None, ...]:
    """Number the words; a token of mere space belongs to the word after it, or else to the one before."""
    words: list[int | None] = []
    word, end, previous, blank = -1, 0, None, False
    for label, (start, stop) in zip(labels, spans, strict=True):
        if label is None:
            words.append(None)
            previous = None
            continue
        apart = label != previous or any(map(str.isspace, text[end:start])) or _runs_on(text, end, start)
        if previous is not None and end == start < stop and unicodedata.category(text[start])[0] == "M":
            apart = False  # a vowel sign or an accent belongs to the letter before it
        if apart and not (blank and word >= 0):
            word += 1
        words.append(word)
        end, previous, blank = stop, label, start == stop and (apart or blank)
    if blank and word > 0:
        words = [word - 1 if other == word else other for other in words]
    return tuple(words)


def _runs_on(text: str, end: int, start: int) -> bool:
    """Whether a token that begins where the last one ended is a word of its own in a script without spaces."""
    beside = text[max(0, end - 1) : end] + text[start : start + 1]
    return start >= end and bool(re.search(f"[{_NO_SPACES}]", beside))


def _find(text: str, tokens: Sequence[str], special: Sequence[int], tokenizer: Any) -> list[tuple[int, int]]:
    """Where each token stands, found by reading forward; only white space may be passed over."""
    folded, places = "", []
    for place, letter in enumerate(text):
        plain = _plain(letter)
        folded += plain
        places += [place] * len(plain)
    spans, at = [], 0
    for token, hidden in zip(tokens, special, strict=True):
        if hidden and token != tokenizer.unk_token:
            spans.append((0, 0))
            continue
        piece = _plain(tokenizer.convert_tokens_to_string([token]).strip().removeprefix("##"))
        while folded[at : at + 1].isspace():
            at += 1
        if not piece or not folded.startswith(piece, at):
            rest = text[places[at] :] if at < len(places) else ""
            raise InputError(
                f"text: expected the token {token!r} next in the text, found {rest!r:.40}; "
                f"{type(tokenizer).__name__} has no offsets: use the fast tokenizer of this model"
            )
        stop = at + len(piece)
        after = places[stop] if stop < len(places) else len(text)  # with the accents that follow
        spans.append((places[at], max(after, places[stop - 1] + 1)))
        at = stop
    return spans


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.lower())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def check_text(text: object, name: str = "text") -> None:
    if not isinstance(text, str):
        raise InputError(f"{name}: expected one str, received {type(text).__name__}: {text!r:.80}")
    if not text or text.isspace():
        raise InputError(f"{name}: expected a text with at least one word, received {text!r:.80}")


def check_whole_signs(text: str, name: str) -> None:
    """Refuse half of a surrogate pair, of which no tokenizer of subwords knows what it is."""
    if half := re.search("[\ud800-\udfff]", text):
        raise InputError(
            f"{name} has half of a sign, {half.group()!r}, at {half.start()}; accepted: whole signs of Unicode"
        )
