"""Files that are whole or not there, and safetensors with a JSON header."""

from __future__ import annotations

import errno
import gzip
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from apportion.core.memory import room
from apportion.core.schema import parsed
from apportion.errors import InputError, shown

T = TypeVar("T")


def path_of(name: str, given: Any) -> Path:
    """A path that was given as the argument `name`; what no file could be called, or is none, is refused.

    >>> path_of("out", 5)
    Traceback (most recent call last):
    apportion.errors.InputError: out is 5; accepted: a path
    """
    if not isinstance(given, str | Path) or given == "":
        raise InputError(f"{name} is {shown(given)}; accepted: a path")
    try:
        os.lstat(given)
    except ValueError as error:  # a zero byte, or half of a surrogate pair
        raise InputError(f"{name} is {given!r:.100}; accepted: a path ({error})") from None
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise InputError(f"{name} is {str(given)!r:.100}; accepted: a path ({error.strerror})") from None
    return Path(given)


def content_of(path: Path) -> bytearray:
    """What is in a file, unpacked where it is a .gz. InputError for a device or a pipe, which may never end, and for
    what does not fit into a quarter of the memory that is free."""
    check_file(path)
    most, packed = room() / 4, path.suffix.lower() == ".gz"
    content = bytearray()
    with gzip.open(path) if packed else path.open("rb") as file:
        while part := file.read(1 << 20):
            content += part
            if len(content) > most:
                told = (
                    f"more than {most / 1e9:.1f} GB{' when unpacked' * packed}, a quarter of the free memory"
                )
                raise InputError(f"{path} has {told}")
    return content


def check_file(path: Path) -> None:
    """Raise InputError for what is neither a file nor a folder, nor missing."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path} is a device or a pipe; accepted: a file")


def write_whole(path: Path, data: bytes) -> Path:
    """Write a file that is never seen half-written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # File systems take names of up to 255 bytes.
        name = path.name.encode("utf-8", "surrogateescape")[:240].decode("utf-8", "ignore")
        partial = path.with_name(f".{name}.{uuid.uuid4().hex[:8]}")
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
    except ValueError as error:  # a zero byte in a name
        raise InputError(f"cannot write {str(path)!r}: {error}") from None
    return path


def written(text: str, path: str | Path | None) -> str:
    """The text; also as a file if a path is given."""
    if path is not None:
        # Halves of surrogate pairs are no UTF-8.
        write_whole(path_of("path", path), text.encode(errors="replace"))
    return text


def write_tensors(path: str | Path, kind: str, tensors: Mapping[str, Tensor], header: Any) -> Path:
    """One safetensors file, with the JSON-ready `header` under the name `kind`."""
    from safetensors.torch import save

    return write_whole(path_of("path", path), save(copies(tensors), {kind: json.dumps(header)}))


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What safetensors can write: it refuses tensors that share memory (one picture for many samples)."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def stored(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header and the tensors of a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)


def read_tensors(
    path: str | Path,
    kind: str,
    what: str,
    schema: int,
    rebuild: Callable[[dict[str, Tensor], dict[str, Any]], T],
) -> T:
    """What `rebuild` makes of the tensors and the header that `write_tensors` wrote. Raises InputError for other
    files, and for a header whose "schema" is newer than this one."""
    path = path_of("path", path)
    if not path.is_file():
        raise InputError(f"no {what} file at {path}")
    with damage_named(path, what):
        metadata, tensors = stored(path)
        header = parsed(metadata[kind])
        if not isinstance(header, dict):
            raise ValueError("the header is no object")
        number = header.get("schema")
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"schema: this is {number!r:.50}; accepted: a whole number from 1")
        if number > schema:
            raise InputError(
                f"{path} has schema {header['schema']}, newer than the {schema} that this version of "
                "apportion reads; install a newer apportion"
            )
        return rebuild(tensors, header)


@contextmanager
def damage_named(path: Path, what: str) -> Iterator[None]:
    """Whatever is wrong with what a file says is an InputError of one line that names the file."""
    from safetensors import SafetensorError

    try:
        yield
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error
    except MemoryError:
        raise
    except (SafetensorError, OSError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError,
            RuntimeError) as error:  # fmt: skip
        raise InputError(f"{path} is not an apportion {what} ({error!s:.300})") from error
