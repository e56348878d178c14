"""RISE: how much higher the score is where random soft masks show a place than where they hide it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.core.inputs import Inputs, explained_alone
from apportion.core.progress import progress
from apportion.core.settings import checked
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import Pixels, check_sides, sides_of
from apportion.errors import InputError, check, check_whole
from apportion.methods.gradients.layer_grids import MODES
from apportion.methods.hiding.base import Hiding
from apportion.results.explanation import Explanation

CELLS = 7  # a side of the coarse grid, as in the paper


@dataclass(frozen=True)
@checked
class RISE(Hiding[None]):
    """Mask the image by coarse random grids, enlarged bilinearly and shifted (Petsiuk et al. 2018).

    The value of a place is `E[f | shown] − E[f | hidden]`, so a constant added to the score changes nothing.
    Channels share the value of a place equally. It does not claim to add up. Grids of one to three dimensions.
    Cost: `samples` forward passes and one more.

    Settings: those below and those of [Hiding][apportion.methods.hiding.base.Hiding].

    Attributes:
        samples (int, default 4000): Masks that are drawn.
        cells (int or tuple of int, default 7): Cells of a grid a side.
        shown (float, default 0.5, probability): Chance that a cell is kept.
        centred (bool, default True): Subtract `E[f | hidden]`; False gives the paper's `E[f | shown]` (eq. 6).

    >>> model = lambda x: x[:, :, :4].sum((1, 2, 3))[:, None]
    >>> values = RISE(samples=500, cells=2)(model, torch.ones(1, 1, 8, 8)).values
    >>> bool(values[0, 0, :3].mean() > 3 * values[0, 0, 5:].abs().mean())
    True
    """

    samples: int = 4000
    cells: int | tuple[int, ...] = CELLS
    shown: float = 0.5
    centred: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(1, samples=self.samples)
        check_sides("cells", self.cells)
        check("shown", self.shown, lambda v: 0 < v < 1, "a probability between 0 and 1")

    def cut(self, inputs: Inputs) -> Pixels:
        x = explained_alone(inputs)
        if x is None or not 3 <= x.dim() <= 5 or not x.is_floating_point():
            raise InputError(
                "RISE explains pictures: it needs one floating point tensor with a grid, (batch, channels, …)"
            )
        return Pixels()

    def explain(self, masking: Masking) -> Explanation[Any, None]:
        inputs = masking.parts[0].x
        space = inputs.shape[2:]
        cells = sides_of(self.cells, space, "cells")
        most = [max(length, CELLS) for length in space]  # the default is for pictures of any size
        fits = all(cell <= length for cell, length in zip(cells, most, strict=True))
        check("cells", self.cells, lambda _: fits, f"at most the {tuple(most)} places of the grid")
        generator = torch.Generator().manual_seed(self.seed)
        grids = (
            torch.rand(self.samples, 1, *cells, generator=generator, dtype=torch.float32) < self.shown
        ).to(inputs.dtype)
        steps = tuple(-(-length // cell) for length, cell in zip(space, cells, strict=True))
        shifts = torch.stack([torch.randint(s, (self.samples,), generator=generator) for s in steps], 1)
        # Thousands of samples are added up, which half precision cannot count.
        precise = torch.promote_types(masking.score.dtype, torch.float32)
        scores = masking.score.new_zeros(masking.batch, dtype=precise)
        weighted, whole = scores.new_zeros(masking.batch, masking.many), scores.new_zeros(masking.many)
        for which in progress(torch.split(torch.arange(self.samples), masking.chunk), self.samples, "masks"):
            masks = _enlarge(
                grids[which].to(inputs.device), shifts[which].to(inputs.device), steps, space
            ).flatten(1)
            values = masking.values(masks).to(precise)  # (batch, masks)
            weighted += values @ masks.to(values)  # (batch, places)
            whole += masks.sum(0).to(whole)
            scores += values.sum(1)
        here = weighted / (self.samples * self.shown)
        if self.centred:
            if not bool((whole > 0).all() and (whole < self.samples).all()):
                raise InputError(
                    f"samples is {self.samples}, and some place was never hidden or never shown; accepted: more"
                )
            # Means over the masks that were drawn, not over those that might have been: less noise.
            here = weighted / whole - (scores[:, None] - weighted) / (self.samples - whole)
        return masking.explanation(self, masking.spread(here.to(masking.score.dtype)), total=None)


def _enlarge(grids: Tensor, shifts: Tensor, steps: Sequence[int], space: Sequence[int]) -> Tensor:
    """Soft masks (masks, …) in the shape of the grid, each cut out at its own shift."""
    size = [(cell + 1) * step for cell, step in zip(grids.shape[2:], steps, strict=True)]
    masks = F.interpolate(grids, size=size, mode=MODES[len(size)], align_corners=False).squeeze(1)
    for axis, length in enumerate(space):
        place = shifts[:, axis, None] + torch.arange(length, device=shifts.device)
        shape = [len(masks), *(length if a == axis else 1 for a in range(len(space)))]
        masks = masks.take_along_dim(place.view(shape), axis + 1)
    return masks
