"""Options that several commands take: the same everywhere, and what they do."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

import apportion as ap
import small_language_models as small
from apportion.cli.app import app
from apportion.display import terminal

SENTENCES = ("a dull film", "The plot is thin, but the acting is superb.")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
EVERYWHERE = {
    "--device": {"explain", "compare", "test", "bulk", "serve"},
    "--seed": {"explain", "compare", "test", "bulk"},
    "--quiet": {"explain", "compare", "test", "bulk"},
    "--max-remainder": {"explain", "compare", "test", "bulk"},
    "--top": {"explain", "compare"},
    "--model": {"explain", "compare", "test"},
    "--target": {"explain", "compare", "test", "bulk"},
    "--background": {"explain", "compare", "test", "bulk"},
    "--sep": {"explain", "compare", "test", "bulk"},
    "--prompt": {"explain", "compare", "test"},
    "--context": {"explain", "compare", "test"},
}


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    return done.exit_code, done.stdout, done.stderr


def values_of(*arguments: object) -> list[list[float]]:
    code, said, _ = run(*arguments, "--json")
    assert code == 0
    found = json.loads(said)
    listed = found.get("explanations", [found]) if isinstance(found, dict) else found
    return [[feature["value"] for feature in each["features"]] for each in listed]


@pytest.mark.parametrize("option", EVERYWHERE)
def test_an_option_is_the_same_in_every_command(option: str) -> None:
    found = {}
    for name in EVERYWHERE[option]:
        (mine,) = (each for each in COMMANDS[name].params if option in each.opts)
        found[name] = (mine.help, repr(mine.default), mine.nargs)
    assert len(set(found.values())) == 1, found


def test_several_inputs_are_explained_one_after_the_other(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, said, warned = run("explain", *SENTENCES, "--html", page)
    assert (code, warned) == (0, "")
    assert (
        said.index(SENTENCES[0]) < said.index("negative") < said.index(SENTENCES[1]) < said.index("positive")
    )
    assert page.read_text(encoding="utf-8").count('"repr":') == 2
    alone = [values_of("explain", each)[0] for each in SENTENCES]
    assert values_of("explain", *SENTENCES) == alone
    code, _, warned = run("explain", *SENTENCES, "--png", tmp_path / "two.png")
    assert (code, warned.count("\n")) == (2, 1)
    assert "accepted for several: --out FOLDER" in warned
    assert run("explain", *SENTENCES, "--out", tmp_path / "kept")[0] == 0
    assert len(list((tmp_path / "kept").glob("*.safetensors"))) == 2
    assert "accepted: - once" in run("explain", "-", "-")[2]
    assert "accepted for several: apportion explain" in run("compare", *SENTENCES)[2]


def test_a_list_of_raw_inputs_is_a_list_of_explanations() -> None:
    classifier = ap.load("sentiment")
    found = ap.explain(classifier, [*SENTENCES], target="negative")
    assert [each.values.tolist() for each in found] == [
        ap.explain(classifier, each, target="negative").values.tolist() for each in SENTENCES
    ]
    row = [0.0] * 30
    with pytest.raises(
        ap.InputError, match="2 values for 30 columns"
    ):  # a row in a list of its values is one input
        ap.explain(ap.load("breast-cancer"), row[:2])
    messages = [{"role": "user", "content": "a dull film"}, {"role": "user", "content": "or not"}]
    of_chat = ap.Classifier(torch.nn.Identity(), lambda raw: 1 / 0, (), "text", "chat")
    assert not of_chat.are_several(messages)
    assert of_chat.are_several([*SENTENCES])


def test_a_seed_is_that_of_all_that_is_drawn() -> None:
    asked = ("explain", SENTENCES[1], "--method", "KernelSHAP(samples=40)")
    assert values_of(*asked, "--seed", 0) == values_of(*asked)
    assert values_of(*asked, "--seed", 1) != values_of(*asked)
    assert values_of(*asked, "--seed", 1) == values_of(
        *asked[:2], "--method", "KernelSHAP(samples=40, seed=1)"
    )
    compared = ("compare", SENTENCES[1], "--no-tests", "--methods", "lrp,KernelSHAP(samples=40)")
    assert values_of(*compared, "--seed", 1)[1] == values_of(*asked, "--seed", 1)[0]
    tested = ("test", *SENTENCES, "--methods", "lrp", "--tests", "deletion-rate", "--json", "--seed")
    assert run(*tested, 1)[1] != run(*tested, 2)[1]  # the row random
    assert "seed is" in run(*asked, "--seed", 2**70)[2]


def test_the_default_draws_by_its_seed() -> None:
    def function(x: np.ndarray) -> np.ndarray:
        return (x.prod(1) + x[:, 0] * x[:, 1])[:, None]

    x = np.arange(24.0)[None] / 12 + 0.5
    first, again, other = (ap.explain(function, x, ap.Auto(seed=seed), 0).values for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert repr(ap.Auto()) == "Auto(at=None)"


def test_so_many_features_are_listed_as_are_asked_for() -> None:
    _, said, _ = run("explain", SENTENCES[1], "--top", 2)
    assert "superb" in said
    assert "but" not in said
    assert "9 others together" in said
    assert [len(each) for each in values_of("explain", *SENTENCES, "--top", 2)] == [2, 2]
    _, said, _ = run("compare", SENTENCES[1], "--methods", "lrp", "--no-tests", "--top", 1)
    assert "superb" in said
    assert "thin" not in said


def test_quiet_warns_of_nothing() -> None:
    asked = ("compare", SENTENCES[0], "--methods", "lrp,gradcam", "--no-tests")
    assert "left out: gradcam" in run(*asked)[2]
    assert run(*asked, "--quiet")[2] == ""
    assert run("explain", SENTENCES[0], "--quiet", "--device", "nowhere")[2].startswith("apportion: error")


@pytest.mark.parametrize("command", ["explain", "compare", "test"])
def test_too_much_left_over_is_an_exit_status_of_every_command(command: str) -> None:
    method = "--method" if command == "explain" else "--methods"
    asked = (command, SENTENCES[0], method, "inputxgradient", "--max-remainder")
    assert run(*asked, 0.5)[0] == 0
    code, _, said = run(*asked, 0.01)
    assert code == 3
    assert "9.3 %" in said


@pytest.mark.parametrize(
    "asked",
    [
        ("explain", SENTENCES[0]),
        ("compare", SENTENCES[0]),
        ("test", SENTENCES[0]),
        ("bulk", "--model", "sentiment", "--data", "texts.txt", "--out", "out"),
        ("serve", "--no-browser", "--port", 0),
    ],
)
def test_what_is_no_device_is_one_line(asked: tuple[Any, ...], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("a dull film\n", encoding="utf-8")
    code, _, said = run(*asked, "--device", "nowhere")
    assert (code, said.count("\n")) == (2, 1)
    assert "device is 'nowhere'; accepted: one of PyTorch's" in said


def test_a_model_goes_where_it_is_sent_and_its_inputs_with_it(monkeypatch: Any) -> None:
    sent: list[Any] = []
    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.Module, "to", lambda self, device: sent.append(device) or self)
        ap.load("sentiment", device="cuda:0")
    assert sent == ["cuda:0"]
    assert values_of("explain", SENTENCES[0], "--device", "cpu") == values_of("explain", SENTENCES[0])


@pytest.mark.parametrize("columns", [60, 80])
def test_an_answer_fits_the_terminal_and_no_word_is_broken(columns: int, tmp_path: Path) -> None:
    lm = ap.load(str(small.saved(small.causal(), tmp_path / "lm")))
    found = ap.explain(
        lm, "The capital of France is", answer=" Paris . The capital is", method="inputxgradient"
    )
    console = Console(width=columns, record=True, file=io.StringIO(), force_terminal=True, color_system=None)
    terminal.show(found, console, "lm")
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= columns
    known = {word for line in lines for word in line.replace("\N{NO-BREAK SPACE}", " ").split()}
    for word in ("answer", "explained", "capital", "log-probability", "raised"):
        assert any(word in each for each in known), word
    assert "…" not in "".join(lines)
    assert not any("-" in line[-1:] and line[-2:-1].isalpha() for line in lines)


def test_a_number_stays_in_the_line_of_its_name() -> None:
    found = ap.explain(
        ap.load("imagenet"), np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    )
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal.comparison([found], top=9))
    lines = [line.strip() for line in console.export_text().splitlines()]
    assert sum(line.count("x ") for line in lines) == 9
    for line in (line for line in lines if "x " in line):
        assert all(len(part.split()) == 5 for part in line.strip("· ").split(" · ")), line
