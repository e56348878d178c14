"""Shapley values and interactions of a sum of trees, leaf by leaf, over rows of data.

A row x with some features hidden, which then have the values of a data row z, reaches a leaf if each feature that the
leaf's path asks meets it. So a leaf is the game "all of A are shown, none of B is", where A are the features of the
path that only x meets, B those that only z meets; one that neither meets makes it zero, one that both meet plays no
part. The Shapley value of a player of such a game depends on |A| and |B| alone (Lundberg et al. 2020,
"interventional"), and features that are hidden together are one player, whatever they are on the path.

Few patterns of what is met occur at a leaf, and each pair of them is computed once, with the rows of data that have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from math import factorial
from typing import Any

import numpy as np

from apportion.errors import InputError
from apportion.methods.trees._reading import Bools, Floats, Tree, Whole

MOST = 48  # features on one path: a pattern of them and the number of a leaf are one whole number
_PAIRS = 2**21  # patterns that are compared at once
_ROWS = 2**22  # leaves × rows at once


@dataclass(frozen=True)
class Leaves:
    """The leaves of a tree: the nodes on the path of each (leaves, depth), -1 beyond it; which side it takes there;
    the place of the node's feature among those of the path; and these features (leaves, places), -1 beyond them."""

    values: Floats
    nodes: Whole
    sides: Bools
    places: Whole
    features: Whole

    @classmethod
    def of(cls, tree: Tree, feature_of: Whole) -> Leaves:
        """`feature_of` has the feature of each column."""
        paths = list(_paths(tree))
        depth = max(1, max(len(path) for _, path in paths))
        nodes, sides = np.full((len(paths), depth), -1), np.zeros((len(paths), depth), bool)
        places = np.zeros((len(paths), depth), np.int64)
        found = []
        of_node = feature_of[tree.feature].tolist()
        for i, (_, path) in enumerate(paths):
            known: dict[int, int] = {}
            for j, (node, side) in enumerate(path):
                nodes[i, j], sides[i, j] = node, side
                places[i, j] = known.setdefault(of_node[node], len(known))
            found.append(list(known))
        widest = max(1, max(map(len, found)))
        if widest > MOST:
            raise InputError(f"a path in a tree asks {widest} features; accepted: at most {MOST}")
        features = np.full((len(paths), widest), -1)
        for i, row in enumerate(found):
            features[i, : len(row)] = row
        return cls(tree.values[[leaf for leaf, _ in paths]], nodes, sides, places, features)

    def missed(self, left: Bools) -> Whole:
        """The features of its path that a row does not meet, as bits: (leaves, rows), from where nodes send rows."""
        found = np.zeros((len(self.nodes), left.shape[1]), np.int64)
        for node, side, place in zip(self.nodes.T, self.sides.T, self.places.T, strict=True):
            on = np.flatnonzero(node >= 0)
            found[on] |= (left[node[on]] != side[on, None]).astype(np.int64) << place[on, None]
        return found


def _paths(tree: Tree) -> Iterator[tuple[int, list[tuple[int, bool]]]]:
    """Each leaf with the nodes on its path, and whether it goes left there."""
    waiting: list[tuple[int, list[tuple[int, bool]]]] = [(0, [])]
    while waiting:
        node, path = waiting.pop()
        if tree.left[node] < 0:
            yield node, path
        else:
            waiting.append((int(tree.left[node]), [*path, (node, True)]))
            waiting.append((int(tree.right[node]), [*path, (node, False)]))


@dataclass(frozen=True)
class TreeGame:
    """A tree over (columns, data rows) numbers, whose columns belong to `many` features."""

    tree: Tree
    leaves: Leaves
    data: Floats
    many: int

    @cached_property
    def _of_data(self) -> Patterns:
        return Patterns.of(self.leaves.missed(self.tree.goes_left(self.data)))

    def shapley(self, columns: Floats) -> Floats:
        """Of (columns, rows) numbers, (rows, features, outputs)."""
        rows, (many, outputs) = columns.shape[1], (self.many, self.leaves.values.shape[1])
        found = np.zeros((rows, many * outputs))
        for part, patterns in self._parts(columns):
            table = np.zeros((len(patterns.missed), self.leaves.features.shape[1]))
            for x, shown, hidden, weights in self._pairs(patterns, _shapley_weights()):
                for place in range(table.shape[1]):
                    share = np.where(shown >> place & 1, weights[0], 0) - np.where(
                        hidden >> place & 1, weights[1], 0
                    )
                    table[:, place] += np.bincount(x, share, len(table))
            for place in range(table.shape[1]):
                on = np.flatnonzero(self.leaves.features[:, place] >= 0)
                found[part] += self._spread(
                    table[patterns.inverse[on], place], on, self.leaves.features[on, place], many
                )
        return _means(found, self.data, (rows, many, outputs))

    def pairs(self, columns: Floats) -> Floats:
        """The Shapley interaction index of each pair, (rows, features, features, outputs), zero on the diagonal."""
        rows, (many, outputs) = columns.shape[1], (self.many, self.leaves.values.shape[1])
        found = np.zeros((rows, many * many * outputs))
        features = self.leaves.features
        for part, patterns in self._parts(columns):
            for one in range(features.shape[1]):
                for other in range(one):
                    on = np.flatnonzero(features[:, one] >= 0)
                    table = np.zeros(len(patterns.missed))
                    for x, shown, hidden, weights in self._pairs(patterns, _pair_weights()):
                        a, b = shown >> one & 1, shown >> other & 1
                        c, d = hidden >> one & 1, hidden >> other & 1
                        share = (a & b) * weights[0] - (a & d | c & b) * weights[1] + (c & d) * weights[2]
                        table += np.bincount(x, share, len(table))
                    cell = features[on, one] * many + features[on, other]
                    found[part] += self._spread(table[patterns.inverse[on]], on, cell, many * many)
        half = _means(found, self.data, (rows, many, many, outputs))
        both: Floats = half + half.transpose(0, 2, 1, 3)
        return both

    def _parts(self, columns: Floats) -> Iterator[tuple[slice, Patterns]]:
        """Some rows at a time."""
        at_once = max(1, _ROWS // len(self.leaves.values))
        for begin in range(0, columns.shape[1], at_once):
            part = slice(begin, begin + at_once)
            yield part, Patterns.of(self.leaves.missed(self.tree.goes_left(columns[:, part])))

    def _spread(self, shares: Floats, on: Whole, cell: Whole, many: int) -> Floats:
        """Shares (leaves, rows) of the values of some leaves, added up in the cell of each leaf: (rows, cells ×
        outputs)."""
        values = self.leaves.values[on]
        to = np.zeros((len(on), many, values.shape[1]))
        to[np.arange(len(on)), cell] = values
        found: Floats = shares.T @ to.reshape(len(on), many * values.shape[1])
        return found

    def _pairs(self, rows: Patterns, weigh: Any) -> Iterator[tuple[Whole, Whole, Whole, tuple[Floats, ...]]]:
        """Patterns of rows with those of the data at the same leaf, where no feature is missed by both: the number of
        the first, what only x meets, what only z meets, and the weights by their numbers, times the rows of data."""
        data = self._of_data
        each = data.begins[rows.leaf + 1] - data.begins[rows.leaf]
        ends = each.cumsum()
        begin = 0
        while begin < len(each):
            before = ends[begin - 1] if begin else 0
            end = max(begin + 1, int(np.searchsorted(ends, before + _PAIRS, "right")))
            x = np.repeat(np.arange(begin, end), each[begin:end])
            z = np.arange(len(x)) - np.repeat(ends[begin:end] - each[begin:end] - before, each[begin:end])
            z += data.begins[rows.leaf[x]]
            hidden, shown = rows.missed[x], data.missed[z]
            fits = (hidden & shown) == 0
            x, hidden, shown, times = x[fits], hidden[fits], shown[fits], data.times[z[fits]]
            a, b = _count(shown), _count(hidden)
            yield x, shown, hidden, tuple(times * table[a, b] for table in weigh)
            begin = end


@dataclass(frozen=True)
class Patterns:
    """The patterns that occur, leaf after leaf: what each misses, its leaf, how often it is there; `begins` (leaves +
    1,) is where those of a leaf begin, and `inverse` (leaves, rows) the pattern of each row."""

    missed: Whole
    leaf: Whole
    times: Whole
    begins: Whole
    inverse: Whole

    @classmethod
    def of(cls, missed: Whole) -> Patterns:
        leaves, bits = len(missed), max(1, int(missed.max(initial=0)).bit_length())
        if bits + leaves.bit_length() > 62:
            raise InputError(
                f"a tree has {leaves} leaves and {bits} features on a path; accepted: smaller trees"
            )
        keys = (np.arange(leaves)[:, None] << bits) | missed
        if leaves << bits > max(_ROWS, missed.size):
            found, inverse, times = np.unique(keys, return_inverse=True, return_counts=True)
        else:  # counted, which takes no sorting
            every = np.bincount(keys.ravel(), minlength=leaves << bits)
            found = np.flatnonzero(every)
            times, every[found] = every[found], np.arange(len(found))
            inverse = every[keys]
        leaf = found >> bits
        begins = np.searchsorted(leaf, np.arange(leaves + 1))
        return cls(found & ((1 << bits) - 1), leaf, times, begins, inverse.reshape(missed.shape))


def _means(sums: Floats, data: Floats, shape: tuple[int, ...]) -> Floats:
    """Sums over the data rows as means, in this shape."""
    found: Floats = sums.reshape(shape) / data.shape[1]
    return found


def _count(bits: Whole) -> Whole:
    """How many bits are set."""
    found = np.zeros(len(bits), np.int64)
    rest = bits.copy()
    while rest.any():
        found += rest & 1
        rest >>= 1
    return found


def _table(share: Any) -> Floats:
    """A weight for each |A| and |B|, zero where there is none."""
    sizes = range(MOST + 1)
    return np.array([[share(a, b) for b in sizes] for a in sizes])


def _over(top: int, other: int, whole: int) -> float:
    return 0.0 if top < 0 or other < 0 else factorial(top) * factorial(other) / factorial(whole)


@cache
def _shapley_weights() -> tuple[Floats, Floats]:
    """Of a player of A, and of B (less): their Shapley value in the game of one leaf."""
    return _table(lambda a, b: _over(a - 1, b, a + b)), _table(lambda a, b: _over(a, b - 1, a + b))


@cache
def _pair_weights() -> tuple[Floats, Floats, Floats]:
    """Of two players of A, of one of each (less), and of two of B: their Shapley interaction index there."""
    return (
        _table(lambda a, b: _over(a - 2, b, a + b - 1)),
        _table(lambda a, b: _over(a - 1, b - 1, a + b - 1)),
        _table(lambda a, b: _over(a, b - 2, a + b - 1)),
    )
