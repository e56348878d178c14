"""Bag-of-Words classifiers on real photos: how well they classify, and whether their decomposition is true to them.

    python studies/bag_of_words.py DATA [--only accuracy|colour|conservation|flipping|horses]

DATA holds `caltech101_10cls.tar`, `flowers17_192.tar` and `weizmann_horses_256.tar` (in `images/` or directly).
Photos are scaled to a longer side of 192 pixels. Intervals are 95 % bootstrap intervals over images.
"""

from __future__ import annotations

import argparse
import tarfile
import time
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

import apportion as ap
from apportion.engines.masking.partitions import Patches
from apportion.engines.masking.replacements import Blur
from apportion.evaluation.measures.flipping import PixelFlipping
from apportion.evaluation.measures.plausibility import RelevanceMass
from apportion.evaluation.reference_maps import references
from apportion.models.bag_of_words.features import DenseSIFT, PatchStatistics
from apportion.models.bag_of_words.mapping import Fisher
from apportion.results.scores import Scores

LONGER = 192
SIFT = DenseSIFT(patches=(16, 24, 32), step=6)
KERNELS = ("intersection", "linear", "chi2", "exponential-chi2", "rbf", "laplacian")
Photos = list[np.ndarray]


class Remembered:
    """Local features that are measured once for each picture, since many classifiers are trained on the same."""

    def __init__(self, extractor: Any) -> None:
        self.extractor, self.known = extractor, {}

    def __call__(self, picture: np.ndarray) -> Any:
        key = hash(picture.tobytes())
        if key not in self.known:
            found = self.extractor(picture)
            self.known[key] = (found.descriptors.astype(np.uint8), found.boxes.astype(np.int16))
        return self.known[key]

    def __deepcopy__(self, memo: Any) -> Remembered:
        return self


def members(archive: Path) -> Iterator[tuple[tuple[str, ...], Image.Image]]:
    """The pictures of an archive with the parts of their names."""
    with tarfile.open(archive) as tar:
        for member in sorted(tar.getmembers(), key=lambda m: m.name):
            if member.isfile() and member.name.endswith((".jpg", ".png")):
                file = tar.extractfile(member)
                yield Path(member.name).parts, Image.open(BytesIO(file.read()))


def scaled(image: Image.Image) -> np.ndarray:
    mode = "L" if image.mode in "1L" else "RGB"
    image = image.convert(mode)
    factor = LONGER / max(image.size)
    size = tuple(round(side * factor) for side in image.size)
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS if mode == "RGB" else Image.Resampling.BOX))


def caltech(folder: Path) -> dict[str, tuple[Photos, list[str]]]:
    parts: dict[str, tuple[Photos, list[str]]] = {"train": ([], []), "test": ([], [])}
    for names, image in members(folder / "caltech101_10cls.tar"):
        photos, labels = parts[names[-3]]
        photos.append(scaled(image))
        labels.append(names[-2])
    return parts


def precision(bow: ap.BagOfWords, photos: Photos, labels: list[str]) -> tuple[float, float]:
    """Accuracy, and average precision of one class against the rest, averaged over the classes."""
    scores, truth = bow.decision_function(photos), np.array(labels)
    right = bow.classes_[scores.argmax(1)] == truth
    each = [average_precision_score(truth == name, scores[:, i]) for i, name in enumerate(bow.classes_)]
    return float(right.mean()), float(np.mean(each))


def accuracy(folder: Path) -> None:
    data = caltech(folder)
    features = Remembered(SIFT)
    print(f"\nCaltech-101, 10 classes, {len(data['train'][0])} / {len(data['test'][0])} photos, 300 words")
    print(f"{'kernel':18}{'mapping':9}{'pooling':9}{'accuracy':>9}{'mean AP':>9}{'fit, s':>8}")
    rows: list[tuple[str, Any, Any]] = [(kernel, "rank", "sum") for kernel in KERNELS]
    rows += [("intersection", mapping, "sum") for mapping in ("hard", "soft")]
    rows += [("intersection", "rank", 2.0), ("intersection", "rank", "max"), ("linear", Fisher(), "sum")]
    for kernel, mapping, pooling in rows:
        words = 32 if isinstance(mapping, Fisher) else 300
        start = time.perf_counter()
        bow = ap.BagOfWords(
            kernel, words, features=features, mapping=mapping, pooling=pooling, samples=40_000, C=10.0
        ).fit(*data["train"])
        seconds = time.perf_counter() - start
        right, ap_ = precision(bow, *data["test"])
        name = "fisher" if isinstance(mapping, Fisher) else mapping
        print(f"{kernel:18}{name:9}{pooling!s:9}{right:9.1%}{ap_:9.3f}{seconds:8.0f}", flush=True)


def colour(folder: Path) -> None:
    """Several features with a kernel each (eq. 11)."""
    random = np.random.default_rng(0)
    photos: dict[str, list[Any]] = {}
    for names, image in members(folder / "flowers17_192.tar"):
        photos.setdefault(names[-2], []).append(image)
    parts: dict[str, tuple[Photos, list[str]]] = {"train": ([], []), "test": ([], [])}
    for name, images in photos.items():
        order = random.permutation(len(images))
        for part, chosen in (("train", order[:20]), ("test", order[20:30])):
            parts[part][0].extend(scaled(images[i]) for i in chosen)
            parts[part][1].extend([name] * len(chosen))
    print(
        f"\nFlowers, 17 classes, {len(parts['train'][0])} / {len(parts['test'][0])} photos, intersection kernel"
    )
    print(f"{'features':18}{'accuracy':>9}{'mean AP':>9}")
    sift, colours = Remembered(SIFT), PatchStatistics(patches=(12, 24), step=6)
    for name, features in (("sift", sift), ("colour", colours), ("sift + colour", (sift, colours))):
        bow = ap.BagOfWords(features=features, words=200, samples=40_000, C=10.0).fit(*parts["train"])
        right, ap_ = precision(bow, *parts["test"])
        print(f"{name:18}{right:9.1%}{ap_:9.3f}", flush=True)


def conservation(folder: Path) -> None:
    """What Taylor at a root point and the path from that root leave of f(x)."""
    data = caltech(folder)
    features = Remembered(SIFT)
    print(
        "\n|remainder| over |f(x)|, explaining the predicted class of the test photos: median, 90th percentile"
    )
    for kernel in ("exponential-chi2", "rbf", "laplacian"):
        bow = ap.BagOfWords(kernel, features=features, samples=40_000, C=10.0).fit(*data["train"])
        x = torch.as_tensor(bow.transform(data["test"][0]))
        for by in ("taylor", "path"):
            e = ap.KernelDecomposition(by)(bow.machine_, x)
            share = (e.remainder / e.total).abs()
            far = sum("no root" in warning for warning in e.warnings)
            print(
                f"{kernel:18}{by:8}{float(share.median()):10.1e}{float(share.quantile(0.9)):10.1e}"
                f"{'   (some without a root)' if far else ''}",
                flush=True,
            )


def flipping(folder: Path, many: int = 40) -> None:
    """Does hiding what the map calls relevant make the score fall?"""
    data = caltech(folder)
    bow = ap.BagOfWords(features=SIFT, samples=40_000, C=10.0).fit(*data["train"])
    model = bow.classifier()
    photos, labels = data["test"]
    chosen = np.random.default_rng(0).permutation(len(photos))
    test = PixelFlipping(steps=12, partition=Patches(16), replacement=Blur(8.0), of="score")
    found: dict[str, list[float]] = {"decomposition": [], "random": [], "uniform": [], "reversed": []}
    for i in chosen:
        if len(found["random"]) == many:
            break
        inputs, features = model.encode(photos[i])
        e = ap.KernelDecomposition()(bow, inputs).with_features((features,), model.labels)
        if e.label() != labels[i]:
            continue
        for name, explanation in {"decomposition": e, **references(e, seed=int(i))}.items():
            found[name].append(test(bow, inputs, explanation).mean)
    print(f"\nPixel flipping, {many} test photos classified right: {test!r}")
    for name, values in found.items():
        print(Scores(values, f"{name:14}", higher_is_better=True))
    for name in ("random", "uniform"):
        gained = np.subtract(found["decomposition"], found[name]).tolist()
        print(Scores(gained, f"decomposition minus {name}, image by image", higher_is_better=True))


def horses(folder: Path) -> None:
    """Horse or not: how much of the positive relevance lies on the horse, beside the share of its pixels."""
    pictures: dict[str, dict[str, Any]] = {}
    for names, image in members(folder / "weizmann_horses_256.tar"):
        pictures.setdefault(Path(names[-1]).stem, {})[names[-2]] = scaled(image)
    pairs = [pictures[name] for name in sorted(pictures)]
    order = np.random.default_rng(0).permutation(len(pairs))
    train, test = [pairs[i] for i in order[:200]], [pairs[i] for i in order[200:]]
    data = caltech(folder)
    print(f"\nHorse or not: {len(train)} horses and {len(data['train'][0])} photos of ten other things")
    features = Remembered(SIFT)
    settings: dict[str, dict[str, Any]] = {
        "intersection, rank": {},
        "intersection, rank, max": {"pooling": "max"},
        "exponential-chi2, rank": {"kernel": "exponential-chi2"},
        "linear, fisher": {"kernel": "linear", "mapping": Fisher(), "words": 32},
    }
    for name, given in settings.items():
        bow = ap.BagOfWords(features=features, samples=40_000, C=10.0, **given)
        labels = ["horse"] * len(train) + ["other"] * len(data["train"][0])
        bow.fit([pair["image"] for pair in train] + data["train"][0], labels)
        others = bow.decision_function(data["test"][0])
        own = bow.decision_function([pair["image"] for pair in test])
        truth = np.r_[np.ones(len(own)), np.zeros(len(others))]
        ap_ = average_precision_score(truth, -np.r_[own, others])
        mass, area = [], []
        for pair in test:
            inputs, _ = bow.classifier().encode(pair["image"])
            e = ap.KernelDecomposition()(bow, inputs, bow.classes_.tolist().index("horse"))
            inside = torch.as_tensor(pair["mask"] > 127)[None]
            mass.append(RelevanceMass()(e, inside).mean)
            area.append(float(inside.double().mean()))
        print(f"{name}: average precision of horses {ap_:.3f}")
        print("  ", Scores(mass, "positive relevance on the horse", higher_is_better=True))
        print("  ", Scores(area, "share of the pixels", higher_is_better=True))
        print("  ", Scores(np.subtract(mass, area), "difference", higher_is_better=True), flush=True)


if __name__ == "__main__":
    studies = {f.__name__: f for f in (accuracy, colour, conservation, flipping, horses)}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", choices=studies, action="append")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = given.data / "images" if (given.data / "images").is_dir() else given.data
    for name in given.only or studies:
        studies[name](folder)
