"""Draw the pictures of the page on Bag-of-Words classifiers: `python docs/make_pictures_bag_of_words.py`.

A classifier of three textures (brick, grass and gravel of scikit-image, grey) learns from the upper halves of the
three photos and explains a picture that is put together from the lower halves: what lies where is known.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from skimage import data

import apportion as ap
from apportion.display.pictures.pixels import binarised, heatmap, with_edges
from apportion.models.bag_of_words.features import DenseSIFT

IMAGES = Path(__file__).parent / "images"
TEXTURES = ("brick", "grass", "gravel")
SIDE = 96


def crops() -> tuple[list[np.ndarray], list[str]]:
    """Squares from the upper halves."""
    random = np.random.default_rng(0)
    found = []
    for name in TEXTURES:
        photo = getattr(data, name)()
        for top, left in random.integers(0, (256 - SIDE, 512 - SIDE), (16, 2)):
            found.append((photo[top : top + SIDE, left : left + SIDE], name))
    return [picture for picture, _ in found], [name for _, name in found]


def mosaic() -> np.ndarray:
    """The three textures side by side, from the lower halves."""
    return np.hstack([getattr(data, name)()[300 : 300 + SIDE, 200 : 200 + SIDE] for name in TEXTURES])


def trained(kernel: str) -> ap.BagOfWords:
    return ap.BagOfWords(kernel, words=100, features=DenseSIFT(step=4), samples=30_000).fit(*crops())


def triplets() -> None:
    """Each class of the mosaic as Fig. 7 of Bach et al. 2015 draws it."""
    bow = trained("intersection")
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    axes = figure.subplots(4, 3)
    for ax in axes[0]:
        ax.axis("off")
    axes[0, 1].imshow(mosaic(), cmap="gray")
    axes[0, 1].set_title("brick, grass and gravel", fontsize=9)
    for row, name in zip(axes[1:], TEXTURES, strict=True):
        e = bow.explain(mosaic(), name)
        heatmap(e, ax=row[0])
        with_edges(e, ax=row[1])
        binarised(e, ax=row[2])
        row[0].set_title(f"why {name} (f = {float(e.total):.2f})", fontsize=8, loc="left")
        row[1].set_title("with prominent edges", fontsize=8, loc="left")
        row[2].set_title("where above 0", fontsize=8, loc="left")
    figure.savefig(IMAGES / "bag-of-words.png", dpi=110)


def taylor_beside_path() -> None:
    """What eq. 13 leaves of the score, and what the path from the same root leaves."""
    bow = trained("exponential-chi2")
    figure = Figure(figsize=(9, 1.9), layout="constrained")
    for ax, by in zip(figure.subplots(1, 2), ("taylor", "path"), strict=True):
        e = bow.explain(mosaic(), "grass", ap.KernelDecomposition(by))
        heatmap(e, ax=ax)
        ax.set_title(f"{by}: {e.summary().split(': ')[1]}", fontsize=8, loc="left")
    figure.savefig(IMAGES / "bag-of-words-taylor.png", dpi=110)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    triplets()
    taylor_beside_path()
