"""Draw the pictures of the documentation: `python docs/make_pictures.py [SMOLLM2]`, with the folder of the language
model for the first one."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import numpy as np
import skimage.data
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer

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
            f"{name}\nexplained {total - left:.1f} of {total:.1f}",
            fontsize=9,
        )
        label = e.label()
    for ax in axes[len(composites) + 1 :]:
        ax.axis("off")
    figure.suptitle(f"Why {label}? How much is explained under each composite", fontsize=11)
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
        ax.set_xlabel(e.balance().replace(": ", ":\n"), fontsize=8)
    axes[0].set_title(f"{e.label()}, score {float(e.total[0]):.2f}", fontsize=10)
    figure.savefig(IMAGES / "cat.png", dpi=110)


def four_answers(language_model: Path) -> None:
    """A photo, a sentence, a row and an answer of a language model, each by the default."""
    rows = load_breast_cancer()
    explained = {
        "A photo: {}": ap.explain(ap.load("imagenet"), skimage.data.chelsea()),
        "A sentence: {}": ap.explain(ap.load("sentiment"), "The plot is thin, but the acting is superb."),
        "A row of a table: {}": ap.explain(ap.load("breast-cancer"), rows.data[19].tolist()),
        "A language model's next word: {}": ap.explain(
            ap.load(str(language_model)), "The capital of France is", answer=" Paris"
        ),
    }
    figure = Figure(figsize=(11, 6.2))
    places = [
        (0.01, 0.07, 0.36, 0.64),
        (0.01, 0.84, 0.47, 0.1),
        (0.64, 0.12, 0.34, 0.59),
        (0.53, 0.84, 0.45, 0.1),
    ]
    for place, (title, e) in zip(places, explained.items(), strict=True):
        ax = figure.add_axes(place)
        e.plot(ax=ax)
        ax.tick_params(labelsize=8)
        ax.set_title(title.format(e.label().strip()), fontsize=10, fontweight="bold", loc="left")
        ax.set_xlabel(e.account().replace("; ", "\n"), fontsize=8, loc="left", color="black")
    figure.savefig(IMAGES / "four.png", dpi=110)


def where_relevance_went() -> None:
    torch.manual_seed(0)
    digits = ap.load("digits")
    x, _ = digits.encode(three())
    ax = ap.LRP("epsilon-plus-flat", ledger=True)(digits.model, x).ledger.plot()
    ax.figure.savefig(IMAGES / "digit-ledger.png", dpi=110)


def gradient_and_root() -> None:
    """The gradient at points beside the way from their roots, on hills and hollows of a score of two features."""
    centres = torch.tensor([[-1.2, 0.6], [1.3, 0.9], [0.1, -1.0], [-0.9, -1.4], [1.6, -0.9], [0.2, 1.3]])
    signs = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])

    def score(points: torch.Tensor) -> torch.Tensor:
        return (torch.exp(-(points[:, None] - centres).square().sum(2) / 0.8) @ signs)[:, None]

    def slope(points: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.autograd.functional.jacobian(lambda p: score(p).sum(), points)
        return found

    x = torch.tensor([[-0.95, 0.8], [1.05, 0.7], [0.3, -0.75]])
    found = ap.Taylor()(score, x, 0)
    # The values are (x − x₀) ∇f(x₀); the root itself is on the way of the same Newton steps.
    root = x.clone()
    for _ in range(50):
        at = slope(root)
        root = root - score(root) * at / at.square().sum(1, keepdim=True)
    np.testing.assert_allclose((x - root).norm(dim=1), found.notes["distance"], atol=0.02)
    across, up = torch.meshgrid(torch.linspace(-2.4, 2.4, 160), torch.linspace(-2.2, 2.2, 160), indexing="xy")
    height = score(torch.stack([across.flatten(), up.flatten()], 1)).reshape(160, 160)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    titles = ("gradient at x", "Taylor: gradient at the root, and times x − x₀ (red)")
    for number, (ax, title) in enumerate(zip(figure.subplots(1, 2, sharey=True), titles, strict=True)):
        ax.contourf(across, up, height, levels=20, cmap="PuOr_r", vmin=-1, vmax=1, alpha=0.7)
        ax.contour(across, up, height, levels=[0.0], colors="black", linestyles="dashed", linewidths=1)
        arrows = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.007, "zorder": 3}
        begin = (x, root)[number]
        ax.quiver(*begin.T, *(0.5 * slope(begin)).T, **arrows)
        ax.scatter(*x.T, color="black", marker="s", s=18, zorder=4)
        if number:
            ax.scatter(*root.T, facecolor="white", edgecolor="black", marker="^", s=32, zorder=4)
            for point, zero, values, total in zip(x, root, found.values, found.total, strict=True):
                ax.plot(*torch.stack([zero, point]).T, color="firebrick", linestyle=":", linewidth=1.2)
                words = f"{float(total):.2f}: {float(values[0]):.2f} + {float(values[1]):.2f}"
                shift = {"xytext": (8, -12), "textcoords": "offset points", "fontsize": 8}
                ax.annotate(words.replace("+ -", "− "), point.tolist(), **shift)
            ax.quiver(*root.T, *found.values.T, color="firebrick", **arrows)
        ax.set(xlim=(-2.4, 2.4), ylim=(-2.2, 2.2))
        ax.set_title(title, fontsize=10)
        ax.set_aspect("equal")
    figure.savefig(IMAGES / "gradient-and-root.png", dpi=110)


def pictures_of_a_table() -> None:
    """What `docs/tables.md` draws, by its own code."""
    page = (IMAGES.parent / "tables.md").read_text(encoding="utf-8")
    people = types.ModuleType("people")
    exec(re.findall(r'^```python title="people.py"\n(.*?)^```', page, re.S | re.M)[0], vars(people))
    sys.modules["people"], made = people, {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.S | re.M)[:4]:
        exec(block, made)
    overview = made["overview"]
    for name, draw in (
        ("waterfall", made["explanation"].waterfall),
        ("beeswarm", overview.beeswarm),
        ("cohorts", overview.side_by_side),
    ):
        draw().figure.savefig(IMAGES / f"table-{name}.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    if len(sys.argv) > 1:
        four_answers(Path(sys.argv[1]))
    cat_by_three_methods()
    digit_under_every_composite()
    where_relevance_went()
    gradient_and_root()
    pictures_of_a_table()
