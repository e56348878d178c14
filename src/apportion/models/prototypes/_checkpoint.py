"""Checkpoints of a training run: one sealed file, written whole after every epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from apportion.core.checksummed import seal, unseal
from apportion.core.fingerprints import fingerprint, model_fingerprint
from apportion.errors import InputError
from apportion.models.prototypes._backbone_features import CHUNK
from apportion.models.prototypes._images import Images, labels_of
from apportion.models.prototypes._network import Backbone, PrototypeNet

_SINCE = ("images", "backbone's code")

Resumed = tuple[int, list[dict[str, Any]]]


@dataclass(frozen=True)
class Checkpoint:
    """The file of a run of one configuration: what was asked for, and digests of the data and the backbone.

    What a file of before says nothing of, the other images and the backbone's code, is not compared with it.
    """

    path: Path
    configuration: dict[str, Any]
    tune: bool

    def write(
        self,
        net: PrototypeNet,
        optimisers: Sequence[torch.optim.Adam],
        epochs: int,
        history: list[dict[str, Any]],
    ) -> None:
        tensors = {f"net.{name}": tensor for name, tensor in learnt_tensors(net, self.tune).items()}
        for number, optimiser in enumerate(optimisers):
            for index, state in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{number}.{index}.{name}": tensor for name, tensor in state.items()}
        header = {"configuration": self.configuration, "epochs": epochs, "history": history}
        seal(self.path, header, tensors)

    def read(self, net: PrototypeNet, optimisers: Sequence[torch.optim.Adam]) -> Resumed | None:
        """Put the state of the file into network and optimisers; the epochs done and their history. None
        without a file, InputError for one of another configuration."""
        if not self.path.exists():
            return None
        header, tensors = unseal(self.path, _Header)
        theirs = header.get("configuration", {})
        known = [name for name in self.configuration if name in theirs or name not in _SINCE]
        other = [name for name in known if theirs.get(name) != self.configuration[name]]
        if other:
            name = other[0]
            raise InputError(
                f"checkpoint {self.path} is of another configuration: {name} is {theirs.get(name)!r} there and "
                f"{self.configuration[name]!r} here; nothing was changed. Give another file, or the same settings and "
                "data"
            )
        try:
            put_back(net, {k.removeprefix("net."): t for k, t in tensors.items() if k.startswith("net.")})
            for number, optimiser in enumerate(optimisers):
                state: dict[int, dict[str, Tensor]] = {}
                for key, tensor in tensors.items():
                    if key.startswith(f"optimiser.{number}."):
                        _, _, index, name = key.split(".")
                        state.setdefault(int(index), {})[name] = tensor
                optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        except (RuntimeError, ValueError) as error:  # of other shapes or names
            raise InputError(f"checkpoint {self.path} does not fit the network: {error}") from None
        return int(header["epochs"]), list(header["history"])


@dataclass
class _Header:
    """What the file says beside its tensors."""

    configuration: dict[str, Any]
    epochs: int
    history: list[dict[str, Any]]


def checkpoint_of(
    path: Path, asked: dict[str, Any], tune: bool, data: Images, backbone: Backbone
) -> Checkpoint:
    """The checkpoint of a run: what was `asked` for on this data and this backbone."""
    found = {
        "layer": backbone.layer,
        "classes": [str(label) for label in data.classes],
        "number of images": len(data),
        "labels": digest([labels_of(data)]),
        "first image": digest([data.read(torch.zeros(1, dtype=torch.long))]),
        "backbone": backbone_digest(backbone),
        "images": digest(x for _, x in data.batches(CHUNK, "images compared")),
        "backbone's code": fingerprint(model_fingerprint(backbone)),
    }
    return Checkpoint(path, {**asked, "tune": tune, **found}, tune)


def learnt_tensors(net: PrototypeNet, tune: bool) -> dict[str, Tensor]:
    """What training changes: everything but a frozen backbone."""
    return {k: t for k, t in net.state_dict().items() if tune or not k.startswith("backbone.")}


def put_back(net: PrototypeNet, tensors: dict[str, Tensor]) -> None:
    net.load_state_dict({**net.state_dict(), **tensors})


def digest(tensors: Any) -> str:
    """A short fingerprint of tensors: their bytes, in order."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def backbone_digest(backbone: nn.Module) -> str:
    return digest(t for _, t in sorted(backbone.state_dict().items()))
