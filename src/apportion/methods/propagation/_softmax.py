"""Softmax between two points, exactly: by the logarithmic means of its probabilities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def logarithmic_means(input: Tensor, start: Tensor, dims: Any) -> tuple[Tensor, Tensor]:
    """The logarithmic means L of the probabilities here and at the reference, and L / Σ L. Since log p − log p′ is Δz
    but for a shift, `p − p′ = L (Δz − Σⱼ wⱼ Δzⱼ)` and `Δ log Σ exp z = Σⱼ wⱼ Δzⱼ`: exact, blind to what is added to all
    scores, and bounded, where exponentials one by one overflow."""
    here, there = (z - z.logsumexp(dims, keepdim=True) for z in (input.detach(), start))
    apart = (here - there).abs()
    ratio = torch.where(apart > 0, -torch.expm1(-apart) / apart, 1.0)
    mean = (torch.maximum(here, there).exp() * ratio).nan_to_num(0, 0, 0)  # of masked scores: 0
    return mean, mean / mean.sum(dims, keepdim=True).clamp(min=torch.finfo(mean.dtype).tiny)


def pinned(value: Tensor, surrogate: Tensor) -> Tensor:
    """The value of one and the gradient of the other."""
    return value.detach() + (surrogate - surrogate.detach())


def from_equal_scores(input: Tensor, probabilities: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The probabilities of scores, of which the scores take what they differ from equal ones, `Σ z G = Σ (p − u) g`;
    and u, the probabilities of equal scores. Masked scores, of probability zero, are none."""
    seen = probabilities.detach() > 0
    scores = torch.where(seen, input, 0).to(probabilities.dtype)
    equal = torch.where(seen, 0.0, -torch.inf).to(scores.dtype)
    mean, weights = logarithmic_means(scores.detach() + equal, equal, dim)
    found = mean * (scores - (weights * scores).sum(dim, keepdim=True))
    return pinned(probabilities, found), seen / seen.sum(dim, keepdim=True).clamp(min=1)
