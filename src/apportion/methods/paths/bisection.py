"""Where to put the nodes of a path integral: on panels that are halved where the gradient is hard to integrate.

On any stretch of a path the gradient integrates to a known number, what the score changes there, so the error of a rule
is known on each panel. Half of the tolerance that is left may go to the panels that are best; the others are halved.
A panel has its nodes at its ends and between them (Simpson's rule, where that is the middle), so that its halves use
them again, and the first panels those of the undivided path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from apportion.methods.paths.paths import Paths, pieces
from apportion.methods.paths.quadrature import gauss_legendre

# Gauss nodes of the undivided path, which do for a smooth one.
WHOLE = 8
# Those at the left, inside and at the right of the first panels of another, 8 for one more in the middle of the path.
# None are at its ends: any other stands there.
_PANELS = torch.tensor([[1, 1, 3, 4, 6], [0, 2, 8, 5, 7], [1, 3, 4, 6, 6]])

# The error on a panel as narrow as this is that of a jump, and no division makes it smaller.
NARROWEST = 1e-9

# The nodes of all paths that are kept at once hold so many numbers at most.
_NUMBERS = 1 << 26


@dataclass
class Nodes:
    """Where the gradient is known, and what it is: all (nodes, …)."""

    slot: Tensor  # the path, by its place in the block
    place: Tensor
    score: Tensor
    slope: Tensor  # of the score along the path
    gradients: list[Tensor]  # one for each leaf

    def __getitem__(self, which: Tensor) -> Nodes:
        return Nodes(
            self.slot[which],
            self.place[which],
            self.score[which],
            self.slope[which],
            [gradient[which.to(gradient.device)] for gradient in self.gradients],
        )

    def and_also(self, others: Nodes) -> Nodes:
        return Nodes(
            torch.cat([self.slot, others.slot]),
            torch.cat([self.place, others.place]),
            torch.cat([self.score, others.score]),
            torch.cat([self.slope, others.slope]),
            [torch.cat(pair) for pair in zip(self.gradients, others.gradients, strict=True)],
        )


@dataclass
class Budget:
    """Of nodes: `most` of each path, and, of paths that run `once`, `common` to all of them, since each node of each is
    a backward pass."""

    most: int
    common: float

    def cannot_pay(self, spent: int | Tensor, asked: Tensor) -> Tensor:
        """The paths that cannot run so many more nodes, (paths,); the cheapest come first."""
        order = asked.argsort(stable=True)
        over = asked[order].cumsum(0) > self.common
        return torch.zeros_like(over).index_copy(0, order, over) | (spent + asked > self.most)


def integrate_by_halves(
    paths: Paths, block: Tensor, tolerance: float, max_nodes: int, chunk: int
) -> tuple[list[Tensor], int, Tensor, Tensor]:
    """`∫ ∇f dα` of the paths `block`, (len(block), …) for each leaf; the most nodes of a path; and the paths that are
    not within `tolerance`: for want of nodes, and for want of digits. Paths that run `once` have
    `max_nodes` in common."""
    width = sum(end[0].numel() for end in paths.ends)
    parts = [
        _integrate(paths, some, tolerance, max_nodes, chunk)
        for some in pieces(block, max(1, _NUMBERS // (2 * WHOLE * width)))
    ]
    found, most, wide, coarse = zip(*parts, strict=True)
    return (
        [torch.cat(leaf) for leaf in zip(*found, strict=True)],
        max(most),
        torch.cat(wide),
        torch.cat(coarse),
    )


def _integrate(
    paths: Paths, block: Tensor, tolerance: float, max_nodes: int, chunk: int
) -> tuple[list[Tensor], int, Tensor, Tensor]:
    many, whole = len(block), min(WHOLE, max_nodes)
    places, weights = (torch.as_tensor(numbers).repeat_interleave(many) for numbers in gauss_legendre(whole))
    nodes = _run(paths, block, torch.arange(many).repeat(whole), places, chunk)  # (nodes · paths,)
    found = [torch.zeros_like(end[block.to(end.device) % paths.batch]) for end in paths.ends]
    _add(found, nodes, weights)
    grid = nodes.score.view(whole, many)
    gap = paths.at_ends[block] - paths.at_starts[block] - _dot(found, paths.steps(block))
    wide, coarse = paths.judge(block, gap.abs(), tolerance, grid.amin(0), grid.amax(0))
    common = max_nodes * many // paths.batch - whole * many if paths.once else torch.inf
    budget, most = Budget(max_nodes, common), whole
    again = (wide & ~budget.cannot_pay(whole, 1 * wide)).nonzero().flatten()
    if len(again):
        own = torch.arange(whole * many).view(whole, many)[:, again].flatten()
        known = replace(nodes[own], slot=torch.arange(len(again)).repeat(whole))
        halved = _integrate_panels(paths, block[again], known, tolerance, budget, chunk)
        for value, new in zip(found, halved[0], strict=True):
            value[again.to(value.device)] = new
        most, wide[again], coarse[again] = max(most, halved[1]), halved[2], halved[3]
    return found, most, block[wide], block[coarse]


def _integrate_panels(
    paths: Paths, block: Tensor, nodes: Nodes, tolerance: float, budget: Budget, chunk: int
) -> tuple[list[Tensor], int, Tensor, Tensor]:
    """The same on panels, where the whole path as one, of which the `nodes` are known, will not do."""
    many = len(block)
    found = [torch.zeros_like(end[block.to(end.device) % paths.batch]) for end in paths.ends]
    starts, ends = paths.at_starts[block], paths.at_ends[block]
    met = torch.cat([starts[None], ends[None], nodes.score.view(WHOLE, many)])
    low, high = met.amin(0), met.amax(0)
    left = torch.zeros(many, dtype=torch.float64)  # what the panels that are done did not reach
    given = torch.zeros(many, dtype=torch.float64)  # of the tolerance to them
    new = _run(paths, block, torch.arange(many), torch.full((many,), 0.5, dtype=torch.float64), chunk)
    nodes = nodes.and_also(new)
    panels = (_PANELS[:, :, None] * many + torch.arange(many)).flatten(1)  # (3, panels), nodes
    begins, finishes = (torch.arange(panels.shape[1]) // many == at for at in (0, _PANELS.shape[1] - 1))
    spent = torch.full((many,), WHOLE + 1)
    budget.common -= many
    while True:
        low, high = (
            bound.scatter_reduce(0, new.slot, new.score, how)
            for bound, how in ((low, "amin"), (high, "amax"))
        )
        slot = nodes.slot[panels[1]]
        edges = torch.stack([  # (2, panels)
            torch.where(begins, 0.0, nodes.place[panels[0]]),
            torch.where(finishes, 1.0, nodes.place[panels[2]]),
        ])  # fmt: skip
        width = edges[1] - edges[0]
        weights = width * _weights(
            (nodes.place[panels[1]] - edges[0]) / width, begins, finishes
        )  # (3, panels)
        reached = (weights * nodes.slope[panels]).sum(0)
        before = torch.where(begins, starts[slot], nodes.score[panels[0]])
        after = torch.where(finishes, ends[slot], nodes.score[panels[2]])
        errors = after - before - reached
        gap = left.index_add(0, slot, errors)
        wide, coarse = paths.judge(block, gap.abs(), tolerance, low, high)
        room = tolerance * paths.scale(block, low, high) - given
        done = ~wide[slot] | _within(errors.abs(), room / 2, slot) | (width < NARROWEST)
        asked = torch.zeros(many, dtype=torch.long).index_add(0, slot, 2 * (~done).long())
        # A path that cannot afford the next halving is done as it is.
        done |= budget.cannot_pay(spent, asked)[slot]
        share = torch.zeros_like(nodes.place).index_add(
            0, panels[:, done].flatten(), weights[:, done].flatten()
        )
        _add(found, nodes[share.nonzero().flatten()], share[share != 0])
        left.index_add_(0, slot[done], errors[done])
        given.index_add_(0, slot[done], errors[done].abs())
        if bool(done.all()):
            return found, int(spent.max()), wide, coarse
        # What the open panels need of the nodes is kept, and two more run for each of them.
        used, panels = panels[:, ~done].unique(return_inverse=True)
        nodes, begins, finishes = nodes[used], begins[~done], finishes[~done]
        middles = (edges[:, ~done] + nodes.place[panels[1]]) / 2  # (2, panels)
        slot = nodes.slot[panels[1]]
        new = _run(paths, block, slot.repeat(2), middles.flatten(), chunk)
        spent.index_add_(0, slot, torch.full_like(slot, 2))
        budget.common -= 2 * len(slot)
        first, second = (torch.arange(2 * len(slot)) + len(nodes.slot)).view(2, -1)
        nodes = nodes.and_also(new)
        panels = torch.cat(
            [torch.stack([panels[0], first, panels[1]]), torch.stack([panels[1], second, panels[2]])], 1
        )
        begins, finishes = (
            torch.cat([begins, torch.zeros_like(begins)]),
            torch.cat([torch.zeros_like(finishes), finishes]),
        )


def _weights(at: Tensor, begins: Tensor, finishes: Tensor) -> Tensor:
    """What the left, inner and right node of panels weigh of their width, (3, panels), where the inner one is `at` this
    share of it: exact for the parabola through all three, or, at the ends of a path, the line through two. (Paths from
    zero are often singular there.)"""
    ends, inner = torch.stack([at, 1 - at]), 1 / (6 * at * (1 - at))  # (2, panels)
    left, right = 0.5 - 1 / (6 * ends)
    zero, (last, first) = torch.zeros_like(at), 0.5 / ends
    begun, finished = torch.stack([zero, first, 1 - first]), torch.stack([1 - last, last, zero])
    within = torch.stack([left, inner, right])
    return torch.where(begins, begun, torch.where(finishes, finished, within))


def _run(paths: Paths, block: Tensor, slot: Tensor, places: Tensor, chunk: int) -> Nodes:
    """The gradients at these places of these paths, both (nodes,)."""
    which, each = block[slot], torch.arange(len(slot))
    gradients, scores = paths.weigh_gradients(which, each, places, torch.ones_like(places), chunk)
    return Nodes(slot, places, scores, _dot(gradients, paths.steps(which)), gradients)


def _add(found: list[Tensor], nodes: Nodes, weights: Tensor) -> None:
    for value, gradient in zip(found, nodes.gradients, strict=True):
        column = weights.to(gradient).view(-1, *[1] * (gradient.dim() - 1))  # (nodes, 1, …)
        value.index_add_(0, nodes.slot.to(value.device), gradient * column)


def _within(errors: Tensor, budget: Tensor, slot: Tensor) -> Tensor:
    """The panels of each path, the best first, whose errors together are within its budget."""
    order = errors.argsort()
    order = order[slot[order].argsort(stable=True)]  # by path, and there by error
    sums = errors[order].cumsum(0)
    first = torch.searchsorted(slot[order], slot[order])  # where each path begins
    before = torch.where(first > 0, sums[first - 1], 0.0)
    return torch.empty_like(order, dtype=torch.bool).index_copy(
        0, order, sums - before <= budget[slot[order]]
    )


def _dot(gradients: list[Tensor], steps: list[Tensor]) -> Tensor:
    """The product of each row, (rows,) in double precision on the CPU."""
    pairs = zip(gradients, steps, strict=True)
    return sum((g * s).reshape(len(g), -1).double().sum(1).cpu() for g, s in pairs)  # type: ignore[return-value]
