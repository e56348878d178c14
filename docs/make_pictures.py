"""Draw the pictures of the documentation: `python docs/make_pictures.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
import torch
from matplotlib.figure import Figure

import apportion as ap
from apportion.methods.propagation.composites import COMPOSITES, Composite
from apportion.methods.propagation.rules import Box, WSquare

IMAGES = Path(__file__).parent / "images"


def three() -> np.ndarray:
    """A hand-drawn 3 on a black background: 28 × 28, in [0, 1]."""
    y, x = np.mgrid[0:28, 0:28].astype(float)
    ink = np.zeros((28, 28))
    for centre, start, stop in ((9.0, -2.6, 1.5), (18.0, -1.5, 2.6)):
        for angle in np.linspace(start, stop, 80):
            at_x, at_y = 13.5 + 5.0 * np.cos(angle), centre + 4.6 * np.sin(angle)
            ink = np.maximum(ink, np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / 1.8))
    return np.clip(ink * 1.3, 0, 1)


def digit_under_every_composite() -> None:
    digits = ap.load("digits")
    x, _ = digits.encode(three())
    composites: dict[str, str | Composite] = {name: name for name in COMPOSITES if name != "recurrent"}
    composites["w² first"] = Composite(first=WSquare())
    composites["box first, [0, 1]"] = Composite(first=Box(0.0, 1.0))
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    axes = figure.subplots(2, 5).flatten()
    for ax, (name, composite) in zip(axes, [("the input", None), *composites.items()], strict=False):
        ax.set_xticks([])
        ax.set_yticks([])
        if composite is None:
            ax.imshow(x[0, 0].numpy(), cmap="gray_r")
            ax.set_title("the input", fontsize=10)
            continue
        e = ap.LRP(composite)(digits.model, x)
        values = e.values[0].sum(0)
        limit = float(values.abs().max())
        ax.imshow(values.numpy(), cmap="PuOr_r", vmin=-limit, vmax=limit)
        total, left = float(e.total[0]), float(e.remainder[0])
        ax.set_title(
            f"{name}\n{total:.1f} = {total - left:.1f} {'+' if left >= 0 else '−'} {abs(left):.1f}",
            fontsize=9,
        )
        label = e.label()
    for ax in axes[len(composites) + 1 :]:
        ax.axis("off")
    figure.suptitle(f"Why {label}? Total = apportioned + remainder, under each composite", fontsize=11)
    figure.savefig(IMAGES / "digit-composites.png", dpi=110)


def cat_by_three_methods() -> None:
    imagenet = ap.load("imagenet")
    methods = {
        "the default: LRP, biases placed": ap.LRP(bias="place"),
        "LRP, biases absorbed": ap.LRP(),
        "Kernel SHAP, superpixels": ap.KernelSHAP(samples=400),
    }
    figure = Figure(figsize=(11, 3.1), layout="constrained")
    axes = figure.subplots(1, 4)
    axes[0].imshow(skimage.data.chelsea()[:, 75:375])
    axes[0].axis("off")
    for ax, (name, method) in zip(axes[1:], methods.items(), strict=True):
        e = ap.explain(imagenet, skimage.data.chelsea(), method)
        e.plot(ax=ax)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel(e.balance().replace("= ", "=\n"), fontsize=8)
    axes[0].set_title(f"{e.label()}, score {float(e.total[0]):.2f}", fontsize=10)
    figure.savefig(IMAGES / "cat.png", dpi=110)


def where_relevance_went() -> None:
    torch.manual_seed(0)
    digits = ap.load("digits")
    x, _ = digits.encode(three())
    ax = ap.LRP("epsilon-plus-flat", ledger=True)(digits.model, x).ledger.plot()
    ax.figure.savefig(IMAGES / "digit-ledger.png", dpi=110)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    cat_by_three_methods()
    digit_under_every_composite()
    where_relevance_went()
