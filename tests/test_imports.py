"""Importing the package is quick and brings only torch along."""

import ast
import importlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import apportion

ROOT = Path(__file__).parent.parent
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
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
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


def test_scripts_beside_the_package_import_what_exists():
    """Nothing runs the studies and benchmarks here, so a module that moved would be missed only there."""
    scripts = [
        file for room in ("studies", "benchmarks", "training", "docs") for file in ROOT.glob(f"{room}/*.py")
    ]
    assert len(scripts) > 20
    for script in scripts:
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "apportion":
                module = importlib.import_module(node.module or "")
                for name in node.names:
                    found = hasattr(module, name.name) or find_spec(f"{node.module}.{name.name}")
                    assert found, f"{script}:{node.lineno}: no {name.name} in {node.module}"


def test_explaining_a_sentence_imports_no_package_that_it_does_not_need():
    code = "import sys\nimport apportion as ap\nap.explain(ap.load('sentiment'), 'A dull film.')\nprint(*sys.modules)"
    brought = {name.split(".")[0] for name in python(code).split()}
    assert not brought & {"sympy", "matplotlib", "transformers", "skimage", "sklearn", "pandas", "scipy"}
