"""Hide features in the order of a map and watch the model: one pass that serves every test made of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from apportion.engines.masking.cut import Ordered
from apportion.engines.masking.engine import Masking
from apportion.errors import check
from apportion.evaluation.readings import Reading, pick_reading, read_answers

Way = Literal["morf", "lerf"]
WAYS: tuple[Way, ...] = ("morf", "lerf")

ORDERS = 4  # in which equal values are hidden: two at random, and each backwards


@dataclass(frozen=True, eq=False)
class Curve:
    """What the model says while features are hidden; all tensors are (batch, steps).

    `hidden` is how many features are, `share` that number over all that the sample has; `score` is the explained score,
    `probability` and `alone` its probability among the others and by itself, and `label` the predicted class, or
    whether the explained label is there (see `read_answers`). Where equal values leave the order open, the numbers are
    means over several, and the label is that of the first. Where a sample has fewer features than there are steps, its
    last column is repeated, and `own` is False there.
    """

    hidden: Tensor
    share: Tensor
    own: Tensor
    score: Tensor
    probability: Tensor
    alone: Tensor
    label: Tensor

    def read(self, of: Reading) -> Tensor:
        """The (batch, steps) numbers that a test looks at."""
        return pick_reading(of, self.score, self.probability, self.alone)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the steps of each sample, (batch,)."""
        return (values * self.own).sum(1) / self.own.sum(1)

    def area(self, values: Tensor) -> Tensor:
        """The area under the values over the share of hidden features (trapezia), (batch,)."""
        return torch.trapezoid(values, self.share.to(values), dim=1)


class Order:
    """The features of each sample from the most to the least relevant, and the model's answers along the way.

    `relevance` is (batch, features). Equal values are hidden in several random orders, `ORDERS`, each sample in its
    own: by position would favour whatever begins at the top left. They are drawn from `seed` and the sample's input,
    so they do not depend on the batch, and each comes with its reverse. The way "morf" hides the most relevant first,
    "lerf" the least relevant, in exactly the opposite order. An answer is computed once, however many tests and orders
    ask for it.

    >>> masking = Masking(lambda x: x @ torch.tensor([[1.0], [2.0], [4.0]]), torch.ones(1, 3))
    >>> Order(masking, torch.tensor([[1.0, 2.0, 4.0]])).curve(torch.tensor([[0, 1, 3]])).score.tolist()
    [[7.0, 3.0, 0.0]]
    >>> Order(masking, torch.ones(1, 3)).curve(torch.tensor([[0, 1, 3]])).score[0, ::2].tolist()
    [7.0, 0.0]
    """

    def __init__(self, masking: Masking, relevance: Tensor, seed: int = 0) -> None:
        self.masking = masking
        device = relevance.device
        self.counts = masking.counts.to(device)
        self.open = open_places(relevance, self.counts)  # (batch, features + 1)
        self.tied = self.open.any(1)  # (batch,)
        several = bool(self.tied.any())
        chances = _chances(masking, self.tied, seed).to(device) if several else relevance.new_zeros(1, 1, 1)
        orders, (batch, features) = len(chances), relevance.shape
        rank = rank_features(
            relevance.repeat(orders, 1),
            self.counts.repeat(orders),
            chances.expand(-1, batch, features).flatten(0, 1),
        )
        # (batch, orders, features), read for every masked input
        self.rank = rank.view(orders, batch, features).transpose(0, 1).int().contiguous()
        every = torch.arange(masking.batch, device=device)
        self._keys = self._key(
            every, torch.zeros_like(every), "morf", torch.zeros_like(every)
        )  # (calls,), sorted
        self._answers = read_answers(masking, masking.output, every).to(device)  # (4, calls)
        self._asked: list[Tensor] = []

    def ask(self, hidden: Tensor, way: Way = "morf") -> None:
        """Let these numbers of hidden features be run with the next curve, in one pass."""
        every = torch.arange(len(hidden), device=self.rank.device)
        self._asked.append(self._of_orders(every, hidden.to(every), way).flatten())

    def curve(
        self, hidden: Tensor, rows: Tensor | None = None, way: Way = "morf", order: Tensor | None = None
    ) -> Curve:
        """The answers with (batch, steps) numbers of features hidden; with `rows`, for these samples only, and with
        `order`, along this one of the orders of each."""
        device = self.rank.device
        rows = torch.arange(len(hidden), device=device) if rows is None else rows.to(device)
        counts, hidden = self.counts[rows, None], hidden.to(device)
        if order is None:
            wanted = self._of_orders(rows, hidden, way)  # (batch, orders, steps)
        else:
            wanted = self._key(rows[:, None], hidden, way, order.to(device)[:, None])[:, None]
        asked = torch.cat([wanted.flatten(), *self._asked])
        self._asked = []
        missing = torch.unique(asked[~torch.isin(asked, self._keys)])
        if len(missing):
            self._run(missing)
        answers = self._answers[:, torch.searchsorted(self._keys, wanted)]  # (4, batch, orders, steps)
        first = answers[:, :, 0]
        # Where all orders say the same, their mean is that, to the bit.
        score, probability, alone = (first + (answers - first[:, :, None]).mean(2))[:3]
        own, hidden = hidden <= counts, hidden.minimum(counts)
        return Curve(hidden, hidden / counts, own, score, probability, alone, first[3].long())

    def _of_orders(self, rows: Tensor, hidden: Tensor, way: Way) -> Tensor:
        """The keys of (batch, steps) numbers of hidden features in all orders, (batch, orders, steps)."""
        orders = torch.arange(self.rank.shape[1], device=self.rank.device)
        return self._key(rows[:, None, None], hidden[:, None], way, orders[:, None])

    def _key(self, rows: Tensor, hidden: Tensor, way: Way, order: Tensor) -> Tensor:
        """A number for each set of hidden features; none and all are one set, from whichever end, and so is what the
        values decide, in whichever order."""
        many, counts = self.masking.many + 1, self.counts[rows]
        hidden = hidden.minimum(counts)
        part = (hidden > 0) & (hidden < counts)
        first = counts - hidden if way == "lerf" else hidden
        order = order * self.open[rows.expand_as(first), first]
        return ((rows * self.rank.shape[1] + order) * 2 + (part & (way == "lerf"))) * many + hidden

    def _run(self, keys: Tensor) -> None:
        sets, hidden = keys // (self.masking.many + 1), keys % (self.masking.many + 1)
        orders, kept = sets // 2, sets % 2 == 1  # the least relevant are hidden: the first are kept
        rows, order = orders // self.rank.shape[1], orders % self.rank.shape[1]
        first = torch.where(kept, self.counts[rows] - hidden, hidden)
        masks = Ordered(self.rank, order[:, None], first[:, None], kept[:, None])
        new = read_answers(self.masking, self.masking.scores(masks, rows)[:, 0], rows).to(self.rank.device)
        self._keys, place = torch.cat([self._keys, keys]).sort()
        self._answers = torch.cat([self._answers, new], 1)[:, place]  # (4, calls)


def open_places(relevance: Tensor, counts: Tensor) -> Tensor:
    """Whether equal values leave open which features are the first k, (batch, features + 1), k from 0 on.

    >>> open_places(torch.tensor([[3.0, 1.0, 3.0]]), torch.tensor([3])).tolist()
    [[False, True, False, False]]
    """
    many = relevance.shape[1]
    here = torch.arange(many, device=relevance.device) < counts.to(relevance.device)[:, None]
    ordered = relevance.masked_fill(~here, -torch.inf).sort(1, descending=True).values
    equal = (ordered[:, 1:] == ordered[:, :-1]) & here[:, 1:]
    return torch.nn.functional.pad(equal, (1, 1))


def _chances(masking: Masking, tied: Tensor, seed: int) -> Tensor:
    """Random numbers that break the ties of each sample, (orders, batch, features); zero where there are none."""
    found = torch.zeros(ORDERS, masking.batch, masking.many, dtype=torch.float32)
    for row in tied.nonzero().flatten().tolist():
        content = hashlib.sha256()
        for part in masking.parts:
            labels = part.labels.expand(part.x.shape[:1] + part.labels.shape[1:])[row]
            x = part.x[row]
            content.update(x[(labels >= 0).expand(x.shape)].double().cpu().numpy().tobytes())
        random = np.random.default_rng([seed, int.from_bytes(content.digest()[:8], "big")])
        many = int(masking.counts[row])
        drawn = torch.from_numpy(random.permuted(np.tile(np.arange(many), (ORDERS // 2, 1)), axis=1))
        found[:, row, :many] = torch.cat([drawn, -drawn]).float()
    return found


def rank_features(relevance: Tensor, counts: Tensor, chance: Tensor) -> Tensor:
    """The place of each feature from the most relevant (0) on, (batch, features); what a sample lacks is last. Of equal
    ones that with the lower `chance` (batch, features) is first.

    >>> rank_features(torch.tensor([[3.0, 9.0, 3.0]]), torch.tensor([3]), torch.tensor([[1.0, 2.0, 0.0]])).tolist()
    [[2, 0, 1]]
    """
    many = relevance.shape[1]
    absent = torch.arange(many, device=relevance.device) >= counts.to(relevance.device)[:, None]
    drawn = chance.argsort(dim=1, stable=True)  # (batch, features)
    shuffled = relevance.masked_fill(absent, -torch.inf).gather(1, drawn)
    order = drawn.gather(1, shuffled.argsort(dim=1, descending=True, stable=True))  # (batch, features)
    places = torch.arange(many, device=relevance.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def even_steps(counts: Tensor, steps: int | None) -> Tensor:
    """How many features are hidden at each of `steps` even steps from none to all, (batch, steps + 1).

    None, or a number above that of the features, is one feature a step; then numbers above `counts` pad.

    >>> even_steps(torch.tensor([10, 2]), 4).tolist()
    [[0, 2, 5, 8, 10], [0, 1, 2, 3, 3]]
    """
    most = int(counts.max())
    steps = most if steps is None else min(steps, most)
    place = torch.arange(steps + 1, device=counts.device)
    counts = counts[:, None]
    each = counts.clamp(max=steps)
    # Half a step rounds to even, as Python rounds.
    hidden = (place * counts / each).round().long()  # (batch, steps + 1)
    return torch.where(place <= each, hidden, counts + 1)


def counts_at_shares(counts: Tensor, shares: Sequence[float]) -> Tensor:
    """How many features given shares of them are, (batch, shares), rounded up: at least one.

    >>> counts_at_shares(torch.tensor([21, 200]), [0.01, 0.5]).tolist()
    [[1, 11], [2, 100]]
    """
    # Rounded first, so that 0.07 × 100 = 7.000000000000001 is 7.
    exact = counts[:, None].double() * torch.tensor(shares, dtype=torch.float64, device=counts.device)
    return torch.ceil(exact.mul(1e9).round() / 1e9).long().clamp(min=1)


def check_shares(name: str, shares: Sequence[float]) -> None:
    """Refuse what are no shares."""
    accepted = "shares above 0 up to 1, such as (0.1, 0.5)"
    listed = isinstance(shares, tuple | list) and bool(shares)
    check(name, shares, lambda v: listed and all(0 < share <= 1 for share in v), accepted)
