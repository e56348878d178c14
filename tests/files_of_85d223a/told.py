"""What a file says, ready for JSON: what it said to the code that wrote it is in `said.json`."""

from __future__ import annotations

import hashlib
import inspect
import json
from typing import Any

import torch
from torch import Tensor

import apportion as ap


def digest(tensor: Tensor) -> str:
    """Shape, type and content."""
    whole = tensor.detach().contiguous()
    content = hashlib.sha256(whole.numpy().tobytes()).hexdigest()[:16]
    return f"{tuple(whole.shape)} {whole.dtype} {content}"


def said(found: Any) -> dict[str, Any]:
    """What an Explanation or Interactions says of itself, ready for JSON."""
    values = found.values
    parts = {"": values} if isinstance(values, Tensor) else dict(
        values.items() if isinstance(values, dict) else enumerate(values)
    )  # fmt: skip
    features = found.features or ()
    ledger = getattr(found, "ledger", None)
    return {
        "kind": [type(found).__name__, type(values).__name__],
        "values": {str(key): digest(part) for key, part in parts.items()},
        "apportioned": found.apportioned.tolist(),
        "total": None if found.total is None else found.total.tolist(),
        "remainder": None if found.remainder is None else found.remainder.tolist(),
        "output": digest(found.output),
        "target": found.target if isinstance(found.target, str) else found.target.tolist(),
        "label": found.label(),
        "labels": None if found.labels is None else list(found.labels),
        "method": [type(found.method).__name__, repr(found.method)],
        "cost": str(found.cost),
        "features": [type(feature).__name__ for feature in features],
        "names": [list(getattr(feature, "names", ())) for feature in features],
        "pictures": [digest(f.picture) for f in features if hasattr(f, "picture")],
        "warnings": list(found.warnings),
        "notes": json.loads(json.dumps(dict(found.notes))),
        "ledger": None if ledger is None else ledger.to_json(),
    }


def scores(model: Any, x: Tensor) -> Any:
    """Of the network in a fitted ProtoPNet."""
    with torch.no_grad():
        return model.net_(x).tolist()


# ---- what is public ----


def public(app: Any) -> dict[str, Any]:
    """The names in `apportion` with their parameters, and the commands of the command line with theirs."""
    import typer

    return {
        "names": {name: _parameters(getattr(ap, name)) for name in sorted(ap.__all__)},
        "commands": _commands(typer.main.get_command(app), "apportion"),
    }


def _parameters(value: Any) -> list[str]:
    if not callable(value) or (isinstance(value, type) and issubclass(value, Exception)):
        return []
    return list(inspect.signature(value).parameters)


def _commands(command: Any, name: str) -> dict[str, list[str]]:
    found = {name: sorted(o for p in command.params for o in (*p.opts, *p.secondary_opts))}
    for below, inner in getattr(command, "commands", {}).items():
        found |= _commands(inner, f"{name} {below}")
    return found
