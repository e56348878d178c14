"""`apportion study` as a person at the terminal meets it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

COMMAND = [sys.executable, "-m", "apportion", "study"]


def said(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], check=False, capture_output=True, text=True)


def small_treebank(folder: Path) -> Path:
    """Sentences of seven words, of which one is good or bad, as trees in brackets."""
    random = torch.Generator().manual_seed(0)
    for name, many in (("train", 160), ("dev", 40), ("test", 40)):
        lines = []
        for i in range(many):
            words = [f"w{n}" for n in torch.randint(0, 60, (7,), generator=random).tolist()]
            words[int(torch.randint(0, 7, (1,), generator=random))] = ("bad", "good")[i % 2]
            leaves = " ".join(f"(2 {word})" for word in words)
            lines.append(f"({(1, 3)[i % 2]} {leaves})")
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.slow
def test_the_fast_study_runs_resumes_and_is_shown(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = said("text-faithfulness", "--data", small_treebank(tmp_path), "--fast", "--out", out)
    assert first.returncode == 0, first.stderr
    for title in (
        "Data",
        "Models",
        "Mean deletion rate",
        "F1 of the weak learner",
        "Mean TVD",
        "Krippendorff",
    ):
        assert title in first.stdout
    assert "model/sst …" in first.stderr
    assert {path.name for path in out.iterdir()} >= {
        "report.md",
        "tables.json",
        "validation-loss.png",
        "cells",
    }
    again = said("text-faithfulness", "--data", tmp_path, "--fast", "--out", out)
    assert again.stdout == first.stdout
    assert "…" not in again.stderr
    shown = said("show", out)
    assert shown.stdout == first.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("text-faithfulness", "--data", "nowhere"),
            "data 'nowhere' is no folder; accepted: a folder, or huggingface",
        ),
        (
            ("text-faithfulness", "--data", ".", "--corpora", "yelp"),
            "corpora is yelp; accepted: some of 20news",
        ),
        (
            ("text-faithfulness", "--data", ".", "--corpora", ","),
            "corpora is empty; accepted: some of 20news",
        ),
        (("show", "nowhere"), "no study with results in nowhere"),
    ],
)
def test_what_cannot_be_run_is_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    found = said(*arguments)
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert message in found.stderr
