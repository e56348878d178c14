"""The options of `apportion explain` for language models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import apportion as ap
import small_language_models as small
from apportion.cli.app import app
from surfaces import data_of

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


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("--prompt", ""), "prompt: expected a text with at least one word"),
        (("--prompt", PROMPT, "--answer", ""), "answer is empty"),
        (("--prompt", "He said " * 80), "context window"),
        (("--prompt", PROMPT, "--answer", " Paris", "--contrast", " Paris"), "what the answer says there"),
        (("--prompt", PROMPT, "--answer", " Paris", "--target", "Rome"), "not in the answer"),
        (("--prompt", PROMPT, "--answer", " Paris", "--target", "4"), "part is 4"),
        (("--prompt", PROMPT, "--answer", " Paris", "--unit", "letter"), "unit is 'letter'"),
        (("--prompt", PROMPT, "--answer", " Paris", "--score", "loss"), "score is 'loss'"),
    ],
)
def test_what_cannot_be_asked_is_one_line(folder: Path, asked: tuple[str, ...], told: str) -> None:
    code, said = run("--model", folder, *asked)
    assert code == 2
    assert told in said
    assert "Traceback" not in said


def test_messages_without_a_template_and_passages_that_are_none_are_one_line(tmp_path: Path) -> None:
    plain = small.saved(small.causal(), tmp_path / "plain", template=False)
    code, said = run("--model", plain, "--prompt", PROMPT, "--answer", " Paris", "--chat")
    assert (code, "no chat template" in said) == (2, True)
    for name, text in (("a", "Ben sat ."), ("b", "Ben sat ."), ("c", "  ")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    for other, told in (("b", "the same passage"), ("c", "context[1]")):
        files = ("--context", tmp_path / "a", "--context", tmp_path / other)
        code, said = run("--model", plain, "--prompt", PROMPT, "--answer", " Paris", *files)
        assert (code, told in said) == (2, True), said


def command(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    return done.exit_code, done.output


@pytest.fixture
def asked(folder: Path, tmp_path: Path) -> list[object]:
    passages = ("Ben lives in Oslo .", "The capital is Paris .", "She sat and he said .")
    of_files: list[object] = []
    for i, text in enumerate(passages):
        (tmp_path / f"{i}.txt").write_text(text, encoding="utf-8")
        of_files += ["--context", tmp_path / f"{i}.txt"]
    return ["--model", folder, "--prompt", PROMPT, "--answer", " Paris . The", *of_files]


def test_answers_are_tested_beside_references(asked: list[object], folder: Path) -> None:
    code, said = command("test", *asked, "--methods", "kernelshap,inputxgradient", "--json")
    assert code == 0, said
    found = json.loads(said)["scores"]
    assert set(found) == {"kernelshap", "inputxgradient", "random", "uniform", "reversed"}
    lm = ap.load(str(folder))
    context = ["Ben lives in Oslo .", "The capital is Paris .", "She sat and he said ."]
    question = lm.question(PROMPT, " Paris . The", ap.Answer(), context=context)
    direct = ap.LDS()(lm, question, ap.explain(lm, question, "kernelshap"))
    assert found["kernelshap"]["lds"]["values"] == pytest.approx(direct.values.tolist())


def test_methods_are_compared_on_an_answer(asked: list[object], tmp_path: Path) -> None:
    page = tmp_path / "c.html"
    code, said = command("compare", *asked, "--methods", "kernelshap,gradcam,deeplift", "--html", page)
    assert code == 0, said
    assert "left out: gradcam" in said
    (shown, other) = data_of(page.read_text(encoding="utf-8"))["maps"]
    assert shown["repr"].startswith("KernelSHAP")
    assert [one["test"].split("(")[0] for one in other["rows"][0]["tests"]] == ["TopKDrop", "LDS"]
    code, said = command("compare", *asked, "--methods", "kernelshap,deeplift", "--json", "--no-tests")
    assert code == 0, said
    assert len(json.loads(said)["explanations"]) == 2


@pytest.mark.parametrize("name", ["compare", "test"])
def test_something_must_be_asked(name: str) -> None:
    code, said = command(name)
    assert code == 2
    assert "there is nothing to explain; accepted: an INPUT, or --prompt" in said


def test_a_layer_goes_by_its_name_in_the_language_model(folder: Path) -> None:
    lm = ap.load(str(folder))
    own = ap.explain(lm, PROMPT, ap.InputXGradient(at="model.layers.1"), 0, answer=" Paris")
    longer = ap.explain(lm, PROMPT, ap.InputXGradient(at="language_model.model.layers.1"), 0, answer=" Paris")
    assert own.values.tolist() == longer.values.tolist()
    code, said = run(
        "--model", folder, "--prompt", PROMPT, "--answer", " Paris", "--layer", "model.layer.1",
        "--method", "deeplift",
    )  # fmt: skip
    assert code == 2
    assert "no layer 'model.layer.1'; nearest: model.layers.1" in said
