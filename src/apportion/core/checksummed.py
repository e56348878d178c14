"""One file of numbers and tensors that is either whole and unchanged, or said not to be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from apportion.core.files import copies, stored, write_whole
from apportion.core.schema import hold, parsed
from apportion.errors import InputError


def seal(path: Path, numbers: Any, tensors: Mapping[str, Tensor] | None = None) -> Path:
    """Write JSON-ready `numbers` and `tensors` to one safetensors file with their checksum, whole or not at
    all."""
    from safetensors.torch import save

    flat = copies(tensors or {})
    text = json.dumps(numbers, sort_keys=True, allow_nan=False)
    return write_whole(path, save(flat, {"numbers": text, "checksum": _checksum(text, flat)}))


def unseal(path: Path, kind: Any = None) -> tuple[Any, dict[str, Tensor]]:
    """What `seal` wrote. Raises InputError that names the file if a single bit of it has changed, and the field if the
    numbers are not of a `kind` (see `hold`)."""
    from safetensors import SafetensorError

    try:
        header, tensors = stored(path)
        if _checksum(header["numbers"], tensors) != header["checksum"]:
            raise InputError(f"{path} is corrupt: its checksum is of other content")
        numbers = parsed(header["numbers"])
        if kind is not None:
            hold(numbers, kind)
        return numbers, tensors
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is corrupt or not a file of apportion's ({error})") from error


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
