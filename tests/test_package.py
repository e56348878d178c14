"""What is published: wheel and source archive hold the package and nothing else; the files beside it are right."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

import apportion

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# All that is no Python in the package. The weights are our own trainings: those of others come as packages.
DATA = {
    "__init__.pyi",
    "py.typed",
    "display/static/page.css",
    "display/static/page.js",
    *(f"models/shipped/weights/{name}.safetensors" for name in ("breast_cancer", "digits", "sentiment")),
    "models/shipped/weights/sentiment_transformer.safetensors",
    "models/shipped/weights/imagenet_classes.txt",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return out


def sources() -> set[str]:
    package = ROOT / "src" / "apportion"
    return {str(file.relative_to(package)) for file in package.rglob("*.py")}


def test_the_wheel_holds_the_package_its_licence_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"apportion-{PROJECT['version']}.dist-info"
    about = {
        f"{info}/{name}" for name in ("METADATA", "WHEEL", "entry_points.txt", "licenses/LICENSE", "RECORD")
    }
    assert names == {f"apportion/{name}" for name in sources() | DATA} | about
    assert wheel.stat().st_size < 10e6


def test_the_source_archive_holds_what_the_wheel_is_built_from(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    about = {
        "LICENSE",
        "README.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "CITATION.cff",
        "pyproject.toml",
        "PKG-INFO",
    }
    assert names == {f"src/apportion/{name}" for name in sources() | DATA} | about | {".gitignore"}


def test_twine_finds_nothing(built: Path) -> None:
    if not find_spec("twine"):
        pytest.skip("twine is not installed")
    ran = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *built.iterdir()], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == PROJECT["version"] == apportion.__version__
    assert citation["license"] == PROJECT["license"]


def test_workflows_run_what_a_machine_of_ones_own_runs() -> None:
    """And may write nothing."""
    workflows = [yaml.safe_load(file.read_text()) for file in (ROOT / ".github" / "workflows").iterdir()]
    assert workflows
    for workflow in workflows:
        assert workflow["permissions"] == {"contents": "read"}
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    pythons = [
        p for w in workflows for job in w["jobs"].values() for p in job["strategy"]["matrix"]["python"]
    ]
    told = [c.rpartition(" :: ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert pythons == told


def test_forms_of_issues_ask_with_a_label() -> None:
    forms = [file for file in (ROOT / ".github" / "ISSUE_TEMPLATE").iterdir() if file.name != "config.yml"]
    assert len(forms) == 2
    for file in forms:
        form = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= form.keys()
        kinds = {part["type"] for part in form["body"]}
        assert kinds <= {"textarea", "markdown", "input", "dropdown", "checkboxes"}
        assert all("label" in part["attributes"] for part in form["body"] if part["type"] != "markdown")


def test_extras_name_each_other_and_what_dev_needs() -> None:
    """`apportion[dev]` installs all other extras, so that they are resolved together whenever the tests are set up."""
    extras = PROJECT["optional-dependencies"]
    together = re.fullmatch(r"apportion\[(.*)\]", extras["dev"][0])
    assert together
    assert set(together[1].split(",")) == extras.keys() - {"dev", "transformer"}


@pytest.mark.slow
def test_the_image_is_built_without_a_network() -> None:
    image = f"python:{sys.version_info[0]}.{sys.version_info[1]}-slim"
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("docker is not here, or its daemon cannot be reached")
    if subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode:
        pytest.skip(f"the base image {image} is not here")
    if not (ROOT / "dist" / "wheels").is_dir():
        pytest.skip("dist/wheels is not there: make wheels")
    python = f"PYTHON={image[7:-5]}"
    command = ["docker", "build", "--network", "none", "--build-arg", python, "--tag", "apportion-test", ROOT]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    shown = subprocess.run(
        ["docker", "run", "--rm", "--network", "none", "apportion-test", "explain", "a superb film"],
        capture_output=True,
        text=True,
    )
    assert "left over" in shown.stdout, shown.stdout + shown.stderr
