"""What a run wrote, read a row, a map or a shard at a time."""

from __future__ import annotations

import bisect
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from apportion.bulk import _manifest as manifest
from apportion.bulk import _shards as shards
from apportion.bulk._manifest import Manifest
from apportion.bulk._shards import ERRORS, MAPS, Done, Maps
from apportion.core.features import ELSEWHERE, Features, TabularFeatures, TextFeatures
from apportion.core.files import path_of, write_whole
from apportion.core.registry import recorded
from apportion.core.trees import tensors_in
from apportion.core.visible import visible
from apportion.errors import InputError
from apportion.results.cost import Cost
from apportion.results.display import display
from apportion.results.explanation import Explanation

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A folder that `explain_dataset` wrote, also while others still write to it: what was finished when it
    was opened.

    Its length is the number of inputs that were explained; `run[i]` is the row of the i-th with its map under
    "values". `rows()` goes through the table, `errors()` through what could not be explained, `arrow()` and
    `pandas()` are the table as such, and `torch()` is a dataset of (map, row).
    """

    folder: Path
    manifest: Manifest

    def __repr__(self) -> str:
        made = self.manifest
        return visible(
            f"{len(self)} of {made.inputs} inputs explained and {self.failed} failed in {self.folder}: {made.method} "
            f"of {made.model or 'a model in memory'} on {made.data or 'data in memory'}"
        )

    def _repr_html_(self) -> str:
        html: str = display().paragraph(repr(self))
        return html

    @cached_property
    def shards(self) -> list[Done]:
        """The finished shards, in order."""
        run = self.manifest.fingerprint
        found = (shards.find_finished(self.folder, shard, run) for shard in self._begun())
        return [
            done
            for done in found
            if done is not None and done.rows + done.errors == len(self.manifest.span(done.shard))
        ]

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(done.rows for done in self.shards))

    @property
    def of_answers(self) -> bool:
        """True if these are answers of a language model, each of which is its own only class."""
        return self.manifest.domain == "language"

    @property
    def complete(self) -> bool:
        """True if every input was explained or is among the errors."""
        return len(self.shards) == self.manifest.shards

    @property
    def failed(self) -> int:
        """The number of inputs that could not be read or explained."""
        return sum(done.errors for done in self.shards)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Row:
        rows, maps, place = self._place(index)
        return {**rows[place], "values": maps[place]}

    def map(self, index: int) -> Tensor | dict[str, Tensor]:
        """The stored values of the i-th input, in float32; a dict of them for several inputs or layers."""
        _, maps, place = self._place(index)
        return maps[place]

    def rows(self) -> Iterator[Row]:
        """The table, one dict a row: id, index (in the data), target, prediction, output (all scores), total,
        sum and remainder, features and their relevance (words, columns), warnings, method and model."""
        for done in self.shards:
            yield from map(dict, self._rows(done.shard))

    def maps(self) -> Iterator[tuple[Row, Tensor | dict[str, Tensor]]]:
        """Every row with its map."""
        for done in self.shards:
            maps = _maps(self._at(done.shard))
            for place, row in enumerate(self._rows(done.shard)):
                yield dict(row), maps[place]

    def errors(self) -> Iterator[Row]:
        """What could not be explained: id, index, stage ("read" or "explain"), error and message."""
        for done in self.shards:
            if done.errors:
                yield from shards.read_lines(self._at(done.shard) / ERRORS)

    def explanation(self, index: int) -> Explanation:
        """The i-th explanation, as a batch of one, with the values that were kept."""
        row = self[index]
        values, features = row["values"], self._features(row)
        if features is not None and all(t.dim() == 1 for t in tensors_in(values)):
            # Of a text the last is what is at no word, such as special tokens.
            elsewhere = [row["sum"] - sum(row["relevance"])] if isinstance(features, TextFeatures) else []
            values = torch.tensor([*row["relevance"], *elsewhere])
        whole = Explanation(
            values={k: v[None] for k, v in values.items()} if isinstance(values, dict) else values[None],
            total=None if row["total"] is None else torch.tensor([row["total"]]),
            output=torch.tensor([row["output"]]),
            target=row["target_label"] if row["target"] is None else torch.tensor([row["target"]]),
            method=recorded(row["method"]),
            cost=Cost(0, 0, 0.0),
            features=None if features is None else (features,),
            labels=(row["target_label"],) if self.of_answers else self.manifest.labels or None,
            warnings=tuple(row["warnings"]),
            notes={"input": row["id"]},
        )
        return _of_parts(whole, row) if row.get("parts") else whole

    def _features(self, row: Row) -> Features | None:
        names = row["features"]
        if names is None or self.manifest.domain == "image":
            return None
        if self.manifest.domain == "tabular":
            columns, _, cells = zip(*(name.partition(" = ") for name in names), strict=True)
            return TabularFeatures(columns, cells, tuple(range(len(names))))
        ends = list(accumulate(len(name) + 1 for name in names))
        spans = tuple((end - 1 - len(name), end - 1) for name, end in zip(names, ends, strict=True))
        tokens, words = (*names, ELSEWHERE), (*range(len(names)), None)
        return TextFeatures(" ".join(names), tokens, (*spans, (0, 0)), words)

    def arrow(self) -> Any:
        """The table as a `pyarrow.dataset.Dataset`, of which nothing is read yet (from JSON lines: a Table)."""
        if self.manifest.table == "jsonl":
            return import_module("pyarrow").Table.from_pylist(list(self.rows()), schema=shards.arrow_schema())
        paths = [str(self._at(done.shard) / "rows.parquet") for done in self.shards]
        return import_module("pyarrow.dataset").dataset(paths, format="parquet", schema=shards.arrow_schema())

    def pandas(self) -> Any:
        """The table as a pandas frame."""
        return import_module("pandas").DataFrame(list(self.rows()))

    def torch(self) -> Dataset[tuple[Any, Row]]:
        """A PyTorch dataset of (map, row), for a DataLoader."""
        return _Torch(self)

    def check(self) -> list[str]:
        """The files whose content is not what was written, read in full."""
        every = self._begun()
        return [
            path for k in every for path in shards.find_damaged(self.folder, k, len(self.manifest.span(k)))
        ]

    def finish(self) -> None:
        """Gather the errors in one file, and remove what killed processes left."""
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in self.errors()]
        if lines:
            write_whole(self.folder / ERRORS, "".join(lines).encode())
        shards.clean(self.folder)

    def _begun(self) -> list[int]:
        """The shards of which there is something, in order: a manifest may name more than anyone could look for."""
        folder = self.folder / shards.FOLDER
        names = os.listdir(folder) if folder.is_dir() else ()
        found = (int(name) for name in names if re.fullmatch("[0-9]{6,18}", name))
        return sorted(shard for shard in found if shard < self.manifest.shards)

    def _at(self, shard: int) -> Path:
        return shards.place(self.folder, shard)

    def _rows(self, shard: int) -> list[Row]:
        at, kind = self._at(shard), self.manifest.table or "jsonl"
        rows, wanted = _rows(at, kind), next(done.rows for done in self.shards if done.shard == shard)
        if len(rows) != wanted:
            raise InputError(f"{at / f'rows.{kind}'} is damaged: it has {len(rows)} rows of {wanted}")
        return rows

    def _place(self, index: int) -> tuple[list[Row], Maps, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"input {index} of {len(self)}")
        index %= len(self)
        number = bisect.bisect_right(self._ends, index)
        done = self.shards[number]
        return self._rows(done.shard), _maps(self._at(done.shard)), index - self._ends[number] + done.rows


@dataclass(frozen=True)
class _Torch(Dataset[tuple[Any, Row]]):
    run: Run

    def __len__(self) -> int:
        return len(self.run)

    def __getitem__(self, index: int) -> tuple[Any, Row]:
        row = self.run[index]
        return row.pop("values"), row


def _of_parts(whole: Explanation, row: Row) -> Explanation:
    """Of an answer of which each part was explained: a sample for each."""
    parts = row["parts"]
    return replace(
        whole,
        values=row["values"],
        total=None if whole.total is None else torch.tensor([part["total"] for part in parts]),
        output=whole.output.expand(len(parts), -1),
        target=torch.arange(len(parts)),
        features=whole.features and whole.features * len(parts),
        labels=tuple(part["name"] for part in parts),
    )


@lru_cache(4)
def _rows(folder: Path, kind: str) -> list[Row]:
    return shards.read_rows(folder, kind)


@lru_cache(4)
def _maps(folder: Path) -> Maps:
    return Maps(folder / MAPS)


def open_run(folder: str | Path) -> Run:
    """Open what `explain_dataset` wrote; nothing but its manifest is read yet.

    Raises InputError for a folder that holds no run, or one of a newer schema.
    """
    folder = path_of("folder", folder)
    found = manifest.read(folder)
    if found is None:
        raise InputError(f"{folder} holds no run: there is no {manifest.FILE} in it")
    return Run(folder.resolve(), found)


def label_of(row: Row) -> str:
    """What is explained in a row of the table, as `Explanation.label` calls it: a regressor has no class."""
    if row["target_label"] is not None:
        return str(row["target_label"])
    return f"class {row['target']}" if len(row["output"]) > 1 else "score"
