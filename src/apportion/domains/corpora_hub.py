"""The same corpora from the Hugging Face hub, with the splits that are published there."""

from __future__ import annotations

from typing import Any

from apportion.domains.corpora import Parts, Row, description, imdb_words, news_words, split, tree_words_of
from apportion.errors import InputError


def read_from_hub(name: str) -> Parts:
    """The parts of a corpus, downloaded (or from the cache of `datasets`). Needs that package.

    Where the hub has no validation part, 20 % of the training texts are held out (AG News: 15 %), the same share
    of each class. AG News has titles and descriptions in one there, so both are read.
    """
    if name == "imdb":
        found = _download("stanfordnlp/imdb")
        rows = {p: [(imdb_words(r["text"]), int(r["label"])) for r in found[p]] for p in ("train", "test")}
        return _held_out(rows, 0.2)
    if name == "sst":
        found = _download("SetFit/sst2")
        names = {"train": "train", "valid": "validation", "test": "test"}
        return {
            part: [(tree_words_of(r["text"].split()), int(r["label"])) for r in found[split]]
            for part, split in names.items()
        }
    if name == "agnews":
        found = _download("fancyzhx/ag_news")
        rows = {
            p: [
                (news_words(description(r["text"])), r["label"] // 2)
                for r in found[p]
                if r["label"] in (0, 2)
            ]
            for p in ("train", "test")
        }
        return _held_out(rows, 0.15)
    found = _download("SetFit/20_newsgroups")
    groups = ("rec.sport.baseball", "rec.sport.hockey")
    rows = {
        p: [
            (news_words(r["text"]), groups.index(r["label_text"]))
            for r in found[p]
            if r["label_text"] in groups and r["text"].strip()
        ]
        for p in ("train", "test")
    }
    return _held_out(rows, 0.2)


def _held_out(rows: dict[str, list[Row]], share: float) -> Parts:
    train, valid = split(rows["train"], share)
    return {"train": train, "valid": valid, "test": rows["test"]}


def _download(name: str) -> Any:
    try:
        import datasets  # type: ignore[import-not-found]
    except ImportError:
        raise InputError("the hub needs the package datasets: pip install datasets") from None
    try:
        return datasets.load_dataset(name)
    except Exception as error:  # whatever the network and the hub may bring
        first = next(iter(str(error).splitlines()), "")
        raise InputError(f"cannot download {name}: {type(error).__name__}: {first:.200}") from error
