"""The ledger: where relevance went, operation by operation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from apportion.core.visible import visible
from apportion.results.display import display

CAUSES = ("bias", "stabiliser", "unruled", "softmax")  # what can absorb relevance
_LATER = ("softmax", "placed")


@dataclass(frozen=True)
class Row:
    """One operation in one module: relevance that arrived at its output, and what left for its inputs.

    `arrived − passed_on = bias + stabiliser + unruled + softmax + placed`: absorbed by constant terms (biases,
    offsets), by the stabiliser (or a rule that had nowhere to put it), for lack of a rule, or by a softmax (what its
    Taylor expansion leaves); or not absorbed, but shown in the map where the operation looks. All are sums over the
    batch.
    """

    module: str
    operation: str
    rule: str
    arrived: float
    passed_on: float
    bias: float
    stabiliser: float
    unruled: float
    softmax: float = 0.0
    placed: float = 0.0

    @property
    def numbers(self) -> tuple[float, ...]:
        return self.arrived, self.passed_on, *(getattr(self, what) for what in (*CAUSES, "placed"))

    @property
    def lost(self) -> float:
        """What the operation absorbed, whatever the cause."""
        return self.arrived - self.passed_on - self.placed

    def to_json(self) -> dict[str, Any]:
        """The entries; columns that came later only where there is something in them."""
        return {name: value for name, value in asdict(self).items() if value or name not in _LATER}


@dataclass(frozen=True)
class Ledger:
    """The rows, in the order in which the model called the operations. They add up to the remainder: `total −
    Σ values = Σ (bias + stabiliser + unruled + softmax)` within rounding; `residual` is what they miss of it. What was
    `placed` is in the values."""

    rows: tuple[Row, ...]
    total: float
    apportioned: float

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def absorbed(self) -> dict[str, float]:
        """How much each cause absorbed in all."""
        return {cause: sum(getattr(row, cause) for row in self.rows) for cause in CAUSES}

    @property
    def placed(self) -> float:
        """How much of what was apportioned is what biases took, shown where they look."""
        return sum(row.placed for row in self.rows)

    @property
    def residual(self) -> float:
        """The part of the remainder that no row accounts for (rounding, or functions that could not be seen)."""
        return self.total - self.apportioned - sum(self.absorbed.values())

    def largest(self, k: int = 10) -> list[Row]:
        """The rows that absorbed most, largest first."""
        return sorted(self.rows, key=lambda row: -abs(row.lost))[:k]

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": [row.to_json() for row in self.rows],
            "total": self.total,
            "apportioned": self.apportioned,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Ledger:
        return cls(tuple(Row(**row) for row in data["rows"]), data["total"], data["apportioned"])

    def _cells(self) -> list[list[str]]:
        """Headings, rows and sums as text."""
        rows = [
            [row.module or "(model)", row.operation, row.rule, *map("{:.4g}".format, row.numbers)]
            for row in self.rows
        ]
        sums = map("{:.4g}".format, (self.total, self.apportioned, *self.absorbed.values(), self.placed))
        return [
            ["module", "operation", "rule", "arrived", "passed on", *CAUSES, "placed"],
            *rows,
            ["total", "", "", *sums],
        ]

    def __str__(self) -> str:
        lines = [
            f"{module[-28:]:<28} {operation[:14]:<14} {rule[:30]:<30} {' '.join(f'{n:>10}' for n in numbers)}"
            for module, operation, rule, *numbers in self._cells()
        ]
        return visible("\n".join([*lines, f"residual {self.residual:.2g}"]))

    def _repr_html_(self) -> str:
        html: str = display().table(self._cells(), [f"residual {self.residual:.2g}"])
        return html

    def plot(self, ax: Any = None, k: int = 12) -> Any:
        """Bars of the rows that absorbed most, by cause, on matplotlib Axes."""
        return display().ledger_bars(self, ax, k)
