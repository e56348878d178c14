"""Do explanations of trained models add up, and are they faithful? Every method on every kind of model.

    python studies/pretrained.py DATA OUT [--models imagenet,sentiment,…] [--many 50]

DATA holds the photos, texts and tables that the functions below name; OUT gets one JSON Lines file a model, which a
second run goes on with, and `tables.md`. A model whose files are not there is left out with a word.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import re
import tarfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pretrained_peers
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.core.classifier import Classifier
from apportion.core.features import TextFeatures
from apportion.domains.image import ImagePreparation
from apportion.domains.tabular import TabularPreparation
from apportion.errors import InputError
from apportion.evaluation.case import Case
from apportion.evaluation.reference_maps import RandomMap

Map = Callable[[Case], Any]


class Bench(NamedTuple):
    """A model, its samples as (name, raw), and how a map is tested."""

    classifier: Classifier
    samples: Iterator[tuple[str, Any]]
    test: Any
    methods: Mapping[str, Any]
    default: str  # what the others are compared with
    slow: tuple[str, ...] = ()  # methods that only some samples are explained by, as by other packages


# ---- the models and their data ----

SEED = 0
FLIPPING = {
    "image": ap.PixelFlipping("symmetric", partition=ap.Patches(16), replacement=ap.Mean()),
    "text": ap.PixelFlipping("symmetric", of="score"),
    "tabular": ap.PixelFlipping("symmetric", of="score"),
}
# Half the steps for the models with the largest samples.
IN_TEN_STEPS = {kind: replace(test, steps=10) for kind, test in FLIPPING.items()}
ON_PHOTOS: dict[str, Any] = {
    "lrp": ap.LRP(),
    "lrp, biases placed": ap.LRP(bias="place"),
    "lrp γ": ap.LRP("epsilon-gamma-box"),
    "lrp γ, biases placed": ap.LRP("epsilon-gamma-box", bias="place"),
    "deeplift": ap.DeepLIFT(),
    "ig (16 nodes)": ap.IntegratedGradients(nodes=16),
    "input × gradient": ap.InputXGradient(),
    "grad-cam": ap.GradCAM(),
    "occlusion": ap.Occlusion(partition=ap.Patches(16)),
    "kernel shap (300 masks)": ap.KernelSHAP(partition=ap.Patches(32), samples=300),
}
SLOW_ON_PHOTOS = ("ig (16 nodes)", "occlusion", "kernel shap (300 masks)")
ON_TEXTS: dict[str, Any] = {
    "lrp": ap.LRP(),
    "lrp, biases placed": ap.LRP(bias="place"),
    "lrp, attention constant": ap.LRP(ap.Composite(softmax="constant")),
    "lrp, softmax by difference, placed": ap.LRP(ap.Composite(softmax="difference", bias="place")),
    "deeplift, from mask": ap.DeepLIFT("mask"),
    "deeplift, from zero": ap.DeepLIFT("zero"),
    "ig (32 nodes)": ap.IntegratedGradients(nodes=32),
    "input × gradient": ap.InputXGradient(),
    "occlusion": ap.Occlusion(),
    "kernel shap (128 masks)": ap.KernelSHAP(samples=128),
}
ON_ROWS: dict[str, Any] = {
    "lrp": ap.LRP(),
    "lrp, biases placed": ap.LRP(bias="place"),
    "deeplift": ap.DeepLIFT(),
    "ig (16 nodes)": ap.IntegratedGradients(nodes=16),
    "input × gradient": ap.InputXGradient(),
    "occlusion": ap.Occlusion(),
    "kernel shap": ap.KernelSHAP(),
}


def shuffled(items: list[Any]) -> list[Any]:
    return [items[i] for i in np.random.default_rng(SEED).permutation(len(items))]


def photos(data: Path) -> Iterator[tuple[str, np.ndarray]]:
    from PIL import Image

    with tarfile.open(next(data.rglob("imagenet_samples_300.tar"))) as archive:
        for name in shuffled(sorted(archive.getnames())):
            held = archive.extractfile(name)
            if held is not None:
                yield name, np.asarray(Image.open(io.BytesIO(held.read())).convert("RGB"))


def sentences(data: Path) -> Iterator[tuple[str, str]]:
    """The binary test sentences of the Stanford Sentiment Treebank, put together from its trees."""
    with gzip.open(next(data.rglob("sst_trees_test.txt.gz")), "rt", encoding="utf-8") as file:
        trees = [line for line in file if not line.startswith("(2")]
    for number in shuffled(list(range(len(trees)))):
        words = re.findall(r" ([^()\s]+)\)", trees[number])
        text = " ".join(words).replace("-LRB-", "(").replace("-RRB-", ")").replace("\\/", "/")
        yield f"sentence {number}", text


def imagenet(data: Path) -> Bench:
    return Bench(
        ap.load("imagenet"),
        photos(data),
        IN_TEN_STEPS["image"],
        ON_PHOTOS,
        "lrp, biases placed",
        SLOW_ON_PHOTOS,
    )


class Fire(nn.Module):
    def __init__(self, before: int, squeezed: int, wide: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, wide, 1)
        self.expand3x3 = nn.Conv2d(squeezed, wide, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)


def squeezenet(data: Path) -> Bench:
    """SqueezeNet 1.0 (Iandola et al. 2016)."""

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    fires = [Fire(*sizes) for sizes in (
        (96, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128),
        (256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256),
    )]  # fmt: skip
    features = nn.Sequential(
        nn.Conv2d(3, 96, 7, 2), nn.ReLU(), pool(), *fires[:3], pool(), *fires[3:7], pool(), fires[7]
    )
    head = nn.Sequential(nn.Identity(), nn.Conv2d(512, 1000, 1, padding=1), nn.ReLU())
    stored = {
        k: torch.from_numpy(v) for k, v in np.load(next(data.rglob("squeezenet1_0_imagenet.npz"))).items()
    }
    parts = nn.ModuleDict({"features": features, "classifier": head})
    parts.load_state_dict(stored)
    model = nn.Sequential(features, head, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().requires_grad_(False)
    preparation = ImagePreparation(
        resize=256, crop=227, mean=(123.0, 117.0, 104.0), std=(1.0,) * 3, scale=1.0, interpolation="bilinear"
    )
    labels = ap.load("imagenet").labels
    classifier = Classifier(model, preparation, labels, "image", "squeezenet")
    return Bench(
        classifier, photos(data), IN_TEN_STEPS["image"], ON_PHOTOS, "lrp, biases placed", SLOW_ON_PHOTOS
    )


def sentiment(data: Path) -> Bench:
    return Bench(ap.load("sentiment"), sentences(data), IN_TEN_STEPS["text"], ON_TEXTS, "deeplift, from mask")


def sentiment_transformer(data: Path) -> Bench:
    classifier = ap.load("sentiment-transformer")
    methods = {name: how for name, how in ON_TEXTS.items() if not name.startswith("kernel shap")}
    methods["kernel shap (512 masks)"] = ap.KernelSHAP(samples=512)
    return Bench(classifier, sentences(data), FLIPPING["text"], methods, "kernel shap (512 masks)")


def breast_cancer(_: Path) -> Bench:
    """The rows that `training/train_breast_cancer.py` did not train on."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    data = load_breast_cancer()
    every = np.arange(len(data.data))
    _, held_out = train_test_split(every, test_size=0.2, stratify=data.target, random_state=SEED)
    each = ((f"row {i}", data.data[i].tolist()) for i in held_out)
    return Bench(ap.load("breast-cancer"), each, FLIPPING["tabular"], ON_ROWS, "deeplift")


def adult(data: Path) -> Bench:
    """A network trained here on three quarters of the rows of Adult; the samples are of the fourth."""
    import pandas as pd

    from apportion.models.shipped.breast_cancer import MLP

    names = "age work weight education years marital job family race sex gain loss hours country".split()
    with gzip.open(next(data.rglob("adult.csv.gz")), "rt") as file:
        rows = [line for line in csv.reader(file, skipinitialspace=True) if len(line) == 15]
    order = shuffled(rows)
    cut = 3 * len(order) // 4
    preparation = TabularPreparation.fit(pd.DataFrame([row[:14] for row in order[:cut]], columns=names))
    encoded = [preparation(dict(zip(names, row, strict=False)))[0] for row in order]
    x, y = torch.cat(encoded), torch.tensor([">50K" in row[14] for row in order]).long()
    torch.manual_seed(SEED)
    model = MLP(x.shape[1], (64, 32), 2)
    learner = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(8):
        for part in torch.randperm(cut).split(128):
            learner.zero_grad()
            nn.functional.cross_entropy(model(x[part]), y[part]).backward()
            learner.step()
    model.eval().requires_grad_(False)
    right = (model(x[cut:]).argmax(1) == y[cut:]).double().mean()
    print(f"adult: accuracy {right:.3f} on {len(order) - cut} rows")
    classifier = Classifier(model, preparation, ("<=50K", ">50K"), "tabular", "adult")
    each = ((f"row {cut + i}", dict(zip(names, row, strict=False))) for i, row in enumerate(order[cut:]))
    return Bench(classifier, each, FLIPPING["tabular"], ON_ROWS, "deeplift")


PROMPTS = """The capital of France is
The opposite of hot is
Water freezes at a temperature of zero degrees
The sun rises in the
Shakespeare wrote the play Romeo and
My dog likes to chase the
The first president of the United States was George
Roses are red, violets are
She went to the bakery to buy some fresh
The largest planet in the solar system is
Two plus two equals
The Eiffel Tower is in the city of
He poured himself a cup of hot
The color of the sky on a clear day is
In winter the lake is covered with
The chemical symbol for water is
Albert Einstein developed the theory of
The cat sat on the
To be, or not to be, that is the
The Great Wall of
A week has seven
Bees make
The doctor told the patient to take the
The teacher wrote the answer on the
Once upon a
The currency of Japan is the
Neil Armstrong was the first man to walk on the
The heart pumps blood through the
An apple a day keeps the doctor
The Pacific Ocean is the largest ocean in the
Mozart was a famous composer who played the
The opposite of left is
We watched the sunset over the
The train leaves from the central
After the rain there was a beautiful
My mother's sister is my
The judge sentenced him to five years in
Please turn off the lights before you leave the
Photosynthesis turns sunlight into
The baby started to cry because she was
The Amazon is the largest rain
A triangle has three
The king and the
He forgot his umbrella and got very
Spring comes after
The recipe needs flour, butter, sugar and
They climbed to the top of the
The book was written by the famous
Gold is a precious
Ladies and""".splitlines()


class NextToken(nn.Module):
    """The scores of the next token after a prompt."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        scores: Tensor = self.model(input_ids, use_cache=False, logits_to_keep=1).logits[:, -1]
        return scores


def smollm2(data: Path) -> Bench:
    """SmolLM2-135M-Instruct (Allal et al. 2025) from a folder `smollm2` of safetensors in DATA."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = next(path for path in data.rglob("smollm2") if path.is_dir())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = NextToken(AutoModelForCausalLM.from_pretrained(folder)).eval().requires_grad_(False)

    def encode(text: str) -> tuple[Tensor, TextFeatures]:
        made = tokenizer(text, return_offsets_mapping=True)
        ids, offsets = made["input_ids"], [tuple(pair) for pair in made["offset_mapping"]]
        tokens = tuple(text[a:b].strip() for a, b in offsets)
        return torch.tensor([ids]), TextFeatures(text, tokens, tuple(offsets), tuple(range(len(ids))))

    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    classifier = Classifier(model, encode, (), "text", "smollm2", mask=pad)
    methods = {
        **ON_TEXTS,
        "deeplift, from mean": ap.DeepLIFT("mean"),
        "ig (to 1 %)": ap.IntegratedGradients(),
    }
    slow = ("ig (32 nodes)", "ig (to 1 %)")
    return Bench(
        classifier,
        ((text, text) for text in PROMPTS),
        FLIPPING["text"],
        methods,
        "kernel shap (128 masks)",
        slow,
    )


MODELS: dict[str, Callable[[Path], Bench]] = {
    "imagenet": imagenet,
    "squeezenet": squeezenet,
    "sentiment": sentiment,
    "sentiment-transformer": sentiment_transformer,
    "breast-cancer": breast_cancer,
    "adult": adult,
    "smollm2": smollm2,
}

PEERS = {
    "imagenet": pretrained_peers.of_photos,
    "squeezenet": pretrained_peers.of_squeezenet,
    "breast-cancer": pretrained_peers.of_rows,
    "adult": pretrained_peers.of_rows,
    "smollm2": pretrained_peers.of_language_models,
}

# ---- measuring ----


def measured(bench: Bench, raw: Any, methods: Mapping[str, Any]) -> dict[str, Any]:
    """Of one sample, for each method: the share of the total that is not apportioned, the test, the passes."""
    case = Case(bench.classifier, raw)
    case.target = case.masking(bench.test.partition, bench.test.replacement).resolved
    row: dict[str, Any] = {}
    for method, how in methods.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made, total = (case.explain(how), None) if is_dataclass(how) else how(case)
                score = float(case.score(bench.test, made).values[0])
        except Exception as error:  # of peers, and of what a method cannot explain
            if is_dataclass(how) and not isinstance(error, InputError):
                raise
            row[method] = {"refused": str(error)}
            continue
        found = row[method] = {"score": score}
        if total is not None:
            found["share"] = abs(1 - float(made.detach().double().sum() / total))
        elif isinstance(made, ap.Explanation):
            if made.total is not None:
                found["share"] = abs(float(made.remainder / made.total))
            found["passes"] = [made.cost.forwards, made.cost.backwards]
    return row


def found_before(bench: Bench, file: Path) -> dict[str, dict[str, Any]]:
    """What a file has of each sample by this test: a line, {"sample", "test", "methods"}, is of one run."""
    found: dict[str, dict[str, Any]] = {}
    for line in map(json.loads, file.read_text().splitlines() if file.exists() else ()):
        if line["test"] == repr(bench.test):
            found.setdefault(line["sample"], {}).update(line["methods"])
    return found


def run(bench: Bench, many: int, few: int, file: Path) -> list[dict[str, Any]]:
    """Measure so many samples, by each method that the file does not have for them with this test."""
    done, rows = found_before(bench, file), []
    with file.open("a") as out:
        for name, raw in islice(bench.samples, many):
            row = done.setdefault(name, {})
            todo = {
                method: how
                for method, how in bench.methods.items()
                if method not in row and (len(rows) < few or (is_dataclass(how) and method not in bench.slow))
            }
            if todo:
                row.update(found := measured(bench, raw, todo))
                out.write(json.dumps({"sample": name, "test": repr(bench.test), "methods": found}) + "\n")
                out.flush()
            rows.append({method: row[method] for method in bench.methods if method in row})
    return rows


# ---- tables ----


def table(model: str, bench: Bench, rows: list[dict[str, Any]]) -> str:
    """One line a method: how much is left, how faithful, how many passes."""
    lines = [
        f"### {model}, {len(rows)} samples\n",
        f"`{bench.test!r}`, more is better.\n",
        "| method | left over: median | 95th percentile | test, mean [95 %] | minus the default's, paired | passes |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in dict.fromkeys(name for row in rows for name in row):
        found = [row[name] for row in rows if "score" in row.get(name, {})]
        few = f" ({len(found)} samples)" if len(found) < len(rows) else ""
        if not found:
            why = next(row[name]["refused"] for row in rows if name in row)
            lines.append(f"| {name} | refused: {why:.80} | | | | |")
            continue
        shares = [one["share"] for one in found if "share" in one]
        left = [f"{100 * q:.2f} %" for q in np.quantile(shares, (0.5, 0.95))] if shares else ["–", "–"]
        scores = ap.Scores(torch.tensor([one["score"] for one in found]), name, True)
        low, high = scores.interval()
        pairs = [(row[name], row[bench.default]) for row in rows if "score" in row.get(name, {})]
        apart = ap.Scores(torch.tensor([a["score"] - b["score"] for a, b in pairs]), name, True)
        less, more = apart.interval()
        beside = "–" if name == bench.default else f"{apart.mean:+.3f} [{less:+.3f}, {more:+.3f}]"
        passes = [one["passes"] for one in found if "passes" in one]
        took = " + ".join(f"{np.median(part):.0f}" for part in zip(*passes, strict=True)) if passes else "–"
        lines.append(
            f"| {name}{few} | {left[0]} | {left[1]} | {scores.mean:.3f} [{low:.3f}, {high:.3f}] | {beside} | {took} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--many", type=int, default=50)
    parser.add_argument("--few", type=int, default=16, help="samples for slow methods and other packages")
    parser.add_argument(
        "--without", default="", help="methods to leave out, such as slow ones, by semicolons"
    )
    parser.add_argument("--made", action="store_true", help="only make tables of what OUT has")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    tables = []
    for name in given.models.split(","):
        try:
            bench = MODELS[name](given.data)
        except (InputError, StopIteration) as error:
            print(f"{name} is left out: {error or 'its files are not in ' + str(given.data)}")
            continue
        left_out = given.without.split(";")
        peers = PEERS[name]() if given.few and name in PEERS else {}
        methods = {**bench.methods, **peers, "random": RandomMap(SEED)}
        bench = bench._replace(methods={n: how for n, how in methods.items() if n not in left_out})
        file = given.out / f"{name}.jsonl"
        made = [
            {method: row[method] for method in bench.methods if method in row}
            for row in found_before(bench, file).values()
        ]
        rows = made if given.made else run(bench, given.many, given.few, file)
        if rows:
            tables.append(table(name, bench, rows))
            print(tables[-1], flush=True)
    (given.out / "tables.md").write_text("\n".join(tables))
