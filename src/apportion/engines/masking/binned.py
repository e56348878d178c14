"""Discretised columns of a table: what is hidden is drawn from the other bins, or categories, of some rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from apportion.core.settings import checked
from apportion.engines.masking.replacements import Background, precise
from apportion.errors import InputError, check_seed, check_whole


@dataclass(frozen=True, eq=False, repr=False)
@checked
class Quartiles(Background):
    """Discretise columns, as LIME does (Ribeiro et al. 2016): a kept column is drawn from the rows of `data` in the
    input's own bin, a hidden one from those in the others, each column by itself.

    Bins are cut at the quantiles; a column with fewer values has fewer bins, and one with a single bin is never
    changed. The inputs of one feature, such as a one-hot block, are drawn together: a hidden category becomes another
    one of the data, as often as it is there.

    Attributes:
        data (Tensor): The rows, (rows, columns).
        many (int, default 1): Draws whose scores are averaged for each mask.
        bins (int, default 4): Bins of a column; 4: quartiles.
        seed (int, default 0): Of the draws.

    >>> x, data = torch.tensor([[9.0]]), torch.arange(1.0, 9.0)[:, None]
    >>> groups = torch.tensor([[0]])
    >>> drawn = [q.hide(x, ~x.bool(), q.prepare(x, groups), draw=torch.tensor([i])).item()
    ...          for q in [Quartiles(data)] for i in range(8)]
    >>> min(drawn), max(drawn)
    (1.0, 6.0)
    """

    keeps_whole: ClassVar[bool] = False

    many: int | None = 1
    bins: int = 4
    seed: int = 0
    _ordered: dict[Any, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(2, bins=self.bins)
        check_seed(self.seed)
        if self.data.dim() != 2 or self.many is None:
            raise InputError(
                "Quartiles need data of shape (rows, columns), at least 2 bins, and `many` draws"
            )

    def prepare(self, x: Tensor, labels: Tensor) -> Tensor:
        """For each entry where its bin begins and ends among the rows in order, and the first entry of its feature,
        (batch, columns, 3)."""
        super().prepare(x, labels)
        maps = torch.unique(labels, dim=0)
        first = (maps[:, :, None] == maps[:, None]).int().argmax(2)
        first = torch.where(maps >= 0, first, torch.arange(x.shape[1], device=x.device))
        if bool((first != first[:1]).any()):
            raise InputError("Quartiles need the same groups of columns in all samples")
        fine, rows = precise(x), len(self.data)
        ordered = self._in_order(first[0]).to(fine)
        cuts = [divmod(cut * (rows - 1), self.bins) for cut in range(1, self.bins)]
        ends = [(ordered[:, low], ordered[:, min(low + 1, rows - 1)], rest) for low, rest in cuts]
        edges = torch.stack([torch.lerp(low, high, rest / self.bins) for low, high, rest in ends], 1)
        bin_ = torch.searchsorted(edges, fine.T.contiguous())
        none = fine.new_full((x.shape[1], 1), torch.inf)
        edges = torch.cat([-none, edges, none], 1)
        bounds = edges.gather(1, bin_), edges.gather(1, bin_ + 1)
        found = [torch.searchsorted(ordered, edge, side="right").T for edge in bounds]
        prepared = torch.stack([*found, first[:1].expand(x.shape)], -1)
        for columns in _blocks(first[0]):
            values, many = torch.unique(self.data.to(fine)[:, columns], dim=0, return_counts=True)
            own, end = (fine[:, None, columns] == values).all(2), many.cumsum(0)
            prepared[:, columns, 0] = (own * (end - many)).sum(1, keepdim=True)
            prepared[:, columns, 1] = (own * end).sum(1, keepdim=True)
        return prepared

    def hide(self, x: Tensor, keep: Tensor, prepared: Tensor, draw: Tensor | None = None) -> Tensor:
        assert draw is not None
        rows = len(self.data)
        begin, end, first = prepared.unbind(-1)
        ordered = self._in_order(first[0]).to(x)
        generator = torch.Generator().manual_seed(self.seed)
        chance = (
            torch.rand(rows, x.shape[1], generator=generator, dtype=torch.float32)[draw]
            .to(x.device)
            .gather(1, first)
        )
        many = end - begin
        inside = begin + (chance * many).long().minimum(many - 1)
        outside = (chance * (rows - many)).long().minimum(rows - many - 1)
        outside = outside + torch.where(outside >= begin, many, 0)
        place = torch.where(keep, inside, outside).clamp(0, rows - 1)
        found = ordered.gather(1, place.T).T
        # Nothing can be drawn from an empty bin or from outside of the only one.
        return torch.where(torch.where(keep, many == 0, many == rows), x, found)

    def _in_order(self, first: Tensor) -> Tensor:
        """The (columns, rows) values in order, of the columns of one feature by what they are together."""
        key = tuple(first.tolist())
        if key not in self._ordered:
            ordered = self.data.T.contiguous().sort(1).values
            for columns in _blocks(first.to(self.data.device)):
                block = self.data[:, columns]
                place = torch.unique(block, dim=0, return_inverse=True)[1].argsort()
                ordered[columns] = block[place].T
            self._ordered[key] = ordered
        return self._ordered[key]


def _blocks(first: Tensor) -> list[Tensor]:
    """The columns of each feature that has several."""
    blocks = [(first == leader).nonzero().flatten() for leader in torch.unique(first).tolist()]
    return [columns for columns in blocks if len(columns) > 1]
