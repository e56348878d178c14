"""Labelled texts as token ids, and the batches that they are run in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from apportion.errors import InputError


@dataclass(frozen=True, eq=False)
class Documents:
    """Texts and their classes: `ids[i]` are the (tokens,) token ids of text i, none of them padding (0), and
    `labels` its class, `(n,)`. `maps[i]`, where given, is a frozen weight for each token of text i.

    Raises InputError for texts without a token, padding inside a text, and maps of another length.

    >>> documents = Documents((torch.tensor([5, 2]), torch.tensor([7])), torch.tensor([1, 0]))
    >>> [tensor.tolist() for tensor in documents.batch([0, 1])]
    [[[5, 2], [7, 0]]]
    """

    ids: tuple[Tensor, ...]
    labels: Tensor
    maps: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.labels):
            raise InputError(
                f"{len(self.ids)} texts with {len(self.labels)} labels; accepted: one label each"
            )
        for i, ids in enumerate(self.ids):
            if not len(ids):
                raise InputError(f"text {i} is empty; accepted: at least one token")
        if self.ids and bool((torch.cat(self.ids) == 0).any()):
            raise InputError("a text holds the token id 0, which stands for padding")
        if self.maps is not None:
            if [len(m) for m in self.maps] != [len(i) for i in self.ids]:
                raise InputError("maps have other lengths than the texts; accepted: one value per token")
            for i, values in enumerate(self.maps):
                if not bool(torch.isfinite(values).all()):
                    raise InputError(f"the map of text {i} contains NaN or infinite numbers")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Tensor:
        """The number of tokens of each text, `(n,)`."""
        return torch.tensor([len(ids) for ids in self.ids])

    @property
    def fingerprint(self) -> str:
        """A short hash of the content."""
        digest = hashlib.sha256()
        for column in ([self.labels, self.lengths], self.ids, self.maps or ()):
            for tensor in column:
                digest.update(f"{tensor.dtype} {len(tensor)} ".encode() + tensor.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def batch(self, rows: Sequence[int]) -> tuple[Tensor, ...]:
        """Padded `(rows, tokens)` ids, and maps where there are any (0 at padding)."""
        columns = [self.ids] if self.maps is None else [self.ids, self.maps]
        return tuple(pad_sequence([column[i] for i in rows], batch_first=True) for column in columns)

    def select(self, rows: Sequence[int]) -> Documents:
        """These texts only, in this order."""
        return Documents(
            tuple(self.ids[i] for i in rows),
            self.labels[list(rows)],
            None if self.maps is None else tuple(self.maps[i] for i in rows),
        )


def shuffled_batches(lengths: Tensor, size: int, generator: torch.Generator) -> list[list[int]]:
    """Every text once, in batches of `size` in random order; texts of like length are together, drawn from
    pools of 50 batches, so that little is padding."""
    order = torch.randperm(len(lengths), generator=generator)
    pools = [pool[lengths[pool].argsort(stable=True)] for pool in order.split(50 * size)]
    batches = [batch.tolist() for pool in pools for batch in pool.split(size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def batches_by_length(lengths: Tensor, tokens: int = 8192, most: int = 256) -> Iterator[list[int]]:
    """Every text once, the shortest first: batches of at most `most` texts and `tokens` tokens with padding
    (a longer text is alone)."""
    batch: list[int] = []
    for row in lengths.argsort(stable=True).tolist():
        if batch and ((len(batch) + 1) * int(lengths[row]) > tokens or len(batch) == most):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
