"""A table as text, in whatever way it is shown: Markdown for files, columns for the terminal, HTML for a
notebook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apportion.results.display import display

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

NAMES = 32  # letters of a row's name that the terminal shows beside its cells


@dataclass(frozen=True)
class TextTable:
    """A title, the names of the columns, rows of cells as text, and notes under it.

    Rows that begin with a name in `references` are set apart; `best` are the (row, column) places in bold.

    >>> rows = (("Saliency", ".67"), ("Random", ".5"))
    >>> print(TextTable("F1", ("map", "SST"), rows, (), ("Random",), ((0, 1),)).markdown())
    ### F1
    <BLANKLINE>
    | map | SST |
    |---|---|
    | Saliency | **.67** |
    | *Random* | .5 |
    <BLANKLINE>
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    references: Sequence[str] = ()
    best: Sequence[tuple[int, int]] = ()

    def markdown(self) -> str:
        """The table as a section of a Markdown page."""
        lines = [f"### {self.title}", "", _line(self.columns), "|" + "---|" * len(self.columns)]
        for number, (name, *cells) in enumerate(self.rows):
            bold = [f"**{c}**" if self.is_best(number, i) else c for i, c in enumerate(cells, 1)]
            lines.append(_line([f"*{name}*" if name in self.references else name, *bold]))
        lines.append("")
        for note in self.notes:
            lines += [note, ""]
        return "\n".join(lines)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        """In as many pieces, one under the other, as the width asks for; then the notes."""
        from rich.text import Text

        names = min(max(len(str(row[0])) for row in (self.columns, *self.rows)), NAMES)
        wide = 2 + max((len(cell) for row in (self.columns, *self.rows) for cell in row[1:]), default=0)
        together = max(1, (options.max_width - names) // wide)
        if self.title:
            yield Text(self.title, "italic")
        for begin in range(1, len(self.columns), together):
            yield self._piece(range(begin, min(begin + together, len(self.columns))), names)
            yield Text()
        for note in self.notes:
            yield Text(note, "dim")

    def _piece(self, columns: range, names: int) -> Any:
        from rich.table import Table
        from rich.text import Text

        piece = Table(box=None, pad_edge=False)
        piece.add_column(Text(self.columns[0]), max_width=names)
        for j in columns:
            piece.add_column(Text(self.columns[j]), justify="right", no_wrap=True)
        for i, row in enumerate(self.rows):
            cells = [Text(row[j], "bold" if self.is_best(i, j) else "") for j in columns]
            piece.add_row(Text(row[0]), *cells, style="dim" if row[0] in self.references else "")
        return piece

    def html(self) -> str:
        """The table for a notebook."""
        bold = {(i + 1, j) for i, j in self.best}
        faint = {i for i, row in enumerate(self.rows, 1) if row[0] in self.references}
        html: str = display().table([self.columns, *self.rows], self.notes, bold, faint)
        return html

    def is_best(self, row: int, column: int) -> bool:
        """True if the cell at this place is set in bold."""
        return any((row, column) == tuple(place) for place in self.best)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
