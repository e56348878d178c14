"""The four corpora of the attention studies, prepared as Jain & Wallace (2019) did: IMDB, SST, AG News (World
or Business) and 20 Newsgroups (baseball or hockey).

A corpus comes from a folder of files (`read`), or from the Hugging Face hub when that is asked for by name.
"""

from __future__ import annotations

import csv
import gzip
import html
import io
import json
import re
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from apportion.domains.text import Vocabulary, normalise, tokenise
from apportion.errors import InputError
from apportion.learning.documents import Documents
from apportion.study.text._corpora_hub import texts_from_hub

Row = tuple[list[str], int]
Parts = dict[str, list[Row]]  # "train", "valid", "test"


@dataclass(frozen=True)
class CorpusSource:
    """How one corpus is read and prepared: a word is known if it is in at least `documents` training texts;
    texts of fewer than `shortest` or more than `longest` tokens are left out. A text from the hub is cut by
    `words`; where the hub has no validation part, the share `held_out` of the training texts is one."""

    read: Callable[[Path], Parts]
    title: str
    labels: tuple[str, str]
    documents: int
    shortest: int = 1
    longest: int | None = None
    words: Callable[[str], list[str]] = str.split
    held_out: float = 0.2


@dataclass(frozen=True, eq=False)
class Corpus:
    """A corpus as token ids; `dropped` texts were too short or too long."""

    name: str
    title: str
    labels: tuple[str, ...]
    vocabulary: Vocabulary
    train: Documents
    valid: Documents
    test: Documents
    dropped: int


def load(name: str, data: str | Path) -> Corpus:
    """Read and prepare one of `CORPORA` from the files in the folder `data` (or in its subfolder `text`), or
    with `data="huggingface"` from the hub (network, and the package `datasets`).

    Raises InputError for an unknown name, a missing or broken file, and a part of one class only.
    """
    if name not in CORPORA:
        raise InputError(f"unknown corpus {name!r}; accepted: {', '.join(CORPORA)}")
    source = CORPORA[name]
    if str(data) == "huggingface":
        return prepare(name, source, _from_hub(name, source))
    if not Path(data).is_dir():
        raise InputError(f"data {str(data)!r} is no folder; accepted: a folder, or huggingface")
    return prepare(name, source, source.read(Path(data)))


def prepare(name: str, source: CorpusSource, parts: Parts) -> Corpus:
    """The vocabulary of the training texts, and all texts as ids."""
    kept = {
        part: [
            (words, label)
            for words, label in rows
            if source.shortest <= len(words) <= (source.longest or len(words))
        ]
        for part, rows in parts.items()
    }
    for part, rows in kept.items():
        if len({label for _, label in rows}) < 2:
            raise InputError(f"{name}: the {len(rows)} {part} texts are not of two classes")
    vocabulary = Vocabulary.of_words((words for words, _ in kept["train"]), source.documents)
    encoded = {
        part: Documents(
            tuple(torch.tensor([vocabulary[word] for word in words]) for words, _ in rows),
            torch.tensor([label for _, label in rows]),
        )
        for part, rows in kept.items()
    }
    dropped = sum(len(parts[part]) - len(kept[part]) for part in parts)
    return Corpus(name, source.title, source.labels, vocabulary, **encoded, dropped=dropped)


# ---- words ----


def imdb_words(text: str) -> list[str]:
    """Lower case, tags and all punctuation but the apostrophe to spaces, split at spaces.

    >>> imdb_words("It's DULL.<br />Really-dull!")
    ["it's", 'dull', 'really', 'dull']
    """
    return text.lower().replace("<br />", " ").translate(_PUNCTUATION).split()


def news_words(text: str) -> list[str]:
    """The Penn Treebank's tokens in lower case; a word with a digit in it is `qqq`.

    >>> news_words("Shares rose 3.5 percent")
    ['shares', 'rose', 'qqq', 'percent']
    """
    words = (normalise(token.surface) for token in tokenise(text))
    return ["qqq" if any(map(str.isdigit, word)) else word for word in words]


def tree_words(tree: str) -> list[str]:
    """The words of a tree in brackets, lower case, without punctuation.

    >>> tree_words("(3 (2 It) (3 (3 (2 's) (3 great)) (2 .)))")
    ['it', "'s", 'great']
    """
    return tree_words_of(_LEAF.findall(tree))


def tree_words_of(leaves: Iterable[str]) -> list[str]:
    """The same for the words of a tree, brackets and slashes still escaped."""
    words = (normalise(word.replace("\\/", "/")) for word in leaves if word not in _BRACKETS)
    return [word for word in words if any(map(str.isalnum, word))]


_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation.replace("'", ""), " "))
_BRACKETS = ("-LRB-", "-RRB-")
_LEAF = re.compile(r"\(\d ([^()\s]+)\)")
_ENTITY = re.compile(r"\s?(#\d+|quot|amp|lt|gt);")
_TAG = re.compile(r"<[^<>]*>")


def mend_description(text: str) -> str:
    """A description of AG News with its broken entities (" #39;", " lt;b gt;") and line ends mended.

    >>> mend_description("Messier #39;s lawyer said\\\\Tuesday")
    "Messier's lawyer said Tuesday"
    """
    plain = html.unescape(_ENTITY.sub(r"&\1;", text.replace("\\", " ")))
    return _TAG.sub(" ", plain)


# ---- the hub, files ----


def _from_hub(name: str, source: CorpusSource) -> Parts:
    parts = {
        part: [(source.words(text), label) for text, label in rows]
        for part, rows in texts_from_hub(name).items()
    }
    if "valid" not in parts:
        parts["train"], parts["valid"] = split(parts["train"], source.held_out)
    return parts


def _read_text(folder: Path, *names: str) -> str:
    """The text of the first of these files that is in the folder or in its subfolder `text`."""
    for name in names:
        for path in (folder / name, folder / "text" / name):
            if path.is_file():
                try:
                    data = path.read_bytes()
                    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
                except (OSError, EOFError, UnicodeDecodeError) as error:
                    raise InputError(f"cannot read {path} ({error})") from error
    raise InputError(f"no {' or '.join(names)} in {folder} or its subfolder text")


def _json_lines(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_read_text(folder, f"{name}.gz", name).rstrip("\n").split("\n"), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{name}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise InputError(
                f"{name}, line {number}: no 'text'; accepted: an object with a text on each line"
            )
        yield row


def read_imdb(folder: Path) -> Parts:
    """`imdb_{train,valid,test}.jsonl[.gz]`, a `text` and a `label` 0 or 1 on each line."""
    return {
        part: [
            (imdb_words(row["text"]), _class(row, "label", (0, 1)))
            for row in _json_lines(folder, f"imdb_{part}.jsonl")
        ]
        for part in ("train", "valid", "test")
    }


def read_sst(folder: Path) -> Parts:
    """`sst_trees_{train,dev,test}.txt[.gz]` (or `train.txt` …), a tree in brackets on each line; the neutral
    ones (root label 2) are left out."""
    parts = {}
    for part, name in (("train", "train"), ("valid", "dev"), ("test", "test")):
        lines = _read_text(folder, f"sst_trees_{name}.txt.gz", f"sst_trees_{name}.txt", f"{name}.txt").split(
            "\n"
        )
        trees = [line for line in lines if line[1:2] in tuple("0134")]
        parts[part] = [(tree_words(tree), int(tree[1] > "2")) for tree in trees]
    return parts


def read_agnews(folder: Path) -> Parts:
    """`agnews_trainpool_10000.jsonl[.gz]` (`class` 1-4 and `text`, "title . description") and
    `agnews_test.csv[.gz]` (class, title, description): the descriptions of World and Business; 15 % of the
    training texts are held out for validation, the same share of each class."""
    pool = [
        (news_words(mend_description(row["text"].partition(" . ")[2] or row["text"])), int(label == 3))
        for row in _json_lines(folder, "agnews_trainpool_10000.jsonl")
        if (label := _class(row, "class", (1, 2, 3, 4))) in (1, 3)
    ]
    table = csv.reader(io.StringIO(_read_text(folder, "agnews_test.csv.gz", "agnews_test.csv")))
    test = [
        (news_words(mend_description(row[-1])), int(row[0] == "3")) for row in table if row[0] in ("1", "3")
    ]
    train, valid = split(pool, 0.15)
    return {"train": train, "valid": valid, "test": test}


def read_20news(folder: Path) -> Parts:
    """`20news_sports.jsonl[.gz]`, a `group` and a raw post as `text` on each line: headers, footers and quotes
    stripped as scikit-learn does, empty posts dropped, and 80/20 split twice, the same share of each class."""
    from sklearn.datasets import _twenty_newsgroups as sklearn_posts  # type: ignore[import-untyped]

    rows = []
    for row in _json_lines(folder, "20news_sports.jsonl"):
        text = sklearn_posts.strip_newsgroup_header(row["text"])
        text = sklearn_posts.strip_newsgroup_footer(sklearn_posts.strip_newsgroup_quoting(text))
        group = _class(row, "group", ("rec.sport.baseball", "rec.sport.hockey"))
        if text.strip():
            rows.append((news_words(text), int(group == "rec.sport.hockey")))
    rest, test = split(rows, 0.2)
    train, valid = split(rest, 0.2)
    return {"train": train, "valid": valid, "test": test}


def _class(row: dict[str, Any], key: str, accepted: Sequence[Any]) -> Any:
    if row.get(key) not in accepted:
        raise InputError(f"{key} is {row.get(key)!r}; accepted: {', '.join(map(str, accepted))}")
    return row[key]


def split(rows: Sequence[Row], share: float) -> tuple[list[Row], list[Row]]:
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

    labels = [label for _, label in rows]
    if min(map(labels.count, (0, 1))) < 2:
        raise InputError(
            f"{len(rows)} texts, {sum(labels)} of class 1; accepted: some of either class to split"
        )
    first, second = train_test_split(list(rows), test_size=share, stratify=labels, random_state=0)
    return first, second


CORPORA = {
    "20news": CorpusSource(
        read_20news, "20 Newsgroups", ("baseball", "hockey"), 2, shortest=7, longest=499, words=news_words
    ),
    "sst": CorpusSource(
        read_sst,
        "SST",
        ("negative", "positive"),
        1,
        shortest=6,
        words=lambda text: tree_words_of(text.split()),
    ),
    "agnews": CorpusSource(
        read_agnews,
        "AG News",
        ("world", "business"),
        5,
        words=lambda text: news_words(mend_description(text)),
        held_out=0.15,
    ),
    "imdb": CorpusSource(read_imdb, "IMDB", ("negative", "positive"), 10, longest=399, words=imdb_words),
}
