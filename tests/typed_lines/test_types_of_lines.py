"""Type checkers, strictly, on lines as users write them: the right ones pass, and each wrong one is reported."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import wrong_lines

import apportion
from apportion.models.shipped import sentiment_transformer

HERE = Path(__file__).parent
RIGHT, WRONG = HERE / "test_right_lines.py", HERE / "wrong_lines.py"
CALLS = [
    each for name, each in vars(wrong_lines).items() if callable(each) and each.__module__ == "wrong_lines"
]


def reported_by_mypy(tmp_path: Path) -> dict[str, set[int]]:
    """As in an environment of a user: the package is found where it is, and its `py.typed` says that it has types."""
    flags = ["--strict", "--python-version=3.11", f"--cache-dir={tmp_path}", "--config-file="]
    return reported([sys.executable, "-m", "mypy", *flags, RIGHT, WRONG], r"^(.+?):(\d+): error: ")


def reported_by_pyright(tmp_path: Path) -> dict[str, set[int]]:
    if not find_spec("pyright") or not shutil.which("node"):
        pytest.skip("pyright, or the node that runs it, is not installed")
    strict = [shutil.copy(file, tmp_path) for file in (RIGHT, WRONG)]
    (tmp_path / "pyrightconfig.json").write_text(
        '{"typeCheckingMode": "strict", "reportUnknownMemberType": false, "reportUnusedExpression": false}'
    )
    found = reported(
        [sys.executable, "-m", "pyright", "--project", tmp_path, "--pythonpath", sys.executable],
        r"^\s*(.+?):(\d+):\d+ - error: ",
    )
    assert len(strict) == 2
    return found


def reported(command: list[str | Path], pattern: str) -> dict[str, set[int]]:
    """The lines of each file at which the checker reports an error."""
    place = Path(str(apportion.__file__)).parent.parent
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MYPYPATH": str(place)})
    found: dict[str, set[int]] = {RIGHT.name: set(), WRONG.name: set()}
    for line in ran.stdout.splitlines():
        if at := re.match(pattern, line):
            found.setdefault(Path(at[1]).name, set()).add(int(at[2]))
    assert ran.returncode == 1, ran.stdout + ran.stderr  # errors there are, and it did not break down
    print(ran.stdout)  # shown where the test fails
    return found


@pytest.mark.slow
@pytest.mark.parametrize("checker", [reported_by_mypy, reported_by_pyright])
def test_right_lines_pass_and_wrong_ones_are_reported(
    checker: Callable[[Path], dict[str, set[int]]], tmp_path: Path
) -> None:
    lines = WRONG.read_text(encoding="utf-8").splitlines()
    marked = {number for number, line in enumerate(lines, 1) if "# wrong: " in line}
    assert len(marked) == len(CALLS)
    assert checker(tmp_path) == {RIGHT.name: set(), WRONG.name: marked}


@pytest.mark.parametrize("call", [each for each in CALLS if each is not wrong_lines.values_of_a_transformer])
def test_wrong_lines_fail(call: Callable[[], None]) -> None:
    """So that the checkers report what is wrong, and not what they do not understand."""
    with pytest.raises((AttributeError, TypeError, IndexError)):
        call()


@pytest.mark.slow
@pytest.mark.skipif(
    not find_spec(sentiment_transformer.BASE_PACKAGE), reason="the pretrained encoder is not installed"
)
def test_the_wrong_line_of_a_transformer_fails() -> None:
    with pytest.raises(AttributeError):
        wrong_lines.values_of_a_transformer()
