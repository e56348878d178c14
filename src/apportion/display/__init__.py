"""Every picture and page. Results come here when something is to be drawn; nothing here knows a model or a method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from apportion.results.ledger import Ledger
    from apportion.results.result import Result


def plot(result: Result, index: int = 0, ax: Any = None) -> Any:
    """Draw one sample on matplotlib Axes (made if not given) and return them."""
    from apportion import pictures, pictures_interactions
    from apportion.results.explanation import Explanation
    from apportion.results.interactions import Interactions

    if isinstance(result, Interactions):
        return pictures_interactions.plot(result, index, ax)
    assert isinstance(result, Explanation)
    return pictures.plot(result, index, ax)


def page(results: Sequence[Any]) -> str:
    """One self-contained HTML page."""
    from apportion import report

    return report.page(results)


def frame(result: Any) -> str:
    """The page as a part of another, for notebooks."""
    from apportion import report

    return report.frame(result)


def paragraph(text: str) -> str:
    """Text for a notebook."""
    from apportion import markup

    return markup.paragraph(text)


def table(
    rows: Sequence[Sequence[str]],
    notes: Sequence[str] = (),
    bold: Collection[tuple[int, int]] = (),
    faint: Collection[int] = (),
) -> str:
    """A small table for a notebook."""
    from apportion import markup

    return markup.table(rows, notes, bold, faint)


def ledger_bars(ledger: Ledger, ax: Any = None, k: int = 12) -> Any:
    """Bars of the rows that absorbed most, by cause, on matplotlib Axes."""
    from apportion import pictures

    return pictures.ledger_bars(ledger, ax, k)
