"""Methods that hide features: their overhead beyond the model, their peers, and how far a model call goes."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import apportion as ap
import architectures
import peers
from apportion.masking import Masking
from apportion.methods.designs import Design
from apportion.methods.regression import ridge
from apportion.methods.surrogate import kernel, sizes_of_masks
from apportion.partitions import Patches, Superpixels
from gradient import Row, frozen, plain

Amounts = tuple[str, str, dict[str, Callable[[], float]], str]

SENTENCES = (
    "It is not the worst film of the year , but the slow and muddled plot never quite earns its cast .",
    "A warm , funny and moving story that never feels forced , with two actors at the top of their game .",
)


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(30, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 2))
    return frozen(layers)


@cache
def trees() -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """A random forest on the 30 columns of breast cancer data, and a row of it."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import RandomForestClassifier

    rows, labels = load_breast_cancer(return_X_y=True)
    return RandomForestClassifier(100, random_state=0, n_jobs=1).fit(rows, labels).predict_proba, rows[:1]


@cache
def photo() -> tuple[nn.Module, Tensor, Any]:
    """EfficientNet-Lite0 and a picture of a cat."""
    from skimage import data

    classifier = ap.load("imagenet")
    inputs, features = classifier.encode(data.chelsea())
    return frozen(classifier.model), inputs, features


@cache
def text(words: int = 128) -> tuple[nn.Module, Tensor]:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=2, hidden_size=256, num_attention_heads=4, intermediate_size=1024)
    return frozen(BertForSequenceClassification(config)), torch.randint(5, 1000, (1, words))


def stroke() -> Tensor:
    """A digit one."""
    x = torch.zeros(1, 1, 28, 28)
    x[:, :, 6:22, 12:16] = 1.0
    return x


def beside_the_model(name: str, model: nn.Module, x: Tensor, features: Any, samples: int) -> Row:
    """LIME, and as many forward passes of the model alone in the same chunks."""
    rows = x.expand(samples, *x.shape[1:]).contiguous()
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
    yield beside_the_model("perceptron, 30 columns, 1000", perceptron(), torch.randn(1, 30), None, 1000)
    forest, row = trees()
    rows = row * (np.random.default_rng(0).random((1000, 30)) < 0.5)
    lime = ap.LIME(samples=1000)
    runs = {"model alone": lambda: forest(rows), "apportion": lambda: lime(forest, row)}
    yield "forest of 100 trees, 30 columns, 1000", "model alone", runs


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
            "lime": lambda probabilities=probabilities: table.explain_instance(
                data[0], probabilities, num_features=30, num_samples=1000
            ),
        }
        yield f"{name}, 30 columns, 1000", "apportion", runs


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
            "model alone": beside_the_model(name, network, x, None, 1000)[2]["model alone"],
            "lime": theirs,
        }
        yield f"{name}, 49 patches, 1000", "apportion", runs


def cam() -> Iterator[Row]:
    """Grad-CAM over a plain input gradient. Captum is told the layer, ours looks for it, or is told it too."""
    captum = peers.captum()
    efficientnet, picture, _ = photo()
    resnet = frozen(architectures.trained_like(architectures.resnet18()))
    cases = (
        ("EfficientNet-Lite0, 224²", efficientnet, picture, "conv_head"),
        ("ResNet-18, 224²", resnet, architectures.pictures(1), "features.11"),
    )
    for name, model, x, layer in cases:
        theirs = captum.LayerGradCam(model, dict(model.named_modules())[layer])

        def forward(model: nn.Module = model, x: Tensor = x) -> None:
            with torch.no_grad():
                model(x)

        runs = {
            "plain gradient": lambda model=model, x=x: plain(model, x),
            "forward pass alone": forward,
            "apportion": lambda model=model, x=x: ap.GradCAM()(model, x, 0),
            "apportion, layer named": lambda model=model, x=x, la=layer: ap.GradCAM(la)(model, x, 0),
            "captum, layer named": lambda theirs=theirs, x=x: theirs.attribute(x, 0),
        }
        yield name, "plain gradient", runs


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


def _calls(name: str, masking: Masking, sizes: Any, samples: int, seeds: int) -> Amounts:
    many, far = masking.many, kernel(masking.many, "cosine", 0.25)
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

    reference = cache(lambda: variance(plainly))
    runs = {
        "plain": lambda: float(samples),
        "apportion": lambda: samples * variance(ours) / reference(),
        "apportion, paired=False": lambda: samples * variance(lambda s: ours(s, False)) / reference(),
    }
    return name, "plain", runs, "calls"


def chunks() -> Iterator[Amounts]:
    """Microseconds a row by the number of rows that run at once, and the number that is chosen."""
    model, picture, _ = photo()
    bert, ids = text()
    digits = frozen(ap.load("digits").model)
    for name, network, x, most in (
        ("EfficientNet-Lite0", model, picture, 16),
        ("BERT of 2 layers", bert, ids, 64),
        ("digits", digits, stroke(), 1024),
    ):
        chosen = Masking(network, x).chunk
        runs = {
            f"{rows} rows": lambda network=network, x=x, rows=rows: _microseconds(network, x, rows)
            for rows in sorted({2**i for i in range(most.bit_length())} | {chosen})
        }
        yield name, f"{chosen} rows", runs, "µs a row"


def _microseconds(network: nn.Module, x: Tensor, rows: int) -> float:
    batch, found = x.expand(rows, *x.shape[1:]).contiguous(), []
    with torch.no_grad():
        for _ in range(4):
            start = time.perf_counter()
            network(batch)
            found.append(time.perf_counter() - start)
    return 1e6 * min(found) / rows


def freed_memory() -> Iterator[Amounts]:
    """LIME in a process of its own whose C library keeps what a chunk frees, or gives it back at once."""
    for case in ("digits", "EfficientNet-Lite0"):
        runs = {
            name: lambda case=case, keep=keep: _milliseconds(case, keep)
            for name, keep in (("given back", ""), ("kept", "keep"))
        }
        yield case, "given back", runs, "ms"


def _milliseconds(case: str, keep: str) -> float:
    command = [sys.executable, str(Path(__file__)), case, keep]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment).stdout)


def main(case: str, keep: str) -> None:
    from apportion import calling

    if not keep:
        calling.keep_freed_memory = lambda: None
    torch.set_num_threads(1)
    if case == "digits":
        model, x, lime = frozen(ap.load("digits").model), stroke(), ap.LIME(samples=1000)
    else:
        model, x, _ = photo()
        lime = ap.LIME(samples=32, partition=Patches(32))
    found = []
    for _ in range(4):
        start = time.perf_counter()
        lime(model, x)
        found.append(time.perf_counter() - start)
    print(1000 * min(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
