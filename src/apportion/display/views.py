"""What there is to show of one explained sample: the same words, picture or bars in the terminal, in a
matplotlib picture and on a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from apportion.core.features import Features, TabularFeatures, TextFeatures, writable
from apportion.results.explanation import Explanation, entry_name, feature_sums
from apportion.results.interactions import Interactions
from apportion.results.result import Result
from apportion.results.words import format_number

# Vermillion and blue of Okabe & Ito (2008): told apart by every kind of colour vision, and in grey by depth.
FOR, AGAINST = (213, 94, 0), (0, 114, 178)
# Percentile of |value| at which the colours of a picture are full: one cell must not hide the rest.
CLIP = 99.5
# Cells a side that are drawn: what cancels between neighbouring pixels cancels in the picture too.
CELLS = 112
CHOICE = 120  # features of which a person may choose one to see its partners
GRID = 7  # regions a side, when the pixels of a picture are summed up to a list


def in_what(unit: str) -> str:
    """What values are counted in, as a sentence.

    >>> in_what("logit"), in_what("units of the score")
    ('values are shares of the logit', 'values are shares of the score')
    """
    if not unit:
        return "values have no unit: only their sizes beside each other say something"
    return f"values are shares of the {unit.removeprefix('units of the ')}"


@dataclass(frozen=True)
class Piece:
    """A stretch of a text: a word with its value, a special token (`special`), or what stands between
    (value None)."""

    text: str
    value: float | None = None
    special: bool = False


class _Named:
    """What can be listed: each of its `named` numbers speaks for or against."""

    @property
    def named(self) -> list[tuple[str, float]]:
        raise NotImplementedError

    def top(self, k: int) -> list[tuple[str, float]]:
        """The k largest by |value|, zeros left out."""
        return sorted((pair for pair in self.named if pair[1]), key=lambda pair: -abs(pair[1]))[:k]


@dataclass(frozen=True)
class TextView(_Named):
    """A text in pieces that join to the whole, special tokens aside."""

    pieces: tuple[Piece, ...]

    @property
    def scale(self) -> float:
        return _largest([piece.value for piece in self.pieces if piece.value is not None])

    @property
    def named(self) -> list[tuple[str, float]]:
        return [(piece.text, piece.value) for piece in self.pieces if piece.value is not None]


@dataclass(frozen=True)
class BarsView(_Named):
    """Named numbers: the columns of a row, or the entries of a plain tensor."""

    names: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def scale(self) -> float:
        return _largest(self.values)

    @property
    def named(self) -> list[tuple[str, float]]:
        return list(zip(self.names, self.values, strict=True))


@dataclass(frozen=True, eq=False)
class HeatView(_Named):
    """A (height, width) map summed over channels, and the photo (h, w, 3, uint8) that it lies on, if any.

    The map of an inner layer is coarser than its photo.
    """

    values: npt.NDArray[np.float64]
    photo: npt.NDArray[np.uint8] | None = None
    note: str = ""
    size: tuple[int, int] | None = None  # width and height of the person's photo, where they are known
    part: tuple[float, float, float, float] | None = None  # left, top, right, bottom in it of what is drawn

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
        return f"{cells}full colour at ±{format_number(self.scale, self.scale)}, the {CLIP:g}th percentile of |value|"

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what is drawn."""
        height, width = (self.values if self.photo is None else self.photo).shape[:2]
        return int(height), int(width)

    @property
    def pixels_of(self) -> str:
        """Whose pixels name the regions."""
        height, width = self.shape
        if self.size is not None:
            return f"the photo ({self.size[0]} × {self.size[1]})"
        return (
            f"{'the map' if self.photo is None else 'the picture as the model saw it'} ({width} × {height})"
        )

    @property
    def frame(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what is drawn, in those pixels."""
        height, width = self.shape
        return (0.0, 0.0, float(width), float(height)) if self.part is None else self.part

    def pooled(self, height: int, width: int) -> npt.NDArray[np.float64]:
        """The map summed into at most height x width cells of one size, which share the pixels that they cut; the
        sum of all stays what it was."""
        rows, columns = (_shares(n, m) for n, m in zip(self.values.shape, (height, width), strict=True))
        cells: npt.NDArray[np.float64] = rows @ self.values @ columns.T
        return cells

    @property
    def named(self) -> list[tuple[str, float]]:
        """The sums of the regions of a 7 x 7 grid, named by the pixels of the photo where these are known."""
        rows, columns = (_edges(n, GRID) for n in self.values.shape)
        cells = np.add.reduceat(np.add.reduceat(self.values, rows[:-1], axis=0), columns[:-1], axis=1)
        left, top, right, bottom = self.frame
        across, down = self.size or (self.shape[1], self.shape[0])
        high, wide = (
            # Beyond the photo a crop is black.
            (first + _edges(n, m) / n * (last - first)).clip(0, most).round().astype(int)
            for n, m, first, last, most in zip(
                self.shape, cells.shape, (top, left), (bottom, right), (down, across), strict=True
            )
        )
        return [
            (f"x {wide[c]}–{wide[c + 1]}, y {high[r]}–{high[r + 1]}", float(cells[r, c]))
            for r in range(cells.shape[0])
            for c in range(cells.shape[1])
        ]


@dataclass(frozen=True, eq=False)
class PairsView(_Named):
    """Features with what each does by itself, and a symmetric matrix in which a pair's effect stands twice, by
    halves; NaN where a pair was not asked for. `text` says that the features are the words of a text."""

    names: tuple[str, ...]
    alone: tuple[float, ...]
    values: npt.NDArray[np.float64]
    text: bool = False

    @property
    def scale(self) -> float:
        return _largest(self.alone)

    @property
    def named(self) -> list[tuple[str, float]]:
        first, second = np.triu_indices(len(self.names), 1)
        both = np.nan_to_num(self.values[first, second] + self.values[second, first])
        pairs = zip(first, second, both.tolist(), strict=True)
        return [(f"{self.names[i]} × {self.names[j]}", value) for i, j, value in pairs]


View = TextView | HeatView | BarsView | PairsView


def view(explanation: Result, index: int = 0) -> View:
    """How to show a sample: by its features where the values line up with them, else by shape alone.

    Several inputs or layers are one list, in which a picture stands by its regions; of the pairs of many
    features the strongest are shown.

    >>> import torch, apportion as ap
    >>> view(ap.Saliency()(torch.nn.Linear(2, 1, bias=False), torch.ones(1, 2))).names
    ('input[0]', 'input[1]')
    """
    if isinstance(explanation, Interactions):
        pairs = _pairs(explanation, index)
        if len(pairs.names) <= CHOICE:
            return pairs
        names, strengths = zip(*pairs.top(CHOICE), strict=True) if pairs.top(1) else ((), ())
        return BarsView(names, strengths)
    assert isinstance(explanation, Explanation)
    parts = [(name, v.detach().double().cpu(), feature) for name, v, feature in explanation.parts(index)]
    parts = [part for part in parts if part[1].any()] or parts[:1]
    if len(parts) == 1:
        return _view_of_part(*parts[0])
    named = [
        (f"{part[0]}: {name}" if isinstance(shown, HeatView) else name, value)
        for part in parts
        for shown in [_view_of_part(*part)]
        for name, value in shown.named
    ]
    return BarsView(tuple(name for name, _ in named), tuple(value for _, value in named))


def _pairs(found: Interactions, index: int) -> PairsView:
    alone = found.main if found.attributions is None else found.attributions
    return PairsView(
        found.names_of(index),
        tuple(alone[index].detach().double().cpu().nan_to_num().tolist()),
        found.values[index].detach().double().cpu().numpy(),
        found.features is not None and isinstance(found.features[index], TextFeatures),
    )


def _view_of_part(name: str, values: Tensor, features: Features | None) -> TextView | HeatView | BarsView:
    if isinstance(features, TextFeatures):
        tokens = values.reshape(len(values), -1).sum(1)[: len(features.tokens)]
        return TextView(_pieces(features, tokens.tolist()))
    if isinstance(features, TabularFeatures):
        return BarsView(features.names, tuple(feature_sums(features, values).tolist()))
    if values.dim() == 3 and (features is not None or values.shape[0] <= 4):  # channels
        values = values.sum(0)
    if features is not None:
        picture = features.picture.cpu().numpy()
        return HeatView(values.numpy(), picture, features.note, features.photo, features.part)
    if values.dim() == 2 and min(values.shape) > 1:
        return HeatView(values.numpy())
    names = tuple(entry_name(name, values.shape, i) for i in range(values.numel()))
    return BarsView(names, tuple(values.flatten().tolist()))


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
                pieces.append(Piece(writable(token), value, special=True))
        elif group not in seen:
            seen.add(group)
            if start > at:
                pieces.append(Piece(writable(features.text[at:start])))
            pieces.append(Piece(names[group], sums[group]))
            at = start + len(names[group])
    if at < len(features.text):
        pieces.append(Piece(writable(features.text[at:])))
    return tuple(pieces)


def scale_of(cells: npt.NDArray[np.float64]) -> float:
    """The percentile of |value|, zeros aside, at which colours are full; 1 where all is zero."""
    sizes = np.abs(cells[cells != 0])
    return float(np.percentile(sizes, CLIP)) if sizes.size else 1.0


def _largest(values: Sequence[float]) -> float:
    return max(map(abs, values), default=0.0) or 1.0


def _shares(size: int, cells: int) -> npt.NDArray[np.float64]:
    """How much of each of `size` pixels is in each of at most `cells` cells of one size, (cells, size).

    >>> _shares(3, 2).tolist()
    [[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]]
    """
    edges, pixels = np.linspace(0, size, min(cells, size) + 1)[:, None], np.arange(size)
    shares: npt.NDArray[np.float64] = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return shares.clip(0)


def _edges(size: int, cells: int) -> npt.NDArray[np.int64]:
    """Where each of at most `cells` equal stretches of `size` begins, and the end."""
    edges: npt.NDArray[np.int64] = np.linspace(0, size, min(cells, size) + 1).round().astype(np.int64)
    return edges
