"""Methods that hide features: their overhead beyond the model, their peers, and how far a model call goes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import Patches, Superpixels
from apportion.methods.hiding._coalitions import Design
from apportion.methods.hiding._regression import ridge
from apportion.methods.hiding.lime import Distance, Sizes, kernel, sizes_of_masks
from gradient import Row, frozen
from subjects import perceptron, photo, stroke, text, trees

Amounts = tuple[str, str, dict[str, Callable[[], float]], str]

SENTENCES = (
    "It is not the worst film of the year , but the slow and muddled plot never quite earns its cast .",
    "A warm , funny and moving story that never feels forced , with two actors at the top of their game .",
)


def beside_the_model(name: str, model: nn.Module, x: Tensor, features: Any, samples: int) -> Row:
    """LIME, and as many forward passes of the model alone in the same chunks."""
    rows = x.repeat_interleave(samples, 0)
    parts = rows.split(Masking(model, x).chunk)

    def alone() -> None:
        with torch.no_grad():
            for part in parts:
                model(part)

    lime = ap.LIME(samples=samples)
    return name, "model alone", {"model alone": alone, "apportion": lambda: lime(model, x, features=features)}


def overhead() -> Iterator[Row]:
    model, picture, features = photo()
    yield beside_the_model("EfficientNet-Lite0, 50 superpixels, 500", model, picture, (features,), 500)
    bert, ids = text()
    yield beside_the_model("BERT of 2 layers, 128 tokens, 1000", bert, ids, None, 1000)
    yield from tables()


def tables() -> Iterator[Row]:
    lime, shap = ap.LIME(samples=1000), ap.KernelSHAP(samples=1000)
    for many in (1, 16):
        row = f"perceptron, {many} × 30 columns, 1000"
        model, x = perceptron(), torch.randn(many, 30)
        name, alone, runs = beside_the_model(row, model, x, None, 1000)
        yield name, alone, {**runs, "apportion KernelSHAP": lambda model=model, x=x: shap(model, x)}
    forest, data = trees()
    for many in (1, 16):
        rows = data[:many]
        masked = rows.repeat(1000, 0) * (np.random.default_rng(0).random((1000 * many, 30)) < 0.5)

        def alone(masked: np.ndarray = masked) -> None:
            forest(masked)

        runs = {
            "model alone": alone,
            "apportion": lambda rows=rows: lime(forest, rows),
            "apportion KernelSHAP": lambda rows=rows: shap(forest, rows),
        }
        yield f"forest, {many} × 30 columns, 1000", "model alone", runs


def small_models() -> Iterator[Row]:
    """Models that leave little else to do than to draw, mask and fit."""
    yield from small_tables()
    yield from small_texts()
    yield from small_pictures()


def small_tables() -> Iterator[Row]:
    from lime.lime_tabular import LimeTabularExplainer

    data = np.random.default_rng(0).normal(size=(1000, 30)).astype(np.float32)
    table, row, lime = LimeTabularExplainer(data), torch.from_numpy(data[:1]), ap.LIME(samples=1000)
    for name, network in (("perceptron", perceptron()), ("linear", frozen(nn.Linear(30, 2)))):

        def probabilities(rows: np.ndarray, network: nn.Module = network) -> np.ndarray:
            return network(torch.tensor(rows, dtype=torch.float32)).softmax(1).numpy()

        runs = {
            "apportion": lambda network=network: lime(network, row),
            **({} if name == "linear" else as_exact(Masking(network, row), "euclidean", 0.75 * 30**0.5)),
            "lime": lambda probabilities=probabilities: table.explain_instance(
                data[0], probabilities, num_features=30, num_samples=1000
            ),
        }
        yield f"{name}, 30 columns, 1000", "apportion", runs


def as_exact(masking: Masking, distance: Distance, width: float) -> dict[str, Callable[[], object]]:
    """LIME with as many samples as have the standard error of 1000 plain ones."""
    far = kernel(masking.many, distance, width)
    enough = max(2 * masking.many, round(equal_errors(masking, "coins", far, 1000, 20)[0]))
    lime = ap.LIME(samples=enough, partition=masking.parts[0].labels)
    return {f"apportion, {enough} samples": lambda: lime(masking.model, masking.inputs)}


def small_texts() -> Iterator[Row]:
    """A linear model on words: `lime` joins 1000 texts and reads them again, ours masks token ids."""
    from lime.lime_text import LimeTextExplainer

    words = [f"word{i}" for i in np.random.default_rng(0).permutation(128)]
    bag = frozen(nn.EmbeddingBag(130, 2, mode="sum"))
    index = {word: i + 1 for i, word in enumerate(words)}

    def read(texts: list[str]) -> np.ndarray:
        ids = [[index.get(word, 0) for word in text.split()] for text in texts]
        starts = np.cumsum([0, *map(len, ids[:-1])])
        flat = torch.tensor([i for one in ids for i in one])
        return bag(flat, torch.from_numpy(starts)).softmax(1).numpy()

    explainer, line = LimeTextExplainer(mask_string="mask", bow=False), " ".join(words)
    ids, lime = torch.tensor([[index[word] for word in words]]), ap.LIME(samples=1000)
    runs = {
        "apportion": lambda: lime(bag, ids),
        "lime": lambda: explainer.explain_instance(line, read, num_features=128, num_samples=1000),
    }
    yield "linear on words, 128 words, 1000", "apportion", runs


def small_pictures() -> Iterator[Row]:
    """The digits' network, which is most of the work for both, and one that leaves little else to do."""
    from lime.lime_image import LimeImageExplainer

    torch.manual_seed(0)
    tiny = nn.Sequential(
        nn.AvgPool2d(4), nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )  # fmt: skip
    x, pictures = stroke(), LimeImageExplainer(verbose=False)
    image = x[0].permute(1, 2, 0).expand(-1, -1, 3).double().numpy()
    labels = Patches(4)(x, None)[0, 0]
    lime = ap.LIME(samples=1000, partition=labels)
    for name, network in (("digits", frozen(ap.load("digits").model)), ("tiny network", frozen(tiny))):

        def classes(batch: np.ndarray, network: nn.Module = network) -> np.ndarray:
            with torch.no_grad():
                return network(torch.tensor(batch[..., :1]).permute(0, 3, 1, 2).float()).softmax(1).numpy()

        def theirs(classes: Callable[[np.ndarray], np.ndarray] = classes) -> None:
            with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
                pictures.explain_instance(
                    image, classes, hide_color=0, num_samples=1000, segmentation_fn=lambda _: labels.numpy()
                )

        runs = {
            "apportion": lambda network=network: lime(network, x),
            **as_exact(Masking(network, x, partition=labels), "cosine", 0.25),
            "model alone": beside_the_model(name, network, x, None, 1000)[2]["model alone"],
            "lime": theirs,
        }
        yield f"{name}, 49 patches, 1000", "apportion", runs


def errors(samples: int = 1000, seeds: int = 20) -> Iterator[Amounts]:
    """Model calls for the standard error that plain sampling, as `lime` has it, reaches with 1000."""
    sentiment, digits = ap.load("sentiment"), ap.load("digits")
    for sentence in SENTENCES:
        ids, features = sentiment.encode(sentence)
        masking = Masking(sentiment.model, ids, features=(features,), mask=sentiment.mask)
        yield _calls(f"sentence, {masking.many} words", masking, "uniform", samples, seeds)
    masking = Masking(digits.model, stroke(), partition=Patches(4))
    yield _calls("digits, 49 patches", masking, "coins", samples, seeds)
    model, picture, _ = photo()
    small = torch.nn.functional.interpolate(picture, size=(112, 112), mode="area")
    masking = Masking(model, small, partition=Superpixels(50))
    yield _calls("EfficientNet-Lite0, 112²", masking, "coins", samples, seeds)


def _calls(name: str, masking: Masking, sizes: Sizes, samples: int, seeds: int) -> Amounts:
    far = kernel(masking.many, "cosine", 0.25)
    found = cache(lambda: equal_errors(masking, sizes, far, samples, seeds))
    runs = {
        "plain": lambda: float(samples),
        "apportion": lambda: found()[0],
        "apportion, paired=False": lambda: found()[1],
    }
    return name, "plain", runs, "calls"


def equal_errors(
    masking: Masking, sizes: Sizes, far: np.ndarray, samples: int, seeds: int
) -> tuple[float, float]:
    """How many of our samples, in pairs and not, give the standard error over seeds of so many plain ones, whose
    weights `far` are by how many features they keep."""
    many = masking.many
    mass = sizes_of_masks(many, sizes, samples) * far

    def scores(masks: np.ndarray) -> np.ndarray:
        return masking.values(torch.from_numpy(masks)).double().numpy()

    def plainly(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        drawn = rng.random((samples, many)) < 0.5
        if sizes == "uniform":
            hidden = rng.integers(1, many + 1, samples)[:, None]
            drawn = rng.random((samples, many)).argsort(1).argsort(1) >= hidden
        return ridge(drawn, scores(drawn), far[drawn.sum(1)]).coefficients[0]

    def ours(seed: int, paired: bool = True) -> np.ndarray:
        design = Design(many, mass, seed, paired)
        masks = design.draw(samples)
        return ridge(masks, scores(masks), design.weights() * samples).coefficients[0]

    def variance(fit: Callable[[int], np.ndarray]) -> float:
        return float(np.stack([fit(seed) for seed in range(seeds)]).var(0, ddof=1).mean())

    plain = variance(plainly) / samples
    return variance(ours) / plain, variance(lambda seed: ours(seed, paired=False)) / plain
