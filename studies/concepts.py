"""Concept relevance on SqueezeNet: do the channels' relevances say what the channels do, and do the maps find them?

    python studies/concepts.py DATA [--photos 30] [--layer 0.10] [--picture patches.png]

- *Sum*: the maps of all channels against the map of LRP.
- *Channels*: Spearman's ρ, over 64 random channels of each photo, of the channel's relevance and of the fall of the
  score when that channel alone is zero. Beside it gradient × activation and the activation.
- *Places*: a tenth of the photo, where the map of the most relevant channel is highest, becomes the photo's mean; the
  share of that channel's activation that is gone. Beside it the whole map of LRP, and random places.

The picture has the maps of the three most relevant channels of one photo, and of each channel the photos in which it
was most relevant, cut out around its place. DATA is as in `pretrained.py`.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from pretrained import squeezenet
from scipy.stats import spearmanr
from torch import Tensor, nn

import apportion as ap
from apportion.results.statistics import interval_of_mean

SHOWN, PATCHES, CHANNELS = 3, 5, 64


def channels_of(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    """What the layer returns, (1, channels, rows, columns)."""
    met = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _, __, out: met.append(out))
    with torch.no_grad():
        model(x)
    handle.remove()
    return met[0]


def falls(model: nn.Module, layer: str, x: Tensor, target: int, which: Tensor) -> Tensor:
    """By how much the score falls when one of these channels is zero."""
    here = channels_of(model, layer, x)
    found = []
    with torch.no_grad():
        before = model(x)[0, target]
        for channels in which.split(32):
            rows = here.repeat(len(channels), 1, 1, 1)
            rows[torch.arange(len(channels)), channels] = 0
            handle = model.get_submodule(layer).register_forward_hook(lambda _, __, ___, rows=rows: rows)
            found.append(before - model(x)[:, target])
            handle.remove()
    return torch.cat(found)


def gone(model: nn.Module, layer: str, x: Tensor, channel: int, score: Tensor, share: float = 0.1) -> float:
    """The share of a channel's activation that is gone without the places of highest `score`, (rows, columns)."""
    most = score.flatten().topk(round(share * score.numel())).indices
    hidden = x.clone().flatten(2)
    hidden[..., most] = x.flatten(2).mean(2, keepdim=True)
    before, after = (float(channels_of(model, layer, y)[0, channel].sum()) for y in (x, hidden.view_as(x)))
    return 1 - after / before


def smoothed(values: Tensor) -> Tensor:
    """The map summed over colours and over 9 × 9 neighbours, so that places and not single pixels are hidden."""
    return nn.functional.avg_pool2d(values.sum(1, keepdim=True), 9, 1, 4)[0, 0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--photos", type=int, default=30)
    parser.add_argument("--layer", default="0.10")
    parser.add_argument("--picture")
    given = parser.parse_args()
    torch.set_num_threads(1)
    bench = squeezenet(given.data)
    model, layer = bench.classifier.model, given.layer
    rho: dict[str, list[float]] = {}
    places: dict[str, list[float]] = {}
    sums, pictures, relevances = [], [], []
    for number, (_, raw) in enumerate(islice(bench.samples, given.photos)):
        x, _ = bench.classifier.encode(raw)
        target = int(model(x).argmax())
        activation = channels_of(model, layer, x)
        many = activation.shape[1]
        some = torch.randperm(many, generator=torch.Generator().manual_seed(number))[:CHANNELS]
        fall = falls(model, layer, x, target, some)
        relevance = {
            "LRP (z⁺, flat)": ap.LRP(at=layer)(model, x, target).values,
            "LRP-γ": ap.LRP("epsilon-gamma-box", at=layer)(model, x, target).values,
            "gradient × activation": ap.InputXGradient(at=layer)(model, x, target).values,
            "activation": activation,
        }
        for name, values in relevance.items():
            of_channels = values.flatten(2).sum(2)[0, some].detach().numpy()
            rho.setdefault(name, []).append(float(spearmanr(of_channels, fall.numpy()).statistic))
        of_lrp = relevance["LRP (z⁺, flat)"][0]
        channel = int(of_lrp.flatten(1).sum(1).argmax())
        whole = ap.LRP()(model, x, target)
        alone = ap.ConceptRelevance(layer, channel)(model, x, target)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(number))
        for name, values in (
            ("its own map", alone.values),
            ("the map of LRP", whole.values),
            ("random", noise),
        ):
            places.setdefault(name, []).append(gone(model, layer, x, channel, smoothed(values)))
        if number < 2:
            groups = torch.arange(many).split(64)
            parts = [ap.ConceptRelevance(layer, group.tolist())(model, x, target).values for group in groups]
            sums.append(float((sum(parts) - whole.values).abs().max() / whole.values.abs().max()))
        pictures.append((raw, x, target))
        relevances.append(of_lrp)
        print(f"photo {number + 1}", flush=True)
    print(
        f"\nlargest difference of the sum of all {many} channels' maps to LRP's, of its largest value: {max(sums):.1e}"
    )
    for title, found in (("ρ with the fall", rho), ("of the channel's activation gone", places)):
        print(f"\n| | {title} |\n|---|---|")
        for name, values in found.items():
            low, high = interval_of_mean(values)
            print(f"| {name} | {np.mean(values):.3f} [{low:.3f}, {high:.3f}] |")
    if given.picture:
        draw(model, layer, pictures, torch.stack(relevances), given.picture)


def draw(model: nn.Module, layer: str, photos: list, relevance: Tensor, path: str) -> None:
    """The most relevant channels of the first photo, their maps, and where else they were most relevant."""
    from matplotlib.figure import Figure

    sums = relevance.flatten(2).sum(2)  # (photos, channels)
    figure = Figure(figsize=(2 * (2 + PATCHES), 2 * SHOWN), layout="constrained")
    axes = figure.subplots(SHOWN, 2 + PATCHES)
    raw, x, target = photos[0]
    for row, channel in zip(axes, sums[0].topk(SHOWN).indices.tolist(), strict=True):
        values = ap.ConceptRelevance(layer, channel)(model, x, target).values[0].sum(0)
        limit = float(values.abs().max())
        row[0].imshow(raw)
        row[1].imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit)
        row[1].set_title(f"channel {channel}", fontsize=9)
        for ax, number in zip(
            row[2:], sums[:, channel].topk(min(PATCHES, len(sums))).indices.tolist(), strict=False
        ):
            shown = photos[number][1][0].movedim(0, -1).numpy()
            shown = (shown - shown.min()) / (shown.max() - shown.min())
            at = relevance[number, channel]
            y, z = (
                int((i + 0.5) * shown.shape[0] / at.shape[0]) for i in divmod(int(at.argmax()), at.shape[1])
            )
            ax.imshow(shown[max(0, y - 40) : y + 40, max(0, z - 40) : z + 40])
        for ax in row:
            ax.set_axis_off()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
