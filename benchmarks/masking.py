"""Methods that hide features: their overhead beyond the model, their peers, and how far a model call goes.

    python benchmarks/masking.py [--only overhead|peers|errors|cam|chunks] [--samples 200]

`lime` and `captum` are compared where they can be imported. Times are processor time of one thread, in one
process, on the same model and input; each is the best of several.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.masking import Masking
from apportion.methods.designs import Design
from apportion.methods.regression import ridge
from apportion.methods.surrogate import kernel, sizes_of_masks
from apportion.partitions import Patches, Superpixels

SENTENCE = "It is not the worst film of the year , but the slow and muddled plot never quite earns its cast ."

Line = tuple[str, str]


def seconds(run: Callable[[], Any], times: int = 3) -> float:
    found = []
    for _ in range(times):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(30, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 2))
    return layers.eval().requires_grad_(False)


def trees() -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """A random forest on the 30 columns of breast cancer data, and a row of it."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import RandomForestClassifier

    rows, labels = load_breast_cancer(return_X_y=True)
    return RandomForestClassifier(100, random_state=0, n_jobs=1).fit(rows, labels).predict_proba, rows[:1]


def photo() -> tuple[Any, Tensor, Any]:
    from skimage import data

    classifier = ap.load("imagenet")
    inputs, features = classifier.encode(data.chelsea())
    return classifier.model, inputs, features


def text(words: int = 128) -> tuple[nn.Module, Tensor]:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=2, hidden_size=256, num_attention_heads=4, intermediate_size=1024)
    return BertForSequenceClassification(config).eval(), torch.randint(5, 1000, (1, words))


def overhead(samples: int) -> Iterator[Line]:
    """LIME over as many forward passes of the model alone, in the same chunks."""
    model, picture, features = photo()
    bert, ids = text()
    cases: list[tuple[str, Any, Tensor, Any, int]] = [
        (
            f"EfficientNet-Lite0, 224², 50 superpixels, {samples} samples",
            model,
            picture,
            (features,),
            samples,
        ),
        (f"BERT of 2 layers, 128 tokens, {samples} samples", bert, ids, None, samples),
        ("perceptron 30-512-512-2, 30 columns, 1000 samples", perceptron(), torch.randn(1, 30), None, 1000),
    ]
    forest, row = trees()
    rows = row * (np.random.default_rng(0).random((1000, 30)) < 0.5)
    alone = seconds(lambda: forest(rows), 5)
    ours = seconds(lambda: ap.LIME(samples=1000)(forest, row), 5)
    yield "LIME / model alone: forest of 100 trees, 30 columns, 1000 samples", f"{ours / alone:.3f}"
    for name, network, inputs, known, many in cases:
        chunk = Masking(network, inputs).chunk
        parts = torch.ones(many).split(chunk)

        def forwards(network: Any = network, inputs: Tensor = inputs, parts: Any = parts) -> None:
            with torch.no_grad():
                for part in parts:
                    network(inputs.expand(len(part), *inputs.shape[1:]).contiguous())

        def lime(
            network: Any = network, inputs: Tensor = inputs, known: Any = known, many: int = many
        ) -> None:
            ap.LIME(samples=many)(network, inputs, features=known)

        lime()
        times = 3 if many < 1000 else 9
        yield f"LIME / model alone: {name}", f"{seconds(lime, times) / seconds(forwards, times):.3f}"


def peers(samples: int) -> Iterator[Line]:
    """The `lime` package over ours, on models that are quick beside a loop in Python."""
    if importlib.util.find_spec("lime") is None:
        yield "lime / ours", "lime is not here"
        return
    from lime.lime_tabular import LimeTabularExplainer

    network, data = perceptron(), np.random.default_rng(0).normal(size=(1000, 30)).astype(np.float32)

    def probabilities(rows: np.ndarray) -> np.ndarray:
        return network(torch.tensor(rows, dtype=torch.float32)).softmax(1).numpy()

    table = LimeTabularExplainer(data)
    theirs = seconds(
        lambda: table.explain_instance(data[0], probabilities, num_features=30, num_samples=1000)
    )
    ours = seconds(lambda: ap.LIME(samples=1000)(network, torch.from_numpy(data[:1])))
    yield "lime / ours: perceptron, 30 columns, 1000 samples", f"{theirs / ours:.1f}"

    line = nn.Linear(30, 2).requires_grad_(False)
    theirs = seconds(
        lambda: table.explain_instance(
            data[0], lambda rows: line(torch.tensor(rows, dtype=torch.float32)).softmax(1).numpy(), num_features=30,
            num_samples=1000,
        )
    )  # fmt: skip
    ours = seconds(lambda: ap.LIME(samples=1000)(line, torch.from_numpy(data[:1])))
    yield "lime / ours: linear, 30 columns, 1000 samples", f"{theirs / ours:.1f}"
    yield from small_texts()
    yield from small_pictures()


def small_texts() -> Iterator[Line]:
    """A linear model on words: `lime` joins 1000 texts and reads them again, ours masks token ids."""
    from lime.lime_text import LimeTextExplainer

    words = [f"word{i}" for i in np.random.default_rng(0).permutation(128)]
    bag = nn.EmbeddingBag(130, 2, mode="sum").requires_grad_(False)
    index = {word: i + 1 for i, word in enumerate(words)}

    def read(texts: list[str]) -> np.ndarray:
        ids = [[index.get(word, 0) for word in text.split()] for text in texts]
        starts = np.cumsum([0, *map(len, ids[:-1])])
        flat = torch.tensor([i for one in ids for i in one])
        return bag(flat, torch.from_numpy(starts)).softmax(1).numpy()

    explainer, text = LimeTextExplainer(mask_string="mask", bow=False), " ".join(words)
    theirs = seconds(lambda: explainer.explain_instance(text, read, num_features=128, num_samples=1000))
    ids = torch.tensor([[index[word] for word in words]])
    ours = seconds(lambda: ap.LIME(samples=1000)(bag, ids))
    yield "lime / ours: linear on words, 128 words, 1000 samples", f"{theirs / ours:.1f}"


def small_pictures() -> Iterator[Line]:
    """`lime` copies each picture in a loop; two networks, the smaller of which leaves little else to do."""
    from lime.lime_image import LimeImageExplainer

    torch.manual_seed(0)
    tiny = nn.Sequential(
        nn.AvgPool2d(4), nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )  # fmt: skip
    image = np.zeros((28, 28, 3))
    image[6:22, 12:16] = 1.0
    labels = Patches(4)(torch.zeros(1, 1, 28, 28), None)[0, 0]
    pictures = LimeImageExplainer(verbose=False)
    x = torch.tensor(image[..., :1]).permute(2, 0, 1)[None].float()
    for name, network in (("digits", ap.load("digits").model), ("tiny network", tiny)):

        def classes(batch: np.ndarray, network: nn.Module = network) -> np.ndarray:
            with torch.no_grad():
                return network(torch.tensor(batch[..., :1]).permute(0, 3, 1, 2).float()).softmax(1).numpy()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = seconds(
                lambda classes=classes: pictures.explain_instance(
                    image, classes, hide_color=0, num_samples=1000, segmentation_fn=lambda _: labels.numpy(),
                )
            )  # fmt: skip
            ours = seconds(lambda network=network: ap.LIME(samples=1000)(network, x, partition=labels))
        yield f"lime / ours: {name}, 49 patches, 1000 samples", f"{theirs / ours:.1f}"


def errors(samples: int) -> Iterator[Line]:
    """How many plain samples give the standard error that one of ours gives: the ratio of the variances."""
    sentiment, digits = ap.load("sentiment"), ap.load("digits")
    ids, features = sentiment.encode(SENTENCE)
    stroke = torch.zeros(1, 1, 28, 28)
    stroke[:, :, 6:22, 12:16] = 1.0
    model, picture, _ = photo()
    small = torch.nn.functional.interpolate(picture, size=(112, 112), mode="area")
    cases = [
        (
            "sentiment, 21 words",
            Masking(sentiment.model, ids, features=(features,), mask=sentiment.mask),
            "uniform",
        ),
        ("digits, 49 patches", Masking(digits.model, stroke, partition=Patches(4)), "coins"),
        (
            "EfficientNet-Lite0, 112², 50 superpixels",
            Masking(model, small, partition=Superpixels(50)),
            "coins",
        ),
    ]
    for name, masking, sizes in cases:
        many, far = masking.many, kernel(masking.many, "cosine", 0.25)
        mass = sizes_of_masks(many, sizes, 1000) * far  # type: ignore[arg-type]
        plain, ours = [], []
        for seed in range(12):
            rng = np.random.default_rng(seed)
            drawn = rng.random((samples, many)) < 0.5
            if sizes == "uniform":
                drawn = (
                    rng.random((samples, many)).argsort(1).argsort(1)
                    >= rng.integers(1, many + 1, samples)[:, None]
                )
            z = torch.from_numpy(drawn)
            plain.append(ridge(z, masking.values(z), far[z.sum(1)]).coefficients[0])
            design = Design(many, mass, seed)
            z = design.draw(samples)
            ours.append(ridge(z, masking.values(z), design.weights() * samples).coefficients[0])
        ratio = torch.stack(plain).var(0).mean() / torch.stack(ours).var(0).mean()
        yield f"plain samples for one of ours: {name}, {samples} samples", f"{float(ratio):.2f}"


def cam(samples: int) -> Iterator[Line]:
    """Grad-CAM over a plain input gradient."""
    model, picture, _ = photo()

    def gradient() -> None:
        x = picture.clone().requires_grad_()
        torch.autograd.grad(model(x).amax(1).sum(), x)

    def forward() -> None:
        with torch.no_grad():
            model(picture)

    plain = seconds(gradient, 15)
    yield "forward pass / input gradient: EfficientNet-Lite0", f"{seconds(forward, 15) / plain:.2f}"
    yield "Grad-CAM / input gradient", f"{seconds(lambda: ap.GradCAM()(model, picture), 15) / plain:.2f}"
    named = ap.GradCAM(layer="conv_head")
    yield (
        "Grad-CAM, layer named / input gradient",
        f"{seconds(lambda: named(model, picture), 15) / plain:.2f}",
    )
    if importlib.util.find_spec("captum") is not None:
        from captum.attr import LayerGradCam

        theirs = LayerGradCam(model, model.conv_head)
        target = int(model(picture).argmax())
        yield (
            "captum's / input gradient",
            f"{seconds(lambda: theirs.attribute(picture, target), 15) / plain:.2f}",
        )


def chunks(samples: int) -> Iterator[Line]:
    """Milliseconds a row by chunk size: why chunks on a CPU are small."""
    model, picture, _ = photo()
    bert, ids = text()
    digits, stroke = ap.load("digits").model, torch.zeros(1, 1, 28, 28)
    for name, network, x in (
        ("EfficientNet-Lite0", model, picture),
        ("BERT", bert, ids),
        ("digits", digits, stroke),
    ):
        chosen = Masking(network, x).chunk
        for rows in sorted(
            {1, 2, 4, 16, 64, 256, chosen} if name != "EfficientNet-Lite0" else {1, 2, 4, 16, 64, chosen}
        ):
            with torch.no_grad():
                batch = x.expand(rows, *x.shape[1:]).contiguous()
                spent = seconds(lambda network=network, batch=batch: network(batch)) / rows
            mark = " (chosen)" if rows == chosen else ""
            yield f"ms a row: {name}, chunks of {rows}{mark}", f"{1000 * spent:.2f}"


PARTS = {"overhead": overhead, "peers": peers, "errors": errors, "cam": cam, "chunks": chunks}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--samples", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name, part in PARTS.items():
        if given.only in (None, name):
            for what, number in part(given.samples):
                print(f"{what:<75} {number}", flush=True)


if __name__ == "__main__":
    main()
