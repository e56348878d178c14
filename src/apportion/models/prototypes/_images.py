"""Images by number: from arrays, a list, a folder with a folder for each class, or a PyTorch dataset."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.core.progress import progress
from apportion.domains.image import ACCEPTED as PICTURES
from apportion.domains.image import ImagePreparation
from apportion.errors import InputError

Encode = Callable[[Any], tuple[Tensor, Any]]
"""A raw picture to a batch of one and its features, as of a `Classifier`."""

ACCEPTED = (
    "accepted: a float array (n, channels, height, width) as the backbone takes it, a list of pictures or files, "
    "a folder with a folder of pictures for each class, or a PyTorch dataset of (image, label)"
)


@dataclass(frozen=True, eq=False)
class Images:
    """`read(numbers)` gives (batch, channels, height, width) model inputs, `show(number)` a picture to draw.

    `labels` (n,) number the `classes`; `skipped` says which images could not be read, and why.
    """

    many: int
    read: Callable[[Tensor], Tensor]
    show: Callable[[int], Tensor]
    names: tuple[str, ...]
    labels: Tensor | None = None
    classes: tuple[Any, ...] = ()
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.many

    def batches(self, size: int, what: str) -> Iterator[tuple[Tensor, Tensor]]:
        """(numbers, inputs) of all images in order, with a progress bar."""
        for numbers in progress(torch.arange(self.many).split(size), self.many, what):
            yield numbers, self.read(numbers)


def images_of(
    source: Any, labels: Any, encode: Encode | None, classes: Sequence[Any] | None = None
) -> Images:
    """Whatever holds images, as `Images`. Raises InputError for what is none, warns of what cannot be read."""
    if isinstance(source, Images):
        return source
    encode = encode or ImagePreparation()
    if isinstance(source, np.ndarray):
        source = torch.as_tensor(source)
    if isinstance(source, Tensor) and source.is_floating_point():
        found = _arrays(source, labels, classes)
    elif isinstance(source, str | Path):
        path = Path(source)
        if not path.exists():
            raise InputError(f"images: there is no {path}; {ACCEPTED}")
        if path.is_file():
            found = _listed([path], labels, classes, encode)
        else:
            if labels is not None:
                raise InputError(
                    "labels were given with a folder, whose folders are the classes; give one of them"
                )
            found = _folder(path, encode, classes)
    elif isinstance(source, Tensor | list | tuple):
        found = _listed(list(source), labels, classes, encode)
    elif hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        found = _dataset(source, labels, encode, classes)
    else:
        raise InputError(f"images is {type(source).__name__}; {ACCEPTED}")
    if not found.many:
        why = f": {'; '.join(found.skipped[:3])}" if found.skipped else ""
        raise InputError(f"images: none could be read{why}; {ACCEPTED}; {PICTURES}")
    if found.skipped:
        warnings.warn(
            f"{len(found.skipped)} of {found.many + len(found.skipped)} images could not be read and are skipped: "
            + "; ".join(found.skipped[:5])
            + (" …" if len(found.skipped) > 5 else ""),
            stacklevel=3,
        )
    return found


def _arrays(x: Tensor, labels: Any, classes: Sequence[Any] | None) -> Images:
    x = x[:, None] if x.dim() == 3 else x
    x = _single(x)
    if x.dim() != 4:
        raise InputError(f"images have shape {tuple(x.shape)}; {ACCEPTED}")
    bad = (~torch.isfinite(x).flatten(1).all(1)).nonzero().flatten().tolist()
    if bad:
        raise InputError(f"images contain NaN or infinite numbers, in image {bad[:5]}")

    def show(number: int) -> Tensor:
        return picture_of(x[number])

    names = tuple(f"image {i}" for i in range(len(x)))
    return _number_labels(Images(len(x), lambda rows: x[rows.to(x.device)], show, names), labels, classes)


def picture_of(x: Tensor) -> Tensor:
    """(height, width, 3) uint8 of a model input whose preparation is not known: its range becomes 0 to 255."""
    image = x.detach().float().movedim(0, -1).cpu()
    image = image if image.shape[-1] == 3 else image.mean(-1, keepdim=True)
    low, high = image.amin(), image.amax()
    grey = (image - low) / (high - low).clamp(min=1e-12) * 255
    return grey.round().to(torch.uint8).expand(*image.shape[:2], 3).contiguous()


def _listed(
    items: list[Any], labels: Any, classes: Sequence[Any] | None, encode: Encode, names: Sequence[str] = ()
) -> Images:
    names = names or [
        Path(i).name if isinstance(i, str | Path) else f"image {n}" for n, i in enumerate(items)
    ]
    given = _one_each(labels, len(items))
    return _read_once(lambda number: _prepare(items[number], encode), names, given, classes)


def _prepare(raw: Any, encode: Encode) -> tuple[Tensor, Any]:
    """A batch of one: float tensors (channels, height, width) are model inputs already, as in an array of them."""
    if isinstance(raw, Tensor) and raw.is_floating_point() and raw.dim() == 3:
        return _single(raw)[None], None
    if isinstance(raw, str | Path):
        return encode(Path(raw))
    return encode(raw.numpy() if isinstance(raw, Tensor) and raw.shape[-1:] in ((3,), (4,)) else raw)


def _single(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.float64 else x  # NumPy's numbers, not the user's choice


def _folder(path: Path, encode: Encode, classes: Sequence[Any] | None) -> Images:
    visible = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    folders = [entry for entry in visible if entry.is_dir()]
    if not folders:
        return _listed([entry for entry in visible if entry.is_file()], None, None, encode)
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if _is_visible_file(file)]
    names = [str(file.relative_to(path)) for file in files]
    labels = [file.relative_to(path).parts[0] for file in files]
    return _listed(files, labels, classes or [folder.name for folder in folders], encode, names)


def _is_visible_file(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _dataset(data: Any, labels: Any, encode: Encode, classes: Sequence[Any] | None) -> Images:
    found: dict[int, Any] = {}

    def item(number: int) -> tuple[Tensor, Any]:
        entry = data[number]
        image, label = entry if isinstance(entry, tuple | list) and len(entry) == 2 else (entry, None)
        found[number] = label
        return _prepare(image, encode)

    many = len(data)
    labels = _one_each(labels, many)
    names = [f"item {number}" for number in range(many)]
    read = _read_once(item, names, None, None)
    kept = [int(name.split()[1]) for name in read.names]
    given = [found[number] for number in kept] if labels is None else [labels[number] for number in kept]
    return _number_labels(read, None if None in given else given, classes)


def _read_once(
    item: Callable[[int], tuple[Tensor, Any]],
    names: Sequence[str],
    labels: Any,
    classes: Sequence[Any] | None,
) -> Images:
    """Open every image, so that later passes meet only what can be read, all of one shape."""
    kept, skipped, shape = [], [], None
    for (number,) in progress([(n,) for n in range(len(names))], len(names), "images opened"):
        try:
            x, _ = item(number)
        except (OSError, ValueError) as error:
            # What a picture is need not be said of each.
            why = str(error).partition(PICTURES)[0].rstrip("; :")
            skipped.append(f"{names[number]} ({why})")
            continue
        if shape is not None and x.shape != shape:
            raise InputError(
                f"{names[number]} becomes {tuple(x.shape[1:])}, but {names[kept[0]]} {tuple(shape[1:])}; accepted: "
                "images of one size, or a preparation that makes them so"
            )
        if not bool(torch.isfinite(x).all()):
            raise InputError(f"{names[number]} contains NaN or infinite numbers")
        shape = x.shape
        kept.append(number)

    def read(rows: Tensor) -> Tensor:
        return torch.cat([item(kept[row])[0] for row in rows.tolist()])

    def show(row: int) -> Tensor:
        x, features = item(kept[row])
        return picture_of(x[0]) if features is None else features.picture

    found = Images(len(kept), read, show, tuple(names[n] for n in kept), skipped=tuple(skipped))
    return _number_labels(found, None if labels is None else [labels[n] for n in kept], classes)


def _number_labels(images: Images, labels: Any, classes: Sequence[Any] | None) -> Images:
    """With labels numbered by class."""
    given = _one_each(labels, len(images))
    if given is None:
        return images
    odd = [label for label in given if not isinstance(label, int | str)]
    if odd:
        raise InputError(
            f"labels hold {odd[0]!r}, a {type(odd[0]).__name__}; accepted: whole numbers or names"
        )
    try:
        known = sorted(set(given)) if classes is None else list(classes)
    except TypeError:
        raise InputError("labels hold whole numbers and names; accepted: one kind of them") from None
    numbers = {label: number for number, label in enumerate(known)}
    if len(numbers) < len(known):
        raise InputError(f"classes name one twice: {', '.join(map(str, known[:20]))}")
    wrong = next((label for label in given if label not in numbers), None)
    if wrong is not None:
        raise InputError(f"labels hold {wrong!r}; accepted: {', '.join(map(repr, known[:10]))}")
    return replace(images, labels=torch.tensor([numbers[label] for label in given]), classes=tuple(known))


def _one_each(labels: Any, many: int) -> list[Any] | None:
    """Labels as Python's own numbers and names, one for each image."""
    if labels is None:
        return None
    try:
        given = [
            label.item() if np.ndim(label) == 0 and hasattr(label, "item") else label for label in labels
        ]
    except TypeError:
        raise InputError(f"labels is {labels!r}; accepted: one for each image") from None
    if len(given) != many:
        raise InputError(f"there are {len(given)} labels for {many} images; accepted: one each")
    return given


def labels_of(images: Images) -> Tensor:
    """The (n,) labels, where there must be some."""
    if images.labels is None:
        raise InputError(
            "labels are missing; accepted: one for each image, or a folder with a folder for each class"
        )
    return images.labels


def check_for_training(images: Images) -> None:
    """Every class needs an image, there must be two, and an image must stay what it is."""
    many = labels_of(images).bincount(minlength=len(images.classes)).tolist()
    empty = [str(label) for label, count in zip(images.classes, many, strict=True) if not count]
    if empty:
        own = [said for said in images.skipped if said.startswith(tuple(f"{name}{os.sep}" for name in empty))]
        lost = f" that can be read ({'; '.join(own[:3])})" if own else ""
        raise InputError(
            f"class {', '.join(empty)} has no image{lost}; accepted: at least one for every class"
        )
    if len(many) < 2:
        raise InputError(f"labels hold one class only, {images.classes[0]!r}; accepted: at least two")
    some = torch.arange(min(8, len(images)))
    if not torch.equal(images.read(some), images.read(some)):
        raise InputError(
            "images are others each time they are read, as by random augmentation, so that no prototype would be a "
            "patch of one; accepted: a dataset that gives the same image for the same number"
        )


def one_image(image: Any) -> Any:
    """One image as a batch of one, where it is not a batch, a file or a folder already."""
    if isinstance(image, np.ndarray):
        image = torch.as_tensor(image)
    if isinstance(image, Tensor):
        if image.dim() == 4:
            return image
        if image.is_floating_point() and image.dim() in (2, 3):
            return image.reshape(1, *(1,) * (3 - image.dim()), *image.shape)
        return [image]
    return image if isinstance(image, str | Path | list | tuple) else [image]
