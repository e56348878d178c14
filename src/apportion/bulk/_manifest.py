"""What a run is: its settings, written once into its folder, and compared with what is asked later."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from apportion.core.files import write_whole
from apportion.core.fingerprints import is_same_model
from apportion.core.schema import hold, parsed
from apportion.errors import InputError

SCHEMA = 1
FILE = "manifest.json"

# What the same run may say differently: where model and data are, if they are the same.
NAMES = frozenset({"model", "data", "labels", "domain"})


@dataclass(frozen=True)
class Manifest:
    """The settings of a run; those that a person leaves open are None until they are measured."""

    method: str
    method_fingerprint: str
    target: str
    model: str
    model_fingerprint: str
    domain: str | None
    labels: tuple[str, ...]
    data: str
    data_fingerprint: str
    column: str | None
    id_column: str | None
    inputs: int
    precision: str
    pool: int | None
    channels: bool
    table: str | None = None
    batch: int | None = None
    shard: int | None = None

    @property
    def fingerprint(self) -> str:
        """Of all that decides what the shards hold."""
        settings = {name: value for name, value in asdict(self).items() if name not in NAMES}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    @property
    def shards(self) -> int:
        assert self.shard is not None
        return -(-self.inputs // self.shard)

    def span(self, shard: int) -> range:
        """The numbers of the inputs in a shard."""
        assert self.shard is not None
        return range(shard * self.shard, min((shard + 1) * self.shard, self.inputs))

    def resumed(self, wanted: Manifest, folder: Path) -> Manifest:
        """This one, if it is what is wanted; InputError names what differs. What is left open fits."""
        different = [
            f"{field.name.replace('_', ' ')} was {_short(mine)}, now {_short(theirs)}"
            for field in fields(self)
            if field.name not in NAMES
            and (mine := getattr(self, field.name)) != (theirs := getattr(wanted, field.name))
            and not (theirs is None and field.name in ("table", "batch", "shard"))
            # A later version may print the same method in other words.
            and not (field.name == "method" and self.method_fingerprint == wanted.method_fingerprint)
            and not (field.name == "model_fingerprint" and is_same_model(mine, theirs))
        ]
        if different:
            raise InputError(
                f"{folder} holds another run: {'; '.join(different)}; accepted: the same settings, or another "
                "folder"
            )
        return self


@dataclass(frozen=True)
class _Content:
    """What the file holds."""

    schema: int
    fingerprint: str
    settings: Manifest


def _short(value: Any) -> str:
    text = str(value)
    return re.sub("^([0-9a-f]{12})[0-9a-f]{52}(?=-|$)", r"\1…", text)


def read(folder: Path) -> Manifest | None:
    """The manifest in a folder, None without one. InputError for what is none, or of a newer schema."""
    path = folder / FILE
    try:
        found = parsed(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("schema"), int) and found["schema"] > SCHEMA:
            raise InputError(
                f"{path} has schema {found['schema']}, newer than the {SCHEMA} that this version of apportion "
                "reads; install a newer apportion"
            )
        hold(found, _Content)
        settings = found["settings"]
        made = Manifest(**{**settings, "labels": tuple(settings["labels"])})
        for name in ("batch", "shard"):
            if getattr(made, name) is None or getattr(made, name) < 1:
                raise ValueError(f"settings.{name}: accepted: a whole number, at least 1")
        if made.inputs < 0:
            raise ValueError("settings.inputs: accepted: a whole number, at least 0")
        if made.fingerprint != found["fingerprint"]:
            raise ValueError("settings: they are not those that the fingerprint is of")
        return made
    except FileNotFoundError:
        return None
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not the manifest of a run ({error})") from None


def write(folder: Path, manifest: Manifest) -> Manifest:
    """Put the manifest into the folder, unless another process was first: then that one counts."""
    content = {
        "schema": SCHEMA,
        "fingerprint": manifest.fingerprint,
        "settings": asdict(manifest),
        "versions": {"torch": torch.__version__},
    }
    partial = write_whole(folder / f".{FILE}.{uuid.uuid4().hex[:8]}", json.dumps(content, indent=1).encode())
    try:
        os.link(partial, folder / FILE)  # unlike a rename, it fails where there is one
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        partial.replace(folder / FILE)
    partial.unlink(missing_ok=True)
    found = read(folder)
    assert found is not None
    return found.resumed(manifest, folder) if found.fingerprint != manifest.fingerprint else found
