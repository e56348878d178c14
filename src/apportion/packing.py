"""An explanation as named tensors and a header, which is what is in its file, and back; and what the file of
interactions shares with it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch import Tensor

from apportion import features as features_module
from apportion.core.registry import is_listed, recorded
from apportion.explanation import Cost, Explanation, Values
from apportion.features import ImageFeatures
from apportion.methods.relevance.ledger import Ledger
from apportion.trees import keyed

if TYPE_CHECKING:
    from apportion.interactions import Interactions

SCHEMA = 1


def pack(explanation: Explanation) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, and what else there is as data for JSON."""
    values, tensors = explanation.values, {"output": explanation.output}
    if isinstance(values, Tensor):
        keys: Any = None
        tensors["values"] = values
    else:
        keys = [key for key, _ in keyed(values)]
        tensors |= {f"values.{i}": tensor for i, (_, tensor) in enumerate(keyed(values))}
    if explanation.total is not None:
        tensors["total"] = explanation.total
    if isinstance(explanation.target, Tensor):
        tensors["target"] = explanation.target
    more, header = shared(explanation)
    header |= {
        "schema": SCHEMA,
        "keys": keys,
        "dict": isinstance(values, dict),
        "ledger": None if explanation.ledger is None else explanation.ledger.to_json(),
    }
    return tensors | more, json.loads(json.dumps(header))


def unpack(tensors: dict[str, Tensor], header: dict[str, Any]) -> Explanation:
    """The explanation that was packed."""
    keys = header["keys"]
    if keys is None:
        values: Values = tensors["values"]
    else:
        parts = [tensors[f"values.{i}"] for i in range(len(keys))]
        values = dict(zip(keys, parts, strict=True)) if header["dict"] else tuple(parts)
    return Explanation(
        values=values,
        total=tensors.get("total"),
        output=tensors["output"],
        ledger=None if header["ledger"] is None else Ledger.from_json(header["ledger"]),
        **shared_of(tensors, header),
    )


def shared(found: Explanation | Interactions) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What explanations and interactions have in common: the pictures of their features, and data for JSON."""
    features = found.features or ()
    pictures = {f"picture.{i}": f.picture for i, f in enumerate(features) if isinstance(f, ImageFeatures)}
    return pictures, {
        "target": found.target if isinstance(found.target, str) else None,
        "method": repr(found.method),
        "listed": is_listed(found.method),
        "cost": asdict(found.cost),
        "features": None if found.features is None else [features_module.to_json(f) for f in features],
        "labels": found.labels,
        "warnings": found.warnings,
        "notes": dict(found.notes),
        "each": [key for key, note in found.notes.items() if isinstance(note, tuple)],
    }


def shared_of(tensors: dict[str, Tensor], header: dict[str, Any]) -> dict[str, Any]:
    """The same as fields, from what is in a file."""
    features = None
    if header["features"] is not None:
        described = enumerate(header["features"])
        features = tuple(features_module.from_json(d, tensors.get(f"picture.{i}")) for i, d in described)
    return {
        "target": header["target"] if header["target"] is not None else tensors["target"],
        "method": recorded(header["method"], header.get("listed", True)),
        "cost": Cost(**header["cost"]),
        "features": features,
        "labels": None if header["labels"] is None else tuple(header["labels"]),
        "warnings": tuple(header["warnings"]),
        "notes": {**header["notes"], **{key: tuple(header["notes"][key]) for key in header.get("each", ())}},
    }
