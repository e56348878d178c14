"""Choose the masks to run, when every mask of one size has the same weight: a stratified sample without
repeats."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Masks = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64]


class Design:
    """Draw masks without repeats; those of `s` kept features stand for `mass[s]` together.

    Each size gets model calls in proportion to its mass, and `weights` shares its mass out among the masks
    that were drawn, so a size that is drawn completely is exact.

    Args:
        features (int): How many features a mask is over.
        mass (array): Mass of each size, (features + 1,).
        seed (int): Fixes the draws.
        paired (bool, default True): Draw each mask with its complement: what two features do together then cancels
            out of what each does alone (Covert & Lee 2021).

    >>> design = Design(3, np.array([0.0, 0.5, 0.5, 0.0]), seed=0)
    >>> design.draw(6).sum(1).tolist(), design.complete
    ([1, 2, 1, 2, 1, 2], True)
    """

    def __init__(self, features: int, mass: Numbers, seed: int, paired: bool = True) -> None:
        self.features, self.paired = features, paired
        self.mass = mass
        # How many masks there are of each size, C(features, s).
        self._every = list(
            itertools.accumulate(range(features), lambda n, s: n * (features - s) // (s + 1), initial=1)
        )
        self.masks: Masks = np.zeros((0, features), dtype=bool)
        self._sizes = np.zeros(0, dtype=int)  # of the masks, and how many there are of each
        self._counts = np.zeros(features + 1, dtype=int)
        self._random = np.random.default_rng(seed)
        # What the fits to these masks have in common, by what the masks weigh together.
        self.kept: dict[int, dict[Any, Any]] = {}

    def draw(self, many: int) -> Masks:
        """Draw up to about `many` new masks, (masks, features) with True for kept; complements stand side by
        side."""
        seen = self.masks[::2] if self.paired else self.masks
        have = np.bincount(self._sizes[::2] if self.paired else self._sizes, minlength=self.features + 1)
        drawn, sizes = [], []
        for size, wanted, count in self._allocate(self._list_strata(), many + len(self.masks)):
            missing = max(0, wanted - int(have[size]))
            if missing and count <= 4 * wanted:
                drawn.append(self._draw_from_all(size, missing, seen))
            else:
                sizes += [size] * missing
        units = np.concatenate([*drawn, self._draw_unlike(np.array(sizes, dtype=int), seen)])
        new = np.stack([units, ~units], 1).reshape(-1, self.features) if self.paired else units
        self.masks = np.concatenate([self.masks, new])
        self._sizes = self.masks.sum(1)
        self._counts = np.bincount(self._sizes, minlength=self.features + 1)
        self.kept = {}
        return new

    @property
    def complete(self) -> bool:
        """True if every mask that has a weight was drawn."""
        return all(self._counts[s] == self._every[s] for s in self.mass.nonzero()[0])

    def weights(self) -> Numbers:
        """The weight of each mask drawn so far; they add up to the mass of the sizes met."""
        return (self.mass / np.maximum(self._counts, 1))[self._sizes]

    def missing(self) -> Numbers:
        """For each mask drawn the share of the masks of its size that were not (0: nothing left to
        chance)."""
        share = [1 - n / every for n, every in zip(self._counts.tolist(), self._every, strict=True)]
        return np.array(share)[self._sizes]

    def _list_strata(self) -> list[tuple[int, float, int]]:
        """Size, mass and number of masks of each stratum; a pair stands under its smaller size."""
        F = self.features
        if not self.paired:
            return [(s, float(m), self._every[s]) for s, m in enumerate(self.mass) if m > 0]
        strata = []
        for s in range(F // 2 + 1):
            mass = self.mass[s] + (self.mass[F - s] if F - s != s else 0)
            pairs = self._every[s] // (2 if 2 * s == F else 1)
            if mass > 0:
                strata.append((s, float(mass), pairs))
        return strata

    def _allocate(self, strata: list[tuple[int, float, int]], target: int) -> list[tuple[int, int, int]]:
        """Count the masks (or pairs) of each size to have in all: in proportion to mass, at most all there
        are."""
        units = max(1, round(target / (2 if self.paired else 1)))
        wanted = {s: 0.0 for s, _, _ in strata}
        open_strata, left = strata, float(units)
        while open_strata and left > 0:
            whole = sum(mass for _, mass, _ in open_strata)
            full = [item for item in open_strata if left * item[1] / whole >= item[2]]
            if not full:
                wanted |= {s: left * mass / whole for s, mass, _ in open_strata}
                break
            wanted |= {s: float(count) for s, _, count in full}
            left -= sum(count for _, _, count in full)
            open_strata = [item for item in open_strata if item not in full]
        # Systematic rounding: every stratum gets its share up to less than one mask.
        begin = self._random.random() * 0.999999 + 1e-9
        ends = [0, *(math.floor(begin + end) for end in itertools.accumulate(wanted.values()))]
        found = (after - before for before, after in itertools.pairwise(ends))
        return [(s, min(n, count), count) for (s, _, count), n in zip(strata, found, strict=True)]

    def _draw_from_all(self, size: int, many: int, seen: Masks) -> Masks:
        """Draw from all the masks of one size that were not seen."""
        places = np.array(list(itertools.combinations(range(self.features), size)), dtype=int)
        every = np.zeros((len(places), self.features), dtype=bool)  # (masks, features)
        np.put_along_axis(every, places.reshape(len(every), size), True, 1)
        if self.paired and 2 * size == self.features:
            every = every[every[:, 0]]
        every = every[~np.isin(_pack(every), _pack(seen))]
        return every[self._random.permutation(len(every))[:many]]

    def _draw_unlike(self, sizes: npt.NDArray[np.int_], seen: Masks) -> Masks:
        """A mask of each of these sizes, none like another and none that was seen."""
        found = seen
        while len(sizes):
            draw = self._random.random((len(sizes), self.features)).argsort(1) < sizes[:, None]
            if self.paired:
                # Of a mask and its complement of the same size, the one that keeps the first feature.
                draw ^= (2 * sizes[:, None] == self.features) & ~draw[:, :1]
            first = np.unique(_pack(np.concatenate([found, draw])), return_index=True)[1] - len(found)
            fresh = np.zeros(len(draw), dtype=bool)
            fresh[first[first >= 0]] = True
            found, sizes = np.concatenate([found, draw[fresh]]), sizes[~fresh]
        return found[len(seen) :]


def begun(features: int, mass: Numbers, seed: int, paired: bool, many: int) -> Design:
    """The design with its first masks drawn, which the calls of a run share: copy it to draw more."""
    drawn = _drawn if features * many <= _NUMBERS_KEPT else _drawn.__wrapped__
    return drawn(features, mass.tobytes(), seed, paired, many)


_NUMBERS_KEPT = 1 << 18  # of the masks of one design, of which the last four are kept


@lru_cache(maxsize=4)
def _drawn(features: int, mass: bytes, seed: int, paired: bool, many: int) -> Design:
    design = Design(features, np.frombuffer(mass), seed, paired)
    design.draw(many)
    return design


def _pack(masks: Masks) -> npt.NDArray[np.void]:
    """One comparable item for each mask."""
    packed = np.ascontiguousarray(np.packbits(masks, axis=1))
    return packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
