"""How much a map changes when its input hardly does. The method explains again, many perturbed inputs at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from apportion.core.inputs import Inputs, offsets_of, rekeyed
from apportion.core.settings import checked
from apportion.engines.masking.engine import Masking
from apportion.engines.substitution import Gradients
from apportion.engines.substitution.leaves import Beside
from apportion.errors import InputError, check, check_seed, check_whole
from apportion.evaluation.case import Case, Measured, Test, nan_where, random_draws
from apportion.evaluation.reference_maps import Map, RandomMap, UniformMap, method_of, values_in_rows


@dataclass(frozen=True)
class _Perturbing(Test):
    """What both tests share."""

    samples: int = 10
    radius: float = 0.02
    seed: int = 0

    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_whole(1, samples=self.samples)
        check_seed(self.seed)
        check("radius", self.radius, lambda v: 0 < v < float("inf"), "a positive number")


@dataclass(frozen=True)
@checked
class MaxSensitivity(_Perturbing):
    """Max-sensitivity (Yeh et al. 2019), relative as in Captum and Quantus: the largest relative change of the map.

    The largest `‖φ(x + δ) − φ(x)‖ / ‖φ(x)‖` of some perturbations δ. Lower is better. A map that does not look at the
    input scores best: read it beside a faithfulness test. Of token ids the embeddings are perturbed, for methods that
    compute with them; padding and special tokens stay as they are. The target stays that of the explanation.
    Undefined where φ(x) is zero. Cost: that of `samples` explanations, made many at a time.

    Attributes:
        samples (int, default 10): Perturbations.
        radius (float, default 0.02, in units of the input): Each entry of δ is uniform in ±`radius`.
        seed (int, default 0): Seed of the perturbations.

    >>> import apportion as ap
    >>> model, x = torch.nn.Linear(3, 2), torch.ones(2, 3)
    >>> MaxSensitivity()(model, x, ap.Saliency()(model, x)).mean
    0.0
    """

    def measure(self, case: Case, explanation: Map) -> Measured:
        here = _map(explanation, case.masking().inputs)
        largest = here.new_zeros(len(here))
        for _, there in _explain_perturbed(self, case, explanation):
            largest = largest.maximum((there - here[:, None]).norm(dim=2).amax(1))
        size = here.norm(dim=1)
        return nan_where(size == 0, largest / size, "the map is zero everywhere")


@dataclass(frozen=True)
@checked
class LocalLipschitz(_Perturbing):
    """Local Lipschitz estimate (Alvarez-Melis & Jaakkola 2018): the steepest change of the map.

    The largest `‖φ(x + δ) − φ(x)‖ / ‖δ‖` of some perturbations δ. Lower is better; it is in the units of the map, so
    only maps in the same units can be compared. Of token ids the embeddings are perturbed, for methods that compute
    with them; padding and special tokens stay as they are. The target stays that of the explanation. Cost: that of
    `samples` explanations, made many at a time.

    Attributes:
        samples (int, default 10): Perturbations.
        radius (float, default 0.02, in units of the input): Each entry of δ is uniform in ±`radius`.
        seed (int, default 0): Seed of the perturbations.

    >>> import apportion as ap
    >>> model, x = torch.nn.Linear(3, 2), torch.ones(2, 3)
    >>> LocalLipschitz()(model, x, ap.Saliency()(model, x)).mean
    0.0
    """

    def measure(self, case: Case, explanation: Map) -> Measured:
        here = _map(explanation, case.masking().inputs)
        largest = here.new_zeros(len(here))
        for size, there in _explain_perturbed(self, case, explanation):
            slopes = (there - here[:, None]).norm(dim=2) / size.to(here)
            largest = largest.maximum(slopes.amax(1))
        return Measured(largest)


def _explain_perturbed(test: _Perturbing, case: Case, explanation: Map) -> Iterator[tuple[Tensor, Tensor]]:
    """The sizes of some perturbations at a time, (batch, many), and the maps there, (batch, many, entries)."""
    method, masking = method_of(explanation, test), case.masking()
    target = masking.resolved
    chunks = _CHUNKS if case.chunk is None and masking.parts[0].x.device.type == "cpu" else 1
    together = max(1, chunks * masking.chunk // masking.batch)
    for begin in range(0, test.samples, together):
        moved = _Perturbations(test, masking, range(begin, min(begin + together, test.samples)))
        many = len(moved.draws)
        there = rekeyed(masking.inputs, moved.perturb_input)
        repeated = target.repeat_interleave(many, 0) if isinstance(target, Tensor) else target
        beside = Beside(masking.model, moved.perturb_embeddings)
        made = case.explain(method, repeated, beside, there, many)
        if isinstance(method, RandomMap | UniformMap) and not moved.squares:  # they look at nothing
            Gradients(beside, there, repeated).forward(grad=False)
        if not moved.squares:
            raise InputError(
                f"{type(test).__name__} perturbs the embeddings of token ids, and {method!r} hides tokens and does not "
                "see them; accepted: methods that compute with them, such as Saliency() or IntegratedGradients()"
            )
        size = torch.stack(list(moved.squares.values())).sum(0).sqrt()
        yield size, _map(made, there).view(masking.batch, many, -1)


# Chunks of forward passes that are explained at once on a CPU, where a call for each layer and chunk costs more
# than what is kept for the backward pass: a quarter less time for a small network on two cores.
_CHUNKS = 3


class _Perturbations:
    """Each sample under some draws of the perturbation, which all samples share, at their features: neither padding nor
    special tokens are moved. Those of the first tokens do not depend on how many there are."""

    def __init__(self, test: _Perturbing, masking: Masking, draws: range) -> None:
        self.test, self.masking, self.draws = test, masking, draws
        self.parts = {part.key: (i, part) for i, part in enumerate(masking.parts)}
        self.squares: dict[Any, Tensor] = {}  # ‖δ‖² of each input or lookup, (batch, many)

    def perturb_input(self, key: Any, x: Tensor) -> Tensor:
        """An input, each sample once for each draw; numbers are moved."""
        if key not in self.parts or not x.is_floating_point():
            return x.repeat_interleave(len(self.draws), 0)
        number, part = self.parts[key]
        inside = (part.labels >= 0).expand(x.shape)
        added = self._draw(number, x.shape[1:], x, inside) * inside[:, None]
        self._measure(key, added)
        return (x[:, None] + added).flatten(0, 1)

    def perturb_embeddings(self, rows: Tensor, positions: Tensor, number: int) -> Tensor:
        """What is added to the embeddings (…, width) of the tokens at these flat positions of all inputs."""
        found = torch.zeros_like(rows)
        repeated = rekeyed(self.masking.inputs, lambda key, x: x.repeat_interleave(len(self.draws), 0))
        for key, (begin, ids) in offsets_of(repeated).items():
            if key not in self.parts:
                continue
            labels = self.parts[key][1].labels.expand(len(ids) // len(self.draws), *ids.shape[1:])
            added = self._draw(number, (*ids.shape[1:], rows.shape[-1]), rows, labels >= 0)
            added = added * (labels >= 0)[:, None, ..., None]
            self._measure((key, number), added)
            place = positions - begin
            here = (place >= 0) & (place < ids.numel())
            found[here] = added.flatten(0, -2)[place[here]]
        return found

    def _draw(self, number: int, shape: Sequence[int], like: Tensor, inside: Tensor) -> Tensor:
        """The perturbations of each sample, (batch or 1, many, …): the first drawn is that of its first token `inside`,
        wherever that stands."""
        chance = random_draws("random", shape, self.draws, self.test.seed, number)
        drawn = ((2 * chance - 1) * self.test.radius).to(like)[None]  # (1, many, …)
        here = inside.flatten(2).any(2) if inside.dim() > 2 else inside  # (batch, tokens)
        if here.dim() < 2 or bool(here.all()):
            return drawn
        place = (here.long().cumsum(1) - 1).clamp(min=0).view(len(here), 1, -1, *[1] * (drawn.dim() - 3))
        return drawn.take_along_dim(place, 2)

    def _measure(self, key: Any, added: Tensor) -> None:
        wide = added if added.dtype == torch.float64 else added.float()
        self.squares[key] = wide.flatten(2).square().sum(2)


def _map(explanation: Map, inputs: Inputs) -> Tensor:
    """The values of each sample in one row, in at least single precision."""
    rows = values_in_rows(explanation, inputs)
    return rows if rows.dtype == torch.float64 else rows.float()
