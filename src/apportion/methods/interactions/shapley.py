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
from apportion.core.features import Features
from apportion.core.inputs import Inputs
from apportion.core.settings import Told, checked, later
from apportion.core.target import Target
from apportion.engines.masking.replacements import Background
from apportion.errors import InputError, check, check_seed, check_whole
from apportion.methods.interactions._games import check_baseline, game_of
from apportion.methods.interactions._groups import GroupsLike, check_groups
from apportion.results.interactions import Interactions


@dataclass(frozen=True)
@checked
class ShapleyInteractions(Told):
    """Sample Shapley interactions of pairs with the package `shapiq` (Muschalik et al. 2024).

    The values add up to `f(x) − f(x′)` as the sampling converges. A feature outside a coalition has its baseline's
    value. The model may be any function, as for methods that hide features: NumPy arrays, missing values and texts go
    to functions without a torch module in them, whose hidden token ids are the mask token. Values of pairs are halved
    into both entries of the matrix, the diagonal holds the effects alone. Cost: `budget` forward passes a sample and
    baseline; beside them, sharing out each run among all pairs takes 1 s for 50 features, 20 s for 150: give `groups`
    where there are more, or have them `sparse`. Needs `pip install 'apportion[interactions]'`; raises InputError
    without it.

    Attributes:
        index (str, default "k-SII"): Aggregated Shapley interactions, or "STII", the Shapley-Taylor index
            (Sundararajan, Dhamdhere & Agarwal 2020).
        budget (int, default 2048): Coalitions that are run for each sample.
        seed (int, default 0): Fixes the coalitions.
        baseline (float, default 0.0): The x′ of every entry, or a `Background` with rows of data, over which the scores
            are averaged; in the call `baseline=` also takes tensors.
        groups (int or list of lists of int, default None): One feature of several entries: the side of square
            patches, or lists of flat entries (or tokens); in the call `groups=` also takes a tensor with the group
            of each. None: each entry of a floating point input, each token of a text.
        chunk (int, default 256, rows): Rows that run at once.
        at (str or list of str, default None): Modules to explain instead of the inputs; None: the inputs.
        sparse (bool, default False): Look for few effects and interactions among many features, by a sparse Fourier
            transform of the score over coalitions (SPEX, Kang et al. 2025); all others are zero. A function of a few
            dozen of them is found exactly; one that is not sparse is not.
    """

    index: str = "k-SII"
    budget: int = 2048
    seed: int = 0
    baseline: float | Background = 0.0
    groups: int | Sequence[Sequence[int]] | None = None
    chunk: int = 256
    at: str | Sequence[str] | None = None
    sparse: bool = later(False)

    def __post_init__(self) -> None:
        check("index", self.index, ("k-SII", "STII").__contains__, "'k-SII', 'STII'")
        check_whole(1, chunk=self.chunk)
        check_whole(2, budget=self.budget)
        check_seed(self.seed, most=2**32 - 1)  # of NumPy's older generators, which shapiq draws from
        check_groups(self.groups)
        check_baseline(self.baseline)

    @with_gradients()
    def __call__(
        self,
        model: Model,
        inputs: Inputs | np.ndarray,
        target: Target = None,
        *,
        baseline: Inputs | float | Background | None = None,
        groups: GroupsLike = None,
        features: Sequence[Features] | None = None,
        mask: int | Tensor | None = None,
    ) -> Interactions[Tensor]:
        """`features` and `mask` are those of the domain, of functions of texts or frames."""
        if isinstance(mask, Tensor):
            rows, mask = Background(mask), None
            baseline = rows if baseline is None and self.baseline == 0.0 else baseline
        approximators = _import_shapiq()
        told = {"baseline": baseline, "groups": groups}
        game = game_of(self, model, inputs, target, told, features, mask)
        many, batch = len(game.names), len(game.total)
        values = torch.zeros(batch, many, many, dtype=torch.float64)
        for sample in range(batch):
            ends = torch.tensor([[False], [True]]).expand(2, many)  # two rows: some models take no single one
            none = game.score(sample, ends)[:1]

            def play(coalitions: Any, sample: int = sample, none: Tensor = none) -> Any:
                masks = torch.as_tensor(np.asarray(coalitions, dtype=bool)).view(-1, many)
                return (game.score(sample, masks) - none).numpy()

            with same_random_state(game.subject.inputs):  # shapiq seeds those of Python and NumPy
                found = self._approximate(approximators, many, play)
            for members, value in found.dict_values.items():
                if len(members) == 1:
                    values[sample, members[0], members[0]] = value
                elif len(members) == 2:
                    values[sample, members[0], members[1]] = values[sample, members[1], members[0]] = (
                        value / 2
                    )
        values = values.to(game.output.device, game.total.dtype)
        return game.subject.result(
            Interactions, game.made, values, game.total, game.output, names=(game.names,)
        )

    def _approximate(self, approximators: ModuleType, many: int, play: Any) -> Any:
        sampler = approximators.SPEX if self.sparse else approximators.SHAPIQ
        made = sampler(n=many, max_order=2, index=self.index, random_state=self.seed)
        try:
            return made.approximate(budget=min(self.budget, 2**many), game=play)
        except ValueError as error:
            if "nsufficient budget" not in str(error):
                raise
            raise InputError(
                f"budget is {self.budget}; a sparse transform of {many} features takes more: try {2 * self.budget}"
            ) from error


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
