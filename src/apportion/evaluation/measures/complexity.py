"""How many features a map needs to say what it says. None of these looks at the model: they do not speak of
faithfulness, and neither end is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from apportion.core.settings import checked
from apportion.engines.masking.partitions import Partition
from apportion.errors import check
from apportion.evaluation.case import Case, Measured, Test, nan_where
from apportion.evaluation.reference_maps import Map

_ZERO = "the map is zero everywhere"


@dataclass(frozen=True)
@checked
class Sparseness(Test):
    """Sparseness (Chalasani et al. 2020): the Gini index of the absolute values of the features.

    It is 0 where all are equal, and towards 1 where one has all. Neither end is better. Undefined for a map of zeros.
    Cost: none.

    Attributes:
        partition (Partition, default None): How the inputs are cut into features; None: as `Masking` does.

    >>> Sparseness()(torch.nn.Linear(4, 2), torch.ones(1, 4), torch.tensor([[0.0, 0.0, -1.0, 0.0]])).mean
    0.75
    """

    partition: Partition | None = None

    higher_is_better: ClassVar[None] = None

    def measure(self, case: Case, explanation: Map) -> Measured:
        shares, counts = _relevance_shares(case, explanation, self.partition)
        # The features that a sample does not have sort first, as zeros: their places are taken off.
        ordered = shares.sort(1).values
        place = torch.arange(1, shares.shape[1] + 1, device=shares.device) - (
            shares.shape[1] - counts[:, None]
        )
        gini = 1 - 2 * (ordered * (counts[:, None] - place + 0.5) / counts[:, None]).sum(1)
        return nan_where(shares.sum(1) == 0, gini, _ZERO)


@dataclass(frozen=True)
@checked
class Complexity(Test):
    """Complexity (Bhatt et al. 2020): the entropy, in nats, of the features' shares of the absolute values.

    It is 0 where one has all, and log(features) where all are equal. Neither end is better. Undefined for a map of
    zeros. Cost: none.

    Attributes:
        partition (Partition, default None): How the inputs are cut into features; None: as `Masking` does.

    >>> round(Complexity()(torch.nn.Linear(4, 2), torch.ones(1, 4), torch.ones(1, 4)).mean, 4)
    1.3863
    """

    partition: Partition | None = None

    higher_is_better: ClassVar[None] = None

    def measure(self, case: Case, explanation: Map) -> Measured:
        shares, _ = _relevance_shares(case, explanation, self.partition)
        return nan_where(shares.sum(1) == 0, entropy(shares), _ZERO)


@dataclass(frozen=True)
@checked
class EffectiveComplexity(Test):
    """Effective complexity (Nguyen & Martínez 2020), without the model: the number of features with a large value.

    Neither end is better; 0 for a map of zeros. Cost: none.

    Attributes:
        threshold (float, default 1e-5): Share of the sample's largest absolute value above which a feature counts.
        partition (Partition, default None): How the inputs are cut into features; None: as `Masking` does.

    >>> EffectiveComplexity()(torch.nn.Linear(3, 2), torch.ones(1, 3), torch.tensor([[5.0, -1.0, 0.0]])).mean
    2.0
    """

    threshold: float = 1e-5
    partition: Partition | None = None

    higher_is_better: ClassVar[None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check("threshold", self.threshold, lambda v: 0 <= v < 1, "a share from 0 to below 1")

    def measure(self, case: Case, explanation: Map) -> Measured:
        shares, _ = _relevance_shares(case, explanation, self.partition)
        return Measured((shares > self.threshold * shares.amax(1, keepdim=True)).sum(1))


def entropy(shares: Tensor) -> Tensor:
    """The entropy in nats of (batch, features) shares that add up to 1."""
    entropies: Tensor = torch.special.entr(shares)
    return entropies.sum(1)


def _relevance_shares(case: Case, explanation: Map, partition: Partition | None) -> tuple[Tensor, Tensor]:
    """The share of each feature of the absolute values, (batch, features), and the numbers of features."""
    masking = case.masking(partition)
    size = case.relevance(explanation, masking).abs()
    # Divided by the largest first, so that tiny values do not vanish in the sum.
    size = size / size.amax(1, keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)
    return size / size.sum(1, keepdim=True).clamp(min=torch.finfo(size.dtype).tiny), masking.counts.to(
        size.device
    )
