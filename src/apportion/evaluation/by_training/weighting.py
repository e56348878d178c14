"""Feature maps of texts as weights: over the tokens that are there, of norm one."""

from __future__ import annotations

import torch
from torch import Tensor

NORMS = (1, 2)


def weights_of(values: Tensor, here: Tensor, norm: int = 1) -> Tensor:
    """Maps `(…, tokens)` divided by their L1 or L2 norm where `here` is True; zero elsewhere.

    Signs stay. What counts is `here`, not whether a value is zero: a token may well have the weight zero. A
    map that is zero everywhere stays so, since it says of no token that it matters.

    >>> weights_of(torch.tensor([[3.0, -1.0, 0.0, 9.0]]), torch.tensor([[True, True, True, False]]))
    tensor([[ 0.7500, -0.2500,  0.0000,  0.0000]])
    """
    kept = values.masked_fill(~here, 0.0)
    largest = kept.abs().amax(-1, keepdim=True)
    kept = kept / torch.where(largest > 0, largest, 1.0)
    norms: Tensor = kept.norm(norm, -1, keepdim=True)
    return kept / norms.clamp(min=1.0)
