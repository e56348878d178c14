"""Rows of the ledger that are filled in while relevance travels."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from apportion.results.ledger import Row

SOFTMAX = frozenset(
    "softmax log_softmax softmin special_log_softmax logsumexp logaddexp logcumsumexp".split()
)


@dataclass(eq=False)
class OpenRow:
    """A row that is being filled in during the backward pass."""

    module: str
    operation: str
    rule: str = ""
    ruled: bool = True
    # What the bias of a layer did not absorb, its stabiliser did; other operations have no stabiliser.
    layer: bool = False
    placed: bool = False  # what the bias took is shown where it looks
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

    def sum_of(self, what: str) -> float:
        return sum(float(amount) for amount in self.sums.get(what, ()))

    def close(self) -> Row:
        arrived, passed_on, bias = self.sum_of("arrived"), self.sum_of("passed_on"), self.sum_of("bias")
        placed = bias if self.placed else 0.0
        # What attention weights hand back to the values: what arrived at softmax for equal weights.
        returned = self.sum_of("returned")
        lost = arrived - passed_on - placed + returned
        if not self.ruled:
            cause = {"unruled": lost}
        elif self.layer:
            cause = {"bias": bias - placed, "stabiliser": lost - (bias - placed)}
        else:
            cause = {"softmax" if self.operation in SOFTMAX else "bias": lost}
        causes = {"bias": 0.0, "stabiliser": 0.0, "unruled": 0.0, **cause}
        return Row(
            self.module, self.operation, self.rule, arrived, passed_on,
            **{**causes, "softmax": causes.get("softmax", 0.0) - returned}, placed=placed,
        )  # fmt: skip
