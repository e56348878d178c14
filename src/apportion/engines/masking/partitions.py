"""Into which features an input is cut before some of them are hidden.

A partition gives each entry of an input the index of its feature, 0, 1, …; -1 for entries that are never
hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from apportion.core.content import ByContent
from apportion.core.features import Features, ImageFeatures, TabularFeatures, TextFeatures
from apportion.core.from_call import OfSamples
from apportion.core.numbers import is_frame
from apportion.core.per_input import PerInput
from apportion.core.settings import checked
from apportion.errors import InputError, check, check_whole, nearest

Partition = Callable[[Tensor, Sequence[Features] | None], Tensor]
"""`partition(x, features)` maps a (batch, …) input to integer labels that broadcast to its shape."""


@dataclass(frozen=True)
@checked
class Pixels:
    """Each place of the grid is a feature, all its channels together.

    >>> Pixels()(torch.zeros(1, 3, 2, 2), None).tolist()
    [[[[0, 1], [2, 3]]]]
    """

    def __call__(self, x: Tensor, features: Sequence[Features] | None = None) -> Tensor:
        space = _grid(self, x)
        return torch.arange(space.numel(), device=x.device).view(1, 1, *space)


@dataclass(frozen=True)
@checked
class Channels:
    """Each channel is a feature.

    >>> Channels()(torch.zeros(1, 3, 2, 2), None).flatten().tolist()
    [0, 1, 2]
    """

    def __call__(self, x: Tensor, features: Sequence[Features] | None = None) -> Tensor:
        space = _grid(self, x)
        return torch.arange(x.shape[1], device=x.device).view(1, -1, *[1] * len(space))


@dataclass(frozen=True)
@checked
class Patches:
    """Make features of squares, all channels together; those at the far edges are cut off.

    The grid may have any number of dimensions (a time series, a volume); with a size, rows are cut into neighbours.

    Attributes:
        size (int or tuple of int, default None, entries): Side of a square, or one for each dimension of the grid;
            None: about 14 patches a side.

    >>> Patches(2)(torch.zeros(1, 3, 2, 4), None)[0, 0].tolist()
    [[0, 0, 1, 1], [0, 0, 1, 1]]
    """

    size: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_sides("size", self.size)

    def __call__(self, x: Tensor, features: Sequence[Features] | None = None) -> Tensor:
        rows = x.dim() == 2 and x.is_floating_point() and self.size is not None
        space = x.shape[1:] if rows else _grid(self, x)
        sides = sides_of(self.size, space, "size")
        labels = torch.zeros(space, dtype=torch.long, device=x.device)
        for axis, (length, side) in enumerate(zip(space, sides, strict=True)):
            row = torch.arange(length, device=x.device) // side
            labels = labels * -(-length // side) + row.view(-1, *[1] * (len(space) - axis - 1))
        return labels[None] if rows else labels[None, None]


def check_sides(name: str, size: Any) -> None:
    """Raise InputError for what is no side of anything, whatever the grid."""
    for side in size if isinstance(size, tuple | list) else (size,):
        if side is not None:
            check_whole(1, **{name: side})


def sides_of(size: int | tuple[int, ...] | None, space: Sequence[int], name: str) -> tuple[int, ...]:
    """One positive number for each dimension of a grid."""
    if size is None:
        return tuple(max(1, round(length / 14)) for length in space)
    sides = size if isinstance(size, tuple | list) else (size,) * len(space)
    accepted = f"a positive whole number, or one for each of {tuple(space)}"
    whole = all(isinstance(side, Integral) and side >= 1 for side in sides)
    check(name, size, lambda _: whole and len(sides) == len(space), accepted)
    return tuple(sides)


@dataclass(frozen=True)
@checked
class Superpixels:
    """Make features of regions of like colour, found by scikit-image on the picture itself where it is known.

    Needs the extra `image`.

    Attributes:
        segments (int, default 50): Regions that "slic" makes, about.
        method (str, default "slic"): "slic" (Achanta et al. 2012) or "felzenszwalb" (Felzenszwalb & Huttenlocher 2004).
        compactness (float, default 10.0): The more compact the regions of "slic" are, the higher; raised where noise
            leaves fewer than a quarter of them.
        scale (float, default 100.0): The larger the regions of "felzenszwalb" are, the larger.
    """

    segments: int = 50
    method: Literal["slic", "felzenszwalb"] = "slic"
    compactness: float = 10.0
    scale: float = 100.0

    def __post_init__(self) -> None:
        check_whole(1, segments=self.segments)
        if self.method not in ("slic", "felzenszwalb"):
            raise InputError(f"method is {self.method!r}; accepted: 'slic', 'felzenszwalb'")
        for name in ("compactness", "scale"):
            check(name, getattr(self, name), lambda v: 0 < v < float("inf"), "a positive number")

    def __call__(self, x: Tensor, features: Sequence[Features] | None = None) -> Tensor:
        if len(_grid(self, x)) != 2:
            raise InputError(
                f"Superpixels need images (batch, channels, height, width), not {tuple(x.shape)}"
            )
        maps = [self._segment(_picture(x, i, features)) for i in range(x.shape[0])]
        return torch.stack(maps)[:, None].to(x.device)

    def _segment(self, picture: Tensor) -> Tensor:
        try:
            from skimage import segmentation
        except ImportError:
            raise InputError(
                "Superpixels need scikit-image: pip install 'apportion[image]', or use partition=Patches()"
            ) from None
        if self.method == "slic":
            fewest = min(self.segments, picture[..., 0].numel()) // 4
            for times in (1, 10, 100):
                found = segmentation.slic(
                    picture.numpy(),
                    n_segments=self.segments,
                    compactness=times * self.compactness,
                    start_label=0,
                    channel_axis=-1,
                )
                if found.max() + 1 >= fewest:
                    break
        else:
            found = segmentation.felzenszwalb(picture.numpy(), scale=self.scale, sigma=0.5, min_size=20)
        return renumbered(torch.as_tensor(found, dtype=torch.long))


@dataclass(frozen=True)
@checked
class Tokens:
    """Each token is a feature, of documents (batch, sentences, tokens) as of texts; special tokens and padding, where
    the features of the text tell, are none.

    >>> Tokens()(torch.tensor([[7, 8, 9]]), None).tolist()
    [[0, 1, 2]]
    """

    def __call__(self, x: Tensor, features: Sequence[Features] | None = None) -> Tensor:
        if x.dim() > 2 and not x.is_floating_point() and not features:
            return torch.arange(x[0].numel(), device=x.device).view(1, *x.shape[1:])
        _matrix(self, x)
        labels = torch.arange(x.shape[1]).repeat(x.shape[0], 1)
        for row, feature in zip(labels, features or (), strict=False):
            if isinstance(feature, TextFeatures):
                groups = _fitted(feature.groups, x.shape[1])
                row[groups < 0] = -1
                row[groups >= 0] = torch.arange(int((groups >= 0).sum()))
        return labels.to(x.device)


@dataclass(frozen=True)
@checked
class Words:
    """Each word is a feature, its sub-words together; special tokens and padding are none.

    Without the features of the text (see `TextFeatures`), each token is a word.
    """

    def __call__(self, x: Tensor, features: Sequence[Features] | None = None) -> Tensor:
        if not features or not isinstance(features[0], TextFeatures):
            return Tokens()(x, features)
        _matrix(self, x)
        return torch.stack(
            [_fitted(f.groups, x.shape[1]) for f in features if isinstance(f, TextFeatures)]
        ).to(x.device)


@dataclass(frozen=True)
@checked
class Columns:
    """Each column of a table row is a feature, the inputs of a one-hot block together; one number a sample is
    one column.

    >>> row = TabularFeatures(("age", "sex"), ("41", "female"), (0, 1, 1))
    >>> Columns()(torch.zeros(1, 3), (row,)).tolist()
    [[0, 1, 1]]
    """

    def __call__(self, x: Tensor, features: Sequence[Features] | None = None) -> Tensor:
        if x.dim() == 1:
            return torch.zeros(1, dtype=torch.long, device=x.device)
        _matrix(self, x)
        if features and isinstance(features[0], TabularFeatures):
            rows = [torch.tensor(f.groups) for f in features if isinstance(f, TabularFeatures)]
            if any(len(row) != x.shape[1] for row in rows):
                raise InputError(f"the features have {len(rows[0])} inputs, but the rows have {x.shape[1]}")
            return torch.stack(rows).to(x.device)
        return torch.arange(x.shape[1], device=x.device)[None]


@dataclass(frozen=True)
class ColumnGroups:
    """Make one feature of columns that are named together; each other column is a feature of its own. Methods take it
    as `partition={"place": ["city", "zip"]}`.

    Attributes:
        groups (dict of list of str): The columns of each group, by its name.

    >>> row = TabularFeatures(("age", "city", "zip"), ("41", "Bern", "3011"), (0, 1, 2))
    >>> ColumnGroups({"place": ["city", "zip"]})(torch.zeros(1, 3), (row,)).tolist()
    [[0, 1, 1]]
    """

    groups: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        known: set[str] = set()
        check("groups", self.groups, lambda v: isinstance(v, Mapping), "a dict of names and lists of columns")
        for group, columns in self.groups.items():
            if not isinstance(columns, list | tuple) or not columns:
                raise InputError(f"group {group!r} is {columns!r}; accepted: a list of names of columns")
            for name in columns:
                if name in known:
                    raise InputError(f"column {name!r} is named twice in the groups; accepted: once")
                known.add(name)

    @classmethod
    def of_one_hot(cls, frame: Any) -> ColumnGroups:
        """The one-hot blocks of a frame: columns of zeros and ones with a beginning in common, as far as "_" or "=", of
        which each row has one, or none where all have at most one."""
        numbers = {str(name): frame[name] for name in frame.columns}
        begins: dict[str, list[str]] = {}
        for name, cells in numbers.items():
            place = max(name.rfind("_"), name.rfind("="))
            if place > 0 and bool(cells.isin([0, 1]).all()):
                begins.setdefault(name[:place], []).append(name)
        blocks = {begin: names for begin, names in begins.items() if len(names) > 1}
        return cls(
            {
                begin: names
                for begin, names in blocks.items()
                if int(sum(numbers[name].astype(int) for name in names).max()) == 1
            }
        )

    def __call__(self, x: Tensor, features: Sequence[Features] | None = None) -> Tensor:
        own = Columns()(x, features)
        if not features or not isinstance(features[0], TabularFeatures):
            raise InputError(
                "groups of columns by name are for tables whose columns have names; accepted here: numbers of columns, "
                "such as [[0, 1], [2]]"
            )
        columns = features[0].columns
        absent = [name for names in self.groups.values() for name in names if name not in columns]
        if absent:
            near = nearest(str(absent[0]), list(columns))
            raise InputError(
                f"there is no column {absent[0]!r} to be grouped; nearest: {', '.join(near or columns[:3])}"
            )
        first = {
            columns.index(name): columns.index(names[0]) for names in self.groups.values() for name in names
        }
        joined = [[first.get(label, label) for label in row] for row in own.tolist()]
        return torch.stack([renumbered(torch.tensor(row)) for row in joined]).to(x.device)

    def called(self, features: TabularFeatures, cut: TabularFeatures) -> TabularFeatures:
        """The features as they were cut, with the names of the groups."""
        names = {
            "".join(sorted(columns)): group for group, columns in self.groups.items() if len(columns) > 1
        }
        found: dict[int, list[str]] = {}
        for column, label in zip(features.groups, cut.groups, strict=True):
            found.setdefault(label, [])
            if features.columns[column] not in found[label]:
                found[label].append(features.columns[column])
        shown = [
            names.get("".join(sorted(found[label])), old)
            for label, old in zip(sorted(found), cut.columns, strict=True)
        ]
        return replace(cut, columns=tuple(shown))


def words_of(inputs: Any) -> Tensor | None:
    """The word of each token, and -1 for special tokens, in what a fast tokenizer of Hugging Face returned."""
    encodings = getattr(inputs, "encodings", None)
    if not encodings:
        return None
    rows = []
    for encoding in encodings:
        words = list(zip(encoding.sequence_ids, encoding.word_ids, strict=True))
        place = {word: i for i, word in enumerate(dict.fromkeys(word for word in words if None not in word))}
        rows.append([place.get(word, -1) for word in words])
    ids = inputs.get("input_ids")
    fits = len({len(row) for row in rows}) == 1 and getattr(ids, "shape", None) == (len(rows), len(rows[0]))
    return torch.tensor(rows) if fits else None


@dataclass(frozen=True, eq=False, repr=False)
class LabelMap(OfSamples, ByContent):
    """Make the features that a map of the user's says; `partition=` takes it as a tensor, an array or a list.

    Attributes:
        labels (Tensor): Whole numbers in the shape of the grid, of the batch of grids, or of the inputs; equal ones are
            one feature, negative ones are never hidden.

    >>> LabelMap(torch.tensor([0, 0, 1]))(torch.zeros(1, 3), None).tolist()
    [[0, 0, 1]]
    """

    labels: Tensor

    def __post_init__(self) -> None:
        try:
            labels = torch.as_tensor(self.labels).detach().clone()
        except (TypeError, ValueError, RuntimeError):
            raise InputError(
                f"partition is {self.labels!r:.60}; accepted: a label map of integers, such as [0, 0, 1], or lists of "
                "the numbers of the columns that are one feature, such as [[0, 1], [2]]"
            ) from None
        if labels.is_floating_point() or labels.is_complex():
            raise InputError(f"partition is a label map of type {labels.dtype}; accepted: integers")
        object.__setattr__(self, "labels", labels)

    @property
    def fingerprinted(self) -> Tensor:
        return self.labels  # which is what the setting held at first

    def repeated(self, rows: int, shape: Sequence[int]) -> LabelMap:
        return LabelMap(self.labels.repeat_interleave(rows, 0)) if self._is_of_samples(shape) else self

    def cut(self, part: slice, shape: Sequence[int]) -> LabelMap:
        return LabelMap(self.labels[part]) if self._is_of_samples(shape) else self

    def _is_of_samples(self, shape: Sequence[int]) -> bool:
        """Whether there is one map for each sample of inputs of this shape, as `from_labels` reads it."""
        mine = tuple(self.labels.shape)
        each = len(mine) == len(shape) and mine[0] == shape[0]
        return each or (len(shape) > 2 and mine == (shape[0], *shape[2:]))

    def __call__(self, x: Tensor, features: Sequence[Features] | None = None) -> Tensor:
        return from_labels(self.labels, x)


def as_partition(given: Any) -> Partition | None:
    """A partition as it is, or the one that a label map stands for; one for each input in a tuple or dict of them.
    InputError for anything else."""
    if isinstance(given, Mapping) and given and all(map(_are_names, given.values())):
        return ColumnGroups({name: list(columns) for name, columns in given.items()})
    if isinstance(given, Mapping) or (isinstance(given, tuple) and any(map(_is_partition, given))):
        parts = PerInput.of_given(given)
        return replace(parts, values=tuple(map(as_partition, parts.values)))
    if is_frame(given):
        given = given.to_numpy()
    if isinstance(given, list | tuple) and _are_groups(given):
        given = _labels_of(given)
    if isinstance(given, Tensor | np.ndarray | list | tuple):
        return LabelMap(given)  # type: ignore[arg-type]
    accepted = "a partition such as Patches(4), or a label map of integers"
    check("partition", given, lambda v: v is None or (callable(v) and not isinstance(v, type)), accepted)
    return given  # type: ignore[no-any-return]


def _are_names(given: Any) -> bool:
    return isinstance(given, list | tuple) and bool(given) and all(isinstance(name, str) for name in given)


def _is_partition(given: Any) -> bool:
    """Whether this stands for one of several inputs, and not for a row or a number in a label map."""
    return given is None or isinstance(given, Tensor | np.ndarray) or callable(given)


def _are_groups(given: Sequence[Any]) -> bool:
    """Whether these are lists of columns, as in `groups=`: lists of whole numbers that differ in length."""
    lists = all(isinstance(each, list | tuple) and each for each in given)
    return (
        lists
        and len({len(each) for each in given}) > 1
        and all(isinstance(i, Integral) for e in given for i in e)
    )


def _labels_of(groups: Sequence[Sequence[int]]) -> Tensor:
    """The label map of lists of columns.

    >>> _labels_of([[0, 1, 3], [2]]).tolist()
    [0, 0, 1, 0]
    """
    places = sorted(int(i) for group in groups for i in group)
    if places != list(range(len(places))):
        raise InputError(
            f"partition has groups of the columns {places}; accepted: each column from 0 on once"
        )
    labels = torch.zeros(len(places), dtype=torch.long)
    for number, group in enumerate(groups):
        labels[list(group)] = number
    return labels


def keep_label_map(settings: Any) -> None:
    """Let the `partition` of frozen settings, where they have one, be what its label map stands for, and what is there
    for each input be one setting."""
    if (given := getattr(settings, "partition", None)) is not None:
        object.__setattr__(settings, "partition", as_partition(given))
    if isinstance(given := getattr(settings, "replacement", None), tuple | Mapping):
        object.__setattr__(settings, "replacement", PerInput.of_given(given))


def from_labels(labels: Tensor, x: Tensor) -> Tensor:
    """A label map of the user's, in the shape of the grid, of the batch of grids, or of the inputs.

    Labels are any integers; equal ones are one feature, negative ones are never hidden.

    >>> from_labels(torch.tensor([[5, 5], [9, -3]]), torch.zeros(1, 3, 2, 2)).tolist()
    [[[[0, 0], [1, -1]]]]
    """
    return torch.stack([renumbered(row) for row in fitted_labels(labels, x)])


def fitted_labels(labels: Tensor, x: Tensor) -> Tensor:
    """The same map with its own numbers, in a shape that broadcasts to the input."""
    if x.dim() > 3 and x.shape[0] == x.shape[1] > 1 and labels.shape == x.shape[1:]:
        raise InputError(
            f"the label map has shape {tuple(labels.shape)}, which may be one map per sample or one per channel of "
            f"{tuple(x.shape)}; accepted here: labels[:, None] for samples, labels[None] for channels"
        )
    found = labels[None] if labels.dim() == x.dim() - 1 and labels.shape == x.shape[1:] else labels
    if x.dim() > 2 and labels.shape in (x.shape[2:], x.shape[:1] + x.shape[2:]):
        found = labels[None, None] if labels.dim() == x.dim() - 2 else labels[:, None]
    fits = found.dim() == x.dim() and all(a in (1, b) for a, b in zip(found.shape, x.shape, strict=True))
    if not fits:
        grid = tuple(x.shape[2:]) or tuple(x.shape[1:])
        raise InputError(
            f"the label map has shape {tuple(labels.shape)}, but the inputs have {tuple(x.shape)}; accepted: "
            f"{grid}, or one such map per sample"
        )
    return found.long().to(x.device)


def renumbered(labels: Tensor) -> Tensor:
    """The same map with its labels 0, 1, …, and -1 for the negative ones."""
    kept = labels >= 0
    result = torch.full_like(labels, -1)
    result[kept] = torch.unique(labels[kept], return_inverse=True)[1]
    return result


def default_partition(x: Tensor, features: Sequence[Features] | None) -> Partition:
    """Words for token ids, columns for rows, patches for whatever has a grid."""
    if not x.is_floating_point():
        if x.dim() > 2 and x.dtype == torch.uint8:
            raise InputError(
                f"inputs of type torch.uint8 have shape {tuple(x.shape)}; accepted: pictures (batch, channels, …) of "
                "floating point numbers, or token ids (batch, tokens) or (batch, sentences, tokens) of torch.long"
            )
        return Columns() if features and isinstance(features[0], TabularFeatures) else Words()
    return Columns() if x.dim() <= 2 else Patches()


def _grid(partition: object, x: Tensor) -> torch.Size:
    if x.dim() < 3 or not x.is_floating_point():
        kind = type(partition).__name__
        raise InputError(
            f"{kind} need inputs (batch, channels, …) of floating point numbers, not {tuple(x.shape)}"
        )
    return x.shape[2:]


def _matrix(partition: object, x: Tensor) -> None:
    if x.dim() != 2:
        raise InputError(f"{type(partition).__name__} need inputs of two dimensions, not {tuple(x.shape)}")


def _fitted(groups: Sequence[int], length: int) -> Tensor:
    """The groups of a text that was padded on the right to `length` tokens."""
    if len(groups) > length:
        raise InputError(f"the features have {len(groups)} tokens, but the inputs have {length}")
    return torch.tensor([*groups, *[-1] * (length - len(groups))])


def _picture(x: Tensor, index: int, features: Sequence[Features] | None) -> Tensor:
    feature = features[index] if features else None
    if isinstance(feature, ImageFeatures) and feature.picture.shape[:2] == x.shape[2:]:
        return feature.picture.cpu().double() / 255
    image = x[index].movedim(0, -1).detach().cpu().double()
    low, high = image.amin(), image.amax()
    image = (image - low) / (high - low).clamp(min=1e-12)
    return image if image.shape[-1] == 3 else image.mean(-1, keepdim=True)
