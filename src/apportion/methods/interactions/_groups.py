"""Groups of features: tokens of an embedding, patches of a picture, blocks of a row, or the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor

from apportion.core.from_call import given_of
from apportion.core.inputs import offsets_of
from apportion.core.trees import tensors_in
from apportion.engines.substitution import Gradients, Score
from apportion.errors import InputError, check, check_whole

GroupsLike = int | Sequence[Sequence[int]] | Tensor | tuple[Tensor, ...] | Mapping[str, Tensor] | None
"""None: a group for each token or input entry; an int: square patches of that side; a list of lists: the flat
features of each group; tensors in the form of the inputs (or of one sample): the group of each feature."""


def check_groups(groups: object) -> None:
    """Raise InputError for what are no groups at all, whatever the inputs."""
    if isinstance(groups, int):
        check_whole(1, groups=groups)
    elif isinstance(groups, list | tuple):
        check("groups", groups, len, "lists of features, or None for the default")


@dataclass
class Groups:
    """The group of each leaf entry: `ids` is (batch or 1, entries) for each leaf."""

    ids: list[Tensor]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def sums(self, values: Sequence[Tensor], sample: Tensor) -> Tensor:
        """The sum of `values` over each group: one (rows, …) tensor a leaf to (rows, groups)."""
        sums = []
        for value, ids in zip(values, self.ids, strict=True):
            flat = value.reshape(len(value), -1)
            index = ids.expand(-1, flat.shape[1])[sample.to(ids.device) % ids.shape[0]]
            sums.append(flat.new_zeros(len(flat), len(self)).scatter_add(1, index, flat))
        return torch.stack(sums).sum(0)  # in the widest of their number formats


def groups_of(subject: Gradients, score: Score, steps: Sequence[Tensor], groups: GroupsLike) -> Groups:
    """The groups of what `score` was computed from; `steps` (paths, …) say which entries move at all.

    Raises InputError for groups that overlap, are empty or leave out an entry that moves.
    """
    groups = given_of(groups)
    tokens, many, names = _number_features(subject, score)
    if groups is None:
        return Groups([t.clamp(min=0) for t in tokens], names)
    chosen = (
        _cut_patches(groups, score) if isinstance(groups, int) else number_groups(groups, many, subject.batch)
    )
    if int(chosen.max()) > 2**24:
        raise InputError(f"groups names group {int(chosen.max())}; accepted: numbers from 0, without gaps")
    used = torch.bincount(chosen[chosen >= 0].flatten())
    if not len(used) or not bool((used > 0).all()):
        empty = (used == 0).nonzero().flatten().tolist()[:5] or "all"
        raise InputError(
            f"groups {empty} hold no feature; accepted: groups numbered from 0, none of them empty"
        )
    ids = []
    for token, leaf_steps in zip(tokens, steps, strict=True):
        rows = torch.arange(max(len(token), len(chosen)), device=token.device)[:, None]
        found = chosen.to(token.device)[rows % len(chosen), token.clamp(min=0)[rows[:, 0] % len(token)]]
        found = found.masked_fill(token[rows[:, 0] % len(token)] < 0, 0)
        moving = leaf_steps.reshape(len(leaf_steps), -1).ne(0)
        lost = (found[torch.arange(len(moving), device=found.device) % len(found)] < 0) & moving
        if bool(lost.any()):
            place = int(token[0, int(lost.nonzero()[0, 1])])
            raise InputError(
                f"feature {place} is in no group but differs from the baseline; put it in a group (of the "
                "rest), or  make the baseline equal to the input there"
            )
        ids.append(found.clamp(min=0))
    return Groups(ids, tuple(str(i) for i in range(len(used))))


def _number_features(subject: Gradients, score: Score) -> tuple[list[Tensor], int, tuple[str, ...]]:
    """The feature (token, or entry) that each leaf entry belongs to, (batch or 1, entries) for each leaf; how
    many there are; and their names."""
    offsets = {} if subject.layers else offsets_of(subject.inputs)
    reached = [slot.positions for slot in score.slots if slot.positions is not None]
    firsts: list[tuple[int, int, int]] = []  # of each input of tokens: its begin, its size, its first feature
    many = 0
    for begin, tensor in offsets.values():
        if any(bool(((p >= begin) & (p < begin + tensor.numel())).any()) for p in reached):
            firsts.append((begin, tensor.numel(), many))
            many += tensor.numel() // subject.batch
    names = [str(i) for i in range(many)]
    single = len(score.leaves) == 1
    found = []
    for slot, leaf in zip(score.slots, score.leaves, strict=True):
        shape = leaf.shape[1:]
        if slot.positions is None:
            ids = torch.arange(many, many + prod(shape), device=leaf.device)[None]
            prefix = "" if single else f"{slot.key if slot.layer is None else slot.layer}:"
            places = product(*map(range, shape))
            names += [prefix + (",".join(map(str, place)) or "0") for place in places]
            many += prod(shape)
        else:
            ids = torch.full_like(slot.positions, -1)
            for begin, size, first in firsts:
                place = slot.positions - begin
                inside = (place >= 0) & (place < size)
                ids = torch.where(inside, first + place % (size // subject.batch), ids)
            ids = ids.unsqueeze(-1).expand(leaf.shape).flatten(1)
        found.append(ids)
    return found, many, tuple(names)


def _cut_patches(side: int, score: Score) -> Tensor:
    shape = score.leaves[0].shape[1:]
    if side < 1 or len(score.leaves) > 1 or score.slots[0].positions is not None or len(shape) < 2:
        raise InputError(
            f"groups={side} asks for square patches of that side; accepted for one (…, height, width) input"
        )
    height, width = shape[-2:]
    rows, columns = torch.arange(height) // side, torch.arange(width) // side
    patches = rows[:, None] * (int(columns[-1]) + 1) + columns
    return patches.expand(shape).reshape(1, -1)


def number_groups(groups: GroupsLike, many: int, batch: int) -> Tensor:
    """The group of each feature, (batch or 1, features); -1 for none."""
    if isinstance(groups, Tensor | Mapping) or (
        isinstance(groups, tuple) and isinstance(next(iter(groups), 0), Tensor)
    ):
        parts = list(tensors_in(dict(groups) if isinstance(groups, Mapping) else groups))
        if any(t.is_floating_point() or t.dtype == torch.bool for t in parts):
            raise InputError(
                "groups holds numbers with a fraction or truth values; accepted: whole numbers, from 0"
            )
        for rows in (batch, 1):
            if sum(t.numel() for t in parts) == rows * many:
                return torch.cat([t.reshape(rows, -1) for t in parts], 1).long()
        raise InputError(
            f"groups has shape {[tuple(t.shape) for t in parts]} for {many} features a sample; accepted: one "
            "number for each feature"
        )
    chosen = torch.full((1, many), -1)
    assert isinstance(groups, Sequence)
    for number, members in enumerate(groups):
        for member in members:
            if not 0 <= member < many:
                raise InputError(f"group {number} names feature {member}; there are features 0 to {many - 1}")
            if int(chosen[0, member]) >= 0:
                raise InputError(f"groups {int(chosen[0, member])} and {number} overlap at feature {member}")
            chosen[0, member] = number
    return chosen
