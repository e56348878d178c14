"""What the README and the pages of the documentation show, is run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from apportion.methods import INTERACTIONS, METHODS, method_class

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
# Set-up commands are what runs these tests, a server does not end; the others show a file of the reader's.
NOT_RUN = re.compile(r"make |pip |git |apportion serve|.*(photo\.jpg|rows\.csv|pkg\.module|hf:|\[|…)")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def commands() -> list[str]:
    lines = [
        line.split(" #")[0].strip()
        for page in PAGES
        for block in blocks(page, "bash")
        for line in block.splitlines()
    ]
    return list(
        dict.fromkeys(line for line in lines if line and not line.startswith("#") and not NOT_RUN.match(line))
    )


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_there_are_commands():
    assert 'apportion explain "a painfully funny movie"' in commands()


@pytest.mark.parametrize("command", commands())
def test_command(command: str, tmp_path: Path):
    program, *arguments = shlex.split(command)
    found = shutil.which(program, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{program} is not installed"
    ran = subprocess.run([found, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=relative)
def test_python(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The blocks of a page are run in its order, as they are printed; later ones may use what earlier ones made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names = {"__name__": "example"}
    for number, block in enumerate(blocks(page, "python"), 1):
        exec(compile(block, f"{relative(page)}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_and_pictures_exist(page: Path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8")):
        name = next(filter(None, target))
        if "://" not in name:
            assert (page.parent / name).exists(), f"{relative(page)} names {name}"


@pytest.mark.parametrize("name", [*METHODS, *INTERACTIONS])
def test_every_method_is_documented(name: str):
    made = method_class(name)
    assert f"::: {made.__module__}.{made.__name__}\n" in (ROOT / "docs" / "methods.md").read_text(
        encoding="utf-8"
    )
    assert f"`{name}`" in (ROOT / "README.md").read_text(encoding="utf-8")
