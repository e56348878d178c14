"""The floors of the house: a folder uses those below it, and no two files need each other.

Imports inside functions and for type checking count, too: what a reader must know of a file is the same.
"""

from __future__ import annotations

import ast
import shutil
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import apportion

HOUSE = Path(apportion.__file__).parent

# From the top. What is on one line uses none of its neighbours, unless `BESIDE` says so.
FLOORS = [
    ["__main__"],
    ["cli"],
    ["study"],
    ["bulk", "serve"],
    ["pipeline"],
    ["models"],
    ["methods", "evaluation"],
    ["engines", "display"],
    ["results", "domains"],
    ["core", "learning"],
    ["errors", "names"],
]
BESIDE = {("learning", "core"), ("evaluation", "methods")}
# Results are drawn by the floor above them, which is looked up when something is to be drawn.
LATE = {("results/display.py", "apportion.display")}


def modules(house: Path) -> dict[str, Path]:
    """The dotted names of all files."""
    found = {}
    for path in house.rglob("*.py"):
        parts = path.relative_to(house.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports are not used here"
            base = node.module or ""
            names |= {name if (name := f"{base}.{a.name}") in known else base for a in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in known:
            names.add(node.value)  # as in `import_module("apportion.display")`
    return {name for name in names if name in known and name != "apportion"}


def floor_of(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def upward(house: Path) -> list[str]:
    """The imports that lead to a floor above, or beside."""
    known, found = modules(house), []
    for path in known.values():
        place = path.relative_to(house)
        room = place.parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for name in imported(path, known):
            to = name.split(".")[1]
            allowed = to == room or (room, to) in BESIDE or floor_of(to) > floor_of(room)
            if not allowed and (place.as_posix(), name) not in LATE:
                found.append(f"{place} imports {name}")
    return found


def circle(house: Path) -> list[str]:
    """Files that need each other, if there are any."""
    known = modules(house)
    graph = {name: imported(path, known) - {name} for name, path in known.items()}
    graph["apportion.results.display"].discard("apportion.display")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_import_leads_downward() -> None:
    assert upward(HOUSE) == []


def test_no_two_files_need_each_other() -> None:
    assert circle(HOUSE) == []


def test_every_room_has_a_floor_and_few_things_are_loose() -> None:
    entries = [entry.name for entry in HOUSE.iterdir() if entry.name not in ("__pycache__",)]
    loose = [name for name in entries if name.endswith((".py", ".pyi"))]
    assert len(loose) <= 5
    assert len(entries) <= 20
    rooms = {name for floor in FLOORS for name in floor}
    assert {entry.removesuffix(".py") for entry in entries} - rooms == {
        "__init__",
        "__init__.pyi",
        "py.typed",
    }


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("core/trees.py", "from apportion.results.cost import Cost"),
        ("display/views.py", "def late():\n    import apportion.cli.app"),
        (
            "methods/explain.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from apportion import models",
        ),
        ("serve/request.py", "from apportion.bulk import run"),
        ("results/words.py", "from importlib import import_module\nimport_module('apportion.display')"),
    ],
)
def test_a_planted_import_upward_is_found(place: str, line: str, tmp_path: Path) -> None:
    house = Path(shutil.copytree(HOUSE, tmp_path / "apportion", ignore=shutil.ignore_patterns("__pycache__")))
    file = house / place
    file.write_text(file.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    assert [found.split(" imports ")[0] for found in upward(house)] == [place]


def test_a_planted_circle_is_found(tmp_path: Path) -> None:
    house = Path(shutil.copytree(HOUSE, tmp_path / "apportion", ignore=shutil.ignore_patterns("__pycache__")))
    file = house / "core/trees.py"
    file.write_text(file.read_text() + "\ndef late():\n    from apportion.core import inputs\n")
    assert {"apportion.core.trees", "apportion.core.inputs"} <= set(circle(house))
