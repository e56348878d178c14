"""The least and the most that any order of features can reach: what makes AOPC comparable between samples."""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.engines.masking.engine import Masking
from apportion.errors import InputError
from apportion.evaluation.readings import Reading, pick_reading, read_answers

_MOST_FEATURES = 128


def aopc_limits(masking: Masking, of: Reading, steps: Tensor, beam: int = 5) -> tuple[Tensor, Tensor]:
    """The lowest and the highest AOPC found over the orders of the features of each sample, (batch,) each.

    A beam search over sets of hidden features (Edin et al. 2024): of the sets with one more feature, the
    `beam` whose sums so far are best go on; exact where no size has more than `beam` sets. `steps`
    (batch, steps + 1) are the numbers of hidden features over which the mean is taken.
    """
    many = masking.many
    if many > _MOST_FEATURES:
        raise InputError(
            f"normalised AOPC searches over {many} features; accepted: at most {_MOST_FEATURES}, for instance by "
            "a coarser partition"
        )
    counts = masking.counts.to(steps.device)
    counted = torch.zeros(masking.batch, many + 2, dtype=torch.bool, device=steps.device)
    counted.scatter_(1, steps, True)
    counted = counted[:, : many + 1] & (torch.arange(many + 1, device=steps.device) <= counts[:, None])
    least = -_highest_sums(masking, of, -1.0, counted, beam)
    most = _highest_sums(masking, of, 1.0, counted, beam)
    return least / counted.sum(1), most / counted.sum(1)


def _highest_sums(masking: Masking, of: Reading, sign: float, counted: Tensor, beam: int) -> Tensor:
    """The largest sum, over the counted sizes, of sign × (what the model says − with that many hidden)."""
    batch, many, device = masking.batch, masking.many, counted.device
    counts = masking.counts.to(device)
    eye = torch.eye(many, dtype=torch.bool, device=device)
    first = _read_sets(masking, of, masking.output[:, None], torch.arange(batch))
    hidden = torch.zeros(batch, beam, many, dtype=torch.bool, device=device)  # (batch, beam, features)
    total = first.new_full((batch, beam), -torch.inf)
    total[:, 0] = 0
    for size in range(1, many + 1):
        rows = (counts >= size).nonzero().flatten()
        before = hidden[rows]  # (rows, beam, features)
        absent = torch.arange(many, device=device) >= counts[rows, None, None]
        closed = (before | absent | total[rows, :, None].isinf()).flatten(1)  # (rows, beam · features)
        grown = (before[:, :, None] | eye).flatten(1, 2)  # (rows, beam · features, features)
        fall = sign * (first[rows] - _read_sets(masking, of, masking.scores(~grown, rows), rows))
        reached = total[rows].repeat_interleave(many, 1) + fall * counted[rows, size, None]
        # A set that was reached by several ways goes on by the best of them.
        reached, order = reached.masked_fill(closed, -torch.inf).sort(1, descending=True)
        grown = grown.take_along_dim(order[..., None], 1)
        best = reached.masked_fill(_repeated(grown), -torch.inf).topk(beam, 1)
        hidden[rows] = grown.take_along_dim(best.indices[..., None], 1)
        total[rows] = best.values
    return total.amax(1)


def _repeated(sets: Tensor) -> Tensor:
    """Which of (batch, sets, features) sets stand earlier in their row too."""
    equal = (sets.float() @ sets.float().mT) + ((~sets).float() @ (~sets).float().mT) == sets.shape[2]
    return equal.tril(-1).any(2)


def _read_sets(masking: Masking, of: Reading, scores: Tensor, rows: Tensor) -> Tensor:
    """What a test looks at, (rows, masks), in (rows, masks, classes) scores of these samples."""
    found = read_answers(masking, scores.flatten(0, 1), rows.repeat_interleave(scores.shape[1]))
    return pick_reading(of, *found[:3]).view(scores.shape[:2])
