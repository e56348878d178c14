"""Colours and short texts that the pictures share."""

from __future__ import annotations

from typing import Any

from apportion.display.answers import in_short
from apportion.display.views import AGAINST, FOR

INK, MUTED = "#1b1d22", "#5c6370"


def colours() -> Any:
    """From blue over white to orange: against, nothing, for."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = [unit_colour(colour) for colour in (AGAINST, (255, 255, 255), FOR)]
    return LinearSegmentedColormap.from_list("apportion", stops)


def unit_colour(colour: tuple[int, int, int]) -> tuple[float, ...]:
    return tuple(channel / 255 for channel in colour)


def shorten(text: str, most: int) -> str:
    """One line of at most so many characters, that mathtext leaves alone."""
    return in_short(text, most).replace("$", r"\$")
