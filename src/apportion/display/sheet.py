"""Pictures side by side as data, from which a figure and a page are drawn: prototypes, clusters, mean maps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from apportion.display.html import SMALL, Pixels, data_uri, shell, versions
from apportion.display.page_data import Box, Figure, Picture, Sheet
from apportion.display.views import FOR
from apportion.results.words import format_number, format_signed

Corners = tuple[int, int, int, int]
"""top, bottom, left, right in pixels; bottom and right are the first beyond it."""


def sheet_page(sheet: Sheet) -> str:
    """One self-contained HTML page."""
    return shell({**sheet, "versions": versions()}, sheet["title"], list(_plain_lines(sheet)))


def figure(caption: str, *pictures: Pixels, name: str = "", box: Corners | None = None) -> Figure:
    """Pictures above one another, the last with a box around a patch of it; the caption is what a reader without
    eyes gets of them too."""
    shown = [Picture(src=data_uri(pixels)) for pixels in pictures]
    for picture, pixels in zip(shown, pictures, strict=True):
        if max(pixels.shape[:2]) <= SMALL:
            picture["squares"] = True
    if box is not None:
        shown[-1]["box"] = box_in_shares(box, pictures[-1])
    made = Figure(caption=caption, pictures=shown)
    return {**made, "name": name} if name else made


def box_in_shares(box: Corners, picture: Pixels) -> Box:
    """A box in shares of the picture's height and width."""
    height, width = picture.shape[:2]
    top, bottom, left, right = box
    return top / height, bottom / height, left / width, right / width


def paint_heat(picture: Pixels, heat: npt.NDArray[np.float64]) -> Pixels:
    """The picture in grey with a map in [0, 1] over it: the more activated, the fuller the colour."""
    grey = picture.astype(np.float64).mean(2, keepdims=True)
    share = 0.8 * heat[..., None] ** 2
    mixed: Pixels = ((1 - share) * grey + share * np.array(FOR)).round().astype(np.uint8)
    return mixed


def product_in_words(similarity: float, connection: float, contribution: float) -> list[str]:
    """The words beside a prototype that was found in a picture."""
    return [
        f"{format_number(similarity)} similarity",
        f"× {format_number(connection)} connection",
        f"= {format_signed(contribution)}",
    ]


def _plain_lines(sheet: Sheet) -> Iterator[str]:
    """What a reader without scripts gets."""
    yield from (sheet["title"], sheet.get("about", ""))
    for part in sheet["chapters"]:
        yield from (part.get("title", ""), part.get("about", ""))
        for one in part["articles"]:
            yield " ".join([one["title"], one.get("detail", ""), *one.get("words", ())])
            for found in one.get("means", ()):
                yield from (
                    f"  {name}: {format_signed(mean)} in {count}, mean size {format_number(size)}"
                    for name, mean, count, size in found["rows"]
                )
    yield sheet.get("end", "")
