"""A fitted ProtoPNet as one file of tensors and numbers, without pickle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from apportion.core.checksummed import seal, unseal
from apportion.core.registry import read_repr
from apportion.core.schema import hold
from apportion.domains.image import ImagePreparation
from apportion.errors import InputError
from apportion.models.prototypes._backbone_features import device_of
from apportion.models.prototypes._checkpoint import put_back
from apportion.models.prototypes._images import Encode
from apportion.models.prototypes._network import Centre, PrototypeNet, add_on_layers
from apportion.models.prototypes._reasons import Patch
from apportion.models.prototypes.settings import settings_class


@dataclass(frozen=True, eq=False)
class SavedState:
    """What `fit` found; `shape` is that of one input, `backbone` the digest of a frozen backbone's weights and
    `shipped` its name, where it is a model that ships."""

    learnt: dict[str, Tensor]
    shape: tuple[int, ...]
    backbone: str
    shipped: str | None
    classes: list[Any]
    sources: tuple[Patch, ...]
    history: list[dict[str, Any]]
    skipped: tuple[str, ...]


@dataclass
class _Header:
    """What the file says beside its tensors, with _ for the spaces in names."""

    settings: dict[str, Any]
    preparation: str | None
    own_preparation: bool
    shipped: str | None
    shape: list[int]
    backbone: str
    classes: list[str | int | float | bool]
    sources: list[tuple[str, str, int, tuple[int, int, int, int], float]]
    history: list[dict[str, Any]]
    skipped: list[str]


def save(path: Path, settings: dict[str, Any], state: SavedState) -> Path:
    """Write what an estimator was told, and what it found."""
    unique = list({id(patch.picture): patch.picture for patch in state.sources}.values())
    numbers = {id(picture): number for number, picture in enumerate(unique)}
    tensors = {f"net.{name}": tensor for name, tensor in state.learnt.items()}
    tensors |= {f"picture.{number}": picture for number, picture in enumerate(unique)}
    preparation = settings["preparation"]
    header = {
        "settings": {
            **{name: value for name, value in settings.items() if name != "preparation"},
            "recipe": repr(settings["recipe"]),
        },
        "preparation": repr(preparation) if isinstance(preparation, ImagePreparation) else None,
        "own preparation": not isinstance(preparation, ImagePreparation | None),
        "shipped": state.shipped,
        "shape": list(state.shape),
        "backbone": state.backbone,
        "classes": state.classes,
        "sources": [
            [patch.name, patch.label, numbers[id(patch.picture)], list(patch.box), patch.similarity]
            for patch in state.sources
        ],
        "history": state.history,
        "skipped": list(state.skipped),
    }
    return seal(path, header, tensors)


def load(path: Path, preparation: Encode | None = None) -> tuple[dict[str, Any], SavedState]:
    """The settings of the estimator, and what it had found; `preparation` is preferred to that in the file."""
    if not path.is_file():
        raise InputError(f"there is no file {path}; accepted: what save() wrote")
    header, tensors = unseal(path)
    if not isinstance(header, dict) or "sources" not in header:
        raise InputError(f"{path} holds no fitted ProtoPNet; accepted: what save() wrote")
    hold({name.replace(" ", "_"): value for name, value in header.items()}, _Header)
    settings = header["settings"]
    settings["recipe"] = read_repr(settings["recipe"], settings_class)
    if preparation is None and header["own preparation"]:
        raise InputError(f"{path} was fitted with a preparation of its own; give it again as preparation=")
    if preparation is None and header["preparation"] is not None:
        preparation = read_repr(header["preparation"], lambda _: ImagePreparation)
    settings["preparation"] = preparation
    sources = tuple(
        Patch(name, label, tensors[f"picture.{number}"], tuple(box), similarity)
        for name, label, number, box, similarity in header["sources"]
    )
    return settings, SavedState(
        {name.removeprefix("net."): t for name, t in tensors.items() if name.startswith("net.")},
        tuple(header["shape"]),
        header["backbone"],
        header["shipped"],
        header["classes"],
        sources,
        header["history"],
        tuple(header["skipped"]),
    )


def rebuild(backbone: nn.Module, tensors: dict[str, Tensor]) -> PrototypeNet:
    """The network of what was learnt, on its backbone."""
    centre = "add_on.mean" in tensors
    if centre:
        add_on: nn.Module = Centre(tensors["add_on.mean"])
    else:
        width, channels = tensors["add_on.0.weight"].shape[:2]
        with torch.random.fork_rng():
            add_on = add_on_layers(channels, width)
    net = PrototypeNet(
        backbone,
        add_on,
        tensors["prototypes"],
        tensors["class_of"],
        len(tensors["last.weight"]),
        "cosine" if centre else "log",
    )
    put_back(net, tensors)
    return net.to(device_of(backbone)).eval().requires_grad_(False)
