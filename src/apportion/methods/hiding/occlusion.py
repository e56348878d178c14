"""Occlusion: how much the score falls when one feature is hidden."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from math import gcd
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from apportion.core.inputs import Inputs, is_side
from apportion.core.per_input import PerInput
from apportion.core.progress import progress
from apportion.core.settings import checked
from apportion.core.trees import keyed
from apportion.engines.masking.cut import Part
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import Partition, Patches, as_partition, check_sides, sides_of
from apportion.errors import InputError
from apportion.methods.hiding.base import Hiding
from apportion.results.explanation import Explanation

Side = int | tuple[int, ...] | None
Sides = Side | tuple[Side, ...] | Mapping[str, Side] | PerInput


@dataclass(frozen=True)
@checked
class Occlusion(Hiding[None]):
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
            they may overlap; None: `patch`. Of several inputs, patch and stride are a tuple of such tuples, None for
            an input that keeps its usual features, or a dict by the names of the inputs.
        partition (Partition or Tensor, default None): The features, instead of patches; None: patches of an image,
            words of a text (each token where its features are not given; special tokens are never hidden),
            columns of a row.

    >>> model = lambda x: 2 * x[:, 0] * x[:, 1] + x[:, 2]
    >>> Occlusion()(model, torch.tensor([[1.0, 3.0, 5.0]])).values.tolist()
    [[6.0, 6.0, 5.0]]
    """

    patch: Sides = None
    stride: Sides = None
    partition: Partition | Tensor | None = None

    def __post_init__(self) -> None:
        if self.partition is not None and (self.patch is not None or self.stride is not None):
            raise InputError(
                "a partition was given together with patch or stride; accepted: one or the other"
            )
        for name in ("patch", "stride"):
            given = getattr(self, name)
            nested = isinstance(given, tuple) and any(not isinstance(each, Integral) for each in given)
            if nested or isinstance(given, Mapping):
                object.__setattr__(self, name, PerInput.of_given(given))
            else:
                check_sides(name, given)
        super().__post_init__()

    def cut(self, inputs: Inputs) -> Partition | None:
        if self.patch is None and self.stride is None:
            return as_partition(self.partition)
        every = keyed(inputs)
        items = [(key, x) for key, x in every if not is_side(key, x)]
        keys = [key for key, _ in items]
        for name in ("patch", "stride"):
            given = getattr(self, name)
            if isinstance(given, PerInput):
                given.check(name, keys, keys)
            elif given is not None and len(items) > 1:
                raise InputError(
                    f"{name} is {given!r} for the inputs {', '.join(map(repr, keys))}; accepted: one for each, as a "
                    "tuple of tuples, or a dict"
                )
        cells = {
            key: Patches(tuple(map(gcd, *self._sides(key, x)))) for key, x in items if self._has_windows(key)
        }
        if isinstance(inputs, Tensor):
            return cells[None]
        return as_partition(
            cells if isinstance(inputs, Mapping) else tuple(cells.get(key) for key, _ in every)
        )

    def explain(self, masking: Masking) -> Explanation[Any, None]:
        places, windows = torch.arange(masking.many), self.stride is not None
        effects = self._measure_windows(masking) if windows else self._measure_alone(masking, places)
        places = places.to(effects.device)
        absent = places >= masking.counts.to(effects.device)[:, None]
        return masking.explanation(self, masking.spread(effects.masked_fill(absent, 0.0)), total=None)

    def _measure_windows(self, masking: Masking) -> Tensor:
        """The effect of each cell: an entry has the mean of its shares in the windows over it."""
        # Half precision cannot count the windows over a cell.
        precise = torch.promote_types(masking.score.dtype, torch.float32)
        effects = masking.score.new_zeros(masking.batch, masking.many, dtype=precise)
        for part in masking.parts:
            cells = torch.unique(part.labels[part.labels >= 0])
            effects[:, cells.to(effects.device)] += (
                self._measure_part(masking, part, cells).to(precise)
                if self._has_windows(part.key)
                else self._measure_alone(masking, cells).to(precise)
            )
        return effects.to(masking.score.dtype)

    def _measure_alone(self, masking: Masking, features: Tensor) -> Tensor:
        """The effect of each of these features, (batch, features)."""
        every = torch.arange(masking.many)
        values = [masking.values(every != some[:, None]) for some in _split(features.cpu(), masking)]
        return masking.score[:, None] - torch.cat(values, 1)

    def _measure_part(self, masking: Masking, part: Part, cells: Tensor) -> Tensor:
        """The effect of each cell of one input, (batch, cells)."""
        score, axes = masking.score[:, None], self._cover_by_windows(part.key, part.x)
        entries = part.labels.flatten().bincount()[cells].to(score.device)
        shares = torch.zeros(
            masking.batch,
            len(cells),
            device=score.device,
            dtype=torch.promote_types(score.dtype, torch.float32),
        )
        times = torch.zeros_like(entries)
        begins = torch.cartesian_prod(*[torch.arange(len(axis)) for axis in axes]).view(-1, len(axes))
        for some in _split(begins, masking):
            along = [axis[at] for axis, at in zip(axes, some.T, strict=True)]
            windows = reduce(lambda a, b: (a[:, :, None] & b[:, None]).flatten(1), along)
            keep = torch.ones(len(windows), masking.many, dtype=torch.bool)
            keep[:, cells.cpu()] = ~windows
            cover = windows.to(shares)
            effects = (score - masking.values(keep)).to(shares)
            shares += (effects / (cover @ entries.to(cover))) @ cover
            times += windows.sum(0).to(times)
        return shares / times.clamp(min=1) * entries

    def _has_windows(self, key: Any) -> bool:
        """Whether patches or windows of this input were asked for, and not its usual features."""
        return any(_part_of(setting, key) is not None for setting in (self.patch, self.stride))

    def _sides(self, key: Any, x: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The sides of a window, and the steps from one to the next."""
        if x.dim() < 2 or not x.is_floating_point():
            raise InputError(
                f"patch and stride need numbers with a grid, (batch, channels, …) or (batch, columns), not "
                f"{tuple(x.shape)} of type {x.dtype}"
            )
        patch, stride = (_part_of(setting, key) for setting in (self.patch, self.stride))
        sides = sides_of(patch, _space(x), "patch")
        steps = sides if stride is None else sides_of(stride, _space(x), "stride")
        if any(step > side for step, side in zip(steps, sides, strict=True)):
            raise InputError(f"stride {steps} is larger than the patch {sides}; accepted: at most the patch")
        return sides, steps

    def _cover_by_windows(self, key: Any, x: Tensor) -> list[Tensor]:
        """For each axis which of its cells each window covers, (windows, cells)."""
        axes = []
        for length, side, step in zip(_space(x), *self._sides(key, x), strict=True):
            cell = gcd(side, step)
            begins = torch.arange(0, max(1, -(-(length - side) // step) * step + 1), step)[:, None]
            places = torch.arange(-(-length // cell)) * cell
            axes.append((places >= begins) & (places < begins + side))
        return axes


def _part_of(setting: Any, key: Any) -> Any:
    return setting.of(key) if isinstance(setting, PerInput) else setting


def _space(x: Tensor) -> torch.Size:
    """The grid of an input; rows of numbers are one of one axis."""
    return x.shape[2:] if x.dim() > 2 else x.shape[1:]


_BLOCK = 1 << 26


def _split(rows: Tensor, masking: Masking) -> Iterator[Tensor]:
    """Split rows so that a mask for each fits into a block."""
    blocks = rows.split(max(1, _BLOCK // masking.many))
    yield from blocks if len(blocks) == 1 else progress(blocks, len(rows), "masked inputs")
