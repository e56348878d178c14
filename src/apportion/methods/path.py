"""Integrated Gradients: the gradient integrated along a straight path from a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.explanation import Explanation
from apportion.forward import Inputs, Model, Score, Subject
from apportion.target import Target, pick


@dataclass(frozen=True)
class IntegratedGradients:
    """Integrated Gradients (Sundararajan et al. 2017), `φᵢ = (xᵢ − x′ᵢ) ∫₀¹ ∂ᵢf(x′ + α(x − x′)) dα`.

    Gauss-Legendre nodes are doubled, from 8, for the samples whose |remainder| is above `tolerance` times
    |total|, up to `max_nodes`; a warning on the explanation says where that was not enough. With `nodes`
    that number is used as it is. `baseline` is the x′ of every entry (of every embedding entry for token
    ids); a tensor in the inputs' shape can be given in the call. `total` is `f(x) − f(x′)`. Cost: two
    forward passes, and one forward and backward pass per node, `chunk` rows at a time.

    >>> e = IntegratedGradients()(lambda x: x[:, :1] * x[:, 1:], torch.tensor([[2.0, 3.0]]))
    >>> e.values.round(decimals=4).tolist()
    [[3.0, 3.0]]
    """

    baseline: float = 0.0
    nodes: int | None = None
    tolerance: float = 1e-2
    max_nodes: int = 512
    chunk: int = 32
    at: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name in ("nodes", "max_nodes", "chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; accepted: at least 1")
        if self.tolerance <= 0:
            raise InputError(f"tolerance is {self.tolerance}; accepted: a positive share of the total")

    def __call__(
        self, model: Model, inputs: Inputs, target: Target = None, *, baseline: Tensor | None = None
    ) -> Explanation:
        subject = Subject(model, inputs, target, self.at)
        score = subject.forward()
        ends = [leaf.detach() for leaf in score.leaves]
        starts = [self._start(end, baseline, len(ends)) for end in ends]
        total = score.value.detach() - _value(subject, score, starts)
        values = [torch.zeros_like(end) for end in ends]
        open_rows = torch.arange(subject.batch, device=ends[0].device)
        nodes = self.nodes or min(8, self.max_nodes)
        while True:
            found = integrate(subject, starts, ends, open_rows, nodes, self.chunk)
            for value, new in zip(values, found, strict=True):
                value[open_rows] = new
            gap = (total - sum(v.flatten(1).sum(1) for v in values)).abs()
            open_rows = (gap > self.tolerance * total.abs()).nonzero().flatten()
            if self.nodes or not len(open_rows) or nodes >= self.max_nodes:
                break
            nodes = min(2 * nodes, self.max_nodes)
        warnings = ()
        if len(open_rows) and not self.nodes:
            warnings = (f"samples {open_rows.tolist()[:8]} are not within tolerance after max_nodes={nodes} nodes",)
        return subject.explanation(self, score, values, total, warnings=warnings, notes={"nodes": nodes})

    def _start(self, end: Tensor, baseline: Tensor | None, leaves: int) -> Tensor:
        if baseline is None:
            return torch.full_like(end, self.baseline)
        if leaves > 1:
            raise InputError("a baseline tensor was given for a model with several inputs; accepted: a number")
        try:
            return baseline.to(end).expand_as(end)
        except RuntimeError:
            raise InputError(
                f"baseline has shape {tuple(baseline.shape)}; accepted: {tuple(end.shape)} or what broadcasts to it"
            ) from None


@cache
def gauss_legendre(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the Gauss-Legendre rule on (0, 1).

    >>> a, w = gauss_legendre(3)
    >>> bool(abs((w * a**5).sum() - 1 / 6) < 1e-15)
    True
    """
    places, weights = np.polynomial.legendre.leggauss(nodes)
    return (places + 1) / 2, weights / 2


def integrate(
    subject: Subject, starts: Sequence[Tensor], ends: Sequence[Tensor], rows: Tensor, nodes: int, chunk: int
) -> list[Tensor]:
    """`(end − start) ∫ ∇f dα` for the samples `rows`, each (len(rows), …)."""
    places, weights = (torch.as_tensor(a, dtype=ends[0].dtype, device=ends[0].device) for a in gauss_legendre(nodes))
    node, slot = torch.meshgrid(torch.arange(nodes), torch.arange(len(rows)), indexing="ij")
    node, slot = node.flatten().to(rows.device), slot.flatten().to(rows.device)
    sums = [torch.zeros_like(end[rows]) for end in ends]
    for begin in range(0, len(node), chunk):
        part = slice(begin, begin + chunk)
        which = rows[slot[part]]
        alpha, weight = places[node[part]], weights[node[part]]
        points = [
            torch.lerp(start[which], end[which], _column(alpha, end)) for start, end in zip(starts, ends, strict=True)
        ]
        gradients = subject.forward(leaves=points, rows=which).gradients()
        for total, gradient in zip(sums, gradients, strict=True):
            total.index_add_(0, slot[part], gradient * _column(weight, gradient))
    return [s * (end - start)[rows] for s, start, end in zip(sums, starts, ends, strict=True)]


def _column(numbers: Tensor, like: Tensor) -> Tensor:
    return numbers.view(-1, *[1] * (like.dim() - 1))


def _value(subject: Subject, score: Score, leaves: Sequence[Tensor]) -> Tensor:
    again = subject.forward(leaves=leaves, grad=False)
    return pick(subject.resolved, again.output)
