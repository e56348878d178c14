"""What there is to show of one explained sample: the same words, picture or bars in the terminal, in a
matplotlib picture and on a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from apportion.explanation import Explanation
from apportion.features import Features, TabularFeatures, TextFeatures
from apportion.interactions import Interactions
from apportion.trees import tensors_in
from apportion.wording import number

# Vermillion and blue of Okabe & Ito (2008): told apart by every kind of colour vision, and in grey by depth.
FOR, AGAINST = (213, 94, 0), (0, 114, 178)
CLIP = (
    99.5  # percentile of |value| at which the colours of a picture are full: one cell must not hide the rest
)
CELLS = (
    112  # cells a side that are drawn: what cancels between neighbouring pixels cancels in the picture too
)
CHOICE = 120  # features of which a person may choose one to see its partners
GRID = 7  # regions a side, when the pixels of a picture are summed up to a list


@dataclass(frozen=True)
class Piece:
    """A stretch of a text: a word with its value, a special token (`special`), or what stands between
    (value None)."""

    text: str
    value: float | None = None
    special: bool = False


@dataclass(frozen=True)
class Words:
    """A text in pieces that join to the whole, special tokens aside."""

    pieces: tuple[Piece, ...]

    @property
    def scale(self) -> float:
        return _largest([piece.value for piece in self.pieces if piece.value is not None])

    def top(self, k: int) -> list[tuple[str, float]]:
        return _top([(piece.text, piece.value) for piece in self.pieces if piece.value is not None], k)


@dataclass(frozen=True)
class Bars:
    """Named numbers: the columns of a row, or the entries of a plain tensor."""

    names: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def scale(self) -> float:
        return _largest(self.values)

    def top(self, k: int) -> list[tuple[str, float]]:
        return _top(list(zip(self.names, self.values, strict=True)), k)


@dataclass(frozen=True, eq=False)
class Heat:
    """A (height, width) map summed over channels, and the photo (h, w, 3, uint8) that it lies on, if any.

    The map of an inner layer is coarser than its photo.
    """

    values: npt.NDArray[np.float64]
    photo: npt.NDArray[np.uint8] | None = None
    note: str = ""

    @property
    def drawn(self) -> npt.NDArray[np.float64]:
        """The map summed into at most 112 x 112 cells."""
        return self.pooled(CELLS, CELLS)

    @property
    def scale(self) -> float:
        """The |value| of a drawn cell at which colours are full: the 99.5th percentile of those that are not
        zero."""
        return scale_of(self.drawn)

    @property
    def legend(self) -> str:
        """How to read the colours, in words."""
        down, across = (n / m for n, m in zip(self.values.shape, self.drawn.shape, strict=True))
        cells = "" if down == across == 1 else f"each cell sums {across:.3g} × {down:.3g} pixels; "
        return (
            f"{cells}full colour at ±{number(self.scale, self.scale)}, the {CLIP:g}th percentile of |value|"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what is drawn."""
        height, width = (self.values if self.photo is None else self.photo).shape[:2]
        return int(height), int(width)

    def pooled(self, height: int, width: int) -> npt.NDArray[np.float64]:
        """The map summed into at most height x width cells; the sum of all stays what it was."""
        rows, columns = (_edges(n, m) for n, m in zip(self.values.shape, (height, width), strict=True))
        cells: npt.NDArray[np.float64] = np.add.reduceat(
            np.add.reduceat(self.values, rows[:-1], axis=0), columns[:-1], axis=1
        )
        return cells

    def top(self, k: int) -> list[tuple[str, float]]:
        """The regions of a 7 x 7 grid with the largest |sum|, named by their pixels."""
        cells = self.pooled(GRID, GRID)
        high, wide = (_edges(n, m) for n, m in zip(self.shape, cells.shape, strict=True))
        named = [
            (f"x {wide[c]}–{wide[c + 1]}, y {high[r]}–{high[r + 1]}", float(cells[r, c]))
            for r in range(cells.shape[0])
            for c in range(cells.shape[1])
        ]
        return _top(named, k)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Features with what each does by itself, and a symmetric matrix in which a pair's effect stands twice, by
    halves; NaN where a pair was not asked for. `text` says that the features are the words of a text."""

    names: tuple[str, ...]
    alone: tuple[float, ...]
    values: npt.NDArray[np.float64]
    text: bool = False

    @property
    def scale(self) -> float:
        return _largest(self.alone)

    def top(self, k: int) -> list[tuple[str, float]]:
        first, second = np.triu_indices(len(self.names), 1)
        both = np.nan_to_num(self.values[first, second] + self.values[second, first])
        named = zip(first, second, both.tolist(), strict=True)
        return _top([(f"{self.names[i]} × {self.names[j]}", value) for i, j, value in named], k)


View = Words | Heat | Bars | Pairs


def view(explanation: Explanation | Interactions, index: int = 0) -> View:
    """How to show a sample: by its features where the values still have their shape, else by shape alone.

    Of several inputs or layers the first is shown; of the pairs of many features the strongest.

    >>> import apportion as ap
    >>> view(ap.Saliency()(torch.nn.Linear(2, 1, bias=False), torch.ones(1, 2))).names
    ('input 0', 'input 1')
    """
    if isinstance(explanation, Interactions):
        pairs = _pairs(explanation, index)
        if len(pairs.names) <= CHOICE:
            return pairs
        names, strengths = zip(*pairs.top(CHOICE), strict=True) if pairs.top(1) else ((), ())
        return Bars(names, strengths)
    values = next(tensors_in(explanation.values))[index].detach().double().cpu()
    features = None if explanation.features is None else explanation.features[index]
    found = None if features is None else _featured(values, features)
    return _plain(values) if found is None else found


def _pairs(found: Interactions, index: int) -> Pairs:
    alone = found.main if found.attributions is None else found.attributions
    return Pairs(
        found.names_of(index),
        tuple(alone[index].detach().double().cpu().nan_to_num().tolist()),
        found.values[index].detach().double().cpu().numpy(),
        found.features is not None and isinstance(found.features[index], TextFeatures),
    )


def _featured(values: Tensor, features: Features) -> View | None:
    """By features; None if the values (of an inner layer, perhaps) no longer line up with them."""
    if isinstance(features, TextFeatures):
        many = len(features.tokens)
        if values.dim() == 0 or values.shape[0] != many:
            return None
        return Words(_pieces(features, values.reshape(many, -1).sum(1).tolist()))
    if isinstance(features, TabularFeatures):
        if values.numel() != len(features.groups):
            return None
        groups = torch.as_tensor(features.groups)
        kept = groups >= 0
        sums = torch.zeros(len(features.names), dtype=values.dtype)
        return Bars(features.names, tuple(sums.index_add(0, groups[kept], values.flatten()[kept]).tolist()))
    if values.dim() != 3 and values.shape != features.picture.shape[:2]:  # tokens by dimensions, perhaps
        return None
    heat = values.sum(0) if values.dim() == 3 else values
    return Heat(heat.numpy(), features.picture.cpu().numpy(), features.note)


def _plain(values: Tensor) -> View:
    if values.dim() == 3 and values.shape[0] <= 4:  # channels
        values = values.sum(0)
    if values.dim() == 2 and min(values.shape) > 1:
        return Heat(values.numpy())
    places: Any = np.ndindex(*(values.shape or (1,)))
    return Bars(
        tuple("input " + ", ".join(map(str, place)) for place in places), tuple(values.flatten().tolist())
    )


def _pieces(features: TextFeatures, values: Sequence[float]) -> tuple[Piece, ...]:
    """Words in the order of the text with what stands between them; special tokens where they stood."""
    names, groups = features.names, features.groups
    sums = [0.0] * len(names)
    for group, value in zip(groups, values, strict=True):
        if group >= 0:
            sums[group] += value
    pieces, at, seen = [], 0, set()
    for token, group, (start, _), value in zip(
        features.tokens, groups, features.offsets, values, strict=True
    ):
        if group < 0:
            if value:
                pieces.append(Piece(token, value, special=True))
        elif group not in seen:
            seen.add(group)
            if start > at:
                pieces.append(Piece(features.text[at:start]))
            pieces.append(Piece(names[group], sums[group]))
            at = start + len(names[group])
    if at < len(features.text):
        pieces.append(Piece(features.text[at:]))
    return tuple(pieces)


def _top(named: list[tuple[str, float]], k: int) -> list[tuple[str, float]]:
    return sorted((pair for pair in named if pair[1]), key=lambda pair: -abs(pair[1]))[:k]


def scale_of(cells: npt.NDArray[np.float64]) -> float:
    """The percentile of |value|, zeros aside, at which colours are full; 1 where all is zero."""
    sizes = np.abs(cells[cells != 0])
    return float(np.percentile(sizes, CLIP)) if sizes.size else 1.0


def _largest(values: Sequence[float]) -> float:
    return max(map(abs, values), default=0.0) or 1.0


def _edges(size: int, cells: int) -> npt.NDArray[np.int64]:
    """Where each of at most `cells` equal stretches of `size` begins, and the end."""
    edges: npt.NDArray[np.int64] = np.linspace(0, size, min(cells, size) + 1).round().astype(np.int64)
    return edges
