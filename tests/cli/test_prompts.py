"""The options of `apportion explain` for language models."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import apportion as ap
import small_language_models as small
from apportion.cli.app import app

PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.saved(small.causal(), tmp_path_factory.mktemp("lm"))


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["explain", *map(str, arguments)])
    return done.exit_code, done.output


def test_a_prompt_is_explained_by_the_answer_of_the_model(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "answer"
    code, said = run("--model", folder, "--prompt", PROMPT, "--answer", " Paris .", "--out", file)
    assert code == 0, said
    assert "France" in said
    kept = ap.Explanation.load(next(file.glob("*.safetensors")))
    direct = ap.explain(ap.load(str(folder)), PROMPT, answer=" Paris .")
    assert kept.values.tolist() == direct.values.tolist()
    code, said = run("--model", folder, "--prompt", PROMPT, "--max-new-tokens", 2, "--method", "deeplift")
    assert code == 0, said


def test_files_are_the_passages_of_a_context(folder: Path, tmp_path: Path) -> None:
    for name, text in (("a", "Ben lives in Oslo ."), ("b", "The capital is Paris .")):
        (tmp_path / name).write_text(f"{text}\n", encoding="utf-8")
    of_files = [each for name in ("a", "b") for each in ("--context", tmp_path / name)]
    asked = ("--model", folder, *of_files, "--prompt", PROMPT, "--method", "occlusion")
    code, said = run(*asked, "--answer", " Paris", "--chat")
    assert code == 0, said
    assert "Ben lives" in said
    assert "The capital" in said
    code, said = run(
        "--model", folder, "--context", tmp_path / "none", "--prompt", PROMPT, "--answer", " Paris"
    )
    assert code == 2
    assert "cannot read" in said


@pytest.mark.parametrize("option", ["--answer", "--contrast", "--context"])
def test_options_of_a_prompt_need_one(option: str) -> None:
    code, said = run("a text", option, "x")
    assert code == 2
    assert "go with --prompt" in said
