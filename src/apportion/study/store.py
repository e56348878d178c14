"""A folder of finished pieces of work: what a killed run had finished is kept, and nothing is done twice."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from apportion.core.checksummed import seal, unseal
from apportion.errors import InputError


@dataclass(frozen=True)
class Cell:
    """One piece of work: its `name` (words joined by "/") and the JSON-ready `settings` that it depends on.

    Whatever changes the result belongs into the settings: what the methods' reprs say, the fingerprints of
    data and of the cells that it builds on, and a revision number of the code if that changes.

    >>> Cell("model/sst", {"seed": 0}).fingerprint == Cell("model/sst", {"seed": 1}).fingerprint
    False
    """

    name: str
    settings: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """A short hash of name and settings."""
        text = json.dumps([self.name, self.settings], sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class CellResult:
    """What a piece of work gave: JSON-ready `numbers` and `tensors`; `seconds` is what it took."""

    numbers: Any = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class _Kept:
    """What the file of a cell says."""

    settings: dict[str, Any]
    numbers: Any
    seconds: float


@dataclass(frozen=True)
class Store:
    """Finished cells in a folder, one file each, written whole or not at all and with a checksum.

    Attributes:
        folder (Path): The folder.
        say (callable, default silent): Gets a line for each cell that is begun and for each file that is found to be
            corrupt.
    """

    folder: Path
    say: Callable[[str], None] = lambda line: None

    def path(self, cell: Cell) -> Path:
        """Where the finished cell is."""
        return self.folder / "cells" / f"{cell.name}-{cell.fingerprint}.safetensors"

    def checkpoint(self, cell: Cell) -> Path:
        """Where work on a cell may keep what it has so far; removed when the cell is finished."""
        return self.folder / "unfinished" / f"{cell.name}-{cell.fingerprint}.safetensors"

    def find(self, cell: Cell) -> CellResult | None:
        """The finished cell, or None if it is not there; a corrupt one is named to `say` and taken as not
        there."""
        path = self.path(cell)
        if not path.exists():
            return None
        try:
            numbers, tensors = unseal(path, _Kept)
        except InputError as error:
            self.say(f"{error}; it is done again")
            return None
        return CellResult(numbers["numbers"], tensors, numbers["seconds"])

    def get(self, cell: Cell, compute: Callable[[], CellResult]) -> CellResult:
        """The finished cell, from its file or else by `compute`, whose result is then kept."""
        found = self.find(cell)
        if found is not None:
            return found
        self.say(f"{cell.name} …")
        begin = time.perf_counter()
        made = compute()
        seconds = time.perf_counter() - begin
        numbers = {"settings": dict(cell.settings), "numbers": made.numbers, "seconds": seconds}
        seal(self.path(cell), numbers, made.tensors)
        self.checkpoint(cell).unlink(missing_ok=True)
        return CellResult(made.numbers, made.tensors, seconds)
