"""Pictures side by side with words, as data: what a picture file and a page of prototypes or clusters are drawn
from. Who makes them knows results and nothing of drawing; who draws them knows these and no results."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]
"""top, bottom, left, right in pixels; bottom and right are the first beyond it."""


@dataclass(frozen=True, eq=False)
class Look:
    """A (height, width, 3) picture with a short caption, and the `name` of where it is from. There may be a `box`
    to draw around a patch of it, or a (height, width) map in [0, 1] to lay over it."""

    caption: str
    picture: Pixels = field(repr=False)
    box: Box | None = None
    heat: npt.NDArray[np.float64] | None = field(default=None, repr=False)
    name: str = ""


@dataclass(frozen=True, eq=False)
class Row:
    """What stands side by side: groups of pictures, each under a heading that may be empty, and words beside."""

    title: str
    groups: tuple[tuple[str, tuple[Look, ...]], ...]
    words: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows with a title, what is to be known before, and what comes after the last."""

    title: str
    rows: tuple[Row, ...]
    about: str = ""
    end: str = ""


def product(similarity: str, connection: str, contribution: str) -> tuple[str, str, str]:
    """The words beside a prototype that was found in a picture."""
    return f"{similarity} similarity", f"× {connection} connection", f"= {contribution}"


def shares(box: Box, picture: Pixels) -> tuple[float, float, float, float]:
    """A box in shares of the picture's height and width."""
    height, width = picture.shape[:2]
    top, bottom, left, right = box
    return top / height, bottom / height, left / width, right / width
