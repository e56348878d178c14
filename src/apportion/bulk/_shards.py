"""A shard on disk: maps, rows and errors of a stretch of inputs, in a folder that appears whole or not at all.

shards/00003/maps.safetensors   the values, a tensor with one map for each row
             rows.parquet       one row for each input that was explained (or rows.jsonl)
             errors.jsonl       one line for each that was not; only if there are any
             shard.json         counts and checksums
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from apportion.core.schema import hold, parsed
from apportion.errors import InputError, first_line

FOLDER, RECORD, MAPS, ERRORS = "shards", "shard.json", "maps.safetensors", "errors.jsonl"
PRECISIONS = ("float16", "float32")
TABLES = ("parquet", "jsonl")

Map = dict[str, Tensor]


class Done(NamedTuple):
    """A finished shard: how many inputs were explained, and how many could not be."""

    shard: int
    rows: int
    errors: int


# ---- maps ----


def map_to_store(values: Tensor, precision: str, pool: int | None, channels: bool) -> Map:
    """What is stored of a (batch, …) tensor of values, as CPU tensors: `map`, and `scale` with float16.

    The channels of (batch, channels, height, width) are summed unless `channels`; cells are summed to at most
    `pool` a side. With float16 each map is divided by a power of two, so that its largest entry is near 2^15:
    entries keep 11 bits down to 2^-29 of the largest, where plain float16 would flush to zero what is below
    6e-8, whatever the others are.
    """
    if values.dim() == 4:
        values = values if channels else values.sum(1)
        values = values if pool is None else pool_map(values, pool)
    values = values.float()
    if precision == "float32":
        return {"map": values.cpu()}
    largest = values.abs().nan_to_num(0.0).flatten(1).amax(1)
    scale = torch.exp2((torch.frexp(largest).exponent - 15).clamp(min=-100).float())
    scaled = values / scale.view(-1, *[1] * (values.dim() - 1))
    return {"map": scaled.half().cpu(), "scale": scale.cpu()}


def pool_map(values: Tensor, side: int) -> Tensor:
    """(…, height, width) summed into at most `side` cells each way; the sum of all stays what it was.

    >>> pool_map(torch.ones(1, 4, 5), 2).tolist()
    [[[6.0, 4.0], [6.0, 4.0]]]
    """
    for axis in (-2, -1):
        size = values.shape[axis]
        if size > side:
            cells = torch.arange(size, device=values.device) * side // size
            shape = list(values.shape)
            shape[axis] = side
            values = values.new_zeros(shape).index_add(axis % values.dim(), cells, values)
    return values


def on_one_grid(maps: Sequence[Tensor]) -> list[Tensor]:
    """(height, width) maps on the largest height and width among them; each cell is spread over those that it
    covers, so that the sum of each map stays what it was.

    >>> small, large = on_one_grid([torch.tensor([[6.0, 0.0]]), torch.zeros(1, 3)])
    >>> small.tolist()
    [[4.0, 2.0, 0.0]]
    """
    if len({found.shape for found in maps}) == 1:
        return list(maps)
    height, width = (max(found.shape[axis] for found in maps) for axis in (0, 1))
    return [_shares(len(m), height).to(m) @ m @ _shares(m.shape[1], width).to(m).T for m in maps]


def _shares(cells: int, wanted: int) -> Tensor:
    """(wanted, cells): the share of each cell that falls into each of the wanted ones."""
    old, new = (torch.linspace(0, 1, many + 1, dtype=torch.float64) for many in (cells, wanted))
    ends = torch.minimum(new[1:, None], old[1:])
    return (ends - torch.maximum(new[:-1, None], old[:-1])).clamp(min=0) * cells


def pack(maps: Sequence[Map]) -> Map:
    """Maps of one shape stacked; of several shapes (texts) end to end, with `.shape` for each."""
    packed: Map = {}
    for key in maps[0] if maps else ():
        tensors = [found[key] for found in maps]
        if len({tensor.shape for tensor in tensors}) == 1:
            packed[key] = torch.stack(tensors)
        else:
            packed[key] = torch.cat([tensor.flatten() for tensor in tensors])
            packed[f"{key}.shape"] = torch.tensor([tensor.shape for tensor in tensors])
    return packed


class Maps:
    """The maps of one shard, each read when it is asked for, in float32."""

    def __init__(self, path: Path) -> None:
        self.file = _open_maps(path)
        names = set(self.file.keys())
        self.parts = sorted(name.removesuffix("map") for name in names if f".{name}".endswith(".map"))
        self.small = {
            name: self.file.get_tensor(name) for name in names if name.endswith(("scale", "map.shape"))
        }
        self.starts = {
            name: [0, *shapes.prod(1).cumsum(0).tolist()]
            for name, shapes in self.small.items()
            if name.endswith("shape")
        }

    def __getitem__(self, row: int) -> Tensor | dict[str, Tensor]:
        found = {part.removesuffix("."): self._one(part, row) for part in self.parts}
        return found.get("", found)

    def _one(self, part: str, row: int) -> Tensor:
        stored, name = self.file.get_slice(f"{part}map"), f"{part}map.shape"
        if name in self.starts:
            first, last = self.starts[name][row : row + 2]
            found = stored[first:last].view(*self.small[name][row].tolist())
        else:
            found = stored[row : row + 1][0]
        scale = self.small.get(f"{part}scale")
        scaled: Tensor = found if scale is None else found.float() * scale[row]
        return scaled


def _open_maps(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is damaged ({error})") from None


# ---- rows ----


def default_table() -> str:
    return "parquet" if find_spec("pyarrow") else "jsonl"


def _table(rows: Sequence[dict[str, Any]], kind: str) -> bytes:
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    pa: Any = import_module("pyarrow")
    sink = pa.BufferOutputStream()
    import_module("pyarrow.parquet").write_table(
        pa.Table.from_pylist(list(rows), schema=arrow_schema()), sink, compression="zstd"
    )
    content: bytes = sink.getvalue().to_pybytes()
    return content


def arrow_schema() -> Any:
    """The columns of the table."""
    pa: Any = import_module("pyarrow")
    text, number, amount = pa.string(), pa.int64(), pa.float64()
    columns = {
        "id": text, "index": number, "target": number, "target_label": text, "prediction": number,
        "output": pa.list_(pa.float32()), "total": amount, "sum": amount, "remainder": amount,
        "features": pa.list_(text), "relevance": pa.list_(pa.float32()), "warnings": pa.list_(text),
        "method": text, "model": text, "parts": pa.list_(pa.struct({"name": text, "total": amount})),
    }  # fmt: skip
    return pa.schema(list(columns.items()))


def read_rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The table of a shard. InputError where it is damaged."""
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        return read_lines(path)
    try:
        rows: list[dict[str, Any]] = import_module("pyarrow.parquet").read_table(path).to_pylist()
    except (OSError, ValueError) as error:  # those of pyarrow are ValueErrors
        raise InputError(f"{path} is damaged ({first_line(error):.200})") from None
    return rows


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines. InputError where it is damaged."""
    found, number = [], 0
    try:
        for line in path.read_text(encoding="utf-8").split("\n"):
            number += 1
            if line:
                found.append(json.loads(line))
                if not isinstance(found[-1], dict):
                    raise ValueError("this is no object")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}, line {number}, is damaged ({error})") from None
    return found


# ---- the folder of a shard ----


def place(folder: Path, shard: int) -> Path:
    return folder / FOLDER / f"{shard:06}"


def write(
    folder: Path,
    shard: int,
    run: str,
    kind: str,
    maps: Sequence[Map],
    rows: Sequence[dict[str, Any]],
    errors: Sequence[dict[str, Any]],
) -> Done:
    """Put a shard into the folder of the run. Of several processes that make the same one the first counts;
    OSError for a full disk, which leaves nothing behind."""
    files = {MAPS: save(pack(maps)), f"rows.{kind}": _table(rows, kind)}
    if errors:
        files[ERRORS] = _table(errors, "jsonl")
    sums = {name: {"bytes": len(data), "sha256": checksum(data)} for name, data in files.items()}
    record = {"run": run, "shard": shard, "rows": len(rows), "errors": len(errors), "files": sums}
    record["checksum"] = _of_record(record)
    files[RECORD] = (json.dumps(record, indent=1) + "\n").encode()
    final = place(folder, shard)
    partial = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}")
    try:
        partial.mkdir(parents=True)
        for name, data in files.items():
            _write_through(partial / name, data)
        _sync(partial)
        if final.exists() and find_finished(folder, shard, run, whole=True) is None:  # damaged
            shutil.rmtree(final) if final.is_dir() else final.unlink()
        partial.rename(final)
        _sync(final.parent)
    except OSError:
        # Another process may have made it before, and have taken what this one was writing for leftovers.
        if find_finished(folder, shard, run) is None:
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Done(shard, len(rows), len(errors))


@dataclass
class _File:
    bytes: int
    sha256: str


@dataclass
class _Record:
    """What the record of a shard says; those of before say no checksum of their own."""

    run: str
    shard: int
    rows: int
    errors: int
    files: dict[str, _File]
    checksum: str | None = None


def _of_record(record: dict[str, Any]) -> str:
    rest = {name: value for name, value in record.items() if name != "checksum"}
    return checksum(json.dumps(rest, sort_keys=True).encode())


def read_record(at: Path, shard: int) -> dict[str, Any]:
    """The record in the folder of a shard; ValueError that begins with the field, or OSError."""
    record: dict[str, Any] = parsed((at / RECORD).read_bytes())
    hold(record, _Record)
    if record.get("checksum", _of_record(record)) != _of_record(record):
        raise ValueError("checksum: it is of another record")
    if record["shard"] != shard:
        raise ValueError(f"shard: this is {record['shard']} in the folder of {shard}")
    known = {MAPS, *(f"rows.{kind}" for kind in TABLES), *([ERRORS] * (record["errors"] > 0))}
    named = record["files"].keys()
    if not {MAPS} <= named <= known or len(named) != len(known) - len(TABLES) + 1:
        raise ValueError(f"files: these are {', '.join(sorted(named)) or 'none'}")
    return record


def find_finished(folder: Path, shard: int, run: str, whole: bool = False) -> Done | None:
    """The counts of a shard that is there with files of the right sizes, or `whole`: of the right content; None if it
    has to be made."""
    at = place(folder, shard)
    try:
        record = read_record(at, shard)
        fits = all((at / name).stat().st_size == known["bytes"] for name, known in record["files"].items())
    except (OSError, ValueError):
        return None
    if record["run"] != run:
        raise InputError(f"{at} belongs to another run than the manifest beside it; use another folder")
    return (
        Done(shard, record["rows"], record["errors"]) if fits and not (whole and _other(at, record)) else None
    )


def _other(at: Path, record: dict[str, Any]) -> list[str]:
    """The files whose content is not what was written."""
    return [
        name
        for name, known in record["files"].items()
        if not (at / name).is_file() or checksum((at / name).read_bytes()) != known["sha256"]
    ]


def find_damaged(folder: Path, shard: int, inputs: int) -> list[str]:
    """The files of a shard of so many inputs whose content is not what was written, and what of it; none where there is
    no shard yet."""
    at = place(folder, shard)
    if not at.exists():
        return []
    try:
        record = read_record(at, shard)
    except (OSError, ValueError) as error:
        return [f"{at / RECORD} ({getattr(error, 'strerror', None) or error})"]
    bad = [str(at / name) for name in _other(at, record)]
    if record["rows"] + record["errors"] != inputs:
        bad.append(
            f"{at / RECORD} (rows and errors: {record['rows']} and {record['errors']} of {inputs} inputs)"
        )
    return bad


def clean(folder: Path) -> None:
    """Remove what killed processes left; only when all shards are there, since others may still write."""
    for pattern in (f"{FOLDER}/.*", ".*manifest.json*", ".inputs-*", f".{ERRORS}*"):
        for leftover in folder.glob(pattern):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_through(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the names in a folder last, where the system can open folders."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
