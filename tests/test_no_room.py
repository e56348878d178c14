"""A disk that is full or read-only, wherever something is written: one line that says so, and nothing half-written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import apportion as ap
import squares
from apportion.errors import InputError
from apportion.learning.documents import Documents
from apportion.learning.networks import AttentionClassifier
from apportion.learning.training import Training, train
from apportion.study.store import Cell, CellResult, Store

MODEL, X = nn.Linear(4, 3).eval(), torch.rand(4, 4)


def explained() -> ap.Explanation[Tensor]:
    return ap.Saliency()(MODEL, X, 1)


def trained(folder: Path) -> None:
    texts = Documents(tuple(torch.ones(2, dtype=torch.long) for _ in range(8)), torch.arange(8) % 2)
    model = AttentionClassifier(12, embedding=6, hidden=5)
    train(model, texts, texts, Training(epochs=1), folder / "checkpoint")


def retrained(folder: Path) -> None:
    test = ap.ROAR(shares=(0.5,), epochs=1, folder=folder)
    test(MODEL, X, explained(), labels=torch.tensor([0, 1, 0, 1]))


WRITERS: dict[str, Callable[[Path], Any]] = {
    "a run": lambda f: ap.explain_dataset(MODEL, X, "saliency", f, table="jsonl", progress=False),
    "an explanation": lambda f: explained().save(f / "kept"),
    "a page": lambda f: explained().to_html(f / "page.html"),
    "scores": lambda f: ap.Scores(torch.ones(2), "a", True).save(f / "scores"),
    "a cell of a study": lambda f: Store(f).get(Cell("a", {}), lambda: CellResult(1)),
    "a checkpoint of prototypes": lambda f: squares.quick().fit(*squares.data(), checkpoint=f / "run"),
    "a checkpoint of texts": trained,
    "retraining": retrained,
}


@pytest.mark.parametrize("place", ["mkdir", "open", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_takes_nothing_is_one_line_and_leaves_nothing_behind(
    name: str, code: int, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    mkdir, opened, folder = Path.mkdir, Path.open, tmp_path / "out"

    def no_folder(self: Path, *given: Any, **more: Any) -> Any:
        return refused() if folder in (self, *self.parents) else mkdir(self, *given, **more)

    def no_file(self: Path, mode: str = "r", *given: Any, **more: Any) -> Any:
        return refused() if {*mode} & {*"xwa"} else opened(self, mode, *given, **more)

    instead = {
        "fsync": (os, "fsync", refused),
        "mkdir": (Path, "mkdir", no_folder),
        "open": (Path, "open", no_file),
    }
    monkeypatch.setattr(*instead[place])
    with pytest.raises(InputError) as caught:
        WRITERS[name](folder)
    told = str(caught.value)
    assert "\n" not in told
    assert os.strerror(code) in told or "the disk is full" in told
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
