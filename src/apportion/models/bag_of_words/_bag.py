"""One picture as a bag of words, and the relevance of its words on the way back to local features and pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from apportion.models.bag_of_words._pooling import pool, pyramid_cells, share_relevance, to_pixels
from apportion.models.bag_of_words.features import Boxes, Extractor, Picture, extract
from apportion.models.bag_of_words.mapping import Mapping

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

Array = npt.NDArray[Any]


class Mapped(NamedTuple):
    """The local features of one extractor: `weights` are their (features, words) m(l), `places` which of them
    are in each cell of the pyramid."""

    weights: csr_matrix
    boxes: Boxes
    places: list[Array]


@dataclass(frozen=True, eq=False)
class Bag:
    """`vector` is what the classifier sees: for each extractor, cell and word one number (eq. 9)."""

    vector: Array
    mapped: tuple[Mapped, ...]
    shape: tuple[int, ...]
    p: float

    @property
    def lengths(self) -> list[int]:
        """How much of `vector` is of each extractor."""
        return [mapped.weights.shape[1] * len(mapped.places) for mapped in self.mapped]

    def to_features(self, relevance: Array) -> list[Array]:
        """R² of the local features, one array for each extractor, from R³ of `vector` (eq. 14, 15)."""
        parts = np.split(relevance, np.cumsum(self.lengths)[:-1])
        return [
            share_relevance(part, each.weights, self.p, each.places)
            for part, each in zip(parts, self.mapped, strict=True)
        ]

    def to_pixels(self, relevance: Sequence[Array]) -> Array:
        """R¹ of the pixels, (height, width), from R² of the local features (eq. 16)."""
        pairs = zip(relevance, self.mapped, strict=True)
        found: Array = np.sum([to_pixels(part, each.boxes, self.shape) for part, each in pairs], 0)
        return found


@dataclass(frozen=True, eq=False)
class Bagging:
    """From a picture to its bag: all that was learned from pictures without their labels."""

    extractors: tuple[Extractor, ...]
    vocabularies: tuple[Any, ...]
    mapping: Mapping
    p: float
    pyramid: tuple[int, ...]

    def __call__(self, picture: Picture, empty: bool = False) -> Bag:
        """The bag of a picture; one without local features is refused unless `empty`."""
        mapped, vectors = [], []
        for extractor, vocabulary in zip(self.extractors, self.vocabularies, strict=True):
            found = extract(extractor, picture, empty)
            weights = self.mapping(found.descriptors, vocabulary)
            places = pyramid_cells(found.boxes, picture.shape[:2], self.pyramid)
            mapped.append(Mapped(weights, found.boxes, places))
            vectors.append(self.mapping.finish(pool(weights, self.p, places)))
        return Bag(np.concatenate(vectors), tuple(mapped), picture.shape[:2], self.p)
