"""Shapley interactions by sampling coalitions, to put beside Integrated Hessians."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.core.calling import Model, same_random_state, with_gradients
from apportion.core.from_call import with_call
from apportion.core.inputs import Inputs
from apportion.core.target import Target
from apportion.engines.substitution import Gradients
from apportion.errors import InputError, check_whole
from apportion.methods.interactions._groups import Groups, GroupsLike, groups_of
from apportion.methods.paths.paths import Paths, pieces
from apportion.results.interactions import Interactions


@dataclass(frozen=True)
class ShapleyInteractions:
    """Sample Shapley interactions of pairs with the package `shapiq` (Muschalik et al. 2024).

    The values add up to `f(x) − f(x′)` as the sampling converges. A feature outside a coalition has its baseline's
    value. Values of pairs are halved into both entries of the matrix, the diagonal holds the effects alone. Cost:
    `budget` forward passes a sample; beside them, sharing out each run among all pairs takes 1 s for 50 features,
    20 s for 150: give `groups` where there are more. Needs `pip install 'apportion[interactions]'`; raises
    InputError without it.

    Attributes:
        index (str, default "k-SII"): Aggregated Shapley interactions, or "STII", the Shapley-Taylor index
            (Sundararajan, Dhamdhere & Agarwal 2020).
        budget (int, default 2048): Coalitions that are run for each sample.
        seed (int, default 0): Fixes the coalitions.
        baseline (float, default 0.0): The x′ of every entry; in the call `baseline=` also takes tensors.
        groups (int or list of lists of int, default None): One feature of several entries: the side of square
            patches, or lists of flat entries (or tokens); in the call `groups=` also takes a tensor with the group
            of each. None: each entry of a floating point input, each token of a text.
        chunk (int, default 256, rows): Rows that run at once.
        at (str or list of str, default None): Modules to explain instead of the inputs; None: the inputs.
    """

    index: str = "k-SII"
    budget: int = 2048
    seed: int = 0
    baseline: float = 0.0
    groups: int | Sequence[Sequence[int]] | None = None
    chunk: int = 256
    at: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.index not in ("k-SII", "STII"):
            raise InputError(f"index is {self.index!r}; accepted: 'k-SII', 'STII'")
        check_whole(1, budget=self.budget, chunk=self.chunk)

    @with_gradients()
    def __call__(
        self,
        model: Model,
        inputs: Inputs,
        target: Target = None,
        *,
        baseline: Inputs | float | None = None,
        groups: GroupsLike = None,
    ) -> Interactions:
        approximators = _import_shapiq()
        subject = Gradients(model, inputs, target, self.at)
        score = subject.forward()
        made = with_call(self, subject.inputs, baseline=baseline, groups=groups)
        paths = Paths.between(subject, score, made.baseline)
        if paths.baselines > 1:
            raise InputError(f"{paths.baselines} baselines were given; accepted by ShapleyInteractions: one")
        grouped = groups_of(subject, score, paths.steps(torch.arange(paths.many)), made.groups)
        many = len(grouped)
        values = torch.zeros(subject.batch, many, many, dtype=torch.float64)
        for sample in range(subject.batch):

            def game(coalitions: Any, sample: int = sample) -> Any:
                masks = torch.as_tensor(np.asarray(coalitions, dtype=bool)).view(-1, many)
                parts = [
                    _score_coalitions(paths, grouped, sample, part) for part in pieces(masks, self.chunk)
                ]
                return (torch.cat(parts) - paths.at_starts[sample]).numpy()

            with same_random_state(subject.inputs):  # shapiq seeds those of Python and NumPy
                sampler = approximators.SHAPIQ(n=many, max_order=2, index=self.index, random_state=self.seed)
                found = sampler.approximate(budget=min(self.budget, 2**many), game=game)
            for members, value in found.dict_values.items():
                if len(members) == 1:
                    values[sample, members[0], members[0]] = value
                elif len(members) == 2:
                    values[sample, members[0], members[1]] = values[sample, members[1], members[0]] = (
                        value / 2
                    )
        total = paths.totals().to(score.dtype)
        values = values.to(score.output.device, score.dtype)
        return subject.result(Interactions, made, values, total, score.output, names=(grouped.names,))


def _score_coalitions(paths: Paths, groups: Groups, sample: int, masks: Tensor) -> Tensor:
    """The score of a sample with only the features in each mask: (masks,) in double precision on the CPU."""
    which = torch.full((len(masks),), sample)
    points = []
    for start, step, ids in zip(paths.starts, paths.steps(which), groups.ids, strict=True):
        kept = masks.to(step.device)[:, ids[sample % len(ids)]].view(step.shape)
        points.append(start[0, sample % start.shape[1]] + step * kept)
    score = paths.subject.forward(leaves=points, rows=which % paths.batch, grad=False)
    found = score.value.detach().double().cpu()
    for here, known in ((masks.all(1), paths.at_ends), (~masks.any(1), paths.at_starts)):
        paths.subject.compare(known[which[here]], found[here], score.output)
    return found


def _import_shapiq() -> ModuleType:
    try:
        with same_random_state(()):  # what it imports draws
            import shapiq.approximator
    except ImportError as error:
        raise InputError(
            f"ShapleyInteractions needs shapiq ({error}); install it with: pip install 'apportion[interactions]'"
        ) from None
    module: ModuleType = shapiq.approximator
    return module
