"""From what a person typed to what it is: a sentence, a picture, a row of a table, or a tensor."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from apportion.core.files import check_file
from apportion.domains.table_files import ARROW, AS_FOUND, EXCEL, JSON_LINES, Dialect, is_table
from apportion.errors import InputError, first_line

if TYPE_CHECKING:
    from apportion.core.inputs import Inputs

Kind = Literal["text", "image", "tabular", "tensor"]

TABLES = frozenset({".csv", ".tsv"})
TENSORS = frozenset({".npy", ".pt", ".safetensors"})
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".avif"})
# What is met beside these and is none of them: a missing one is no sentence either.
OTHERS = frozenset(
    {".pt2", ".py", ".md", ".json", ".pdf", ".npz", ".pkl", ".pickle", ".joblib", ".skops", ".zip"}
)
SETS = frozenset({".xls", ".ods", ".bz2", ".xz", ".zst"})
KNOWN = TABLES | ARROW | JSON_LINES | EXCEL | TENSORS | PICTURES | OTHERS | SETS | {".txt", ".gz"}
ACCEPTED = (
    "a sentence, or one picture, .txt, .csv, .tsv, .parquet, .feather, .jsonl, .xlsx, .npy, .pt or .safetensors "
    "file"
)

# The model that explains an input when none is named.
DEFAULT_MODEL = {"text": "sentiment", "image": "imagenet", "tabular": "breast-cancer"}


class Given(NamedTuple):
    """An input as it was recognised: `raw` is the text, or the path of a file, of a table in some `dialect`."""

    kind: Kind
    raw: Any
    name: str
    dialect: Dialect = AS_FOUND


def recognise(text: str, dialect: Dialect = AS_FOUND) -> Given:
    """A file by its suffix (what is neither table, text nor tensor is a picture: Pillow decides), a text on
    standard input by "-", anything else a sentence. What looks like a path but is none is an error, so that a
    typing error is not explained as a sentence.

    >>> recognise("a painfully funny movie").kind
    'text'
    """
    if text == "-":
        return Given("text", _decode(sys.stdin.buffer.read(), "standard input"), "standard input")
    if not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError("the input is not UTF-8 text")
    path = Path(text)
    if text.strip() and _exists(path):
        if path.is_dir():
            raise InputError(f"{text} is a folder; accepted: {ACCEPTED}")
        check_file(path)
        suffix = (
            path.suffixes[-2].lower()
            if path.suffix == ".gz" and len(path.suffixes) > 1
            else path.suffix.lower()
        )
        if suffix in OTHERS:
            raise InputError(f"{text} is a {suffix} file; accepted: {ACCEPTED}")
        if suffix in SETS:
            raise InputError(f"{text} is a {suffix} file; accepted: {ACCEPTED}")
        if is_table(path):
            return Given("tabular", path, path.name, dialect)
        if suffix in TENSORS:
            return Given("tensor", path, path.name)
        return (
            Given("text", read_text(path), path.name) if suffix == ".txt" else Given("image", path, path.name)
        )
    separated = os.sep in text or "/" in text or "\\" in text
    if path.suffix.lower() in KNOWN or (separated and not any(map(str.isspace, text))):
        raise InputError(f"no such file: {text}")
    return Given("text", text, text)


def read_prompt(text: str) -> str:
    """A prompt as it is, or what stands on standard input for "-"."""
    return _decode(sys.stdin.buffer.read(), "standard input") if text == "-" else text


def read_tensors(path: Path, row: int = 0) -> Inputs:
    """Sample `row` of the tensor, or tuple or dict of tensors, in a .npy, .pt or .safetensors file.

    Nothing is unpickled; the first dimension is the batch."""
    import numpy as np
    import torch

    from apportion.core.inputs import checked_inputs
    from apportion.core.trees import map_tensors, tensors_in

    try:
        if path.suffix.lower() == ".npy":
            array = np.load(path, allow_pickle=False)
            found: Any = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
        elif path.suffix.lower() == ".pt":
            found = torch.load(path, weights_only=True, map_location="cpu")
        else:
            from safetensors.torch import load_file

            found = load_file(path)
            found = next(iter(found.values())) if len(found) == 1 else found
    except UnpicklingError:
        raise InputError(
            f"{path} holds more than tensors, which is not unpickled; accepted: a tensor, or a tuple, list or dict of "
            "tensors (torch.save(x, path)); a model goes to --model"
        ) from None
    except Exception as error:  # whatever a damaged file makes its reader raise
        first = first_line(error) or type(error).__name__
        raise InputError(f"cannot read tensors from {path}: {first:.200}") from error
    inputs = checked_inputs(tuple(found) if isinstance(found, list) else found, missing=True)
    batch = next(tensors_in(inputs)).shape[0]
    if not 0 <= row < batch:
        raise InputError(
            f"{path}: no sample {row}; there are {batch}, counted from 0 along the first dimension"
        )
    chosen: Inputs = map_tensors(inputs, lambda tensor: tensor[row : row + 1])
    return chosen


def read_text(path: Path) -> str:
    """The text of a file in UTF-8. InputError where it cannot be read as that."""
    try:
        return _decode(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text ({error.reason} at byte {error.start})") from None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a sentence too long for a file name
        return False
