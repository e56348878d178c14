"""The pictures of pixel-wise explanations in Bach et al. 2015 (Fig. 7), of any explanation of an image model."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from apportion.core.files import path_of, write_whole
from apportion.display.pictures.explanations import fade_photo
from apportion.display.pictures.style import INK, MUTED
from apportion.display.views import AGAINST, FOR, HeatView, scale_of, view
from apportion.errors import InputError
from apportion.results.explanation import Explanation
from apportion.results.words import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EDGE = (27, 29, 34)


def heatmap(explanation: Explanation, index: int = 0, ax: Axes | None = None) -> Axes:
    """Every pixel in the colour of its relevance: orange for the explained class, white for none, blue against.

    Full colour is at the 99.5th percentile of |relevance|. Raises InputError for what is not over an image.
    """
    return _show_pixels(_paint(_heat(explanation, index)), ax)


def with_edges(explanation: Explanation, index: int = 0, ax: Axes | None = None, blur: float = 2.0) -> Axes:
    """The heat map with the prominent edges of the picture upon it, so that one sees what lies where.

    Edges are those of Canny's detector after a Gaussian blur of `blur` pixels; needs scikit-image.
    """
    heat = _heat(explanation, index)
    painted = _paint(heat)
    painted[edges(_photo(heat), blur)] = EDGE
    return _show_pixels(painted, ax)


def binarised(
    explanation: Explanation, index: int = 0, ax: Axes | None = None, threshold: float = 0.0
) -> Axes:
    """The picture in its own colours where the relevance is above `threshold`, in pale grey elsewhere."""
    heat = _heat(explanation, index)
    photo = _photo(heat)
    return _show_pixels(np.where((_fine(heat) > threshold)[..., None], photo, fade_photo(photo) // 5 * 4), ax)


def pixels_png(explanation: Explanation, path: str | Path, index: int = 0, threshold: float = 0.0) -> Path:
    """Write one sample as a PNG: the picture, the heat map, the same with edges, the binarised picture."""
    from matplotlib.figure import Figure

    heat = _heat(explanation, index)
    height, width = heat.shape
    wide = 3.2 * min(2.0, max(0.5, width / height))
    figure = Figure(figsize=(4 * wide, 4.1), layout="constrained")
    axes = figure.subplots(1, 4)
    _show_pixels(_photo(heat), axes[0])
    heatmap(explanation, index, axes[1])
    with_edges(explanation, index, axes[2])
    binarised(explanation, index, axes[3], threshold)
    full = scale_of(heat.values)
    titles = (
        "picture",
        f"value, full colour at ±{format_number(full, full)}",
        "with prominent edges",
        f"where above {threshold:g}",
    )
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, fontsize=9, color=MUTED, loc="left")
    figure.suptitle(
        f"{type(explanation.method).__name__} of {explanation.label(index)}".replace("$", r"\$"),
        x=0.01,
        ha="left",
        fontsize=11,
        color=INK,
    )
    figure.supxlabel(explanation.account(index).replace("; ", "\n"), x=0.01, ha="left", fontsize=9, color=INK)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120, facecolor="white")
    return write_whole(path_of("path", path), data.getvalue())


def edges(photo: npt.NDArray[np.uint8], blur: float = 2.0) -> npt.NDArray[np.bool_]:
    """(height, width): where a prominent edge of an RGB picture runs."""
    try:
        from skimage.feature import canny
    except ImportError:
        raise InputError("edges need scikit-image: pip install 'apportion[image]'") from None
    detector: Any = canny
    found: npt.NDArray[np.bool_] = detector(photo @ (0.299, 0.587, 0.114) / 255, sigma=blur)
    return found


def _heat(explanation: Explanation, index: int) -> HeatView:
    shown = view(explanation, index)
    if not isinstance(shown, HeatView):
        over = type(shown).__name__.removesuffix("View").lower()
        raise InputError(
            f"the explanation is over {over}, not over an image; accepted: values of shape "
            "(batch, channels, height, width)"
        )
    return shown


def _photo(heat: HeatView) -> npt.NDArray[np.uint8]:
    if heat.photo is None:
        raise InputError(
            "the explanation does not know its picture; accepted: one with features, as ap.explain gives, or "
            "explanation.with_features([ImageFeatures(picture)])"
        )
    return heat.photo


def _fine(heat: HeatView) -> npt.NDArray[np.float64]:
    """The map in the size of what is drawn; a coarser one (of an inner layer) in blocks."""
    rows, columns = (
        np.arange(pixels) * cells // pixels
        for pixels, cells in zip(heat.shape, heat.values.shape, strict=True)
    )
    fine: npt.NDArray[np.float64] = heat.values[rows[:, None], columns]
    return fine


def _paint(heat: HeatView) -> npt.NDArray[np.uint8]:
    """(height, width, 3) uint8 colours."""
    values = _fine(heat)[..., None]
    strength = np.clip(np.abs(values) / scale_of(heat.values), 0, 1)
    colour = np.where(values >= 0, FOR, AGAINST)
    painted: npt.NDArray[np.uint8] = (255 - strength * (255 - colour)).round().astype(np.uint8)
    return painted


def _show_pixels(pixels: npt.NDArray[np.uint8], ax: Axes | None) -> Axes:
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(layout="constrained").add_subplot()
    ax.imshow(pixels, interpolation="nearest")
    ax.set_axis_off()
    return ax
