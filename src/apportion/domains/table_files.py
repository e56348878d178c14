"""Tables in files, as frames: text with any separator, Parquet, Feather, JSON lines and Excel."""

from __future__ import annotations

import csv
import io
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from apportion.core.extras import EXTRAS
from apportion.core.files import content_of
from apportion.errors import InputError, first_line

TEXTS = frozenset({".csv", ".tsv", ".txt"})
ARROW = frozenset({".parquet", ".feather", ".arrow"})
JSON_LINES = frozenset({".jsonl", ".ndjson"})
EXCEL = frozenset({".xlsx"})


@dataclass(frozen=True)
class Dialect:
    """How a table is written as text.

    Attributes:
        sep (str, default None): What stands between the values of a line; None: what Python's csv.Sniffer finds.
        encoding (str, default None): How letters are written; None: UTF-8.
        decimal (str, default None): What stands before the fraction of a number; None: a comma where all numbers of a
            column have one, else a point.
        header (bool, default True): Whether the first line names the columns; otherwise they are called 0, 1, ….
    """

    sep: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    header: bool = True

    def __post_init__(self) -> None:
        for name, value in (("sep", self.sep), ("decimal", self.decimal)):
            if value is not None and len(value) != 1:
                raise InputError(f"{name} is {value!r}; accepted: one character, such as ';'")


AS_FOUND = Dialect()


def kind_of(path: Path) -> str:
    """The suffix of a file, without that of a packer."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path).suffix.lower()


def is_table(path: Path) -> bool:
    """Whether a file is a table by its name; .txt is a text unless someone says otherwise."""
    return kind_of(path) in (TEXTS - {".txt"}) | ARROW | JSON_LINES | EXCEL


@lru_cache(4)
def read_table(
    path: Path, dialect: Dialect = AS_FOUND, texts: frozenset[str] = frozenset()
) -> tuple[Any, str]:
    """The frame in a file, and what was guessed to read it, in words; columns of `texts` stay texts, such as zip codes,
    where the file does not say what is a number. InputError for what cannot be read."""
    kind = kind_of(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; accepted: a table, such as .csv or .parquet")
    if kind in TEXTS:
        frame, told = _of_text(path, dialect, texts)
    else:
        if dialect != AS_FOUND:
            raise InputError(
                f"{path} is a {kind} file, which has no separators and a header; these are for .csv and .tsv files"
            )
        frame, told = _of_library(path, kind), ""
    twice = [name for name in frame.columns if list(frame.columns).count(name) > 1]
    if twice:
        raise InputError(f"{path}: the header names the column {twice[0]!r} twice")
    if not len(frame) or not len(frame.columns):
        raise InputError(f"{path} has {'no rows below its header' if len(frame.columns) else 'no content'}")
    return frame, told


def _of_library(path: Path, kind: str) -> Any:
    pandas = _needed("pandas", path)
    readers: dict[str, tuple[str, Callable[..., Any], dict[str, Any]]] = {
        ".parquet": ("pyarrow", pandas.read_parquet, {}),
        ".feather": ("pyarrow", pandas.read_feather, {}),
        ".arrow": ("pyarrow", pandas.read_feather, {}),
        ".jsonl": ("pandas", _json_lines, {}),
        ".ndjson": ("pandas", _json_lines, {}),
        ".xlsx": ("openpyxl", pandas.read_excel, {}),
    }
    if kind not in readers:
        raise InputError(f"{path} is no table; accepted: .csv, .tsv, {', '.join(readers)}")
    package, read, how = readers[kind]
    _needed(package, path)
    try:
        return read(path, **how)
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise InputError(f"cannot read {path}: {first_line(error) or repr(error):.200}") from None


def _json_lines(path: Path) -> Any:
    """The frame of objects, one a line, whose texts stay texts: pandas' own reader makes numbers of "007"."""
    text = content_of(path).decode("utf-8-sig")
    rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    if any(not isinstance(row, dict) for row in rows):
        raise InputError("a line is no JSON object")
    return _needed("pandas", path).DataFrame(rows)


def _needed(package: str, path: Path) -> Any:
    try:
        return import_module(package)
    except ImportError:
        raise InputError(f"{path} needs {package}: pip install 'apportion[{EXTRAS[package]}]'") from None


def _of_text(path: Path, dialect: Dialect, texts: frozenset[str]) -> tuple[Any, str]:
    pandas = _needed("pandas", path)
    try:
        text = content_of(path).decode(dialect.encoding or "utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    except LookupError:
        raise InputError(
            f"encoding is {dialect.encoding!r}; accepted: a name such as utf-8, cp1252 or latin-1"
        ) from None
    except UnicodeDecodeError as error:
        said = f"{path} is not {dialect.encoding or 'UTF-8'} text ({error.reason} at byte {error.start})"
        raise InputError(f"{said}; say how it is written, such as --encoding cp1252") from None
    told = re.match(r"sep=(.)\r?\n", text)  # as spreadsheets write it
    text = text[told.end() :] if told else text
    sep = dialect.sep or (told[1] if told else _sniffed(text))
    try:
        lines = csv.reader(io.StringIO(text), delimiter=sep)
        header, first = next(lines, []), next((line for line in lines if line), [])
        if not header:
            raise InputError(f"{path} has no content")
        if not dialect.header:
            header = [str(i) for i in range(len(header))]
        if len(first) > len(header) > 0:  # pandas would take the first value of each row for its name
            raise InputError(
                f"{path}: the first row has {len(first)} values, the header {len(header)}, with sep={sep!r}; "
                "say it with --sep"
            )
        names = [name.strip() for name in header]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"{path}: the header names the column {twice[0]!r} twice")
        how = {
            "names": names,
            "header": 0 if dialect.header else None,
            "dtype": {name: str for name in names if name in texts},
        }
        read = partial(pandas.read_csv, sep=sep, skipinitialspace=True, index_col=False, **how)
        frame = read(io.StringIO(text), decimal=dialect.decimal or ".")
        comma = dialect.decimal is None and sep != "," and _has_commas(frame, texts)
        if comma:
            frame = read(io.StringIO(text), decimal=",")
    except InputError:
        raise
    except (ValueError, csv.Error) as error:
        line = " ".join(str(error).split())
        raise InputError(f"cannot read {path} with sep={sep!r}: {line:.160}; say it with --sep") from None
    guessed = [f"sep={sep!r}"] if dialect.sep is None and sep != "," else []
    return frame, ", ".join([*guessed, *(["decimal=','"] if comma else [])])


def _sniffed(text: str) -> str:
    lines = [line for line in text.splitlines()[:50] if line]
    try:
        return csv.Sniffer().sniff("\n".join(lines), ",;\t|").delimiter
    except csv.Error:  # a single column, or lines that differ
        first = re.sub(r'"[^"]*"', "", lines[0]) if lines else ""
        return max(",;\t|", key=first.count)


def _has_commas(frame: Any, texts: frozenset[str]) -> bool:
    """Whether some column is of numbers with a comma."""
    for name in frame.columns.difference(texts):
        cells = frame[name].dropna()
        if len(cells) and getattr(frame[name].dtype, "kind", "O") not in "biuf":
            written = cells.astype(str).str.strip()
            if written.str.fullmatch(r"[-+]?\d+(,\d+)?").all() and written.str.contains(",").any():
                return True
    return False
