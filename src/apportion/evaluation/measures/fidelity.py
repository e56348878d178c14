"""Whether the values themselves, not only their order, are what the model does: infidelity and completeness."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from apportion.core.settings import checked
from apportion.engines.masking.engine import Masking
from apportion.errors import InputError, check, check_seed, check_whole
from apportion.evaluation.case import Case, CurveTest, Measured, nan_where
from apportion.evaluation.readings import Reading, pick_reading, read_answers
from apportion.evaluation.reference_maps import Map, values_in_rows, values_of
from apportion.results.explanation import Explanation


@dataclass(frozen=True)
@checked
class Infidelity(CurveTest):
    """Infidelity (Yeh et al. 2019): the expected squared difference between map and model under perturbations.

    `E[(Iᵀφ − (f(x) − f(x − I)))²]`, where the map says the first term of a perturbation I, and the model does the
    second. Lower is better. The perturbations are the same for all samples. Cost: one forward pass each. Settings:
    those below and those of [CurveTest][apportion.evaluation.case.CurveTest].

    Attributes:
        of (str, default "score"): What is read off: "probability", "score" or "sigmoid", as in `CurveTest`.
        samples (int, default 100): Perturbations.
        perturbation (str, default "hide"): "hide" hides random features, from one to all but one of them, and φ says
            the sum of their values: for maps that apportion a score (Input×Gradient, LRP, Integrated Gradients).
            "noise" adds Gaussian noise to float inputs, and φ says `Iᵀφ`: for maps that are slopes (saliency with
            sign).
        noise (float, default 0.1, in units of the input): Standard deviation of the noise.
        scaled (bool, default True): Multiply each map by the number ≥ 0 that suits it best, as its authors do, so
            that maps in other units can be compared; a map that is best at zero then has what a map of zeros has.
        seed (int, default 0): Seed of the perturbations.

    >>> model, x = torch.nn.Linear(4, 1), torch.ones(1, 4)
    >>> Infidelity()(model, x, x * model.weight.detach()).mean < 1e-9
    True
    """

    of: Reading = field(default="score", kw_only=True)
    samples: int = 100
    perturbation: Literal["hide", "noise"] = "hide"
    noise: float = 0.1
    scaled: bool = True
    seed: int = 0

    higher_is_better: ClassVar[bool] = False
    ranks: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(1, samples=self.samples)
        check_seed(self.seed)
        if self.perturbation not in ("hide", "noise"):
            raise InputError(f"perturbation is {self.perturbation!r}; accepted: 'hide', 'noise'")
        check("noise", self.noise, lambda v: 0 < v < torch.inf, "a positive standard deviation")

    def measure(self, case: Case, explanation: Map) -> Measured:
        if not self.scaled and isinstance(explanation, Explanation) and "scores" in explanation.notes:
            raise InputError(
                f"the values are of the {explanation.notes['scores']}, which is not what the model returns; accepted: "
                "scaled=True, or values of what it returns, such as those of KernelSHAP"
            )
        masking = case.masking(self.partition, self.replacement)
        said, done = (
            self._hide(case, masking, explanation)
            if self.perturbation == "hide"
            else self._add_noise(case, masking, explanation)
        )
        said, done = said.double(), done.double()
        if self.scaled:
            squares = (said**2).mean(1)
            best = (said * done).mean(1) / squares.clamp(min=torch.finfo(torch.float64).tiny)  # (batch,)
            said = said * best.clamp(min=0)[:, None]
        return Measured(((said - done) ** 2).mean(1))

    def _hide(self, case: Case, masking: Masking, explanation: Map) -> tuple[Tensor, Tensor]:
        """What the map says and what the model does for each perturbation, (batch, samples) each."""
        relevance = case.relevance(explanation, masking)
        hide = random_subsets(masking.counts, masking.many, self.samples, self.seed).to(relevance.device)
        said = (hide.to(relevance) @ relevance[:, :, None])[:, :, 0]  # (batch, samples)
        return said, case.once(self, lambda: self._score_fall(masking, masking.scores(~hide))).to(said)

    def _add_noise(self, case: Case, masking: Masking, explanation: Map) -> tuple[Tensor, Tensor]:
        values = values_of(explanation, masking.inputs)
        x = masking.inputs
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise InputError(
                "perturbation='noise' needs one floating point tensor; accepted for others: 'hide'"
            )
        random = np.random.default_rng(self.seed)
        said, done = [], []
        together = max(1, masking.chunk // masking.batch)
        for begin in range(0, self.samples, together):
            many = min(together, self.samples - begin)
            drawn = torch.from_numpy(random.standard_normal((many, *x.shape[1:]), dtype=np.float32)).to(x)
            drawn = drawn * self.noise  # (many, …), the same for all samples
            samples = torch.arange(masking.batch).repeat_interleave(many)
            scores = masking.run((x[:, None] - drawn).flatten(0, 1), samples)  # (batch · many, classes)
            done.append(self._score_fall(masking, scores.view(masking.batch, many, -1)))
            said.append(values[None].flatten(1) @ drawn.flatten(1).to(values[None]).T)  # (batch, many)
        return torch.cat(said, 1), torch.cat(done, 1)

    def _score_fall(self, masking: Masking, scores: Tensor) -> Tensor:
        """How far the model's answer falls, (batch, samples), from (batch, samples, classes) scores."""
        rows = torch.arange(masking.batch)
        before = read_answers(masking, masking.output, rows)
        after = read_answers(masking, scores.flatten(0, 1), rows.repeat_interleave(scores.shape[1]))
        whole = pick_reading(self.of, *before[:3])
        return whole[:, None] - pick_reading(self.of, *after[:3]).view(scores.shape[:2])


@dataclass(frozen=True)
@checked
class Completeness(CurveTest):
    """Completeness (Sundararajan et al. 2017; conservation in Bach et al. 2015): how far values are from adding up.

    `|total − Σφ| / |total|`, where the total is that of the explanation if its method claims one, and otherwise `f(x)
    − f(all features hidden)`. Lower is better. Undefined where the total is zero. Cost: none, or one forward pass.
    Settings: those below and those of [CurveTest][apportion.evaluation.case.CurveTest].

    Attributes:
        of (str, default "score"): What is read off: "probability", "score" or "sigmoid", as in `CurveTest`.

    >>> model, x = torch.nn.Linear(4, 1), torch.ones(1, 4)
    >>> Completeness()(model, x, x * model.weight.detach()).mean < 1e-6
    True
    """

    of: Reading = field(default="score", kw_only=True)

    higher_is_better: ClassVar[bool] = False
    ranks: ClassVar[bool] = False

    def measure(self, case: Case, explanation: Map) -> Measured:
        masking = case.masking(self.partition, self.replacement)
        total = explanation.total if isinstance(explanation, Explanation) else None
        if total is None:
            curve = self.ordered(case, explanation).curve(masking.counts[:, None])
            first = read_answers(masking, masking.output, torch.arange(masking.batch))
            total = pick_reading(self.of, *first[:3]) - curve.read(self.of)[:, 0].to(first)
            values = case.relevance(explanation, masking)  # what is never hidden is not in the total
        else:
            values = values_in_rows(explanation, masking.inputs)
        sums = values.double().sum(1)
        total = total.to(sums)
        return nan_where(total == 0, (total - sums).abs() / total.abs(), "the total is zero")


def random_subsets(counts: Tensor, many: int, samples: int, seed: int, most: float = 1.0) -> Tensor:
    """Draw sets of features, (batch, samples, many), True inside.

    Their sizes are uniform from 1 to the share `most` of the features of a sample, but not all (if it has two), their
    members uniform. Features that a sample lacks are in none.
    """
    random = np.random.default_rng(seed)
    share = torch.from_numpy(random.random(samples))
    # Row by row, so that the draws of a sample's features do not depend on how many others have.
    chance = torch.from_numpy(random.random((many, samples))).T  # (samples, many)
    absent = torch.arange(many) >= counts.cpu()[:, None, None]
    place = chance.expand(len(counts), -1, -1).masked_fill(absent, torch.inf).argsort(2).argsort(2)
    counts = counts.cpu()[:, None]
    largest = (most * counts).ceil().long().minimum(counts - 1).clamp(min=1)
    sizes = 1 + (share * largest).long()  # (batch, samples)
    return (place < sizes[..., None]) & ~absent
