"""Tables of a study in files: `tables.json`, which is read again, and `report.md`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from apportion.core.files import damage_named, write_whole
from apportion.core.schema import hold, parsed
from apportion.errors import InputError
from apportion.results.grid import TextTable


def write_tables(
    folder: Path, title: str, tables: Sequence[TextTable], pictures: Sequence[str] = ()
) -> list[Path]:
    """Write `tables.json`, which `read_tables` reads, and `report.md`, with pictures of that folder."""
    page = [f"# {title}", "", *(table.markdown() for table in tables)]
    page += [f"![{name}]({name})" for name in pictures]
    data = {"title": title, "tables": [asdict(table) for table in tables]}
    return [
        write_whole(folder / "report.md", ("\n".join(page) + "\n").encode()),
        write_whole(folder / "tables.json", json.dumps(data, indent=1, ensure_ascii=False).encode()),
    ]


def read_tables(folder: Path) -> tuple[str, list[TextTable]]:
    """The title and the tables of the study in this folder. Raises InputError where there is none."""
    path = folder / "tables.json"
    if not path.is_file():
        raise InputError(f"no study with results in {folder} (there is no tables.json)")
    with damage_named(path, "table of a study"):
        data = parsed(path.read_text(encoding="utf-8"))
        hold(data, _Kept)
        for number, table in enumerate(data["tables"]):
            if not table["columns"] or any(len(row) != len(table["columns"]) for row in table["rows"]):
                raise ValueError(f"tables.{number}.rows: accepted: a cell for each of the columns")
        return data["title"], [TextTable(**table) for table in data["tables"]]


@dataclass
class _Kept:
    """What the file says."""

    title: str
    tables: list[TextTable]
