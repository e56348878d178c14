"""Where to put the nodes of a path integral: on panels that are halved where the gradient is hard to integrate.

On any stretch of a path the gradient integrates to a known number, what the score changes there, so the error of a rule
is known on each panel. Half of the tolerance that is left may go to the panels that are best; the others are halved.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from apportion.methods.paths.paths import Paths
from apportion.methods.paths.quadrature import gauss_legendre

# Gauss nodes of the undivided path, and of each panel once it is divided.
WHOLE, PART = 8, 6

# The error on a panel as narrow as this is that of a jump, and no division makes it smaller.
NARROWEST = 1e-9


@dataclass
class Panels:
    """Stretches of paths that are still to be integrated, with the scores at their edges: all (panels,)."""

    slot: Tensor  # the path, by its place in the block
    low: Tensor
    high: Tensor
    at_low: Tensor
    at_high: Tensor

    def __getitem__(self, which: Tensor) -> Panels:
        return Panels(*(getattr(self, name)[which] for name in vars(self)))


def integrate_by_halves(
    paths: Paths, block: Tensor, tolerance: float, max_nodes: int, chunk: int
) -> tuple[list[Tensor], int, Tensor, Tensor]:
    """`∫ ∇f dα` of the paths `block`, (len(block), …) for each leaf; the most nodes of a path; and the paths that are
    not within `tolerance`: for want of nodes, and for want of digits. Paths that run `once` have
    `max_nodes` in common, discarded ones too, since each node of each is a backward pass."""
    many = len(block)
    found = [torch.zeros_like(end[block % paths.batch]) for end in paths.ends]
    steps = paths.steps(block)
    left = torch.zeros(many, dtype=torch.float64)  # what the panels that are done did not reach
    given = torch.zeros(many, dtype=torch.float64)  # of the tolerance to them
    nodes = torch.zeros(many, dtype=torch.long)  # on them
    ends = torch.stack([paths.at_starts[block], paths.at_ends[block]])
    low, high = ends.amin(0), ends.amax(0)  # of the scores met
    wide, coarse = torch.zeros(many, dtype=torch.bool), torch.zeros(many, dtype=torch.bool)
    nothing, one = torch.zeros(many, dtype=torch.float64), torch.ones(many, dtype=torch.float64)
    panels = Panels(torch.arange(many), nothing, one, *ends)
    each = min(WHOLE, max_nodes)
    common = max_nodes * many // paths.batch
    while len(panels.slot):
        slot = panels.slot
        sums, scores = _integrate(paths, block, panels, each, chunk)
        reached = sum(_dot(s, step[slot.to(step.device)]) for s, step in zip(sums, steps, strict=True))
        errors = panels.at_high - panels.at_low - reached
        low, high = (
            bound.scatter_reduce(0, slot.expand(each, -1).flatten(), scores.flatten(), how)
            for bound, how in ((low, "amin"), (high, "amax"))
        )
        gap = left.index_add(0, slot, errors)
        wide, fine = paths.judge(block, gap.abs(), tolerance, low, high)
        spent = nodes.index_add(0, slot, torch.full_like(slot, each))
        budget = tolerance * paths.scale(block, low, high) - given
        done = ~wide[slot] | _within(errors.abs(), budget / 2, slot) | (panels.high - panels.low < NARROWEST)
        halved = torch.zeros(many, dtype=torch.long).index_add(0, slot, (~done).long())
        # A path that cannot afford the next halving is done as it is.
        done |= (spent + halved * (2 * PART - each) > max_nodes)[slot]
        if paths.once:  # the cheapest first
            common -= each * len(slot)
            order = halved.argsort(stable=True)
            over = 2 * PART * halved[order].cumsum(0) > common
            done |= torch.zeros_like(wide).index_copy(0, order, over)[slot]
        kept = slot[done]
        for value, new in zip(found, sums, strict=True):
            value.index_add_(0, kept.to(value.device), new[done.to(new.device)])
        left.index_add_(0, kept, errors[done])
        given.index_add_(0, kept, errors[done].abs())
        nodes.index_add_(0, kept, torch.full_like(kept, each))
        coarse = fine
        panels, each = _halve(paths, block, panels[~done], chunk), PART
    return found, int(nodes.max()), block[wide], block[coarse]


def _integrate(
    paths: Paths, block: Tensor, panels: Panels, nodes: int, chunk: int
) -> tuple[list[Tensor], Tensor]:
    """`∫ ∇f dα` of each panel, (panels, …) for each leaf, and the scores met, (nodes, panels)."""
    places, weights = (torch.as_tensor(numbers) for numbers in gauss_legendre(nodes))
    width = panels.high - panels.low
    at = (panels.low + width * places[:, None]).flatten()  # (nodes · panels,)
    weight = (width * weights[:, None]).flatten()
    panel = torch.arange(len(width)).repeat(nodes)
    sums, scores = paths.weigh_gradients(block[panels.slot], panel, at, weight, chunk)
    return sums, scores.view(nodes, -1)


def _halve(paths: Paths, block: Tensor, panels: Panels, chunk: int) -> Panels:
    """Each panel as two. Paths from zero are often singular there: go there faster."""
    if not len(panels.slot):
        return panels
    middle = torch.where(panels.low > 0, (panels.low + panels.high) / 2, panels.high / 4)
    between = paths.values(block[panels.slot], middle, chunk)
    lower = Panels(panels.slot, panels.low, middle, panels.at_low, between)
    upper = Panels(panels.slot, middle, panels.high, between, panels.at_high)
    return Panels(*(torch.cat([getattr(lower, name), getattr(upper, name)]) for name in vars(lower)))


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


def _dot(gradient: Tensor, step: Tensor) -> Tensor:
    """The product of each panel, (panels,) in double precision on the CPU."""
    return (gradient * step).reshape(len(gradient), -1).double().sum(1).cpu()
