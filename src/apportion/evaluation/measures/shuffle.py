"""The shuffle test: how much a decision changes when the map that weights the tokens is permuted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.core.settings import Told, checked, later
from apportion.errors import InputError, check, check_seed, check_whole
from apportion.evaluation.by_training.weighting import NORMS, weights_of
from apportion.evaluation.case import Case, Measured, Test
from apportion.evaluation.reference_maps import Map, values_of
from apportion.learning.networks import PADDING

# Weights that are in memory at once: documents × permutations × tokens.
_WEIGHTS_AT_ONCE = 1 << 22


@runtime_checkable
class Weighting(Protocol):
    """A model whose hidden states a map of the tokens weights before it decides."""

    def states(self, ids: Tensor, /) -> Tensor: ...

    def decide(self, states: Tensor, maps: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
@checked
class ShuffleTVD(Told, Test):
    """Measure the median change of the prediction when the map is shuffled (Jain & Wallace 2019).

    The map, of norm one, weights the hidden states of the model in the place of its attention. It is permuted over the
    tokens of the text (never padding), with the states as they are; a sample's score is the median of the total
    variation distances `½ Σ_c |y_c − ŷ_c|` between the class probabilities with the map and with each permutation. 0
    means that it does not matter which token has which weight (so for the uniform map), and higher is better.

    `model` has `states(ids)` and `decide(states, maps)` as `AttentionClassifier` has, and as the `TokenMLP` that
    `WeakLearner` trains, in which others shuffle the map; `inputs` are its padded ids.
    The permutations are the same for all texts of one length, so a score does not depend on the batch. Raises
    InputError for maps of another shape, NaN, and texts without a token. Cost: one pass of the encoder; the rest is
    one product of maps and states.

    Attributes:
        permutations (int, default 100): Permutations of each map.
        seed (int, default 0): Seed of the permutations.
        norm (int, default 1): Norm that is one: 1, the sum of the absolute values, or 2, the root of the sum of the
            squares.

    >>> from apportion.learning.networks import AttentionClassifier
    >>> model, ids = AttentionClassifier(9, 4, 3).eval(), torch.tensor([[2, 3, 5], [4, 7, 0]])
    >>> ShuffleTVD()(model, ids, torch.ones(2, 3)).values.round(decimals=6).tolist()
    [0.0, 0.0]
    """

    permutations: int = 100
    seed: int = 0
    norm: int = later(1)

    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_whole(1, permutations=self.permutations)
        check_seed(self.seed)
        check("norm", self.norm, lambda v: v in NORMS, "1 or 2")

    def measure(self, case: Case, explanation: Map) -> Measured:
        model, ids = case.model, case.inputs
        if not isinstance(model, Weighting):
            raise InputError(
                f"{type(model).__name__} has no states() and decide(); accepted: a model whose states a map "
                "weights, such as AttentionClassifier"
            )
        if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.is_floating_point():
            got = f"{tuple(ids.shape)} {ids.dtype}" if isinstance(ids, Tensor) else type(ids).__name__
            raise InputError(f"inputs is {got}; accepted: token ids (batch, tokens)")
        here = ids != PADDING
        many = here.sum(1)
        if int(many.min()) < 1:
            raise InputError(f"text {int(many.argmin())} has no token; accepted: at least one")
        with torch.no_grad():
            states = model.states(ids)  # (batch, tokens, width)
            maps = weights_of(
                values_of(explanation, ids)[None].to(states), here, self.norm
            )  # (batch, tokens)
            front = (~here).long().argsort(dim=1, stable=True)  # the tokens of a text before its padding
            states = states.take_along_dim(front[..., None], 1)
            maps = maps.take_along_dim(front, 1)
            keys = self._keys(ids.shape[1], maps)  # (permutations, tokens)
            distances = torch.empty_like(maps[:, 0])
            width = max(1, _WEIGHTS_AT_ONCE // (self.permutations * ids.shape[1]))
            for rows in torch.arange(len(ids), device=ids.device).split(width):
                distances[rows] = _median_distances(model, states[rows], maps[rows], many[rows], keys)
        case.forwards += 1
        return Measured(distances, notes={"reading": "the softmax of the scores, or the sigmoid of one"})

    def _keys(self, tokens: int, like: Tensor) -> Tensor:
        """Random numbers `(permutations, tokens)`; those of the first tokens do not depend on how many there
        are."""
        drawn = np.random.default_rng(self.seed).random((tokens, self.permutations))
        return torch.as_tensor(drawn.T.copy(), dtype=torch.float32, device=like.device)


def _median_distances(model: Weighting, states: Tensor, maps: Tensor, many: Tensor, keys: Tensor) -> Tensor:
    """The median distance of each text; its tokens stand before its padding."""
    padding = torch.arange(maps.shape[1], device=maps.device) >= many[:, None]
    order = keys.expand(len(maps), -1, -1).masked_fill(padding[:, None], 2.0).argsort(-1)
    shuffled = maps[:, None].expand_as(order).gather(-1, order)  # (batch, permutations, tokens)
    before, after = (_class_probabilities(model.decide(states, each)) for each in (maps[:, None], shuffled))
    distances: Tensor = (before - after).abs().sum(-1) / 2  # (batch, permutations)
    return distances.quantile(0.5, dim=1)


def _class_probabilities(scores: Tensor) -> Tensor:
    """The class probabilities; one score is the logit of class 1, that of class 0 is 0."""
    return (F.pad(scores, (1, 0)) if scores.shape[-1] == 1 else scores).softmax(-1)
