"""Bag-of-Words classifiers on pictures of 300 × 200 pixels: features, decision, decomposition, learning."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from PIL import Image

import apportion as ap
from apportion.models.bag_of_words._bag import Bagging

Row = tuple[str, str, dict[str, Callable[[], object]]]
Amounts = tuple[str, str, dict[str, Callable[[], float]], str]


def photo(seed: int, height: int = 200, width: int = 300) -> np.ndarray:
    """Structure at several scales in colour, so that no patch is without contrast; rougher for odd seeds."""
    random = np.random.default_rng(seed)
    layers = []
    for cell in (40, 12, 4 + 3 * (seed % 2)):
        small = random.integers(0, 255, (height // cell + 2, width // cell + 2, 3), np.uint8)
        layers.append(
            np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), float)
        )
    return np.mean(layers, 0).round().astype(np.uint8)


@cache
def trained(kernel: str) -> ap.BagOfWords:
    pictures = [photo(seed) for seed in range(60)]
    return ap.BagOfWords(kernel, samples=30_000).fit(pictures, np.arange(60) % 2)


def steps() -> Iterator[Row]:
    """Dense SIFT at three scales and the mapping to 300 words."""
    bagging: Bagging = trained("intersection").bagging_
    picture = photo(1000)
    found = bagging.extractors[0](picture)
    what = f"300 × 200, {len(found.descriptors)} SIFT, 300 words"
    runs: dict[str, Callable[[], object]] = {
        "features, mapping, pooling": lambda: bagging(picture),
        "features alone": lambda: bagging.extractors[0](picture),
        "mapping alone": lambda: bagging.mapping(found.descriptors, bagging.vocabularies[0]),
    }
    yield what, "features, mapping, pooling", runs


def decomposition() -> Iterator[Row]:
    """From pixels to the score and back, over the score alone."""
    for kernel in ("intersection", "exponential-chi2"):
        bow = trained(kernel)
        inputs, _ = bow.classifier().encode(photo(1000))
        runs: dict[str, Callable[[], object]] = {"prediction": lambda bow=bow, x=inputs: bow(x)}
        for by in ("sum",) if kernel == "intersection" else ("path", "taylor"):
            method = ap.KernelDecomposition(by)
            runs[f"prediction and pixels, by {by}"] = lambda m=method, bow=bow, x=inputs: m(bow, x)
        yield kernel, "prediction", runs


def learning(images: int = 1000) -> Iterator[Amounts]:
    """Learning from 1000 pictures, and the memory that it takes at most."""
    pictures = [photo(seed) for seed in range(images)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter(), time.process_time()
    ap.BagOfWords().fit(pictures, np.arange(images) % 2)
    seconds, processor = time.perf_counter() - start[0], time.process_time() - start[1]
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    yield (
        f"{images} pictures",
        "seconds",
        {"seconds": lambda: seconds, "of a processor": lambda: processor},
        "s ",
    )
    yield f"{images} pictures", "memory", {"memory": lambda: more}, "MiB"
