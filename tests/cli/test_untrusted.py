"""What somebody else made, looked at: no code of theirs runs, and a terminal obeys none of their names."""

import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import apportion as ap
from apportion.bulk.pages import photos
from apportion.cli.app import app
from apportion.display import terminal

EVIL = "\x1b]0;title\x07\x1b[2J\x9b31mred\r\x08\u202egnp\u200f\u061c\u2028"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
OF_MINE = """
from pathlib import Path
Path("ran").touch()
import apportion as ap

def digits():
    return ap.load("digits")
"""
OF_TEXTS = """
import apportion as ap

EVIL = {evil!r}

def length(texts):
    return [[len(text) / 100, 1 - len(text) / 100] for text in texts]

def texts():
    return ap.RawText().classifier(length, labels=["one" + EVIL, "two" + EVIL], name="model" + EVIL)
"""


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run over pictures whose model can be given another name, and files that leave a trace when they run."""
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 255, (28, 28, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"pictures/{i}.png")
    ap.explain_dataset(
        "digits", "pictures", "inputxgradient", "run", pool=7, table="jsonl", progress=False, target=3
    )
    Path("mine.py").write_text(OF_MINE)
    Path("run/mine.py").write_text(OF_MINE)
    return Path("run")


def name_model(folder: Path, name: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["settings"]["model"] = name
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "name",
    [
        "mine.py:digits",
        "run/mine.py:digits",
        "mine:digits",
        "mine.pt2",
        "hf:owner/name",
        "builtins:exit",
        ".",
    ],
)
def test_the_model_that_a_run_names_is_not_loaded_by_looking_at_it(folder, name, monkeypatch):
    name_model(folder, name)
    monkeypatch.setattr("apportion.models._loading.load_own", lambda *_: pytest.fail("a model was loaded"))
    for command in (
        ("cluster", folder, "--least", 4),
        ("runs", "summary", folder, "--html", "summary.html"),
        ("runs", "check", folder),
        ("runs", "drift", folder, folder),
    ):
        assert run(*command).exit_code == 0
    found = ap.open_run(folder)
    assert name in repr(found)
    assert len(list(found.rows())) == 8
    _, told = photos(found)
    assert (
        f"the model of this run, {name!r}, is not one that ships, and is loaded only where you name it"
        in told
    )
    assert "is loaded only where you name it" in Path("run/clusters.html").read_text()
    assert not Path("ran").exists()


def test_the_model_of_a_run_is_loaded_where_it_is_named_or_ships(folder):
    assert run("cluster", folder, "--least", 4).exit_code == 0
    assert "not shown" not in Path("run/clusters.html").read_text()
    name_model(folder, "mine.py:digits")
    assert run("cluster", folder, "--least", 4, "--model", "mine.py:digits").exit_code == 0
    assert Path("ran").exists()
    assert "not shown" not in Path("run/clusters.html").read_text()


def test_what_is_printed_has_no_control_characters_of_names_and_texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("texts.py").write_text(OF_TEXTS.format(evil=EVIL))
    lines = [json.dumps({"text": f"a {EVIL} film of {i}", "id": f"{i}{EVIL}"}) for i in range(3)]
    Path("texts.jsonl").write_text("\n".join(lines))
    mine, text = ("--model", "texts.py:texts"), f"a {EVIL} film"
    for command in (
        ("explain", text, *mine, "--method", "occlusion"),
        ("explain", text, *mine, "--method", "occlusion", "--json"),
        ("compare", text, *mine, "--methods", "occlusion,lime"),
        ("test", text, *mine, "--methods", "occlusion"),
        ("explain", text, *mine, "--target", f"three{EVIL}"),
        ("bulk", "--data", "texts.jsonl", *mine, "--method", "occlusion", "--out", "run", "--column", "text"),
        ("runs", "summary", "run"),
        ("runs", "drift", "run", "run"),
        ("runs", "summary", "run", "--json"),
        ("models",),
    ):
        result = run(*command)
        assert result.exit_code in (0, 2), (command, result.stderr)
        assert result.exit_code == 0 or f"three{EVIL}" in command, result.stderr
        assert result.stdout or result.stderr
        assert not CONTROLS.search(result.stdout + result.stderr), command
    told = json.loads(run("explain", text, *mine, "--method", "occlusion", "--json").stdout)
    assert told["model"] == "model" + EVIL  # JSON says the same


def test_results_in_a_coloured_terminal_and_in_words_are_as_clean():
    linear = ap.InputXGradient()(torch.nn.Linear(3, 2), torch.ones(1, 3), target=1)
    row = ap.Classifier(torch.nn.Linear(3, 2), lambda raw: raw, ("a", EVIL), "tabular", EVIL)
    from apportion.core.features import TabularFeatures, TextFeatures

    end = 2 + len(EVIL)
    places = (0, 1), (2, end), (end + 1, end + 5)
    for features in (
        TabularFeatures((EVIL, "b", "c"), ("1", EVIL, "3"), (0, 1, 2)),
        TextFeatures(f"a {EVIL} film", ("a", EVIL, "film"), places, (0, 1, 2)),
    ):
        found = dataclasses.replace(
            linear, labels=("a", EVIL), features=(features,), notes={"chosen": EVIL}, warnings=(EVIL,)
        )
        console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=100)
        terminal.show(found, console, EVIL)
        console.print(terminal.comparison([found]))
        printed = re.sub("\x1b\\[[0-9;]*m", "", console.file.getvalue())
        assert "red" in printed
        assert not CONTROLS.search(printed)
        assert not CONTROLS.search(repr(found))
    assert not CONTROLS.search(repr(row))


def test_a_study_runs_no_program_that_its_file_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(OF_MINE)
    for number, name in enumerate(("mine.py:digits", "mine:digits", "./mine.py:digits")):
        asked = "data: {texts: [a good film]}\nmethods: saliency\ntests: sufficiency\n"
        Path(f"{number}.yaml").write_text(f"models: [sentiment, '{name}']\n{asked}")
        ran = run("study", "run", f"{number}.yaml")
        assert ran.exit_code == 2
        assert name in ran.stderr
        assert "--trust-model-code" in ran.stderr
        assert not Path("ran").exists()
    run("study", "run", "0.yaml", "--trust-model-code")
    assert Path("ran").exists()


def test_a_message_is_one_line_of_some_length_without_control_characters():
    said = str(ap.InputError(f"begins {EVIL} {'a' * 10_000}\n ends"))
    assert not CONTROLS.search(said)
    assert "\n" not in said
    assert len(said) < 2100
    assert (said[:6], said[-4:]) == ("begins", "ends")


def test_a_device_that_holds_no_numbers_is_refused():
    with pytest.raises(ap.InputError, match="device is 'meta'; accepted: one of PyTorch's"):
        ap.load("breast-cancer", device="meta")
