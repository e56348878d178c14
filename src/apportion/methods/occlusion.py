"""Occlusion: how much the score falls when one feature is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd

import torch
from torch import Tensor

from apportion.calling import Model
from apportion.errors import InputError
from apportion.explanation import Explanation
from apportion.features import Features
from apportion.inputs import Inputs
from apportion.masking import Masking
from apportion.partitions import Partition, Patches, sides_of
from apportion.replacements import Replacement
from apportion.target import Target


@dataclass(frozen=True)
class Occlusion:
    """Occlusion (Zeiler & Fergus 2014), leave-one-out: `f(x) − f(x without i)` for each feature i.

    By default features are patches of an image (about 14 a side), the words of a text (each token where the
    features of the text are not given; special tokens are never hidden), the columns of a row; hidden ones
    are replaced by the mask token (id 0 where none is known) or by zero. `patch` sets the side of the
    patches, and with a `stride` below it they overlap.

    The values of the entries of a feature add up to its effect; where patches overlap, an entry has the
    mean of its shares in them. The effects do not claim to add up to anything, so `total` is None. Cost:
    one forward pass per feature, and one more.

    `features`, `mask` (the id of a mask token), `partition` (also a label map as a tensor) and
    `replacement` can be given in the call.

    >>> model = lambda x: 2 * x[:, 0] * x[:, 1] + x[:, 2]
    >>> Occlusion()(model, torch.tensor([[1.0, 3.0, 5.0]])).values.tolist()
    [[6.0, 6.0, 5.0]]
    """

    patch: int | tuple[int, ...] | None = None
    stride: int | tuple[int, ...] | None = None
    partition: Partition | None = None
    replacement: Replacement | None = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.partition is not None and (self.patch is not None or self.stride is not None):
            raise InputError(
                "a partition was given together with patch or stride; accepted: one or the other"
            )

    def __call__(
        self,
        model: Model,
        inputs: Inputs,
        target: Target = None,
        *,
        features: Sequence[Features] | None = None,
        mask: int | None = None,
        partition: Partition | Tensor | None = None,
        replacement: Replacement | None = None,
    ) -> Explanation:
        partition = self.partition if partition is None else partition
        windows: Tensor | None = None
        if self.patch is not None or self.stride is not None:
            if not isinstance(inputs, Tensor) or inputs.dim() < 3:
                raise InputError("patch and stride need one tensor with a grid, (batch, channels, …)")
            partition, windows = self._windows(inputs)
        masking = Masking(
            model,
            inputs,
            target,
            partition=partition,
            replacement=self.replacement if replacement is None else replacement,
            features=features,
            mask=mask,
            chunk=self.chunk,
        )
        hidden = torch.eye(masking.many, dtype=torch.bool) if windows is None else windows
        without = masking.values(~hidden)
        effects = masking.score[:, None] - without
        if windows is not None:
            cover = windows.to(effects)
            entries = masking.parts[0].labels.flatten().bincount().to(effects)
            effects = (effects / (cover @ entries)) @ cover / cover.sum(0).clamp(min=1) * entries
        absent = (
            torch.arange(masking.many, device=effects.device) >= masking.counts.to(effects.device)[:, None]
        )
        return masking.explanation(self, masking.spread(effects.masked_fill(absent, 0.0)), total=None)

    def _windows(self, x: Tensor) -> tuple[Partition, Tensor | None]:
        """Cells that every window is made of, and the (windows, cells) that each covers."""
        space = x.shape[2:]
        sides = sides_of(self.patch, space, "patch")
        steps = sides if self.stride is None else sides_of(self.stride, space, "stride")
        if any(step > side for step, side in zip(steps, sides, strict=True)):
            raise InputError(f"stride {steps} is larger than the patch {sides}; accepted: at most the patch")
        if steps == sides:
            return Patches(sides), None
        cells = tuple(gcd(side, step) for side, step in zip(sides, steps, strict=True))
        axes = []
        for length, side, step, cell in zip(space, sides, steps, cells, strict=True):
            begins = torch.arange(0, max(1, -(-(length - side) // step) * step + 1), step)[:, None]
            places = torch.arange(-(-length // cell)) * cell
            axes.append((places >= begins) & (places < begins + side))
        windows = reduce(
            lambda a, b: torch.einsum("ij,kl->ikjl", a, b).flatten(2).flatten(0, 1), [a.int() for a in axes]
        )
        return Patches(cells), windows.bool()
