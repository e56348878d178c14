"""The ledger: where relevance went, operation by operation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """One operation in one module: relevance that arrived at its output, and what left for its inputs.

    `arrived − passed_on = bias + stabiliser + unruled`: absorbed by constant terms (biases, offsets, what a
    Taylor expansion leaves), by the stabiliser (or a rule that had nowhere to put it), or for lack of a rule.
    All are sums over the batch.
    """

    module: str
    operation: str
    rule: str
    arrived: float
    passed_on: float
    bias: float
    stabiliser: float
    unruled: float

    @property
    def numbers(self) -> tuple[float, ...]:
        return self.arrived, self.passed_on, self.bias, self.stabiliser, self.unruled


@dataclass(frozen=True)
class Ledger:
    """The rows, in the order in which the model called the operations. They add up to the remainder: `total −
    Σ values = Σ (bias + stabiliser + unruled)` within rounding; `residual` is what they miss of it."""

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
        return {
            cause: sum(getattr(row, cause) for row in self.rows)
            for cause in ("bias", "stabiliser", "unruled")
        }

    @property
    def residual(self) -> float:
        """The part of the remainder that no row accounts for (rounding, or functions that could not be seen)."""
        return self.total - self.apportioned - sum(self.absorbed.values())

    def largest(self, k: int = 10) -> list[Row]:
        """The rows that absorbed most, largest first."""
        return sorted(self.rows, key=lambda row: -abs(row.arrived - row.passed_on))[:k]

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": [asdict(row) for row in self.rows],
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
        sums = map("{:.4g}".format, (self.total, self.apportioned, *self.absorbed.values()))
        return [
            ["module", "operation", "rule", "arrived", "passed on", "bias", "stabiliser", "unruled"],
            *rows,
            ["total", "", "", *sums],
        ]

    def __str__(self) -> str:
        lines = [
            f"{module[-28:]:<28} {operation[:14]:<14} {rule[:30]:<30} {' '.join(f'{n:>10}' for n in numbers)}"
            for module, operation, rule, *numbers in self._cells()
        ]
        return "\n".join([*lines, f"residual {self.residual:.2g}"])

    def _repr_html_(self) -> str:
        from apportion.markup import table

        return table(self._cells(), [f"residual {self.residual:.2g}"])

    def plot(self, ax: Any = None, k: int = 12) -> Any:
        """Bars of the rows that absorbed most, by cause, on matplotlib Axes."""
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(7, 0.35 * min(k, len(self)) + 1.2), layout="constrained").subplots()
        most = max((abs(row.arrived - row.passed_on) for row in self.rows), default=0.0)
        rows = [row for row in self.largest(k) if abs(row.arrived - row.passed_on) > 1e-3 * most][::-1]
        left_plus, left_minus = [0.0] * len(rows), [0.0] * len(rows)
        colours = {"bias": "#4477aa", "stabiliser": "#ccbb44", "unruled": "#ee6677"}
        for cause, colour in colours.items():
            widths = [getattr(row, cause) for row in rows]
            starts = [p if w >= 0 else m for p, m, w in zip(left_plus, left_minus, widths, strict=True)]
            ax.barh(range(len(rows)), widths, left=starts, color=colour, label=cause)
            left_plus = [p + max(w, 0) for p, w in zip(left_plus, widths, strict=True)]
            left_minus = [m + min(w, 0) for m, w in zip(left_minus, widths, strict=True)]
        ax.set_yticks(range(len(rows)), [f"{row.module or '(model)'} · {row.operation}" for row in rows])
        ax.axvline(0, color="0.3", lw=0.8)
        ax.set_xlabel("relevance absorbed")
        ax.legend(frameon=False)
        return ax


@dataclass(eq=False)
class OpenRow:
    """A row that is being filled in during the backward pass."""

    module: str
    operation: str
    rule: str = ""
    ruled: bool = True
    layer: bool = (
        False  # what its bias did not absorb, its stabiliser did; other operations have no stabiliser
    )
    sums: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, what: str, amount: Tensor) -> None:
        self.sums.setdefault(what, []).append(amount.detach())

    def add_product(self, what: str, a: Tensor, b: Tensor | None) -> None:
        if b is None:  # autograd hands None to hooks where a probe took the relevance instead
            return
        wide = torch.float32 if a.device.type == "mps" else torch.float64
        # The real part of a·conj(b) is the pairing under which autograd's complex gradients are dual; a masked
        # score is −inf, with gradient zero.
        product = (a * b.conj()).real if a.is_complex() or b.is_complex() else torch.where(b == 0, 0, a * b)
        self.add(what, product.sum(dtype=wide))

    def of(self, what: str) -> float:
        return sum(float(amount) for amount in self.sums.get(what, ()))

    def closed(self) -> Row:
        arrived, passed_on, bias = self.of("arrived"), self.of("passed_on"), self.of("bias")
        lost = arrived - passed_on
        if not self.ruled:
            return Row(self.module, self.operation, self.rule, arrived, passed_on, 0.0, 0.0, lost)
        if self.layer:
            return Row(self.module, self.operation, self.rule, arrived, passed_on, bias, lost - bias, 0.0)
        return Row(self.module, self.operation, self.rule, arrived, passed_on, lost, 0.0, 0.0)
