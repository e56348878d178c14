"""Every picture, page and terminal output; nothing here knows a model or a method.

Results come to this file when something is to be drawn. `views.py` says what there is to show of one sample: open it
first. `pictures/`, `page.py` and `terminal.py` draw it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apportion.display.html import paragraph, table
from apportion.display.page import frame
from apportion.display.page import page as page_of
from apportion.display.pictures.explanations import ledger_bars

if TYPE_CHECKING:
    from apportion.results.result import Result

__all__ = ["frame", "ledger_bars", "page_of", "paragraph", "plot", "table"]


def plot(result: Result, index: int = 0, ax: Any = None) -> Any:
    """Draw one sample on matplotlib Axes (made if not given) and return them."""
    from apportion.display.pictures import explanations, interactions
    from apportion.results.interactions import Interactions

    return (interactions if isinstance(result, Interactions) else explanations).plot(result, index, ax)
