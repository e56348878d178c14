"""Files that are whole or not there, and safetensors with a JSON header."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from apportion.errors import InputError

T = TypeVar("T")


def write_whole(path: Path, data: bytes) -> Path:
    """Write a file that is never seen half-written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def write_tensors(path: str | Path, kind: str, tensors: Mapping[str, Tensor], header: Any) -> Path:
    """One safetensors file, with the JSON-ready `header` under the name `kind`."""
    from safetensors.torch import save

    # Copies, since tensors that share memory (one picture for many samples) are refused.
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    return write_whole(Path(path), save(copies, {kind: json.dumps(header)}))


def read_tensors(
    path: str | Path,
    kind: str,
    what: str,
    schema: int,
    rebuild: Callable[[dict[str, Tensor], dict[str, Any]], T],
) -> T:
    """What `rebuild` makes of the tensors and the header that `write_tensors` wrote. Raises InputError for other
    files, and for a header whose "schema" is newer than this one."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise InputError(f"no {what} file at {path}")
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[kind])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if header.get("schema", 0) > schema:
            raise InputError(
                f"{path} has schema {header['schema']}, newer than the {schema} that this version of "
                "apportion reads; install a newer apportion"
            )
        return rebuild(tensors, header)
    except InputError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path} is not an apportion {what} ({error})") from error
