"""The result of most methods: what was apportioned, to what, and what was not."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from itertools import accumulate
from typing import Any, ClassVar, Generic

import numpy as np
import torch
from torch import Tensor
from typing_extensions import TypeVar

from apportion.core.features import Features, ImageFeatures, TabularFeatures, TextFeatures
from apportion.core.inputs import Inputs, Values
from apportion.core.trees import keyed, tensors_in
from apportion.errors import InputError
from apportion.results.display import display
from apportion.results.ledger import Ledger
from apportion.results.result import Result, Total

Form = TypeVar("Form", bound=Inputs, covariant=True, default=Values)
"""The form of values: that of the inputs."""


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Result[Total], Generic[Form, Total]):
    """A model's scores for a batch, apportioned to its inputs.

    `values` has the shape of the inputs (a tuple or dict of tensors likewise); `total` is the (batch,) amount
    that was to be apportioned, or None for methods that do not claim to add up; `remainder` is what `values`
    leave of it. `output` are the (batch, classes) scores, `target` the class of each sample (or the repr of
    the callable), `features` names the features of each sample where a domain encoded them. `notes` are what
    a method has to add; a tuple among them has one entry per sample.

    >>> import apportion as ap
    >>> e = ap.InputXGradient()(torch.nn.Linear(3, 2, bias=False), torch.ones(1, 3), target=1)
    >>> bool(e.remainder.abs() < 1e-6)
    True
    """

    kind: ClassVar[str] = "apportion"
    called: ClassVar[str] = "explanation"

    values: Form
    ledger: Ledger | None = field(default=None, kw_only=True)

    @property
    def apportioned(self) -> Tensor:
        """The (batch,) sums of all values."""
        wide = [v.double() if v.device.type != "mps" else v.float() for v in tensors_in(self.values)]
        return torch.stack([v.reshape(len(v), -1).sum(1) for v in wide]).sum(0)

    def _of_one(self, part: slice) -> dict[str, Any]:
        # The ledger is of the whole batch.
        return {**super()._of_one(part), "ledger": self.ledger if len(self) == 1 else None}

    def relevance(self, index: int = 0) -> tuple[tuple[str, ...], Tensor]:
        """The features that a person knows, and the value of each: words, columns, or flat input entries.

        Of several inputs all are there, one after the other.
        """
        named = self._relevance(index)
        names = tuple(name(i) for name, values in named for i in range(len(values)))
        return names, torch.cat([values for _, values in named])

    def top(self, k: int = 10, index: int = 0) -> list[tuple[str, float]]:
        """The k features with the largest absolute values, largest first; of a picture its pixels, all channels
        together, by their place in the photo."""
        named = [
            _pixels(feature, values) if isinstance(feature, ImageFeatures) and values.dim() == 3 else entries
            for entries, (_, values, feature) in zip(self._relevance(index), self.parts(index), strict=True)
        ]
        strength = torch.cat([values.abs() for _, values in named])
        order = strength.argsort(descending=True, stable=True)[:k].tolist()
        ends = list(accumulate(len(values) for _, values in named))
        found = []
        for place in order:
            which = bisect_right(ends, place)
            name, values = named[which]
            place -= ends[which] - len(values)
            found.append((name(place), float(values[place])))
        return found

    def parts(self, index: int = 0) -> list[tuple[str, Tensor, Features | None]]:
        """The values of one sample by input or layer: what it is called, its tensor, and the features that this
        lines up with, if any."""
        feature = None if self.features is None else self.features[index]
        layer = getattr(self.method, "at", None)
        found = []
        for place, (key, tensor) in enumerate(keyed(self.values)):
            name = key if isinstance(key, str) else "input" if key is None else f"input {key}"
            mine = tensor[index]
            fits = not place and feature is not None and _line_up(feature, mine, layer is not None)
            found.append((layer if isinstance(layer, str) else name, mine, feature if fits else None))
        return found

    def to_frame(self) -> Any:
        """A pandas frame with a line for each feature of each sample: `sample` (its number), `target` (the explained
        class), `feature` and `value`; of rows of a table also `cell`, what stood in the column.

        `frame.pivot(index="sample", columns="feature", values="value")` has a column for each feature of a table. The
        lines of a sample add up to its total but for the remainder.

        >>> import apportion as ap
        >>> e = ap.explain(lambda x: x.sum(1), np.array([[1.0, 2.0]]), "kernelshap", feature_names=["age", "mass"])
        >>> e.to_frame().round(3).to_dict("records")[1]
        {'sample': 0, 'target': 'score', 'feature': 'mass', 'cell': '2', 'value': 2.0}
        """
        lines: dict[str, list[Any]] = {name: [] for name in ("sample", "target", "feature", "cell", "value")}
        for index in range(len(self)):
            for name, values, feature in self.parts(index):
                cells: Sequence[str] | None = None
                if isinstance(feature, TabularFeatures):
                    names: Sequence[str] = feature.columns
                    cells, values = feature.cells, feature_sums(feature, values)
                elif isinstance(feature, TextFeatures):
                    names, values = feature.names, feature_sums(feature, values)
                else:
                    names = [entry_name(name, values.shape, i) for i in range(values.numel())]
                lines["sample"] += [index] * len(names)
                lines["target"] += [self.label(index)] * len(names)
                lines["feature"] += names
                lines["cell"] += cells or [None] * len(names)
                lines["value"] += values.flatten().tolist()
        if all(cell is None for cell in lines["cell"]):
            del lines["cell"]
        return import_module("pandas").DataFrame(lines)

    def waterfall(self, index: int = 0, ax: Any = None) -> Any:
        """Draw how one sample gets from the start to its score, a step for each feature, on matplotlib Axes (made if
        not given) and return them. Where the start is not known it is zero, and the end the total."""
        return display().waterfall(self, index, ax)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The values as a NumPy array, (batch, …), as `numpy.asarray(explanation)` asks for."""
        if not isinstance(self.values, Tensor):
            raise InputError(
                f"the values are of {len(keyed(self.values))} inputs or layers, which are no one array; accepted: "
                "numpy.asarray(explanation.values[key])"
            )
        found = self.values.detach().cpu()
        array = (found.float() if found.dtype == torch.bfloat16 else found).numpy()
        return array.astype(dtype or array.dtype, copy=copy is not False)

    def _relevance(self, index: int) -> list[tuple[Callable[[int], str], Tensor]]:
        """For each input the name of its i-th feature, and the values of all."""
        return [
            (partial(entry_name, name, values.shape), values.flatten())
            if feature is None or isinstance(feature, ImageFeatures)
            else (feature.names.__getitem__, feature_sums(feature, values))
            for name, values, feature in self.parts(index)
        ]

    def _own_packed(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        items = keyed(self.values)
        one = isinstance(self.values, Tensor)
        return {"values" if one else f"values.{i}": tensor for i, (_, tensor) in enumerate(items)}, {
            "keys": None if one else [key for key, _ in items],
            "dict": isinstance(self.values, dict),
            "ledger": None if self.ledger is None else self.ledger.to_json(),
        }

    @classmethod
    def _check_file(cls, header: Any, tensors: dict[str, Tensor]) -> None:
        from apportion.results._schema import OfExplanation, check_file

        check_file(header, OfExplanation, tensors)

    @classmethod
    def _own_unpacked(cls, tensors: dict[str, Tensor], header: dict[str, Any]) -> dict[str, Any]:
        keys = header["keys"]
        if keys is None:
            values: Values = tensors["values"]
        else:
            parts = [tensors[f"values.{i}"] for i in range(len(keys))]
            values = dict(zip(keys, parts, strict=True)) if header["dict"] else tuple(parts)
        ledger = None if header["ledger"] is None else Ledger.from_json(header["ledger"])
        return {"values": values, "ledger": ledger}


def entry_name(name: str, shape: torch.Size, i: int) -> str:
    """What the i-th entry of an input or layer is called.

    >>> entry_name("conv1", torch.Size((2, 3)), 4)
    'conv1[1, 1]'
    """
    return f"{name}[{', '.join(map(str, np.unravel_index(i, shape)))}]" if shape else name


def _pixels(features: ImageFeatures, values: Tensor) -> tuple[Callable[[int], str], Tensor]:
    """The name of the i-th pixel of a picture, by the pixel of the photo at its middle, and the values of all."""
    rows, columns = values.shape[-2:]
    left, up, right, down = features.part or (0.0, 0.0, float(columns), float(rows))

    def name(i: int) -> str:
        row, column = divmod(i, columns)
        x, y = left + (column + 0.5) * (right - left) / columns, up + (row + 0.5) * (down - up) / rows
        return f"x {int(x)}, y {int(y)}"

    return name, values.sum(0).flatten()


def feature_sums(features: TextFeatures | TabularFeatures, values: Tensor) -> Tensor:
    """The sum of each word or column over its tokens or inputs, and over the dimensions that these have."""
    groups = torch.tensor(features.groups, device=values.device)
    each = values.reshape(len(values), -1).sum(1)[: len(groups)]
    sums = torch.zeros(len(features.names), dtype=each.dtype, device=each.device)
    return sums.index_add(0, groups[groups >= 0], each[groups >= 0])


def _line_up(features: Features, values: Tensor, inner: bool) -> bool:
    """True if the values of one sample are those of the features; a layer's need not be, and may by chance have
    as many. A text may be padded on the right."""
    if isinstance(features, ImageFeatures):
        return values.dim() == 3 or values.shape == features.picture.shape[:2]
    if isinstance(features, TabularFeatures):
        return not inner and values.shape == (len(features.groups),)
    many = len(features.tokens)
    return values.dim() > 0 and (len(values) == many or (len(values) > many and not inner))
