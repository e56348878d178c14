"""Where the inputs of a run come from: each has an id, and is read when its turn comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from apportion.bulk._folders import Files, from_folder
from apportion.bulk._tables import ARROW, LINES, ArrowRows, Choice, Lines, first_rows
from apportion.core.files import check_file, path_of
from apportion.core.fingerprints import file_fingerprint, fingerprint
from apportion.core.numbers import as_pandas, check_dense, is_frame, is_series, tensor_of
from apportion.errors import InputError, first_line
from apportion.pipeline.given import PICTURES, TENSORS

KINDS = (
    "a folder of pictures or .txt files, .parquet, .arrow, .csv, .tsv, .jsonl, .txt, .npy, .safetensors, "
    "or in Python a dataset, a list, an array or a frame"
)


class Source(Protocol):
    """Inputs by number. `name` is what a person calls them; `fingerprint` changes when they do."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    def __len__(self) -> int: ...
    def id(self, index: int) -> str: ...
    def read(self, index: int) -> Any: ...


def open_source(
    data: Any, domain: str | None = None, column: str | None = None, id_column: str | None = None
) -> Source:
    """The inputs in what was given; nothing is read yet that would not fit in memory.

    `domain` is that of the model ("image", "text", "tabular", "language", None for a bare model); `column` is where the
    text or picture of a table stands and `id_column` where its id does. Raises InputError for what is none
    of these, holds no input, or has no such column.
    """
    choice = Choice(domain, column, id_column)
    source = (
        _from_path(path_of("data", data), choice)
        if isinstance(data, str | Path)
        else _from_object(data, choice)
    )
    if len(source) == 0:
        raise InputError(f"{source.name} holds no inputs")
    if isinstance(source, Lines | ArrowRows | Items):
        return replace(source, choice=choice.settled(source.head()))
    choice.settled(())
    return source


def refuse_repeated_ids(source: Source) -> None:
    """Raises InputError where two rows of a table have the same id: nothing could tell them apart later."""
    if isinstance(source, Lines | ArrowRows | Items) and source.choice.id_column is not None:
        many = Counter(source.ids())
        for name, times in many.most_common(1):
            if times > 1:
                raise InputError(
                    f"column {source.choice.id_column!r} has {len(many)} ids for {many.total()} inputs: "
                    f"{name[:60]!r} is there {times} times; accepted: a column with another value in each row"
                )


def column_of(source: Source) -> str | None:
    """Where the inputs stand in a table, whether it was named or found; None where there is but one place."""
    return source.choice.column if isinstance(source, Lines | ArrowRows | Items) else None


def _from_path(path: Path, choice: Choice) -> Source:
    if not path.exists():
        raise InputError(f"no such file or folder: {path}; accepted as data: {KINDS}")
    if path.is_dir():
        return from_folder(path, choice)
    check_file(path)
    suffix = Path(path.stem if path.suffix.lower() == ".gz" else path).suffix.lower()
    if suffix in ARROW:
        return ArrowRows((path,), choice)
    if suffix in LINES:
        return Lines(path, choice)
    if suffix in TENSORS:
        return Arrays(path)
    if suffix in PICTURES:
        return Files(path.parent, (path.name,))
    raise InputError(f"{path} is not a kind of data that is read here; accepted: {KINDS}")


@dataclass(frozen=True)
class Arrays:
    """The samples of a tensor file, along the first dimension: .npy, .safetensors (all its tensors) or .pt."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def fingerprint(self) -> str:
        return file_fingerprint(self.path)

    def __len__(self) -> int:
        sizes = {key: slices[0] for key, slices in _shapes(self.path).items()}
        if len(set(sizes.values())) != 1:
            raise InputError(f"{self.path}: the tensors differ in their first dimension: {sizes}")
        return next(iter(sizes.values()))

    def id(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> Any:
        sample = {key: _sample(array, index) for key, array in _tensors(self.path).items()}
        return next(iter(sample.values())) if len(sample) == 1 else sample


@lru_cache(2)
def _tensors(path: Path) -> dict[str, Any]:
    """The tensors of a file, not yet read where the format allows it."""
    try:
        if path.suffix.lower() == ".npy":
            return {"values": np.load(path, mmap_mode="r", allow_pickle=False)}
        if path.suffix.lower() == ".safetensors":
            from safetensors import safe_open

            file: Any = safe_open(path, "pt")
            return {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        found = torch.load(path, weights_only=True, map_location="cpu")
        found = found if isinstance(found, dict) else {"values": found}
        if not all(isinstance(value, Tensor) for value in found.values()):
            raise ValueError("it holds more than tensors")
        return found
    except Exception as error:  # whatever a damaged file makes its reader raise
        first = first_line(error) or type(error).__name__
        raise InputError(f"cannot read tensors from {path}: {first:.200}") from error


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    arrays = _tensors(path)
    shapes = {key: tuple(a.get_shape() if hasattr(a, "get_shape") else a.shape) for key, a in arrays.items()}
    if not shapes or () in shapes.values():
        raise InputError(f"{path} holds {shapes or 'no tensors'}; accepted: tensors with a first dimension")
    return shapes


def _sample(array: Any, index: int) -> Tensor:
    part = array[index : index + 1][0]
    if isinstance(part, Tensor):
        return part
    return torch.from_numpy(np.array(part, dtype=array.dtype.newbyteorder("=")))


# ---- what is in memory, or comes from the user's own code ----


def _from_object(data: Any, choice: Choice) -> Source:
    if isinstance(data, Mapping):
        sizes = {_rows_of(value) for value in data.values()}
        if len(sizes) != 1 or min(sizes) < 0:
            raise InputError(
                "data is a dict of values that are not all of one length; accepted: tensors with a row for each input"
            )
        columns = {key: tensor_of(f"data[{key!r}]", value) for key, value in data.items()}
        data = [{key: value[i] for key, value in columns.items()} for i in range(sizes.pop())]
    names, data = None, as_pandas(data)
    if is_frame(data) or is_series(data):
        if is_frame(data) and not data.columns.is_unique:
            twice = data.columns[data.columns.duplicated()][0]
            raise InputError(f"data is a frame that names the column {twice!r} twice; accepted: each once")
        if not len(data):
            raise InputError("data is a frame without rows; accepted: one with a row for each input")
        names = tuple(map(str, data.index)) if data.index.is_unique else None
        data = data.to_dict("records") if is_frame(data) else data.tolist()
    if isinstance(data, np.ndarray):
        data = tensor_of("data", data)
    if isinstance(data, torch.Tensor):
        check_dense("data", data)
        if not data.dim():
            raise InputError(f"data is one number; accepted: {KINDS}")
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return Items(data, choice, names)
    if hasattr(data, "__iter__") and not isinstance(data, Iterator):
        return Items(Stream(data), choice)
    raise InputError(f"data is {type(data).__name__}; accepted: {KINDS}")


def _rows_of(value: Any) -> int:
    """How many rows these are, -1 for what has none."""
    try:
        return len(value)
    except TypeError:
        return -1


@dataclass(frozen=True, eq=False)
class Items:
    """A dataset, list or tensor in memory. Of (input, label) pairs the first is the input."""

    items: Any
    choice: Choice
    names: tuple[str, ...] | None = None  # the index of a frame

    @property
    def name(self) -> str:
        return type(self.items).__name__

    @property
    def fingerprint(self) -> str:
        """Of a list or a tensor, all of it; of a dataset, its class, its attributes and three samples, where
        these read the same twice."""
        items = self.items
        if isinstance(items, Stream):
            return items.fingerprint
        if isinstance(items, list | tuple) and self.choice.domain == "image":
            items = [Path(item) if isinstance(item, str) else item for item in items]
        if isinstance(items, list | tuple | Tensor):
            return fingerprint(items)
        samples = list(self._samples())  # first: what is opened when it is needed then always is
        return fingerprint(len(items), samples, items, getattr(items, "__dict__", None))

    def _samples(self) -> Iterator[str]:
        last = len(self.items) - 1
        for index in sorted({0, last // 2, last}):
            with suppress(Exception), torch.random.fork_rng(devices=()):  # what cannot be read is told later
                once = fingerprint(self.items[index])
                if once == fingerprint(self.items[index]):
                    yield once

    def head(self) -> Iterable[Any]:
        with torch.random.fork_rng(devices=()):
            return list(first_rows(self._row, len(self)))

    def ids(self) -> Iterator[str]:
        """Nothing of a dataset, whose samples are read when their turn comes."""
        for index in range(len(self) if isinstance(self.items, list | tuple) else 0):
            with suppress(InputError):
                yield self.id(index)

    def __len__(self) -> int:
        return len(self.items)

    def id(self, index: int) -> str:
        if self.choice.id_column is not None:
            return self.choice.id(self._row(index))
        return str(index) if self.names is None else self.names[index]

    def read(self, index: int) -> Any:
        row = self._row(index)
        return self.choice.input(row) if isinstance(row, Mapping) else row

    def _row(self, index: int) -> Any:
        item = self.items[index]
        paired = isinstance(item, list | tuple) and self.choice.domain not in ("tabular", "language")
        return item[0] if paired else item


class Stream:
    """A dataset that can only be gone through, found by number: it starts anew to go back, so it must give
    the same each time."""

    def __init__(self, data: Any) -> None:
        prints = [fingerprint(item) for item in data]
        self.data, self.many, self.fingerprint = data, len(prints), fingerprint(prints)
        self.at, self.iterator = 0, iter(data)

    def __len__(self) -> int:
        return self.many

    def __getitem__(self, index: int) -> Any:
        if index < self.at:
            self.at, self.iterator = 0, iter(self.data)
        for item in self.iterator:
            self.at += 1
            if self.at == index + 1:
                return item
        raise InputError(f"the dataset ended at {self.at}, before it had {self.many} samples")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "at": self.many + 1, "iterator": iter(())}
