"""Owen values: Shapley values of features in groups, which join and leave as a whole seen from outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.core.features import TabularFeatures
from apportion.core.inputs import Inputs
from apportion.core.settings import checked
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import Partition, as_partition
from apportion.errors import InputError, check_whole, nearest
from apportion.methods.hiding._coalitions import Numbers
from apportion.methods.hiding._surrogates import as_numbers
from apportion.methods.hiding.base import Hiding
from apportion.results.explanation import Explanation

Node = int | list["Node"]
"""A feature, or a group of features and of further groups."""


@dataclass(frozen=True)
@checked
class Owen(Hiding[Tensor]):
    """Compute Owen values, the Shapley values of features that stand in groups (Owen 1977; of groups in groups, Winter
    1989).

    The groups share the total as players of a Shapley game, and the members of each share what it has: a group is
    shown or hidden as a whole where the members of another one are asked for. With each feature in a group of its own
    these are the Shapley values. They add up to `total`, `f(x)` minus the score with all features hidden;
    `notes["groups"]` has the sum of each named group, its own Shapley value.

    Up to `samples` coalitions they are exact; else a mean over random orders in which groups stay together, each with
    its reverse, which adds up all the same. `notes["standard_errors"]` says how sure it is (zero where exact). Cost: a
    forward pass for each coalition (times the rows of a `Background`), and up to two more.

    Settings: those below and those of [Hiding][apportion.methods.hiding.base.Hiding].

    Attributes:
        groups (dict or list, default None): The features of each group, by the names of columns or their numbers, and
            groups in it: `{"place": {"home": ["city", "zip"], "work": ["office"]}, "money": ["income"]}`, or `[[0, 1],
            [2, [3, 4]]]`. What is named nowhere is a group of its own; None: each feature is.
        samples (int, default 4096): Coalitions that are run at most.
        partition (Partition or Tensor, default None): The features; None: columns, words, patches of a picture.

    >>> model = lambda x: x[:, 0] * x[:, 1] * x[:, 2]
    >>> Owen(groups=[[0, 1]])(model, torch.tensor([[1.0, 2.0, 3.0]])).values.tolist()
    [[1.5, 1.5, 3.0]]
    """

    groups: Any = None
    samples: int = 4096
    partition: Partition | Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(4, samples=self.samples)
        if self.groups is not None:
            named = [member for _, group in _listed(self.groups) for member in _leaves(group)]
            if twice := next((name for name in named if named.count(name) > 1), None):
                raise InputError(f"{twice!r} is in two groups; accepted: each feature once")

    def cut(self, inputs: Inputs) -> Partition | None:
        return as_partition(self.partition)

    def explain(self, masking: Masking) -> Explanation[Any, Tensor]:
        batch, many = masking.batch, masking.many
        effects, ends = np.zeros((batch, many)), np.zeros((batch, 2))
        errors: list[tuple[float, ...]] = [()] * batch
        groups: list[dict[str, float]] = [{}] * batch
        most = 0
        counts = masking.counts.numpy()
        for count in np.unique(counts).tolist():  # samples with as many features at once
            where = np.flatnonzero(counts == count)
            tree, named = self._tree(masking, count)
            exact = sum(_orders(tree)) <= self.samples
            masks, weights = _exact(tree, count) if exact else _drawn(tree, count, self.samples, self.seed)
            both = np.concatenate([np.array([[False], [True]]).repeat(count, 1), masks])
            padded = torch.from_numpy(np.pad(both, ((0, 0), (0, many - count)), constant_values=True))
            runs = as_numbers(masking.values(padded, torch.from_numpy(where)))  # (rows, masks)
            ends[where], most = runs[:, :2], max(most, len(masks))
            found = (
                (runs[:, 2:] @ weights)[:, None] if exact else _along(weights, runs)
            )  # (rows, pairs, features)
            effects[where, :count] = found.mean(1)
            sure = np.zeros(effects.shape) if exact else found.std(1, ddof=1) / len(weights) ** 0.5
            for row, error in zip(where.tolist(), sure.tolist(), strict=False):
                errors[row] = tuple(error[:count])
                groups[row] = {name: float(effects[row, of].sum()) for name, of in named.items()}
        notes: dict[str, Any] = {"samples": most, "intercept": tuple(ends[:, 0].tolist())}
        notes["standard_errors"] = tuple(errors)
        if any(groups):
            notes["groups"] = tuple(groups)
        device = masking.score.device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        values, total = (
            torch.from_numpy(part).to(device, dtype) for part in (effects, ends[:, 1] - ends[:, 0])
        )
        return masking.explanation(self, masking.spread(values), total, notes=notes)

    def _tree(self, masking: Masking, many: int) -> tuple[list[Node], dict[str, list[int]]]:
        """The groups of so many features, by number, and the features of those that have a name."""
        known = masking.features_as_cut()
        names = known[0].columns if known and isinstance(known[0], TabularFeatures) else ()
        given = [] if self.groups is None else _listed(self.groups)
        found = [(name, _numbered(group, names, many)) for name, group in given]
        tree: list[Node] = [group for _, group in found]
        inside = {leaf for group in tree for leaf in _leaves(group)}
        named = {name: list(_leaves(group)) for name, group in found if name}
        return [*tree, *(i for i in range(many) if i not in inside)], named


def _listed(groups: Any) -> list[tuple[str, Any]]:
    """The members of a group, with their names where they have some. InputError for what is none."""
    if isinstance(groups, Mapping):
        found = [(str(name), group) for name, group in groups.items()]
    elif isinstance(groups, list | tuple):
        found = [("", group) for group in groups]
    else:
        found = []
    if not found:
        raise InputError(
            f"groups is {groups!r:.60}; accepted: a dict or list of groups, which are lists of names or numbers of "
            "features, or dicts and lists of further groups"
        )
    return found


def _leaves(group: Any) -> Iterator[Any]:
    if isinstance(group, str | int) and not isinstance(group, bool):
        yield group
        return
    for _, member in _listed(group):
        yield from _leaves(member)


def _numbered(group: Any, names: Sequence[str], many: int) -> Node:
    if not isinstance(group, str | int):
        return [_numbered(member, names, many) for _, member in _listed(group)]
    if isinstance(group, str) and group in names:
        return list(names).index(group)
    if isinstance(group, int) and 0 <= group < many:
        return group
    near = (nearest(group, names) or list(names)[:3]) if isinstance(group, str) else []
    raise InputError(
        f"groups name {group!r}, and there is no such feature; accepted: a number from 0 to {many - 1}"
        + (f", or a name, such as {', '.join(map(repr, near))}" if near else "")
    )


def _orders(node: Node, before: int = 1) -> Iterator[int]:
    """How many coalitions each feature is added to."""
    if isinstance(node, int):
        yield 2 * before
        return
    for child in node:
        yield from _orders(child, before * 2 ** min(len(node) - 1, 60))


def _exact(tree: list[Node], many: int) -> tuple[np.ndarray, Numbers]:
    """The coalitions (coalitions, features), and the weight of each in each value."""
    table: dict[int, Numbers] = {}

    def visit(node: list[Node], around: dict[int, float]) -> None:
        """`around` are the coalitions outside this group, with their weights."""
        bits = [sum(1 << leaf for leaf in _leaves(child)) for child in node]
        for place, child in enumerate(node):
            others = [*bits[:place], *bits[place + 1 :]]
            shown = {
                mask | sum(some): weight
                * factorial(size)
                * factorial(len(others) - size)
                / factorial(len(node))
                for size in range(len(node))
                for some in combinations(others, size)
                for mask, weight in around.items()
            }
            if not isinstance(child, int):
                visit(child, shown)
                continue
            for mask, weight in shown.items():
                for coalition, sign in ((mask | 1 << child, 1.0), (mask, -1.0)):
                    table.setdefault(coalition, np.zeros(many))[child] += sign * weight

    visit(tree, {0: 1.0})
    masks = np.array([[coalition >> i & 1 for i in range(many)] for coalition in table], bool)
    return masks, np.stack(list(table.values()))


def _drawn(tree: list[Node], many: int, samples: int, seed: int) -> tuple[np.ndarray, Numbers]:
    """Coalitions along random orders, each followed by its reverse, and the orders (pairs, features)."""
    draw = np.random.default_rng(seed)

    def shuffled(node: Node) -> list[int]:
        if isinstance(node, int):
            return [node]
        return [leaf for place in draw.permutation(len(node)) for leaf in shuffled(node[place])]

    orders = np.array([shuffled(tree) for _ in range(max(2, samples // (2 * max(1, many - 1))))])
    ranks = orders.argsort(1)[:, None, :]  # (pairs, 1, features)
    steps = np.arange(1, many)[None, :, None]
    masks = np.stack([ranks < steps, many - 1 - ranks < steps], 1)  # (pairs, 2, many − 1, features)
    return masks.reshape(-1, many), orders


def _along(orders: Numbers, runs: Numbers) -> Numbers:
    """The mean of what each feature adds in an order and its reverse, (batch, pairs, features)."""
    batch, (pairs, many) = len(runs), orders.shape
    none, whole = (
        np.broadcast_to(runs[:, None, None, end : end + 1], (batch, pairs, 2, 1)) for end in (0, 1)
    )
    steps = np.diff(np.concatenate([none, runs[:, 2:].reshape(batch, pairs, 2, many - 1), whole], 3))
    found = np.zeros((batch, pairs, many))
    for way, order in enumerate((orders, orders[:, ::-1])):
        found[:, np.arange(pairs)[:, None], order] += steps[:, :, way] / 2
    return found
