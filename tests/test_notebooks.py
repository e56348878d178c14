"""The tutorials are notebooks without outputs, and run as they are."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs" / "tutorials").glob("*.ipynb"))


def test_there_is_one_for_each_kind_of_input_and_the_page_names_them() -> None:
    assert [book.stem for book in NOTEBOOKS] == ["image", "language-model", "table", "text"]
    page = (NOTEBOOKS[0].parent.parent / "tutorials.md").read_text(encoding="utf-8")
    assert all(f"(tutorials/{book.name})" in page for book in NOTEBOOKS)


@pytest.mark.parametrize("book", NOTEBOOKS, ids=lambda book: book.stem)
def test_a_notebook_is_kept_without_outputs(book: Path) -> None:
    cells = json.loads(book.read_text(encoding="utf-8"))["cells"]
    assert [c for c in cells if c["cell_type"] == "code" and (c["outputs"] or c["execution_count"])] == []


@pytest.mark.slow
@pytest.mark.parametrize("book", NOTEBOOKS, ids=lambda book: book.stem)
def test_a_notebook_runs(book: Path, tmp_path: Path) -> None:
    if not find_spec("nbclient") or not find_spec("ipykernel"):
        pytest.skip("nbclient or ipykernel is not installed")
    import nbformat
    from nbclient import NotebookClient

    read = nbformat.read(book, as_version=4)
    NotebookClient(read, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [out for cell in read.cells if cell.cell_type == "code" for out in cell.outputs]
    shown = [out.data["text/html"] for out in outputs if "text/html" in out.get("data", {})]
    assert shown
    assert all(len(card.encode()) < 60_000 for card in shown)
