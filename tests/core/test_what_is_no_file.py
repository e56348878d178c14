"""What may never end, or does not fit into memory, is refused: devices, pipes, packed files, links in a circle."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import apportion as ap
from apportion.core import files
from apportion.pipeline.given import recognise

PICTURE = np.zeros((28, 28), np.uint8)


@pytest.fixture(params=["device", "pipe"])
def endless(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder in which files of several kinds never end."""
    for suffix in ("csv", "jsonl", "png", "txt", "npy", "parquet"):
        path = tmp_path / f"x.{suffix}"
        path.symlink_to("/dev/zero") if request.param == "device" else os.mkfifo(path)
    return tmp_path


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "png", "txt", "npy", "parquet"])
def test_a_file_that_never_ends_is_refused(endless: Path, suffix: str) -> None:
    path = endless / f"x.{suffix}"
    with pytest.raises(ap.InputError, match="is a device or a pipe; accepted: a file"):
        recognise(str(path))
    with pytest.raises(ap.InputError, match=r"is a device or a pipe|no such file"):
        ap.explain_dataset("digits", path, "saliency", endless / "run", workers=1)


def test_in_a_folder_it_fails_alone(endless: Path) -> None:
    Image.fromarray(PICTURE).save(endless / "good.png")
    run = ap.explain_dataset("digits", endless, "saliency", endless / "run", workers=1)
    assert [row["id"] for row in run.rows()] == ["good.png"]
    assert "is a device or a pipe" in next(run.errors())["message"]


def test_a_packed_file_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 1_000_000))
    assert len(files.content_of(path)) == 4_000_004
    monkeypatch.setattr(files, "room", lambda: 8_000_000)
    with pytest.raises(ap.InputError, match=r"x.csv.gz has more than 0.0 GB when unpacked"):
        ap.explain(ap.load("breast-cancer"), path)


def test_links_to_a_folder_that_they_are_in_are_not_followed(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    Image.fromarray(PICTURE).save(inner / "good.png")
    for name in "abc":
        (inner / name).symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "again").symlink_to(inner, target_is_directory=True)
    run = ap.explain_dataset("digits", tmp_path, "saliency", tmp_path / "run", workers=1)
    assert sorted(row["id"] for row in run.rows()) == ["again/good.png", "inner/good.png"]
