"""Every picture, page and terminal output; nothing here knows a model or a method.

Results come to this file when something is to be drawn. `views.py` says what there is to show of one sample: open it
first. `pictures/`, `page.py` and `terminal.py` draw it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from apportion.results.ledger import Ledger
    from apportion.results.result import Result


def plot(result: Result, index: int = 0, ax: Any = None) -> Any:
    """Draw one sample on matplotlib Axes (made if not given) and return them."""
    from apportion.display.pictures import explanations, interactions
    from apportion.results.interactions import Interactions

    return (interactions if isinstance(result, Interactions) else explanations).plot(result, index, ax)


def page_of(results: Sequence[Any]) -> str:
    """One self-contained HTML page."""
    from apportion.display.page import page

    return page(results)


def frame(result: Any) -> str:
    """The page as a part of another, for notebooks."""
    from apportion.display import page

    return page.frame(result)


def paragraph(text: str) -> str:
    """Text for a notebook."""
    from apportion.display import html

    return html.paragraph(text)


def table(
    rows: Sequence[Sequence[str]],
    notes: Sequence[str] = (),
    bold: Collection[tuple[int, int]] = (),
    faint: Collection[int] = (),
) -> str:
    """A small table for a notebook."""
    from apportion.display import html

    return html.table(rows, notes, bold, faint)


def ledger_bars(ledger: Ledger, ax: Any = None, k: int = 12) -> Any:
    """Bars of the rows that absorbed most, by cause, on matplotlib Axes."""
    from apportion.display.pictures import explanations

    return explanations.ledger_bars(ledger, ax, k)
