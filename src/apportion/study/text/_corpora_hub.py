"""The texts of the same corpora on the Hugging Face hub, with the splits that are published there."""

from __future__ import annotations

from typing import Any

from apportion.errors import InputError, first_line

Texts = dict[str, list[tuple[str, int]]]  # "train", "test" and, where the hub has it, "valid"


def texts_from_hub(name: str) -> Texts:
    """The parts of a corpus, downloaded (or from the cache of `datasets`). Needs that package. AG News has titles
    and descriptions in one there, so both are read."""
    if name == "imdb":
        found = _download("stanfordnlp/imdb")
        return {part: [(r["text"], int(r["label"])) for r in found[part]] for part in ("train", "test")}
    if name == "sst":
        found = _download("SetFit/sst2")
        names = {"train": "train", "valid": "validation", "test": "test"}
        return {part: [(r["text"], int(r["label"])) for r in found[split]] for part, split in names.items()}
    if name == "agnews":
        found = _download("fancyzhx/ag_news")
        return {
            part: [(r["text"], r["label"] // 2) for r in found[part] if r["label"] in (0, 2)]
            for part in ("train", "test")
        }
    found = _download("SetFit/20_newsgroups")
    groups = ("rec.sport.baseball", "rec.sport.hockey")
    return {
        part: [
            (r["text"], groups.index(r["label_text"]))
            for r in found[part]
            if r["label_text"] in groups and r["text"].strip()
        ]
        for part in ("train", "test")
    }


def _download(name: str) -> Any:
    try:
        import datasets  # type: ignore[import-not-found]
    except ImportError:
        raise InputError("the hub needs the package datasets: pip install datasets") from None
    try:
        return datasets.load_dataset(name)
    except Exception as error:  # whatever the network and the hub may bring
        raise InputError(
            f"cannot download {name}: {type(error).__name__}: {first_line(error):.200}"
        ) from error
