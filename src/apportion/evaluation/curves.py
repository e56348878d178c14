"""Hide features in the order of a map and watch the model: one pass that serves every test made of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from apportion.core.calling import is_multi_label
from apportion.core.target import classes_of, squashed
from apportion.engines.masking.cut import Ordered
from apportion.engines.masking.engine import Masking
from apportion.errors import InputError, check

Reading = Literal["probability", "score"]
Way = Literal["morf", "lerf"]
WAYS: tuple[Way, ...] = ("morf", "lerf")


@dataclass(frozen=True, eq=False)
class Curve:
    """What the model says while features are hidden; all tensors are (batch, steps).

    `hidden` is how many features are, `share` that number over all that the sample has; `score` is the
    explained score, `probability` its softmax, or the sigmoid of a model with one score (the score itself where
    the `Masking` finds that it is a probability), and `label` the predicted class (for one score: whether its
    probability is above ½). Where a sample has fewer features than there are steps, its last
    column is repeated, and `own` is False there.
    """

    hidden: Tensor
    share: Tensor
    own: Tensor
    score: Tensor
    probability: Tensor
    label: Tensor

    def read(self, of: Reading) -> Tensor:
        """The (batch, steps) numbers that a test looks at."""
        return pick_reading(of, self.score, self.probability)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the steps of each sample, (batch,)."""
        return (values * self.own).sum(1) / self.own.sum(1)

    def area(self, values: Tensor) -> Tensor:
        """The area under the values over the share of hidden features (trapezia), (batch,)."""
        return torch.trapezoid(values, self.share.to(values), dim=1)


class Order:
    """The features of each sample from the most to the least relevant, and the model's answers along the way.

    `relevance` is (batch, features). Ties are broken by one random order of the features, drawn from `seed`:
    by position would favour whatever begins at the top left. The way "morf" hides the most relevant first,
    "lerf" the least relevant, in exactly the opposite order. An answer is computed once, however many tests
    ask for it.

    >>> masking = Masking(lambda x: x @ torch.tensor([[1.0], [2.0], [4.0]]), torch.ones(1, 3))
    >>> Order(masking, torch.tensor([[1.0, 2.0, 4.0]])).curve(torch.tensor([[0, 1, 3]])).score.tolist()
    [[7.0, 3.0, 0.0]]
    """

    def __init__(self, masking: Masking, relevance: Tensor, seed: int = 0) -> None:
        self.masking = masking
        self.counts = masking.counts.to(relevance.device)
        rank = rank_features(relevance, self.counts, seed)
        self.rank = rank.int()  # read for every masked input: half as much to read
        every = torch.arange(masking.batch, device=rank.device)
        self._keys = 2 * every * (masking.many + 1)  # (calls,), sorted; one call a sample so far
        self._answers = read_answers(masking, masking.output, every).to(rank.device)  # (3, calls)
        self._asked: list[Tensor] = []

    def ask(self, hidden: Tensor, way: Way = "morf") -> None:
        """Let these numbers of hidden features be run with the next curve, in one pass."""
        every = torch.arange(len(hidden), device=self.rank.device)
        self._asked.append(self._key(every[:, None], hidden.to(every), way).flatten())

    def curve(self, hidden: Tensor, rows: Tensor | None = None, way: Way = "morf") -> Curve:
        """The answers with (batch, steps) numbers of features hidden; with `rows`, for these samples only."""
        device = self.rank.device
        rows = torch.arange(len(hidden), device=device) if rows is None else rows.to(device)
        counts, hidden = self.counts[rows, None], hidden.to(device)
        wanted = self._key(rows[:, None], hidden, way)  # (batch, steps)
        asked = torch.cat([wanted.flatten(), *self._asked])
        self._asked = []
        missing = torch.unique(asked[~torch.isin(asked, self._keys)])
        if len(missing):
            self._run(missing)
        score, probability, label = self._answers[:, torch.searchsorted(self._keys, wanted)]
        own, hidden = hidden <= counts, hidden.minimum(counts)
        return Curve(hidden, hidden / counts, own, score, probability, label.long())

    def _key(self, rows: Tensor, hidden: Tensor, way: Way) -> Tensor:
        """A number for each set of hidden features; none and all are one set, from whichever end."""
        many, counts = self.masking.many + 1, self.counts[rows]
        part = (hidden > 0) & (hidden < counts)
        return (2 * rows + (part & (way == "lerf"))) * many + hidden.minimum(counts)

    def _run(self, keys: Tensor) -> None:
        sets, hidden = keys // (self.masking.many + 1), keys % (self.masking.many + 1)
        rows, kept = sets // 2, sets % 2 == 1  # the least relevant are hidden: the first are kept
        first = torch.where(kept, self.counts[rows] - hidden, hidden)
        masks = Ordered(self.rank, first[:, None], kept[:, None])
        new = read_answers(self.masking, self.masking.scores(masks, rows)[:, 0], rows).to(self.rank.device)
        self._keys, place = torch.cat([self._keys, keys]).sort()
        self._answers = torch.cat([self._answers, new], 1)[:, place]  # (3, calls)


def read_answers(masking: Masking, scores: Tensor, rows: Tensor) -> Tensor:
    """Score, probability and label, stacked as (3, calls), of the (calls, classes) scores of these samples. A
    target that is a callable has no probability: NaN."""
    target = masking.resolved
    wide = scores if scores.dtype == torch.float64 else scores.float()
    ready = masking.gives_probabilities
    label = wide.argmax(1) if wide.shape[1] > 1 else (wide[:, 0] > (0.5 if ready else 0)).long()  # (calls,)
    if not isinstance(target, Tensor):
        score = target(scores).to(wide)
        return torch.stack([score, torch.full_like(score, torch.nan), label.to(wide)])
    chosen = classes_of(target)[rows.to(target.device)].to(wide.device)[:, None]  # (calls, 1)
    chances = wide if ready else squashed(wide, each=is_multi_label(masking.model))
    score, probability = (each.gather(1, chosen)[:, 0] for each in (wide, chances))
    return torch.stack([score, probability, label.to(wide)])


def pick_reading(of: Reading, score: Tensor, probability: Tensor) -> Tensor:
    """The numbers that a test looks at."""
    if of == "score":
        return score
    if bool(probability.isnan().any()):
        raise InputError("the target is a callable, which has no probability; use of='score'")
    if bool((((probability == 0) | (probability == 1)) & (probability != score)).all()):
        warnings.warn(
            "the probability is 0 or 1 whatever is hidden, since the scores, taken for logits, are as far from zero as "
            f"{float(score.abs().max()):.4g}; for a regression, or to see more, use of='score'",
            stacklevel=2,
        )
    return probability


def rank_features(relevance: Tensor, counts: Tensor, seed: int = 0) -> Tensor:
    """The place of each feature from the most relevant (0) on, (batch, features); what a sample lacks is last.

    >>> rank_features(torch.tensor([[3.0, 9.0, 5.0]]), torch.tensor([3])).tolist()
    [[2, 0, 1]]
    """
    many = relevance.shape[1]
    # NumPy's stream begins alike for any length, so that padding changes no tie.
    chance = torch.from_numpy(np.random.default_rng(seed).random(many)).argsort().to(relevance.device)
    absent = torch.arange(many, device=relevance.device) >= counts.to(relevance.device)[:, None]
    shuffled = relevance.masked_fill(absent, -torch.inf)[:, chance]  # (batch, features)
    order = chance[shuffled.argsort(dim=1, descending=True, stable=True)]  # (batch, features)
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
