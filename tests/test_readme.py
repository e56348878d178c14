"""What the README and the pages of the documentation show, is run."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import apportion as ap
from apportion.core.registry import class_named
from apportion.names import INTERACTIONS, METHODS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
# Set-up commands are what runs these tests, a server does not end; the others show a file of the reader's.
NOT_RUN = re.compile(r"make |pip |git |apportion serve|.*(photo\.jpg|rows\.csv|pkg\.module|hf:|\[|…)")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def files(page: Path) -> list[tuple[str, str]]:
    """What a page shows as a file: its name and its text."""
    return re.findall(
        r'^```\w+ title="([^"]+)"\n(.*?)^```', page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def commands(pages: list[Path]) -> list[str]:
    lines = [
        line.split(" #")[0].strip()
        for page in pages
        for block in blocks(page, "bash")
        for line in block.splitlines()
    ]
    return list(
        dict.fromkeys(line for line in lines if line and not line.startswith("#") and not NOT_RUN.match(line))
    )


WITH_FILES = [page for page in PAGES if files(page)]
COMMANDS = commands([page for page in PAGES if page not in WITH_FILES])


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


# What a person says of the sentences that are shown with the model that is taken by default.
SAID = {
    "The plot is thin, but the acting is superb.": "positive",
    "A warm, funny and beautifully acted film.": "positive",
    "a dull and painfully slow movie": "negative",
}


def test_there_are_commands():
    assert 'apportion explain "The plot is thin, but the acting is superb."' in COMMANDS


def test_the_model_is_right_on_every_sentence_that_is_shown():
    shown = [command for command in COMMANDS if "--model" not in command]
    shown += re.findall(
        r"^\$ (apportion .*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    sentences = {
        word for command in shown for word in shlex.split(command)[2:] if re.search(r"\w \w+ \w", word)
    }
    assert sentences == SAID.keys()
    classifier = ap.load("sentiment")
    for sentence in sentences:
        inputs, _ = classifier.encode(sentence)
        assert classifier.labels[int(classifier(inputs).argmax())] == SAID[sentence], sentence


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, tmp_path: Path):
    run_command(command, tmp_path)


def run_command(command: str, folder: Path) -> None:
    program, *arguments = shlex.split(command)
    found = shutil.which(program, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{program} is not installed"
    ran = subprocess.run([found, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, f"{command}: {ran.stderr}"
    assert ran.stdout.strip()


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=relative)
def test_python(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The blocks of a page are run in its order, as they are printed; later ones may use what earlier ones made.
    What it shows as files is written down before, and the commands that use them follow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in files(page):
        (tmp_path / name).write_text(text, encoding="utf-8")
    names = {"__name__": "example"}
    for number, block in enumerate(blocks(page, "python"), 1):
        exec(compile(block, f"{relative(page)}, block {number}", "exec"), names)
    for command in commands([page]) if page in WITH_FILES else ():
        run_command(command, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_and_pictures_exist(page: Path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8")):
        name = next(filter(None, target))
        if "://" not in name:
            assert (page.parent / name).exists(), f"{relative(page)} names {name}"


@pytest.fixture(scope="module")
def documented() -> list[object]:
    """What the pages have a reference entry for."""
    entries = [
        name for page in PAGES for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.M)
    ]
    places = (name.rpartition(".") for name in entries)
    return [getattr(importlib.import_module(module), name) for module, _, name in places]


@pytest.mark.parametrize("name", ap.__all__)
def test_every_public_name_has_a_reference_entry(name: str, documented: list[object]):
    assert any(getattr(ap, name) is entry for entry in documented)


@pytest.mark.parametrize("name", [*METHODS, *INTERACTIONS])
def test_every_method_is_documented(name: str):
    made = class_named(name)
    assert f"::: {made.__module__}.{made.__name__}\n" in (ROOT / "docs" / "methods.md").read_text(
        encoding="utf-8"
    )
    assert f"`{name}`" in (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
