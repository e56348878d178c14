"""The vocabulary: a few hundred typical descriptors, or a mixture of Gaussians over them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from apportion.errors import InputError

Array = npt.NDArray[Any]


class VisualWords(NamedTuple):
    """`centres` are the (words, dimensions) visual words; `spread` is the (1,) mean squared distance of a
    descriptor to its nearest word."""

    centres: Array
    spread: Array


class Mixture(NamedTuple):
    """A mixture of Gaussians with diagonal covariances over descriptors in their principal components:
    `weights` (components,), `means` and `variances` (components, kept), `origin` (dimensions,), `axes`
    (kept, dimensions)."""

    weights: Array
    means: Array
    variances: Array
    origin: Array
    axes: Array


def sample(descriptors: Iterable[Array], images: int, most: int, seed: int) -> Array:
    """At most `most` rows, the same number from each image (all of an image with fewer).

    Only what was drawn is kept, so that memory does not grow with the number of images.
    """
    random = np.random.default_rng(seed)
    each = max(1, most // images)
    return np.concatenate([rows[_draw_rows(random, len(rows), each)] for rows in descriptors])


def _draw_rows(random: np.random.Generator, rows: int, most: int) -> Array:
    return np.sort(random.choice(rows, min(rows, most), replace=False))


def cluster(descriptors: Array, words: int, seed: int) -> VisualWords:
    """The visual words, by mini-batch k-means (Sculley 2010)."""
    from sklearn.cluster import MiniBatchKMeans  # type: ignore[import-untyped]

    _check_enough(descriptors, words, "words")
    found = MiniBatchKMeans(words, batch_size=4096, n_init=1, random_state=seed).fit(descriptors)
    spread = found.inertia_ / len(descriptors)
    return VisualWords(found.cluster_centers_.astype(np.float32), np.array([max(spread, 1e-12)]))


def mix(descriptors: Array, components: int, kept: int, seed: int) -> Mixture:
    """The mixture, on the `kept` principal components of the descriptors."""
    from sklearn.decomposition import PCA  # type: ignore[import-untyped]
    from sklearn.mixture import GaussianMixture  # type: ignore[import-untyped]

    _check_enough(descriptors, components, "words")
    kept = min(kept, *descriptors.shape)
    reduced = PCA(kept, random_state=seed).fit(descriptors)
    found = GaussianMixture(components, covariance_type="diag", random_state=seed, max_iter=50)
    found.fit(reduced.transform(descriptors))
    learned = (found.weights_, found.means_, found.covariances_, reduced.mean_, reduced.components_)
    return Mixture(*(np.ascontiguousarray(array, np.float64) for array in learned))


def _check_enough(descriptors: Array, words: int, name: str) -> None:
    if len(descriptors) < words:
        raise InputError(
            f"{name} is {words}, but there are only {len(descriptors)} local features to learn them from; "
            f"accepted: at most {len(descriptors)} {name}, or more images"
        )
