"""Second derivatives between features, summed over the nodes of many paths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from apportion.core.progress import progress
from apportion.engines.substitution import Gradients
from apportion.errors import InputError
from apportion.methods.interactions._adaptive_nodes import twice_differentiable
from apportion.methods.interactions._groups import Groups
from apportion.methods.paths.paths import Paths, pieces
from apportion.methods.paths.quadrature import Nodes

# Entries of all rows of a pass below which several groups share one double-backward pass.
SMALL = 2**18


def rows_for(pairs: Sequence[int | tuple[int, int]] | None, many: int) -> list[int]:
    """The rows of the matrix that hold the wanted pairs: few of them, the busiest features first."""
    if pairs is None:
        return list(range(many))
    rows = {p for p in pairs if isinstance(p, int)}
    left = [p for p in pairs if not isinstance(p, int)]
    for feature in (*rows, *(i for pair in left for i in pair)):
        if not 0 <= feature < many:
            raise InputError(f"pairs names feature {feature}; there are features 0 to {many - 1}")
    while left := [p for p in left if not rows & set(p)]:
        counts = [i for pair in left for i in set(pair)]
        rows.add(max(sorted(set(counts)), key=counts.count))
    return sorted(rows)


class Sums:
    """`Γ` and the Integrated Gradients of each sample while the nodes are visited."""

    def __init__(
        self, paths: Paths, groups: Groups, rows: list[int], chunk: int, vectorize: int | None
    ) -> None:
        self.chunk, self.vectorize = chunk, vectorize
        self.groups, self.rows, self.batch = groups, rows, paths.batch
        device = paths.ends[0].device
        wide = torch.float32 if device.type == "mps" else torch.float64
        self.gamma = torch.zeros(paths.batch, len(groups), len(groups), dtype=wide, device=device)
        self.phi = torch.zeros(paths.batch, len(groups), dtype=wide, device=device)
        self.rules: list[Nodes] = []
        moving = [(s != 0).to(s) for s in paths.steps(torch.arange(paths.many))]
        sample = torch.arange(paths.many, device=device) % paths.batch
        moves = groups.sums(moving, sample).new_zeros(paths.batch, len(groups))
        self.moves = moves.index_add(0, sample, groups.sums(moving, sample)) > 0

    def add(self, paths: Paths, lines: list[int], rules: list[Nodes]) -> None:
        """Visit the nodes of each path, those that need a Hessian first."""
        self.rules += rules
        which = torch.tensor(lines).repeat_interleave(torch.tensor([len(r.places) for r in rules]))
        columns = [
            torch.as_tensor(np.concatenate([getattr(r, n) for r in rules]))
            for n in ("places", "second", "first")
        ]
        curved = columns[1] != 0
        total = int(curved.sum()) * len(self.rows) + int((~curved).sum())

        def visits() -> Iterator[range]:
            for chosen in (curved, ~curved):
                parts = (pieces(t[chosen], self.chunk) for t in (which, *columns))
                for path, place, second, first in zip(*parts, strict=True):
                    weights = second / paths.baselines, first / paths.baselines
                    yield from self._visit(paths, path, place, *weights, chosen is curved)

        for _ in progress(visits(), total, "derivatives"):
            pass

    def _visit(
        self, paths: Paths, path: Tensor, place: Tensor, second: Tensor, first: Tensor, curved: bool
    ) -> Iterator[range]:
        """Visit some nodes, and say after each pass how many derivatives it was for."""
        score, steps = paths.forward(path, place), paths.steps(path)
        device = steps[0].device
        sample = (path % self.batch).to(device)  # (rows,)
        with twice_differentiable():
            gradients = score.gradients(create_graph=curved)
            parts = self.groups.sums([g * s for g, s in zip(gradients, steps, strict=True)], sample)
            flat = parts.detach().to(self.phi.dtype)  # (rows, groups): each group's part of F′(u)
            self.phi.index_add_(0, sample, flat * first.to(self.phi)[:, None])
            if not curved:
                yield range(len(path))
                return
            self.gamma.diagonal(dim1=1, dim2=2).index_add_(0, sample, flat * second.to(self.phi)[:, None])
            if not parts.requires_grad:  # the model is linear here
                return
            weighted = (parts * (second * place).to(parts)[:, None]).sum(0)  # (groups,): −ln u · u weighs H
            moving = self.moves[sample].any(0).tolist()
            rows = [row for row in self.rows if moving[row]]
            many = self.vectorize or max(1, min(64, SMALL // max(1, sum(s.numel() for s in steps))))
            for begin in range(0, len(rows), many):
                some = rows[begin : begin + many]
                found = _double_backward(
                    paths.subject, weighted, some, score.leaves, begin + many < len(rows)
                )
                stacked = [(f * s).flatten(0, 1) for f, s in zip(found, steps, strict=True)]
                sums = self.groups.sums(stacked, sample.repeat(len(some))).view(len(some), len(path), -1)
                index = torch.tensor(some, device=device)
                self.gamma.index_put_((sample[None], index[:, None]), sums.to(self.gamma), accumulate=True)
                yield range(len(some) * len(path))

    def values(self) -> Tensor:
        """The matrix of each sample, NaN where it was not asked for."""
        if not bool(torch.isfinite(self.gamma).all()):
            raise InputError(
                "the model's second derivatives are NaN or infinite; try another baseline or a larger beta"
            )
        if self.whole:
            return (self.gamma + self.gamma.mT) / 2  # equal up to rounding
        known = torch.full_like(self.gamma, torch.nan)
        known[:, self.rows] = self.gamma[:, self.rows]
        known[:, :, self.rows] = self.gamma[:, self.rows].mT
        return known

    @property
    def whole(self) -> bool:
        return len(self.rows) == len(self.groups)


def _double_backward(
    subject: Gradients, weighted: Tensor, rows: list[int], leaves: list[Tensor], keep: bool
) -> list[Tensor]:
    """The derivatives of `weighted[rows]` at each leaf: (rows, …), in one pass where that works."""
    many = len(leaves[0])
    if len(rows) > 1:
        chosen = torch.eye(len(weighted), dtype=weighted.dtype, device=weighted.device)[rows]
        try:
            found = subject.derivatives(
                weighted, leaves, many, chosen, retain_graph=True, is_grads_batched=True
            )
            return [
                x.new_zeros(len(rows), *x.shape) if f is None else f
                for f, x in zip(found, leaves, strict=True)
            ]
        except RuntimeError:  # an operation that cannot be vectorised
            pass
    each = [
        subject.derivatives(weighted[row], leaves, many, retain_graph=keep or row != rows[-1]) for row in rows
    ]
    return [
        torch.stack([torch.zeros_like(x) if part is None else part for part in parts])
        for x, parts in zip(leaves, zip(*each, strict=True), strict=True)
    ]
