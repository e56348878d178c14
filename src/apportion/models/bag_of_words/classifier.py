"""The Bag-of-Words image classifier, in the manner of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from apportion.core.features import ImageFeatures
from apportion.core.files import path_of
from apportion.core.target import Target
from apportion.errors import InputError
from apportion.models.bag_of_words._bag import Bag
from apportion.models.bag_of_words._learning import (
    learn_machine,
    learn_vocabularies,
    make_plan,
    map_pictures,
    scale_kernels,
    sources_of,
)
from apportion.models.bag_of_words._machine import sum_kernels
from apportion.models.bag_of_words.features import read_picture

if TYPE_CHECKING:
    from apportion.core.classifier import Classifier
    from apportion.results.explanation import Explanation

try:
    from sklearn.base import BaseEstimator, ClassifierMixin  # type: ignore[import-untyped]
    from sklearn.exceptions import NotFittedError  # type: ignore[import-untyped]
except ImportError:
    raise InputError("BagOfWords needs scikit-learn: pip install 'apportion[sift]'") from None

Array = npt.NDArray[Any]


class UnfittedError(InputError, NotFittedError):  # type: ignore[misc]
    """The classifier was asked before `fit`."""


class BagOfWords(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Local features, visual words, pooling and a kernel machine (Bach et al. 2015, eq. 9 to 11).

    Classes are learned one against the rest. Pictures are whatever `read_image` reads: files, PIL images, arrays or
    tensors; grey ones get three equal channels, transparency is composited on white.

    The classifier is itself a model: called with a (batch, 3, height, width) tensor in [0, 1] it returns (batch,
    classes) scores, so that every method which hides features, and every test, can be put to it.

    Args:
        kernel (str or callable, default "intersection"): "intersection", "linear", "chi2", "exponential-chi2", "rbf",
            "laplacian", or any callable (see `kernels`). A tuple of kernels, of features, or of as many of each,
            makes a machine of several kernels (eq. 11).
        words (int, default 300): Visual words of the vocabulary.
        features (str or callable, default "sift"): What is measured of a picture: "sift", "colour", "grey", a
            `DenseSIFT` or `PatchStatistics`, or any callable (see `Extractor`).
        mapping (str or callable, default "rank"): "rank", "hard", "soft" or "fisher", or one with settings.
        pooling (str or float, default "sum"): "sum", "max" or the p of p-means (any p ≥ 1).
        pyramid (sequence of int, default (1,)): Cells a side that are pooled in: (1, 2) for the whole and its
            quarters.
        C (float, default 1.0): C of the SVM. The kernels are scaled to unit variance first, so that 1 is about right
            for all.
        class_weight (str or dict, default "balanced"): Class weights of the SVM.
        kernel_weights (sequence of float, default None): Weights of several kernels; None: equal ones.
        samples (int, default 100_000): Local features, of 300 training images, that the vocabulary is learned from at
            most.
        random_state (int, default 0): Seed of all that is random.

    >>> random = np.random.default_rng(0)
    >>> pictures = [random.integers(0, 255, (40, 40, 3), np.uint8) // (1 + i % 2) for i in range(8)]
    >>> bow = BagOfWords(words=8, features="grey").fit(pictures, ["light", "dark"] * 4)
    >>> bow.predict(pictures[:2]).tolist()
    ['light', 'dark']
    >>> e = bow.explain(pictures[0])
    >>> e.values.shape, e.label(), bool(e.remainder.abs() < 1e-9)
    (torch.Size([1, 3, 40, 40]), 'light', True)
    """

    def __init__(
        self,
        kernel: Any = "intersection",
        words: int = 300,
        *,
        features: Any = "sift",
        mapping: Any = "rank",
        pooling: str | float = "sum",
        pyramid: Sequence[int] = (1,),
        C: float = 1.0,
        class_weight: Any = "balanced",
        kernel_weights: Sequence[float] | None = None,
        samples: int = 100_000,
        random_state: int = 0,
    ) -> None:
        self.kernel = kernel
        self.words = words
        self.features = features
        self.mapping = mapping
        self.pooling = pooling
        self.pyramid = pyramid
        self.C = C
        self.class_weight = class_weight
        self.kernel_weights = kernel_weights
        self.samples = samples
        self.random_state = random_state

    # ---- learning ----

    def fit(self, images: Any, labels: Any) -> BagOfWords:
        """Learn vocabulary and classifier from pictures and one label for each.

        Every picture is read twice at most and none is kept; memory holds `samples` descriptors and one
        vector a picture.
        """
        settings, sources = make_plan(self), sources_of(images)
        classes, which = self._classes(labels, len(sources))
        bagging = learn_vocabularies(settings, sources, self.words, self.samples, self.random_state)
        bags = map_pictures(bagging, sources, "training images")
        first = next(bags)
        x = torch.as_tensor(np.stack([first.vector, *(bag.vector for bag in bags)]))
        parts = scale_kernels(settings, x, first.lengths)
        gram = sum_kernels(parts, x, x)
        self.bagging_, self.classes_ = bagging, classes
        self.machine_ = learn_machine(x, gram, which, parts, self.C, self.class_weight)
        return self

    def _classes(self, labels: Any, images: int) -> tuple[Array, Array]:
        given = np.asarray(labels)
        if given.shape != (images,):
            raise InputError(f"labels have shape {given.shape}; accepted: one for each of {images} images")
        if given.dtype.kind == "f" and not np.isfinite(given).all():
            raise InputError("labels contain NaN or infinite numbers; accepted: names or numbers of classes")
        classes, which = np.unique(given, return_inverse=True)
        if len(classes) < 2:
            raise InputError(f"labels name {len(classes)} class; accepted: at least 2 classes")
        return classes, which

    # ---- deciding ----

    def transform(self, images: Any) -> Array:
        """The (images, dimensions) vectors that the kernels see."""
        self._check_fitted()
        bags = map_pictures(self.bagging_, sources_of(images), "images")
        return np.stack([bag.vector for bag in bags])

    def decision_function(self, images: Any) -> Array:
        """(images, classes) scores; for two classes (images,), positive for the second."""
        vectors = torch.as_tensor(self.transform(images))
        scores: Array = self.machine_(vectors).numpy()
        return scores[:, 1] if len(self.classes_) == 2 else scores

    def predict(self, images: Any) -> Array:
        """The class of each picture."""
        scores = self.decision_function(images)
        found: Array = self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]
        return found

    def __call__(self, x: Tensor) -> Tensor:
        """The (batch, classes) scores of a (batch, 3, height, width) tensor in [0, 1].

        A picture without any local feature, such as one of which all is hidden, has an empty bag here: zeros.
        """
        bags = self.bags(x, empty=True)
        vectors = torch.as_tensor(np.stack([bag.vector for bag in bags]))
        return self.machine_(vectors).to(x.device)

    def bags(self, x: Tensor, empty: bool = False) -> list[Bag]:
        """The bag of each picture of a (batch, 3, height, width) tensor in [0, 1].

        Numbers a little beyond are clipped, as replacements of hidden pixels may have them. With `empty`,
        pictures without local features are taken.
        """
        self._check_fitted()
        if not isinstance(x, Tensor) or x.dim() != 4 or x.shape[1] != 3 or not x.is_floating_point():
            got = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise InputError(
                f"inputs are {got}; accepted: a floating point tensor (batch, 3, height, width) in [0, 1]; for "
                "files and arrays: explain, predict"
            )
        x = x.detach()
        if not bool(torch.isfinite(x).all()):
            raise InputError("inputs contain NaN or infinite numbers")
        if x.numel() and (float(x.min()) < -1 or float(x.max()) > 2):
            raise InputError(
                f"inputs have values from {float(x.min()):g} to {float(x.max()):g}; accepted: [0, 1]"
            )
        pictures = (x.clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1).cpu().numpy()
        return [self.bagging_(picture, empty) for picture in pictures]

    # ---- explaining ----

    def explain(self, image: Any, target: Target | str = None, method: Any = None) -> Explanation:
        """Why a picture has the score it has: an Explanation over its pixels.

        `target` is a class by name or number (default: the predicted one). `method` is a
        `KernelDecomposition` (default) or any method that hides features.
        """
        from apportion.methods.explain import explain
        from apportion.models.bag_of_words.kernel_decomposition import KernelDecomposition

        used = KernelDecomposition() if method is None else method
        found: Explanation = explain(self.classifier(), image, used, target)
        return found

    def classifier(self, name: str = "bag-of-words") -> Classifier:
        """With its preparation of pictures and its class names, for `ap.explain` and the command line."""
        from apportion.core.classifier import Classifier

        self._check_fitted()
        return Classifier(self, encode, tuple(map(str, self.classes_)), "image", name)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file with a JSON header (no pickle); it appears whole or not at all."""
        from apportion.models.bag_of_words._saving import save

        self._check_fitted()
        return save(self, path_of("path", path))

    @classmethod
    def load(cls, path: str | Path, **own: Any) -> BagOfWords:
        """Read what `save` wrote. Callables of the user's own are not in the file: `kernel=`, `features=` and
        `mapping=` give them again."""
        from apportion.models.bag_of_words._saving import load

        made: BagOfWords = load(cls, path_of("path", path), own)
        return made

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise UnfittedError(
                "this BagOfWords is not fitted; call fit(images, labels), or BagOfWords.load(path)"
            )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "machine_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


def encode(source: Any) -> tuple[Tensor, ImageFeatures]:
    """A picture as the (1, 3, height, width) tensor in [0, 1] that a `BagOfWords` takes, unscaled."""
    picture = torch.from_numpy(read_picture(source).copy())
    name = Path(source).name if isinstance(source, str | Path) else "picture"
    height, width = picture.shape[:2]
    return picture.movedim(-1, 0)[None] / 255, ImageFeatures(picture, f"{name} {width}x{height}")
