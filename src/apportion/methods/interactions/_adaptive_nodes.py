"""Where to put the nodes of a path integral with a second derivative in it.

Along a path, `F(u) = f(x′ + u (x − x′))`. Whatever the groups, the interactions of a stretch of it sum to an
exact value, `∫ₐᵇ −ln u (u F′)′ du = [−ln u · u F′]ₐᵇ + F(b) − F(a)`, so the error of a rule on that stretch
is known from scalar derivatives along the path. The worst stretches are bisected until the errors sum to
little.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from apportion.errors import InputError, first_line
from apportion.methods.paths.paths import Paths, pieces
from apportion.methods.paths.quadrature import Nodes, panel

# Gauss nodes of the undivided path, and of each panel once it is divided.
WHOLE, PART = 8, 6

# An error that is left on a panel as narrow as this is that of a kink, and no division makes it smaller.
NARROWEST = 1e-12

Panel = tuple[float, float]


@dataclass
class Line:
    """One path, divided: the error on each panel, and (F, F′) at the edges."""

    path: int
    errors: dict[Panel, float] = field(default_factory=dict)
    edges: dict[float, tuple[float, float]] = field(default_factory=dict)
    low: float = math.inf
    high: float = -math.inf

    @property
    def error(self) -> float:
        return sum(abs(e) for e in self.errors.values())

    def nodes(self) -> Nodes:
        """The composite rule on all panels."""
        rules = [panel(low, high, _count_nodes(low, high)) for low, high in sorted(self.errors)]
        return Nodes(*(np.concatenate([getattr(r, n) for r in rules]) for n in ("places", "second", "first")))

    @property
    def many(self) -> int:
        """Nodes at which a Hessian will be needed."""
        return int((self.nodes().second != 0).sum())


def adapt(
    paths: Paths, which: Tensor, tolerance: float, max_nodes: int, chunk: int
) -> tuple[list[Line], set[int], set[int]]:
    """Divide the paths `which` until the error of each is within `tolerance` of what it is to sum to.

    Returns one `Line` a path, the paths on which `max_nodes` or a kink did not allow it, and those on which the number
    format cannot tell what is left from zero. The error is that of the sum over all pairs of features: single
    interactions can be some ten times less accurate.
    """
    lines = {int(p): Line(int(p)) for p in which}
    new: list[tuple[int, Panel]] = [(p, (0.0, 1.0)) for p in lines]
    missed: set[int] = set()
    coarse: set[int] = set()
    while new:
        _measure(paths, lines, new, chunk)
        new = []
        for path in {p for p in lines if p not in missed | coarse}:
            line, one = lines[path], torch.tensor([path])
            numbers = torch.tensor([[line.error], [line.low], [line.high]], dtype=torch.float64)
            wide, fine = paths.judge(one, numbers[0], tolerance, numbers[1], numbers[2])
            if fine:
                coarse.add(path)
            if not wide:
                continue
            if line.many + PART > max_nodes:
                missed.add(path)
                continue
            worst = max(abs(e) for e in line.errors.values())
            panels = [k for k, e in line.errors.items() if abs(e) >= 0.3 * worst and k[1] - k[0] > NARROWEST]
            if not panels:
                missed.add(path)
            for low, high in panels:
                del line.errors[low, high]
                # Near 0 the weight is singular, and a path from zero often is as well: go there faster.
                middle = (low + high) / 2 if low > 0 else high / 4
                new += [(path, (low, middle)), (path, (middle, high))]
    return list(lines.values()), missed, coarse


def _measure(paths: Paths, lines: dict[int, Line], new: list[tuple[int, Panel]], chunk: int) -> None:
    """Evaluate the new panels: at their nodes, and at the edges that are not known yet."""
    rows: list[tuple[int, float]] = []
    for path, (low, high) in new:
        rows += [(path, u) for u in (low, high) if u not in lines[path].edges]
        rows += [(path, float(u)) for u in panel(low, high, _count_nodes(low, high)).places]
    rows = list(dict.fromkeys(rows))
    which, places = (
        torch.tensor([r[0] for r in rows]),
        torch.tensor([r[1] for r in rows], dtype=torch.float64),
    )
    known = dict(zip(rows, measure_along(paths, which, places, chunk).T.tolist(), strict=True))
    for path, place in rows:
        value = known[path, place]
        lines[path].low, lines[path].high = min(lines[path].low, value[0]), max(lines[path].high, value[0])
    for path, (low, high) in new:
        line, rule = lines[path], panel(low, high, _count_nodes(low, high))
        for u in (low, high):
            if u not in line.edges:
                line.edges[u] = (known[path, u][0], known[path, u][1])
        inside = np.array([known[path, float(u)] for u in rule.places])  # (nodes, 3): F, F′, F″
        found = float(rule.second @ (inside[:, 1] + rule.places * inside[:, 2]))
        ends = [0.0 if u == 0 else -math.log(u) * u * line.edges[u][1] for u in (low, high)]
        line.errors[low, high] = found - (ends[1] - ends[0] + line.edges[high][0] - line.edges[low][0])


def _count_nodes(low: float, high: float) -> int:
    return WHOLE if (low, high) == (0.0, 1.0) else PART


def measure_along(paths: Paths, which: Tensor, places: Tensor, chunk: int) -> Tensor:
    """`F`, `F′` and `F″` at places of paths: (3, rows) in double precision on the CPU."""
    found, cut = [], False
    for path, place in zip(pieces(which, chunk), pieces(places, chunk), strict=True):
        score, steps = paths.forward(path, place), paths.steps(path)
        with twice_differentiable():
            first = _dot(score.gradients(create_graph=True), steps)  # (rows,): F′
            second = torch.zeros_like(first)
            if first.requires_grad:
                curved = paths.subject.derivatives(first, score.leaves, len(path))
                cut = cut or all(c is None for c in curved)
                pairs = zip(curved, steps, strict=True)
                second = _dot([torch.zeros_like(s) if c is None else c for c, s in pairs], steps)
        found.append(torch.stack([score.value, first, second]).detach().double().cpu())
    result = torch.cat(found, 1)  # (3, rows)
    if not bool(torch.isfinite(result).all()):
        raise InputError(
            "the model's first or second derivatives are NaN or infinite between the baseline and the input; "
            "try another baseline"
        )
    if cut and not _has_one_slope(result[1], which, paths.dtype):
        # A custom backward pass has cut the graph without a word; that of a convolution's gradient just ends.
        raise InputError(_NOT_TWICE.format("the graph of its gradient is cut"))
    return result


def _has_one_slope(slopes: Tensor, which: Tensor, dtype: torch.dtype) -> bool:
    """True if each path has one slope at all of its places, but for rounding."""
    allowed = math.sqrt(torch.finfo(dtype).eps) * slopes.abs().max()
    own = (slopes[which == path] for path in which.unique())
    return all(bool(s.max() - s.min() <= allowed) for s in own)


_NOT_TWICE = (
    "the model is not twice differentiable ({}); use a first-order method such as IntegratedGradients"
)


def _dot(gradients: tuple[Tensor, ...] | list[Tensor], steps: list[Tensor]) -> Tensor:
    products = [g * s for g, s in zip(gradients, steps, strict=True)]
    return torch.stack([p.reshape(len(p), -1).sum(1) for p in products]).sum(0)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Say in one line that an operation of the model has no second derivative."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "derivative" in text or "differentiable" in text:
            raise InputError(_NOT_TWICE.format(first_line(text))) from error
        raise
