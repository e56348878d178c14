"""Local features: what is measured on the patches of a dense grid, and which pixels each was measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from apportion.domains.image import read_image
from apportion.errors import InputError

Picture = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.int64]

GREY = (0.299, 0.587, 0.114)


class LocalFeatures(NamedTuple):
    """`descriptors` are (features, dimensions) float32; `boxes` are (features, 4) integers: top, left, bottom
    and right of the pixels of each, the latter two exclusive. These are area(l) of eq. 16."""

    descriptors: npt.NDArray[np.float32]
    boxes: Boxes


Extractor = Callable[[Picture], LocalFeatures]
"""Any callable from an RGB picture, (height, width, 3) uint8, to descriptors and boxes."""


@dataclass(frozen=True)
class DenseSIFT:
    """SIFT descriptors (Lowe 2004) of upright square patches on a grid, by OpenCV: 128 dimensions.

    The box of a descriptor is the square of its 4 × 4 histograms; interpolation and blur let it see faintly beyond,
    which is not counted.

    Attributes:
        patches (tuple of int, default (16, 24, 32), pixels): Sides of the patches, one scale each.
        step (int, default 4, pixels): Distance of neighbouring patches.
        contrast (float, default 2.0, of 255): Standard deviation of the grey values below which a patch is left out:
            its descriptor would be noise.

    >>> wave = (127 + 127 * np.sin(np.arange(48) / 2)).astype(np.uint8)
    >>> found = DenseSIFT(patches=(16,), step=8)(np.tile(wave[:, None], (40, 1, 3)).reshape(40, 48, 3))
    >>> found.descriptors.shape, found.boxes[0].tolist()
    ((20, 128), [0, 0, 16, 16])
    """

    patches: tuple[int, ...] = (16, 24, 32)
    step: int = 4
    contrast: float = 2.0

    def __post_init__(self) -> None:
        _check_grid(self.patches, self.step)

    def __call__(self, picture: Picture) -> LocalFeatures:
        try:
            import cv2
        except ImportError:
            raise InputError(
                "DenseSIFT needs OpenCV: pip install 'apportion[sift]', or use features=PatchStatistics()"
            ) from None
        grey = picture @ GREY
        boxes = grid(picture.shape[:2], self.patches, self.step)
        boxes = boxes[moments(grey[..., None], boxes)[1][:, 0] >= self.contrast]
        if not len(boxes):
            return LocalFeatures(np.empty((0, 128), np.float32), boxes)
        # The side of the 4 × 4 histograms is six times a key point's size in OpenCV (three sizes of half a
        # diameter each). A pixel's coordinates are those of its centre.
        middle = (boxes[:, :2] + boxes[:, 2:] - 1) / 2
        sizes = (boxes[:, 2] - boxes[:, 0]) / 6
        points = [
            cv2.KeyPoint(x, y, size, 0.0)
            for (y, x), size in zip(middle.tolist(), sizes.tolist(), strict=True)
        ]
        _, descriptors = cv2.SIFT.create().compute(grey.round().astype(np.uint8), points)
        return LocalFeatures(np.asarray(descriptors, np.float32), boxes)


@dataclass(frozen=True)
class PatchStatistics:
    """Mean and standard deviation of the colours (or of grey) in the parts of each patch, all in [0, 1].

    Attributes:
        patches (tuple of int, default (16, 24, 32), pixels): Sides of the patches, one scale each.
        step (int, default 4, pixels): Distance of neighbouring patches.
        cells (int, default 2): Parts of a patch, down and across.
        colour (bool, default True): Measure the three colours; otherwise only the grey value counts.
        contrast (float, default 0.0, of 255): Standard deviation of the grey values below which a patch is left out;
            0: none, since a plain colour is a feature too.

    >>> PatchStatistics(patches=(8,), step=8, cells=2)(np.zeros((8, 16, 3), np.uint8)).descriptors.shape
    (2, 24)
    """

    patches: tuple[int, ...] = (16, 24, 32)
    step: int = 4
    cells: int = 2
    colour: bool = True
    contrast: float = 0.0

    def __post_init__(self) -> None:
        _check_grid(self.patches, self.step)
        if not 1 <= self.cells <= min(self.patches):
            raise InputError(f"cells is {self.cells}; accepted: 1 to the smallest patch, {min(self.patches)}")

    def __call__(self, picture: Picture) -> LocalFeatures:
        grey = (picture @ GREY)[..., None]
        boxes = grid(picture.shape[:2], self.patches, self.step)
        boxes = boxes[moments(grey, boxes)[1][:, 0] >= self.contrast]
        channels = picture.astype(np.float64) if self.colour else grey
        top, left = boxes[:, :1], boxes[:, 1:2]
        edges = (boxes[:, 2:3] - top) * np.arange(self.cells + 1) // self.cells
        measured = [
            number / 255
            for row in range(self.cells)
            for column in range(self.cells)
            for number in moments(
                channels,
                np.hstack(
                    [
                        top + edges[:, row : row + 1],
                        left + edges[:, column : column + 1],
                        top + edges[:, row + 1 : row + 2],
                        left + edges[:, column + 1 : column + 2],
                    ]
                ),
            )
        ]
        return LocalFeatures(np.hstack(measured).astype(np.float32), boxes)


EXTRACTORS: dict[str, Callable[[], Extractor]] = {
    "sift": DenseSIFT,
    "colour": PatchStatistics,
    "grey": lambda: PatchStatistics(colour=False),
}


def read_picture(source: Any) -> Picture:
    """An RGB picture (height, width, 3) uint8 from whatever `read_image` reads: grey becomes three equal
    channels, and transparency is composited on white."""
    return np.asarray(read_image(source))


def extract(extractor: Extractor, picture: Picture, empty: bool = False) -> LocalFeatures:
    """The local features of one picture, checked. Raises InputError where there are none (unless `empty`), or
    where the callable returned something else."""
    found = extractor(picture)
    name = getattr(extractor, "__name__", None) or repr(extractor)
    if not isinstance(found, tuple) or len(found) != 2:
        raise InputError(f"{name} returned {type(found).__name__}; accepted: (descriptors, boxes)")
    descriptors, boxes = np.asarray(found[0], np.float32), np.asarray(found[1])
    height, width = picture.shape[:2]
    if descriptors.ndim != 2 or boxes.shape != (len(descriptors), 4) or boxes.dtype.kind not in "iu":
        raise InputError(
            f"{name} returned descriptors of shape {descriptors.shape} and boxes of shape {boxes.shape} and "
            f"type {boxes.dtype}; accepted: (features, dimensions) and integers of shape (features, 4)"
        )
    if not len(descriptors) and not empty:
        raise InputError(
            f"{name} found no local feature in a picture of {width}x{height}: no patch is above the contrast "
            "threshold; accepted: a picture with structure, or a smaller `contrast`"
        )
    if not np.isfinite(descriptors).all():
        raise InputError(f"{name} returned NaN or infinite descriptors")
    top, left, bottom, right = boxes.T
    inside = (top >= 0) & (left >= 0) & (bottom <= height) & (right <= width)
    if not (inside & (top < bottom) & (left < right)).all():
        raise InputError(
            f"{name} returned boxes that are empty or not within the picture of {width}x{height}; accepted: "
            "top, left, bottom, right with the last two exclusive"
        )
    return LocalFeatures(descriptors, boxes.astype(np.int64))


def grid(shape: tuple[int, ...], patches: Sequence[int], step: int) -> Boxes:
    """The boxes of all patches that lie within a picture, `step` apart and centred in it.

    >>> grid((10, 13), (8,), 4).tolist()
    [[1, 0, 9, 8], [1, 4, 9, 12]]
    """
    height, width = shape
    if max(patches) > min(height, width):
        raise InputError(
            f"the picture is {width}x{height}, smaller than a patch of {max(patches)} pixels; accepted: "
            f"pictures of at least {max(patches)} pixels a side, or smaller patches"
        )
    scales = []
    for side in patches:
        tops, lefts = (
            np.arange((length - side) % step // 2, length - side + 1, step) for length in (height, width)
        )
        corners = np.stack(np.meshgrid(tops, lefts, indexing="ij"), -1).reshape(-1, 2)
        scales.append(np.hstack([corners, corners + side]))
    return np.vstack(scales)


def moments(channels: npt.NDArray[Any], boxes: Boxes) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Mean and standard deviation of each channel in each box, (boxes, channels), from integral images."""
    both = np.concatenate([channels, np.square(channels, dtype=np.float64)], -1)
    summed = np.pad(both.cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0)))
    top, left, bottom, right = boxes.T
    sums = summed[bottom, right] - summed[top, right] - summed[bottom, left] + summed[top, left]
    mean, square = np.split(sums / ((bottom - top) * (right - left))[:, None], 2, -1)
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def _check_grid(patches: Sequence[int], step: int) -> None:
    if not patches or min(patches) < 4 or step < 1:
        raise InputError(
            f"patches={patches!r}, step={step}; accepted: sides of at least 4 pixels, and a step of at least 1"
        )
