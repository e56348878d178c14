"""Occlusion: how much the score falls when one feature is hidden."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from math import gcd

import torch
from torch import Tensor

from apportion.core.inputs import Inputs, explained_alone
from apportion.core.progress import progress
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import Partition, Patches, as_partition, sides_of
from apportion.errors import InputError
from apportion.methods.hiding.base import Hiding
from apportion.results.explanation import Explanation


@dataclass(frozen=True)
class Occlusion(Hiding):
    """Hide one feature after the other (Zeiler & Fergus 2014; leave-one-out): `f(x) − f(x without i)` for each
    feature i.

    The values of the entries of a feature add up to its effect; where patches overlap, an entry has the
    mean of its shares in them. The effects do not claim to add up to anything, so `total` is None. Cost:
    one forward pass per feature, and one more.

    Settings: those below and those of [Hiding][apportion.methods.hiding.base.Hiding].

    Attributes:
        patch (int or tuple of int, default None, entries): Sides of the patches of a grid; None: about 14 patches
            a side.
        stride (int or tuple of int, default None, entries): From one patch to the next, at most `patch`, so that
            they may overlap; None: `patch`.
        partition (Partition or Tensor, default None): The features, instead of patches; None: patches of an image,
            words of a text (each token where its features are not given; special tokens are never hidden),
            columns of a row.

    >>> model = lambda x: 2 * x[:, 0] * x[:, 1] + x[:, 2]
    >>> Occlusion()(model, torch.tensor([[1.0, 3.0, 5.0]])).values.tolist()
    [[6.0, 6.0, 5.0]]
    """

    patch: int | tuple[int, ...] | None = None
    stride: int | tuple[int, ...] | None = None
    partition: Partition | Tensor | None = None

    def __post_init__(self) -> None:
        if self.partition is not None and (self.patch is not None or self.stride is not None):
            raise InputError(
                "a partition was given together with patch or stride; accepted: one or the other"
            )
        super().__post_init__()

    def cut(self, inputs: Inputs) -> Partition | None:
        if self.patch is None and self.stride is None:
            return as_partition(self.partition)
        x = explained_alone(inputs)
        if x is None or x.dim() < 3:
            raise InputError("patch and stride need one tensor with a grid, (batch, channels, …)")
        return Patches(tuple(map(gcd, *self._sides(x))))

    def explain(self, masking: Masking) -> Explanation:
        effects = (
            self._measure_windows(masking) if self.stride is not None else self._measure_features(masking)
        )
        places = torch.arange(masking.many, device=effects.device)
        absent = places >= masking.counts.to(effects.device)[:, None]
        return masking.explanation(self, masking.spread(effects.masked_fill(absent, 0.0)), total=None)

    def _measure_features(self, masking: Masking) -> Tensor:
        """The effect of each feature, (batch, features)."""
        every = torch.arange(masking.many)
        values = [masking.values(every != some[:, None]) for some in _split(every, masking)]
        return masking.score[:, None] - torch.cat(values, 1)

    def _measure_windows(self, masking: Masking) -> Tensor:
        """The effect of each cell: an entry has the mean of its shares in the windows over it."""
        part, score = masking.parts[0], masking.score[:, None]
        axes = self._cover_by_windows(part.x)
        entries = part.labels.flatten().bincount().to(score.device)
        # Half precision cannot count the windows over a cell.
        shares = torch.zeros(
            masking.batch,
            masking.many,
            device=score.device,
            dtype=torch.promote_types(score.dtype, torch.float32),
        )
        times = torch.zeros_like(entries)
        begins = torch.cartesian_prod(*[torch.arange(len(axis)) for axis in axes]).view(-1, len(axes))
        for some in _split(begins, masking):
            along = [axis[at] for axis, at in zip(axes, some.T, strict=True)]
            windows = reduce(lambda a, b: (a[:, :, None] & b[:, None]).flatten(1), along)
            cover = windows.to(shares)
            effects = (score - masking.values(~windows)).to(shares)
            shares += (effects / (cover @ entries.to(cover))) @ cover
            times += windows.sum(0).to(times)
        return (shares / times.clamp(min=1) * entries).to(score.dtype)

    def _sides(self, x: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The sides of a window, and the steps from one to the next."""
        sides = sides_of(self.patch, x.shape[2:], "patch")
        steps = sides if self.stride is None else sides_of(self.stride, x.shape[2:], "stride")
        if any(step > side for step, side in zip(steps, sides, strict=True)):
            raise InputError(f"stride {steps} is larger than the patch {sides}; accepted: at most the patch")
        return sides, steps

    def _cover_by_windows(self, x: Tensor) -> list[Tensor]:
        """For each axis which of its cells each window covers, (windows, cells)."""
        axes = []
        for length, side, step in zip(x.shape[2:], *self._sides(x), strict=True):
            cell = gcd(side, step)
            begins = torch.arange(0, max(1, -(-(length - side) // step) * step + 1), step)[:, None]
            places = torch.arange(-(-length // cell)) * cell
            axes.append((places >= begins) & (places < begins + side))
        return axes


_BLOCK = 1 << 26


def _split(rows: Tensor, masking: Masking) -> Iterator[Tensor]:
    """Split rows so that a mask for each fits into a block."""
    blocks = rows.split(max(1, _BLOCK // masking.many))
    yield from blocks if len(blocks) == 1 else progress(blocks, len(rows), "masked inputs")
