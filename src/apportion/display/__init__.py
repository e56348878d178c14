"""Every picture, page and terminal output; nothing here knows a model or a method.

Results come to this file when something is to be drawn. `views.py` says what there is to show of one sample: open it
first. `pictures/`, `page.py` and `terminal.py` draw it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apportion.display.html import frame_page, paragraph, table
from apportion.display.page import frame
from apportion.display.page import page as page_of
from apportion.display.pictures.explanations import ledger_bars

if TYPE_CHECKING:
    from apportion.results.result import Result

__all__ = [
    "frame",
    "frame_page",
    "ledger_bars",
    "overview",
    "overview_page",
    "page_of",
    "paragraph",
    "plot",
    "table",
    "waterfall",
]


def plot(result: Result, index: int = 0, ax: Any = None) -> Any:
    """Draw one sample on matplotlib Axes (made if not given) and return them."""
    from apportion.display.pictures import explanations, interactions
    from apportion.results.interactions import Interactions

    return (interactions if isinstance(result, Interactions) else explanations).plot(result, index, ax)


def overview_page(of: Any) -> str:
    """One HTML page of an overview, or of several."""
    from apportion.display import overviews

    return overviews.overview_page(of if isinstance(of, list | tuple) else [of])


def overview(picture: str, of: Any, ax: Any = None, **settings: Any) -> Any:
    """Draw a picture of an overview, by its name, on matplotlib Axes (made if not given) and return them."""
    from apportion.display.pictures import overviews

    return getattr(overviews, picture)(of, ax, **settings)


def waterfall(result: Result, index: int = 0, ax: Any = None) -> Any:
    """Draw how one sample gets from the start to its score."""
    from apportion.display.pictures import overviews

    return overviews.waterfall(result, index, ax)
