"""Importing the package is quick and brings only torch along."""

import subprocess
import sys

import pytest

import apportion

HEAVY = (
    "matplotlib",
    "transformers",
    "skimage",
    "sklearn",
    "pandas",
    "scipy",
    "PIL",
    "typer",
    "rich",
)


def python(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.parametrize(
    "what", ["import apportion", "import apportion; apportion.LRP, apportion.IntegratedGradients"]
)
def test_importing_brings_nothing_heavy(what: str):
    brought = python(
        f"import sys, torch; before = set(sys.modules); {what}; print(*(set(sys.modules) - before))"
    )
    assert not {name.split(".")[0] for name in brought.split()} & set(HEAVY)


def test_help_does_not_import_torch():
    code = "import sys\nfrom apportion.cli.app import app\nprint('torch' in sys.modules)"
    assert python(code) == "False"


def test_what_comes_before_a_command_imports_no_numpy():
    code = "import sys\nimport apportion.core.memory as m, apportion.__main__\nm.keep_freed_memory()"
    assert python(f"{code}\nprint('numpy' in sys.modules)") == "False"


def test_import_time(capsys: pytest.CaptureFixture[str]):
    seconds = python(
        "import time, torch; t = time.perf_counter(); import apportion; print(time.perf_counter() - t)"
    )
    with capsys.disabled():  # a machine may be busy: shown, not asserted
        print(f"\nimport apportion: {1000 * float(seconds):.0f} ms beyond torch")


def test_every_public_name_is_there():
    for name in apportion.__all__:
        assert getattr(apportion, name).__name__.lower() == name.lower()
    assert set(apportion.__all__) <= set(dir(apportion))
    with pytest.raises(AttributeError, match="apportion attribute Nothing"):
        apportion.Nothing  # noqa: B018
