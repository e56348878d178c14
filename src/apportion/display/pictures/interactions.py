"""Pictures of interactions: the matrix, arcs over a text, a ring of features, dependence on a third feature.

Each function draws on the matplotlib Axes that it is given, or on new ones, and returns them; no global
figure is touched. Orange speaks for the explained class and blue against it, as everywhere.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, PathPatch
from matplotlib.path import Path
from torch import Tensor

from apportion.core.features import TextFeatures
from apportion.display.pictures.style import colours
from apportion.errors import InputError, did_you_mean
from apportion.results.interactions import Interactions
from apportion.results.words import format_number, format_signed

# More names than this along an axis cannot be read.
MOST_NAMES = 40


def plot(interactions: Interactions, index: int = 0, ax: Axes | None = None) -> Axes:
    """Arcs over the words of a text, else the matrix."""
    features = interactions.features
    if features is not None and isinstance(features[index], TextFeatures):
        return arcs(interactions, index, ax)
    return heatmap(interactions, index, ax)


def heatmap(interactions: Interactions, index: int = 0, ax: Axes | None = None) -> Axes:
    """The matrix of one sample: main effects on the diagonal, each pair twice beside it."""
    values, names = _matrix(interactions, index), interactions.names_of(index)
    ax = _axes(ax, (0.35 * min(len(names), MOST_NAMES) + 3.0, 0.35 * min(len(names), MOST_NAMES) + 2.2))
    limit = _largest(values)
    image = ax.imshow(values.numpy(), cmap=colours(), vmin=-limit, vmax=limit)
    if len(names) <= MOST_NAMES:
        ax.set_xticks(range(len(names)), names, rotation=45, ha="right")
        ax.set_yticks(range(len(names)), names)
    else:
        ax.set_xlabel("feature")
        ax.set_ylabel("feature")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, ticks=[-limit, 0, limit])
    bar.ax.set_yticklabels([format_number(-limit, limit), "0", format_signed(limit, limit)])
    bar.set_label(f"interaction, for {interactions.label(index)}")
    ax.set_title(_title(interactions, index), fontsize=9)
    return ax


def arcs(interactions: Interactions, index: int = 0, ax: Axes | None = None, most: int = 8) -> Axes:
    """The words of a text coloured by their attribution, and an arc over each of the `most` strongest pairs.

    An arc's width grows with the strength of its pair; its number is what the pair contributes.
    """
    values, names = _matrix(interactions, index), interactions.names_of(index)
    alone = values.diagonal() if interactions.attributions is None else interactions.attributions[index]
    width = [max(len(name), 2) + 1.5 for name in names]
    place = [sum(width[:i]) + width[i] / 2 for i in range(len(names))]
    ax = _axes(ax, (max(5.6, 0.11 * sum(width)), 2.8))
    pairs = _strongest(values, most)
    limit = max((abs(strength) for _, _, strength in pairs), default=1.0)
    colour_of = _colours(_largest(alone))
    pair_colour = _colours(limit)
    highest = 0.0
    for i, j, strength in reversed(pairs):
        height = 0.35 * (place[j] - place[i]) + 1.0
        highest = max(highest, height)
        bow = Path(
            [(place[i], 1.0), (place[i], 1.0 + height), (place[j], 1.0 + height), (place[j], 1.0)],
            [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4],
        )
        thick = 0.6 + 3.4 * abs(strength) / limit
        ax.add_patch(PathPatch(bow, fill=False, edgecolor=pair_colour(strength), linewidth=thick, alpha=0.9))
        label: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "fontsize": 7,
            "bbox": {"fc": "white", "ec": "none", "pad": 0.6},
        }
        ax.text((place[i] + place[j]) / 2, 1.0 + 0.75 * height, format_signed(strength, limit), **label)
    for name, centre, value in zip(names, place, alone.tolist(), strict=True):
        red, green, blue, _ = colour_of(value)
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        box = {"fc": (red, green, blue), "ec": "none", "boxstyle": "round,pad=0.25"}
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9, "bbox": box}
        ax.text(centre, 0.0, name, color="white" if dark else "black", **style)
    ax.set_xlim(0, sum(width))
    ax.set_ylim(-1.2, 1.6 + 0.8 * highest)
    ax.set_axis_off()
    ax.set_title(_title(interactions, index), fontsize=9)
    return ax


def ring(interactions: Interactions, index: int = 0, ax: Axes | None = None, most: int = 20) -> Axes:
    """The features on a circle, sized by their main effects, with a chord for each of the strongest pairs."""
    values, names = _matrix(interactions, index), interactions.names_of(index)
    ax = _axes(ax, (5.0, 5.0))
    angles = [2 * math.pi * i / len(names) for i in range(len(names))]
    spots = [(math.cos(a), math.sin(a)) for a in angles]
    pairs = _strongest(values, most)
    limit = max((abs(strength) for _, _, strength in pairs), default=1.0)
    colour_of, pair_colour = _colours(_largest(values.diagonal())), _colours(limit)
    for i, j, strength in reversed(pairs):
        chord = Path([spots[i], (0, 0), spots[j]], [Path.MOVETO, Path.CURVE3, Path.CURVE3])
        thick = 0.5 + 4 * abs(strength) / limit
        ax.add_patch(
            FancyArrowPatch(path=chord, arrowstyle="-", color=pair_colour(strength), linewidth=thick)
        )
    alone = values.diagonal()
    sizes = 40 + 260 * alone.abs() / _largest(alone)
    x, y = zip(*spots, strict=True)
    ax.scatter(x, y, s=sizes.tolist(), c=[colour_of(v) for v in alone.tolist()], edgecolors="0.3", zorder=3)
    for name, angle in zip(names, angles, strict=True):
        turned = math.degrees(angle) % 360
        left = 90 < turned < 270
        style: dict[str, Any] = {
            "ha": "right" if left else "left",
            "va": "center",
            "rotation_mode": "anchor",
            "fontsize": 8,
        }
        spot = (1.15 * math.cos(angle), 1.15 * math.sin(angle))
        ax.text(*spot, name, rotation=turned - 180 if left else turned, **style)
    ax.set_xlim(-1.9, 1.9)
    ax.set_ylim(-1.9, 1.9)
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.set_title(_title(interactions, index), fontsize=9)
    return ax


def dependence(
    interactions: Interactions,
    first: int | str,
    second: int | str,
    against: Tensor,
    ax: Axes | None = None,
    colour: Tensor | None = None,
    against_name: str = "",
) -> Axes:
    """What a pair contributes in each sample, against a third feature: `against` is (batch,).

    Orange dots speak for the explained class and blue ones against it; `colour`, (batch,), shows another quantity
    instead. A pair whose effect depends on the third feature shows a slope.
    """
    i, j = (_number(interactions, feature) for feature in (first, second))
    if against.shape != (len(interactions),) or (colour is not None and colour.shape != against.shape):
        raise InputError(
            f"against has shape {tuple(against.shape)}; accepted: ({len(interactions)},), one a sample"
        )
    values = (interactions.values[:, i, j] + interactions.values[:, j, i]).detach().double().cpu()
    ax = _axes(ax, (5.0, 3.6))
    ax.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    shade: dict[str, Any] = {"color": colours()((values >= 0).double().numpy())}
    if colour is not None:
        shade = {"c": colour.detach().cpu().tolist(), "cmap": "viridis"}
    dots = ax.scatter(against.detach().cpu().tolist(), values.tolist(), s=14, alpha=0.8, **shade)
    if colour is not None:
        ax.figure.colorbar(dots, ax=ax)
    names = interactions.names_of(0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel(against_name or "third feature")
    ax.set_ylabel(f"interaction of {names[i]} and {names[j]}")
    return ax


def _number(interactions: Interactions, feature: int | str) -> int:
    names = interactions.names_of(0)
    if isinstance(feature, str):
        if feature not in names:
            hint = did_you_mean(feature, names)
            raise InputError(f"there is no feature {feature!r}; {hint}accepted: {', '.join(names[:8])} …")
        return names.index(feature)
    if not 0 <= feature < len(names):
        raise InputError(f"there is no feature {feature}; there are features 0 to {len(names) - 1}")
    return feature


def _matrix(interactions: Interactions, index: int) -> Tensor:
    return interactions.values[index].detach().double().cpu()


def _strongest(values: Tensor, most: int) -> list[tuple[int, int, float]]:
    first, second = torch.triu_indices(values.shape[0], values.shape[1], 1)
    strength = (values + values.mT)[first, second].nan_to_num()
    order = strength.abs().argsort(descending=True, stable=True)[:most]
    rows = zip(first[order].tolist(), second[order].tolist(), strength[order].tolist(), strict=True)
    return [(i, j, value) for i, j, value in rows if value]


def _largest(values: Tensor) -> float:
    return max(float(values.abs().nan_to_num().max()), 1e-30)


def _colours(limit: float) -> Any:
    from matplotlib.colors import Normalize

    shades, scale = colours(), Normalize(-limit, limit)
    return lambda value: shades(scale(value))


def _title(interactions: Interactions, index: int) -> str:
    return interactions.summary(index).replace(": total", "\ntotal")


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    return Figure(figsize=size, layout="constrained").add_subplot() if ax is None else ax
