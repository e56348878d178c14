"""Tables as a source of inputs: Parquet and Arrow a block at a time, CSV, JSON lines and plain lines whole."""

from __future__ import annotations

import bisect
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from apportion.core.files import content_of
from apportion.core.fingerprints import file_fingerprint
from apportion.errors import InputError

ARROW = frozenset({".parquet", ".arrow", ".feather"})
LINES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".txt"})

# Where the input of a row stands when no column is named, the first that is there.
USUAL = {
    "text": ("text", "sentence", "review", "content", "document"),
    "image": ("image", "img", "picture", "path", "file_name", "file", "filename"),
    "language": ("prompt", "question", "messages"),
}


@dataclass(frozen=True)
class Choice:
    """Which columns of a table are the input and its id, for a model of this domain."""

    domain: str | None
    column: str | None = None
    id_column: str | None = None

    def input(self, row: Mapping[str, Any], folder: Path | None = None) -> Any:
        """The text, the picture (paths are relative to `folder`), or the whole row of a tabular or a language model."""
        if self.domain == "tabular" and self.column is None:
            return row
        value = row if self.domain is None and self.column is None else row[self.name_in(row)]
        if self.domain == "language":  # with its answer, its context and its contrast
            return {**row, "prompt": value}
        if self.domain != "image":
            return value
        if isinstance(value, Mapping):  # how the Hugging Face hub stores pictures
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            from PIL import Image

            return Image.open(io.BytesIO(value))
        return folder / value if isinstance(value, str) and folder is not None else value

    def settled(self, rows: Iterable[Any]) -> Choice:
        """With the name of the input's column in a table that begins with these rows. Raises InputError where it
        or the id's is in none of them."""
        names = dict.fromkeys(name for row in rows if isinstance(row, Mapping) for name in row)
        if self.id_column is not None:
            self.id(names)
        if self.column is None and not (names and self.domain in USUAL):
            return self
        return replace(self, column=self.name_in(names))

    @property
    def by_number(self) -> bool:
        """Whether columns are named by their numbers, as in a file without a header."""
        return any(name is not None and name.isdecimal() for name in (self.column, self.id_column))

    def name_in(self, row: Mapping[str, Any]) -> str:
        """The name of the input's column."""
        usual = (self.column,) if self.column is not None else USUAL.get(self.domain or "", ())
        for name in usual:
            if name in row:
                return name
        held = "prompts" if self.domain == "language" else f"{self.domain}s"
        missing = f"column {self.column!r}" if self.column else f"column that is known to hold {held}"
        raise InputError(f"there is no {missing}; {_known(row)}")

    def id(self, row: Mapping[str, Any]) -> str:
        assert self.id_column is not None
        if self.id_column not in row:
            raise InputError(f"there is no column {self.id_column!r} for the id; {_known(row)}")
        return str(row[self.id_column])


def _known(row: Mapping[str, Any]) -> str:
    known = f"name one of: {', '.join(map(str, row))}" if row else "the data have no columns"
    return f"{known}; of a CSV file without a header, the number of the column, from 0"


def first_rows(row: Callable[[int], Any], many: int) -> Iterator[Any]:
    """Those of the first 16 rows that can be read: together they tell the columns."""
    for index in range(min(many, 16)):
        with suppress(Exception):  # what cannot be read is told when its turn comes
            yield row(index)


@dataclass(frozen=True)
class Lines:
    """A CSV, JSON lines or text file, also gzipped, with one input a row; it is held in memory."""

    path: Path
    choice: Choice

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def head(self) -> Iterable[Any]:
        header = self._lines[0]
        return first_rows(self._row, len(self)) if header is None else [dict.fromkeys(header)]

    def ids(self) -> Iterator[str]:
        for index in range(len(self)):
            with suppress(InputError, ValueError):  # of a row that cannot be read
                yield self.id(index)

    def __len__(self) -> int:
        return len(self._lines[1])

    @property
    def _lines(self) -> tuple[list[str] | None, list[Any]]:
        return _lines(self.path, self.choice.by_number)

    def id(self, index: int) -> str:
        return str(index) if self.choice.id_column is None else self.choice.id(self._row(index))

    def read(self, index: int) -> Any:
        row = self._row(index)
        return self.choice.input(row, self.path.parent) if isinstance(row, Mapping) else row

    def _row(self, index: int) -> Any:
        header, lines = self._lines
        line = lines[index]
        if header is not None:
            if len(line) != len(header):
                raise InputError(f"row {index} has {len(line)} values, the header {len(header)}")
            return dict(zip(header, line, strict=True))
        if _kind(self.path) == ".txt":
            return line
        found = json.loads(line)
        if not isinstance(found, Mapping):
            raise InputError(f"line {index + 1} is no JSON object: {line!r:.60}")
        return found


@lru_cache(2)
def _lines(path: Path, by_number: bool) -> tuple[list[str] | None, list[Any]]:
    """The header of a CSV file, and the rows: cells, or lines that are not blank."""
    try:
        if _kind(path) in (".csv", ".tsv"):
            from apportion.domains.tabular import parse_csv

            return parse_csv(path, by_number)
        lines = content_of(path).decode("utf-8-sig").split("\n")  # not splitlines, which breaks inside texts
        return None, [line for line in lines if line.strip()]
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def _kind(path: Path) -> str:
    return Path(path.stem if path.suffix.lower() == ".gz" else path).suffix.lower()


@dataclass(frozen=True)
class ArrowRows:
    """The rows of Parquet files (one row group in memory at a time) or Arrow files (mapped)."""

    paths: tuple[Path, ...]
    choice: Choice

    @property
    def name(self) -> str:
        return str(self.paths[0] if len(self.paths) == 1 else self.paths[0].parent)

    @property
    def fingerprint(self) -> str:
        prints = [f"{path.name} {file_fingerprint(path)}" for path in self.paths]
        return hashlib.sha256("\n".join(prints).encode()).hexdigest()

    def head(self) -> Iterable[Any]:
        path = self.paths[0]
        if path.suffix.lower() == ".parquet":
            return [dict.fromkeys(import_module("pyarrow.parquet").read_schema(path).names)]
        return [dict.fromkeys(_block(path, 0).column_names)]

    def ids(self) -> Iterator[str]:
        names = [self.choice.id_column]
        for path in self.paths:
            if path.suffix.lower() == ".parquet":
                batches = import_module("pyarrow.parquet").ParquetFile(path).iter_batches(columns=names)
            else:
                batches = _block(path, 0).select(names).to_batches()
            for batch in batches:
                yield from map(str, batch.column(0).to_pylist())

    def __len__(self) -> int:
        return _blocks(self.paths)[-1].first

    def id(self, index: int) -> str:
        path, row, _ = self._place(index)
        usual = str(row) if len(self.paths) == 1 else f"{path.name}:{row}"
        return usual if self.choice.id_column is None else self.choice.id(self._row(index))

    def read(self, index: int) -> Any:
        return self.choice.input(self._row(index), self.paths[0].parent)

    def _row(self, index: int) -> dict[str, Any]:
        path, _, (block, row) = self._place(index)
        found: dict[str, Any] = _block(path, block).slice(row, 1).to_pylist()[0]
        return found

    def _place(self, index: int) -> tuple[Path, int, tuple[int, int]]:
        """The file, the row in it, and the block of the file with the row in that."""
        blocks = _blocks(self.paths)
        block = blocks[bisect.bisect_right(blocks, index, key=lambda block: block.first) - 1]
        row = index - block.first
        return self.paths[block.file], block.row + row, (block.number, row)


class RowGroup(NamedTuple):
    """A stretch of rows: the number of its first, its file, the first row's number there, and its own."""

    first: int
    file: int
    row: int
    number: int


@lru_cache(4)
def _blocks(paths: tuple[Path, ...]) -> list[RowGroup]:
    """All blocks that have rows, and a last one of none at the end."""
    found, first = [], 0
    for file, path in enumerate(paths):
        row = 0
        for number, rows in enumerate(_sizes(path)):
            if rows:
                found.append(RowGroup(first, file, row, number))
            first, row = first + rows, row + rows
    return [*found, RowGroup(first, -1, 0, 0)]


def _sizes(path: Path) -> list[int]:
    try:
        if path.suffix.lower() == ".parquet":
            metadata = import_module("pyarrow.parquet").ParquetFile(path).metadata
            return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        return [_block(path, 0).num_rows]
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from None


@lru_cache(2)
def _block(path: Path, block: int) -> Any:
    if path.suffix.lower() == ".parquet":
        return import_module("pyarrow.parquet").ParquetFile(path).read_row_group(block)
    pa: Any = import_module("pyarrow")
    mapped = pa.memory_map(str(path))
    try:
        return pa.ipc.open_file(mapped).read_all()
    except pa.ArrowInvalid:  # the other of the two layouts, in which Hugging Face's datasets write
        return pa.ipc.open_stream(mapped).read_all()
