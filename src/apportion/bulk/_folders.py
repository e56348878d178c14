"""Folders as a source of inputs: one file each, found by name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from apportion.bulk._tables import ARROW, ArrowRows, Choice
from apportion.core.files import check_file, content_of, write_whole
from apportion.core.fingerprints import file_fingerprint, fingerprint
from apportion.errors import InputError
from apportion.pipeline.given import PICTURES

WINDOW = 1 << 12  # bytes at three places of each file: a compressed picture that changes does so to its end


def from_folder(folder: Path, choice: Choice) -> Files | ArrowRows:
    """The pictures, texts or tables below a folder, by what the model takes."""
    names, kinds = [], Counter[str]()
    for name in _walk(folder):
        names.append(name)
        kinds[os.path.splitext(name)[1].lower()] += 1
    reads = choice.domain in ("text", "language")
    wanted = (ARROW, {".txt"}) if reads else (PICTURES, ARROW)
    for suffixes in wanted:
        chosen = [name for name in names if os.path.splitext(name)[1].lower() in suffixes]
        if chosen and suffixes is ARROW:
            return ArrowRows(tuple(folder / name for name in sorted(chosen)), choice)
        if chosen:
            return Files(folder, tuple(sorted(chosen)))
    found = ", ".join(f"{many} {suffix or 'without suffix'}" for suffix, many in kinds.most_common(4))
    what = "texts (.txt, .parquet)" if reads else "pictures"
    raise InputError(f"{folder} has no {what}; it has {found or 'no files'}")


def _walk(folder: Path) -> Iterator[str]:
    """Paths below the folder, relative to it. Left out is what is hidden, and links to a folder that they are in, which
    would never end."""

    def refuse(error: OSError) -> None:
        raise InputError(f"cannot list {error.filename}: {error.strerror}") from None

    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [
            name for name in folders if not name.startswith(".") and not _leads_up(Path(place, name))
        ]
        below = Path(place).relative_to(folder).as_posix()
        yield from ((name if below == "." else f"{below}/{name}") for name in files if name[0] != ".")


def _leads_up(folder: Path) -> bool:
    """Whether this is a link to a folder on the way to it."""
    return folder.is_symlink() and folder.resolve() in {parent.resolve() for parent in folder.parents}


@dataclass(frozen=True)
class Files:
    """One input a file: pictures (their paths are handed on), or texts."""

    root: Path
    names: Sequence[str]

    @property
    def name(self) -> str:
        return str(self.root)

    @property
    def fingerprint(self) -> str:
        """Of names, and of contents rather than times, which are other ones in a copy of the folder."""
        return fingerprint([(name, _content(os.path.join(self.root, name))) for name in self.names])

    def __len__(self) -> int:
        return len(self.names)

    def id(self, index: int) -> str:
        return self.names[index].encode(errors="backslashreplace").decode()

    def read(self, index: int) -> Any:
        path = self.root / self.names[index]
        if path.suffix.lower() != ".txt":
            return path
        return content_of(path).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")

    def listed(self, path: Path) -> Files:
        """The same with the names in a file: a worker then maps that instead of holding all of them, and a
        file that appears in the folder later changes nothing."""
        encoded = [os.fsencode(name) for name in self.names]
        starts = np.cumsum([0, *(len(name) + 1 for name in encoded)], dtype=np.uint64)
        write_whole(path, b"".join(name + b"\n" for name in encoded))
        write_whole(path.with_suffix(".starts"), starts.tobytes())
        return replace(self, root=self.root.resolve(), names=Listing(path))


@dataclass(frozen=True)
class Listing(Sequence[str]):
    """File names in a file, one a line, found by number."""

    path: Path

    def __len__(self) -> int:
        return len(_mapped(self.path.with_suffix(".starts"), "<u8")) - 1

    def __getitem__(self, index: Any) -> Any:
        starts = _mapped(self.path.with_suffix(".starts"), "<u8")
        line = _mapped(self.path, "u1")[int(starts[index]) : int(starts[index + 1]) - 1]
        return os.fsdecode(line.tobytes())


@lru_cache(4)
def _mapped(path: Path, kind: str) -> npt.NDArray[Any]:
    return np.memmap(path, kind, "r")


def _content(path: str) -> str | None:
    try:
        check_file(Path(path))
        return file_fingerprint(path, WINDOW)
    except (OSError, InputError):  # told when its turn comes
        return None
