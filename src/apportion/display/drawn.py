"""What is shown as pictures side by side, as a figure, a page or in a notebook, is one class with a sheet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from apportion.core.files import written
from apportion.display.html import frame_page
from apportion.display.page_data import Sheet
from apportion.display.pictures.panels import draw
from apportion.display.sheet import sheet_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class DrawnBySheet:
    """The base of what is shown as pictures side by side: `sheet` is all of it as data."""

    @property
    def sheet(self) -> Sheet:
        raise NotImplementedError

    def plot(self) -> Figure:
        """Draw all of it as a matplotlib figure."""
        return draw(self.sheet)

    def to_html(self, path: str | Path | None = None) -> str:
        """Make one self-contained page; also written to `path` if given."""
        return written(sheet_page(self.sheet), path)

    def _repr_html_(self) -> str:
        return frame_page(self.to_html(), self.sheet["title"])
