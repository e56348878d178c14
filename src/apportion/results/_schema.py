"""What stands in the files of explanations and interactions: the header as pydantic reads it, and how the tensors have
to fit it and each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from apportion.core.schema import hold
from apportion.core.trees import all_finite
from apportion.results.cost import Cost
from apportion.results.ledger import Ledger

Count = Annotated[int, Field(ge=0)]


class _Text(BaseModel):
    kind: Literal["TextFeatures"]
    text: str
    tokens: list[str]
    offsets: list[tuple[Count, Count]]
    words: list[int | None]


class _Picture(BaseModel):
    kind: Literal["ImageFeatures"]
    note: str = ""


class _Row(BaseModel):
    kind: Literal["TabularFeatures"]
    columns: list[str]
    cells: list[str]
    groups: list[Annotated[int, Field(ge=-1)]]


_Features = Annotated[_Text | _Picture | _Row, Field(discriminator="kind")]


class _Header(BaseModel):
    target: str | None
    method: str
    listed: bool = True
    cost: Cost
    features: list[_Features] | None
    labels: list[str] | None
    warnings: list[str]
    notes: dict[str, Any]
    each: list[str] = []


class OfExplanation(_Header):
    keys: list[str | int] | None
    of_names: bool = Field(alias="dict")
    ledger: Ledger | None


class OfInteractions(_Header):
    names: list[list[str]]


def check_file(header: Any, kind: type[_Header], tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError, which begins with the field, for a header or tensors that are not as they are written."""
    hold(header, kind)
    wanted = ["output"]
    if kind is OfInteractions or header["keys"] is None:
        wanted.append("values")
    else:
        wanted += [f"values.{i}" for i in range(len(header["keys"]))]
        _expect(
            "keys", len(wanted) > 1 and len(set(header["keys"])) == len(header["keys"]), "names of inputs"
        )
    wanted += [] if header["target"] is not None else ["target"]
    for name in wanted:
        _expect(name, name in tensors, "a tensor")
    output = tensors["output"]
    _expect("output", output.dim() == 2 and min(output.shape) > 0, "(samples, classes)")
    _expect("output", output.is_floating_point() and all_finite(output), "finite numbers")
    many = len(output)
    for name, tensor in tensors.items():
        if name.startswith("values"):
            _expect(name, tensor.dim() > 0 and len(tensor) == many, f"{many} samples, as in output")
            _expect(name, tensor.is_floating_point(), "real numbers")
            # Of interactions some pairs may not have been asked for, which are NaN.
            _expect(name, kind is OfInteractions or all_finite(tensor), "finite numbers")
    if kind is OfInteractions:
        _check_pairs(header, tensors, many)
    for name in ("total", "smoothing"):
        if name in tensors:
            fits = tuple(tensors[name].shape) == (many,) and tensors[name].is_floating_point()
            _expect(name, fits and all_finite(tensors[name]), f"a number for each of {many} samples")
    if header["target"] is None:
        target = tensors["target"]
        whole = target.dtype in (torch.int64, torch.int32)
        _expect(
            "target",
            whole and target.dim() > 0 and len(target) == many and target.numel() > 0,
            f"{many} class numbers",
        )
        _expect("target", int(target.min()) >= 0, "class numbers from 0")
    for i, features in enumerate(header["features"] or ()):
        _check_features(f"features.{i}", features, tensors.get(f"picture.{i}"))
    described = header["features"]
    _expect("features", described is None or len(described) == many, f"one for each of {many} samples")
    for key in header.get("each", ()):
        note = header["notes"].get(key)
        _expect(f"notes.{key}", isinstance(note, list) and len(note) == many, f"{many} entries")
    for key in ("input", "model"):
        note = header["notes"].get(key)
        _expect(f"notes.{key}", note is None or isinstance(note, str), "a text")


def _check_pairs(header: Any, tensors: Mapping[str, Tensor], many: int) -> None:
    values, names = tensors["values"], header["names"]
    _expect(
        "values", values.dim() == 3 and values.shape[1] == values.shape[2], "(samples, features, features)"
    )
    _expect("names", len(names) in (1, many), f"one list, or {many}")
    _expect("names", all(len(each) == values.shape[1] for each in names), f"{values.shape[1]} names each")
    if "attributions" in tensors:
        rows = tensors["attributions"]
        fits = tuple(rows.shape) == tuple(values.shape[:2]) and rows.is_floating_point()
        _expect("attributions", fits, "real numbers, (samples, features)")


def _check_features(name: str, features: Any, picture: Tensor | None) -> None:
    if features["kind"] == "ImageFeatures":
        fits = (
            picture is not None
            and picture.dim() == 3
            and picture.shape[2] == 3
            and picture.numel() > 0
            and str(picture.dtype) == "torch.uint8"
        )
        _expect(name, fits, "a picture of (height, width, 3) bytes")
    elif features["kind"] == "TextFeatures":
        sizes = {len(features[part]) for part in ("tokens", "offsets", "words")}
        _expect(name, len(sizes) == 1, "as many tokens as offsets and words")
    else:
        columns = len(features["columns"])
        _expect(name, len(features["cells"]) == columns, f"{columns} cells, as many as columns")
        _expect(f"{name}.groups", all(group < columns for group in features["groups"]), "numbers of columns")


def _expect(field: str, holds: bool, accepted: str) -> None:
    if not holds:
        raise ValueError(f"{field}: accepted: {accepted}")
