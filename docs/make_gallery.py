"""Draw the pictures of the gallery, and print what it says of them:

    python docs/make_gallery.py DATA [LANGUAGE_MODEL]

DATA is a folder with 20news_sports.jsonl.gz (`id`, `group`, `split` and `text` of raw posts of 20 Newsgroups),
penguins.csv.gz (Palmer Archipelago) and bike_hourly.csv.gz (UCI bike sharing); LANGUAGE_MODEL the folder of
SmolLM2-135M-Instruct. All else ships with the package, scikit-learn and scikit-image.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import skimage.data
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

import apportion as ap

IMAGES = Path(__file__).parent / "images" / "gallery"


def figure(width: float, height: float, *across: int) -> tuple[Figure, Any]:
    made = Figure(figsize=(width, height), layout="constrained")
    return made, made.subplots(*(across or (1, 1)))


def keep(made: Figure, name: str) -> None:
    made.savefig(IMAGES / f"{name}.png", dpi=90)


def drawn(explanation: Any, ax: Axes, title: str) -> None:
    explanation.plot(ax=ax)
    ax.set_title("")
    ax.set_title("", loc="right")
    ax.margins(x=0.25)
    ax.set_title(title, fontsize=10, loc="left")
    ax.set_xlabel(explanation.account().replace("; ", "\n"), fontsize=8, loc="left", color="black")


def photo() -> None:
    """Two things on one photo, by the default and by hiding patches."""
    imagenet = ap.load("imagenet")
    made, axes = figure(9.5, 2.6, 1, 4)
    maps = []
    for ax, (target, method) in zip(
        axes,
        [
            (target, method)
            for method in (ap.Auto(), ap.Occlusion(patch=48, stride=16))
            for target in ("espresso", "wooden spoon")
        ],
        strict=True,
    ):
        e = ap.explain(imagenet, skimage.data.coffee(), method, target)
        maps.append(e.values[0].sum(0).flatten())
        drawn(e, ax, target)
        print("photo", target, type(e.method).__name__, e.account())
    for two in (maps[:2], maps[2:]):
        print("photo: cosine of the maps", round(float(torch.cosine_similarity(*two, dim=0)), 2))
    keep(made, "photo")


def sentence() -> None:
    sentiment = ap.load("sentiment")
    texts = ["The plot is thin, but the acting is superb.", "The acting is superb, but the plot is thin."]
    made, axes = figure(7, 2.6, 2, 1)
    for ax, text in zip(axes, texts, strict=True):
        e = ap.explain(sentiment, text, target="positive")
        drawn(e, ax, f"positive {float(e.output.softmax(1)[0, 1]):.0%}")
        print("sentence", [(name, round(value, 3)) for name, value in e.top(4)], e.account())
    keep(made, "sentence")


def negation() -> None:
    made, ax = figure(5.5, 2.6)
    e = ap.explain(ap.load("sentiment"), "It is not a bad film.", "ih", target="positive")
    drawn(e, ax, "which words act together?")
    print("negation", e.top(3), e.account())
    keep(made, "negation")


def digit() -> None:
    """A four of scikit-learn's digits, 8 × 8, drawn to the size of MNIST: why a four, and why rather than a nine?"""
    digits = ap.load("digits")
    images, labels = load_digits(return_X_y=True)
    found = []
    for image in images[labels == 4].reshape(-1, 8, 8)[:40]:
        large = np.pad(np.kron(image / 16, np.ones((3, 3))), 2).clip(0, 1)
        x, features = digits.encode(large)
        scores = digits.model(x)[0]
        if int(scores.argmax()) == 4:
            found.append((float(scores[4] - scores[9]), large, x, features))
    margin, large, x, features = min(found, key=lambda each: each[0])
    made, axes = figure(9, 2.9, 1, 3)
    axes[0].imshow(large, cmap="gray_r")
    axes[0].set_title("a 4, and nearly a 9", fontsize=10, loc="left")
    axes[0].axis("off")
    asked = {"why 4?": 4, "why 4 rather than 9?": ap.Contrast(4, 9)}
    for ax, (title, target) in zip(axes[1:], asked.items(), strict=True):
        e = ap.explain(digits.model, x, target=target).with_features((features,))
        drawn(e, ax, title)
        print("digit", title, e.account(), "apart", round(margin, 2))
    keep(made, "digit")


def row_that_is_wrong() -> None:
    """A malignant tumour that the shipped model takes for a benign one with the most confidence."""
    model, data = ap.load("breast-cancer"), load_breast_cancer()
    encoded = torch.cat([model.encode(row.tolist())[0] for row in data.data])
    p = model.model(encoded).softmax(1)[:, 1].detach().numpy()
    wrong = int(np.argmax(np.where(data.target == 0, p, 0)))
    made, ax = figure(7, 3.4)
    e = ap.explain(model, data.data[wrong].tolist())
    drawn(e, ax, f"row {wrong}: malignant, called benign with {p[wrong]:.0%}")
    print("row", wrong, e.top(4), e.account())
    keep(made, "row")


def answer(folder: str) -> None:
    lm = ap.load(folder)
    made, ax = figure(7.5, 2.6)
    passages = [
        "Ben moved from Oslo to Rome last May.",
        "Anna has lived in Paris for ten years.",
        "The museum in Berlin is closed on Mondays.",
    ]
    prompt = [{"role": "user", "content": "In which city does Ben live now? Answer with the city only."}]
    e = ap.explain(lm, prompt, context=passages, max_new_tokens=6, target="Rome")
    drawn(e, ax, f"{''.join(e.notes['answer']['pieces'])} – why Rome?")
    print("answer", e.notes["answer"]["pieces"], e.top(3), e.account())
    keep(made, "answer")


def newsgroups(data: Path) -> None:
    """Baseball or hockey? Words of the mail headers are among those that decide."""
    with gzip.open(data / "20news_sports.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    parts = {
        split: [row for row in rows if (row["split"] == "train") == (split == "train")]
        for split in ("train", "test")
    }
    texts = {split: [row["text"] for row in part] for split, part in parts.items()}
    labels = {split: [row["group"].endswith("hockey") for row in part] for split, part in parts.items()}
    words = CountVectorizer(binary=True, min_df=3)
    pipeline = make_pipeline(words, LogisticRegression(C=0.1, max_iter=1000)).fit(
        texts["train"], labels["train"]
    )
    bodies = [text.partition("\n\n")[2] for text in texts["test"]]
    moved = [text.replace(".ca", ".edu") for text in texts["test"]]
    of_ca = [i for i, text in enumerate(texts["test"]) if ".ca" in text.partition("\n\n")[0]]
    before, after = pipeline.predict_proba(texts["test"])[:, 1], pipeline.predict_proba(moved)[:, 1]
    print(
        "newsgroups: right",
        pipeline.score(texts["test"], labels["test"]),
        "without headers",
        pipeline.score(bodies, labels["test"]),
    )
    print(
        "of",
        len(of_ca),
        "posts from .ca",
        np.mean(np.array(labels["test"])[of_ca]),
        "are of hockey; .edu in its place takes",
        np.mean((before - after)[of_ca]),
        "of the probability, and changes",
        int(((before > 0.5) != (after > 0.5))[of_ca].sum()),
    )
    text = "From: someone@vax.{}\nSubject: tickets\n\nWhere can I get tickets for the game on Friday?"
    made, axes = figure(7, 3.8, 2, 1)
    for ax, place in zip(axes, ("toronto.ca", "toronto.edu"), strict=True):
        e = ap.explain(pipeline.predict_proba, text.format(place), target=1)
        drawn(e, ax, f"hockey {float(e.output[0, 1]):.0%}")
        print("newsgroups", e.top(3), e.account())
    keep(made, "newsgroups")


def penguins(data: Path) -> None:
    """Which species? A model that knows the island needs to look at no penguin."""
    frame = pd.read_csv(data / "penguins.csv.gz").dropna().drop(columns=["rowid", "year"])
    y = frame.pop("species")
    frame["island"], frame["sex"] = frame["island"].astype("category"), frame["sex"].astype("category")
    x, test, y, right = train_test_split(frame, y, test_size=0.4, random_state=0, stratify=y)
    model = HistGradientBoostingClassifier(
        categorical_features="from_dtype", random_state=0, max_iter=30
    ).fit(x, y)
    moved = test.assign(
        island=pd.Categorical(["Torgersen"] * len(test), categories=frame["island"].cat.categories)
    )
    print(
        "penguins: right", model.score(test, right), "all said to be of Torgersen", model.score(moved, right)
    )
    chinstrap = test[right == "Chinstrap"].iloc[[0]]
    made, axes = figure(9, 2.6, 1, 2)
    for ax, row in zip(axes, (chinstrap, moved.loc[chinstrap.index]), strict=True):
        e = ap.explain(ap.Tabular(model, x), row, target="Chinstrap")
        drawn(e, ax, f"Chinstrap {model.predict_proba(row)[0, 1]:.0%}, island {row['island'].iloc[0]}")
        print("penguins", e.top(3), e.account())
    keep(made, "penguins")


def bikes(data: Path) -> None:
    frame = pd.read_csv(data / "bike_hourly.csv.gz").drop(columns=["month"])
    y = frame.pop("count")
    frame = frame.assign(
        weather=frame["weather"].astype("category"), season=frame["season"].astype("category")
    )
    x, test, y, right = train_test_split(frame, y, test_size=0.3, random_state=0)
    model = HistGradientBoostingRegressor(categorical_features="from_dtype", random_state=0).fit(x, y)
    print("bikes: R²", model.score(test, right))
    overview = ap.summary(ap.explain(ap.Tabular(model, x.sample(100, random_state=0)), test[:400], target=0))
    made, ax = figure(6, 3.2)
    overview.dependence("hour", partner="workingday", ax=ax)
    ax.set_title("bikes rented in an hour: what the hour adds", fontsize=10, loc="left")
    keep(made, "bikes")


def main() -> None:
    data = Path(sys.argv[1])
    IMAGES.mkdir(exist_ok=True)
    photo()
    sentence()
    negation()
    digit()
    row_that_is_wrong()
    newsgroups(data)
    penguins(data)
    bikes(data)
    if len(sys.argv) > 2:
        answer(sys.argv[2])


if __name__ == "__main__":
    main()
