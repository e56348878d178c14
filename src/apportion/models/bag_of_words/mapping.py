"""The mapping m(l): how much each local feature counts for each visual word.

All return a sparse (features, words) matrix in double precision. The weights do not depend on other features,
so that relevance can be handed from a word to the features by what each of them gave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from apportion.errors import InputError
from apportion.models.bag_of_words._vocabulary import Mixture, VisualWords, cluster, mix

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

Array = npt.NDArray[Any]


class Mapping(Protocol):
    """What a mapping has; `signed` says whether its weights may be negative."""

    @property
    def signed(self) -> bool: ...
    def learn(self, descriptors: Array, words: int, seed: int) -> Any:
        """The vocabulary from a sample of descriptors."""

    def __call__(self, descriptors: Array, vocabulary: Any) -> csr_matrix:
        """The (features, words) weights."""

    def finish(self, pooled: Array) -> Array:
        """What is done with the pooled numbers of an image, element by element up to a common factor."""


class _ToWords:
    """What mappings to the words of a vocabulary share."""

    signed = False

    def finish(self, pooled: Array) -> Array:
        return pooled


@dataclass(frozen=True)
class Hard(_ToWords):
    """1 for the nearest word, 0 for the others.

    >>> two = VisualWords(np.array([[0.0], [1.0]]), np.ones(1))
    >>> Hard()(np.array([[0.2], [0.9], [3.0]]), two).toarray().tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    """

    def learn(self, descriptors: Array, words: int, seed: int) -> VisualWords:
        return cluster(descriptors, words, seed)

    def __call__(self, descriptors: Array, vocabulary: VisualWords) -> csr_matrix:
        return sparse_rows(_nearest(descriptors, vocabulary, 1)[0], lambda _: np.ones(1), vocabulary)


@dataclass(frozen=True)
class Rank(_ToWords):
    """Map a feature to its nearest words by rank: `base^(−rank)`, the nearest of rank 1; 0 for the others.

    The mapping of the pictures in Bach et al. 2015. Base 2.4 and 8 words are reported for that paper, not checked
    against it.

    Attributes:
        nearest (int, default 8): Words that count.
        base (float, default 2.4): Base of the weights.
    """

    nearest: int = 8
    base: float = 2.4

    def __post_init__(self) -> None:
        if self.nearest < 1 or self.base <= 1:
            raise InputError(f"{self!r}; accepted: at least 1 nearest word, and a base above 1")

    def learn(self, descriptors: Array, words: int, seed: int) -> VisualWords:
        _check_nearest(self.nearest, words, self)
        return cluster(descriptors, words, seed)

    def __call__(self, descriptors: Array, vocabulary: VisualWords) -> csr_matrix:
        words, _ = _nearest(descriptors, vocabulary, self.nearest)
        return sparse_rows(words, lambda rank: self.base ** -(rank + 1.0), vocabulary)


@dataclass(frozen=True)
class Soft(_ToWords):
    """Map a feature to words by distance: `exp(−γ |l − word|²)` over its sum (van Gemert et al. 2010).

    Attributes:
        gamma (float, default None): γ; None: the inverse of the mean squared distance of a descriptor to its nearest
            word.
        nearest (int, default None): Nearest words that count (Liu et al. 2011); None: all.
    """

    gamma: float | None = None
    nearest: int | None = None

    def __post_init__(self) -> None:
        if (self.gamma is not None and self.gamma <= 0) or (self.nearest is not None and self.nearest < 1):
            raise InputError(f"{self!r}; accepted: a positive gamma, and at least 1 nearest word, or None")

    def learn(self, descriptors: Array, words: int, seed: int) -> VisualWords:
        _check_nearest(self.nearest or 1, words, self)
        return cluster(descriptors, words, seed)

    def __call__(self, descriptors: Array, vocabulary: VisualWords) -> csr_matrix:
        if self.nearest is None:
            distances = _distances(descriptors, vocabulary)
            words = np.broadcast_to(np.arange(distances.shape[1]), distances.shape)
        else:
            words, distances = _nearest(descriptors, vocabulary, self.nearest)
        gamma = 1 / float(vocabulary.spread[0]) if self.gamma is None else self.gamma
        weights = np.exp(-gamma * (distances - distances.min(1, keepdims=True)).astype(np.float64))
        weights /= weights.sum(1, keepdims=True)
        return sparse_rows(words, lambda _: weights, vocabulary)


@dataclass(frozen=True)
class Fisher:
    """Fisher vectors (Perronnin et al. 2010): what a mixture of Gaussians would have to change.

    For each component the gradients of the log-likelihood to its mean and to its variance: 2 · words · dimensions
    numbers.

    Attributes:
        dimensions (int, default 32): Principal components that the mixture is on.
        improved (bool, default True): Take signed square roots of the pooled vector and divide it by its Euclidean
            norm; relevance passes through both unchanged.
    """

    dimensions: int = 32
    improved: bool = True
    signed = True

    def __post_init__(self) -> None:
        if self.dimensions < 1:
            raise InputError(f"dimensions is {self.dimensions}; accepted: at least 1 principal component")

    def learn(self, descriptors: Array, words: int, seed: int) -> Mixture:
        return mix(descriptors, words, self.dimensions, seed)

    def __call__(self, descriptors: Array, vocabulary: Mixture) -> csr_matrix:
        from scipy.sparse import csr_matrix

        weights, means, variances, origin, axes = vocabulary
        points = (descriptors - origin) @ axes.T
        away = (points[:, None] - means) / np.sqrt(variances)
        logs = np.log(weights) - 0.5 * (np.log(variances).sum(1) + np.square(away).sum(2))
        chance = np.exp(logs - logs.max(1, keepdims=True))
        chance /= chance.sum(1, keepdims=True)
        scaled = (chance / np.sqrt(weights))[..., None]
        to_means, to_variances = scaled * away, scaled * (np.square(away) - 1) / np.sqrt(2)
        both = np.concatenate([to_means, to_variances], 2).reshape(len(points), -1)
        every = np.tile(np.arange(both.shape[1], dtype=np.int32), len(both))
        starts = np.arange(len(both) + 1, dtype=np.int32) * both.shape[1]
        return csr_matrix((both.ravel(), every, starts), both.shape)

    def finish(self, pooled: Array) -> Array:
        if not self.improved:
            return pooled
        powered = np.sign(pooled) * np.sqrt(np.abs(pooled))
        return powered / max(float(np.linalg.norm(powered)), 1e-12)


MAPPINGS: dict[str, Callable[[], Mapping]] = {"hard": Hard, "soft": Soft, "rank": Rank, "fisher": Fisher}


def _distances(descriptors: Array, vocabulary: VisualWords) -> Array:
    """The (features, words) squared distances, but for what is the same for all words of a feature."""
    centres = vocabulary.centres
    found: Array = np.square(centres).sum(1) - 2 * (np.asarray(descriptors, centres.dtype) @ centres.T)
    return found


def _nearest(descriptors: Array, vocabulary: VisualWords, many: int) -> tuple[Array, Array]:
    """The (features, many) nearest words in ascending order of distance, and their `_distances`."""
    distances = _distances(descriptors, vocabulary)
    words = np.argpartition(distances, many - 1, 1)[:, :many]
    near = np.take_along_axis(distances, words, 1)
    order = np.argsort(near, 1, kind="stable")
    return np.take_along_axis(words, order, 1), np.take_along_axis(near, order, 1)


def sparse_rows(words: Array, weights: Callable[[Array], Array], vocabulary: VisualWords) -> csr_matrix:
    """Row l has `weights(rank)` at the columns `words[l, rank]`."""
    from scipy.sparse import csr_matrix

    rows, many = words.shape
    numbers = np.broadcast_to(weights(np.arange(many)), (rows, many)).ravel()
    starts = np.arange(rows + 1, dtype=np.int64) * many
    return csr_matrix((numbers.astype(np.float64), words.ravel(), starts), (rows, len(vocabulary.centres)))


def _check_nearest(nearest: int, words: int, mapping: Mapping) -> None:
    if nearest > words:
        raise InputError(
            f"{mapping!r} takes the {nearest} nearest of {words} words; accepted: at most {words}"
        )
