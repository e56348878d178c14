"""The backbone's grids of many images: computed once and kept where the backbone is frozen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from apportion.core.progress import progress
from apportion.errors import InputError
from apportion.models.prototypes._images import Images
from apportion.models.prototypes._network import PrototypeNet

CHUNK = 16  # images at once where nothing is learnt: on a CPU small batches stay in the cache


@dataclass(frozen=True, eq=False)
class Grids:
    """`of(numbers)` gives the (batch, channels, rows, columns) grids of images; `kept` holds those of all."""

    images: Images
    backbone: nn.Module
    kept: Tensor | None = None

    def of(self, numbers: Tensor) -> Tensor:
        if self.kept is not None:
            return self.kept[numbers.to(self.kept.device)]
        return self.backbone(self.images.read(numbers).to(device_of(self.backbone)))  # type: ignore[no-any-return]

    @torch.no_grad()
    def check(self, labels: Tensor, classes: int, per_class: int) -> None:
        """Refuse more prototypes than a class has patches."""
        rows, columns = self.of(torch.zeros(1, dtype=torch.long)).shape[2:]
        fewest = int(labels.bincount(minlength=classes).min())
        if per_class > fewest * rows * columns:
            raise InputError(
                f"prototypes_per_class is {per_class}, but a class has {fewest} images of {rows} × {columns} patches, "
                f"{fewest * rows * columns} in all; accepted: at most that"
            )

    @torch.no_grad()
    def patches(self, net: PrototypeNet, what: str) -> Iterator[tuple[Tensor, Tensor]]:
        """(numbers, patches) of all images, as they are compared with prototypes."""
        many = len(self.images)
        for numbers in progress(torch.arange(many).split(CHUNK if self.kept is None else 256), many, what):
            yield numbers, net.add_on(self.of(numbers))


@torch.no_grad()
def compute_grids(images: Images, backbone: nn.Module) -> Grids:
    """The grids of all images, in memory: 4 · channels · rows · columns bytes an image."""
    result: Tensor | None = None
    for numbers, x in images.batches(CHUNK, "features"):
        grid = backbone(x.to(device_of(backbone)))
        bad = (~grid.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
        if bad:
            name = images.names[int(numbers[bad[0]])]
            raise InputError(
                f"the backbone gives NaN or infinite features for {name}, whose numbers are finite"
            )
        if result is None:
            result = grid.new_empty(len(images), *grid.shape[1:])
        result[numbers] = grid
    if result is not None and torch.equal(result.amin((0, 2, 3)), result.amax((0, 2, 3))):
        raise InputError(
            "the backbone gives the same features for every patch of every image; accepted: one that sees"
        )
    return Grids(images, backbone, result)


def device_of(module: nn.Module) -> torch.device:
    """Where a module's first parameter or buffer is; the CPU without any."""
    first = next(chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if first is None else first.device
