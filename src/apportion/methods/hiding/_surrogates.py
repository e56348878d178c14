"""The base of LIME and Kernel SHAP: masks are drawn and run, and a linear model is fitted to the scores."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from apportion.core.calling import warned
from apportion.core.inputs import Inputs, explained_alone
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import Partition, Superpixels, as_partition
from apportion.errors import check, check_whole
from apportion.methods.hiding._coalitions import Masks, Numbers, begun
from apportion.methods.hiding._regression import Fit
from apportion.methods.hiding.base import Hiding
from apportion.results.explanation import Explanation

Rows = npt.NDArray[np.intp]
Missing = Numbers | None
Solve = Callable[[Masks, Numbers, Numbers, Missing, Rows, dict[Any, Any]], Fit]
"""From the masks, the (rows, times, masks) scores under them, the weights of the masks, the share of those like each
that is missing, the rows, and what was kept of other fits to these masks and weights."""


class Surrogate(Hiding[Tensor]):
    """A linear model of the score over masks. Each method lists these settings in its own order."""

    samples: int | None
    paired: bool
    tolerance: float | None
    max_samples: int
    partition: Partition | Tensor | None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(1, samples=1 if self.samples is None else self.samples, max_samples=self.max_samples)
        if self.tolerance is not None:
            check("tolerance", self.tolerance, lambda v: v > 0, "a positive share, or None")

    def cut(self, inputs: Inputs) -> Partition | None:
        """Superpixels for pictures that are large enough to have some."""
        x = explained_alone(inputs)
        pictures = x is not None and x.dim() == 4 and min(x.shape[2:]) >= 32
        return Superpixels() if self.partition is None and pictures else as_partition(self.partition)

    def read(self, masking: Masking, scores: Tensor) -> Numbers:
        """What is fitted, of the scores under masks."""
        return as_numbers(scores)

    def fit(
        self,
        masking: Masking,
        mass: Callable[[int], Numbers],
        solve: Solve,
        exact: int = 0,
        ends: dict[int, Numbers] | None = None,
    ) -> tuple[Fit, int, tuple[str, ...]]:
        """Draw masks, run them and fit, for all samples with as many features at once; until certain enough. With
        `ends`, the scores with all hidden and with none, (rows, 1, 2), run along and are put there by the first row."""
        batch, many = masking.batch, masking.many
        whole = Fit(*(np.zeros(shape) for shape in ((batch, many), batch, batch, (batch, many))))
        most, uncertain, told = 0, 0, []
        counts = masking.counts.numpy()
        random = has_random_scores(masking)
        for count in np.unique(counts).tolist():
            where = np.flatnonzero(counts == count)
            budget = self.samples or 2 * count + 2048
            if count <= exact:
                budget = max(2 ** (count + 1), budget if random else 0)
            design = begun(count, mass(count), self.seed, self.paired, budget)
            new = design.masks
            runs = np.zeros((len(where), 1, 0))  # (rows, times that all masks were run, masks)

            def run(masks: Masks, times: int, where: Rows = where) -> Numbers:
                full = torch.from_numpy(masks)
                if masks.shape[1] < many:
                    full = torch.nn.functional.pad(full, (0, many - masks.shape[1]), value=True)
                full = full.repeat(times, 1) if times > 1 else full
                values = masking.values(full, torch.from_numpy(where))
                return self.read(masking, values).reshape(len(where), times, -1)

            while True:
                before = runs[0].size
                if len(new):
                    both = np.array([[False], [True]]).repeat(count, 1)
                    # A function of arrays runs twice, which tells whether its scores depend on the batch.
                    if ends is None or before or random or masking.numpy:
                        both = both[:0]
                    found = run(np.concatenate([new, both]), 1)
                    runs = np.concatenate([runs, found[..., : len(new)]], 2)
                    if ends is not None and len(both):
                        ends[where[0]] = found[..., len(new) :]
                masks = design.masks  # (masks, features)
                # Few masks with random replacements: what is left of the budget goes into repeating them.
                again = budget // max(1, len(masks)) - runs.shape[1] if random and design.complete else 0
                if again > 0 and len(masks):
                    runs = np.concatenate([runs, run(masks, again)], 1)
                # As heavy as if each were drawn as often as in the paper: `alpha` means what it means there.
                heavy = max(runs[0].size, self.samples or 1)
                kept = design.kept.setdefault(heavy, {})
                if "weights" not in kept:
                    kept["weights"] = design.weights() * heavy, design.missing()  # (masks,) each
                weights, missing = kept["weights"]
                fit = solve(masks, runs, weights, None if random else missing, where, kept)
                open_rows = np.zeros(len(where), dtype=bool)
                if self.tolerance is not None:
                    scale = np.abs(fit.coefficients).max(1, keepdims=True)
                    open_rows = (fit.errors > self.tolerance * scale).any(1)  # (rows,)
                drawn = runs[0].size
                if not open_rows.any() or drawn in (before, 0) or drawn >= self.max_samples:
                    break
                budget = min(2 * max(budget, drawn), self.max_samples)
                design = deepcopy(design)  # others begin with it as it was
                new = design.draw(budget - len(design.masks))
            if unknown := int(np.isinf(fit.errors).any(1).sum()):
                told.append(
                    f"{drawn} masks are too few for the {count} features of {unknown} of {batch} samples: the values "
                    f"are not determined, and the standard errors infinite; give samples={4 * count}, or a partition "
                    "with fewer features"
                )
                open_rows &= np.isfinite(fit.errors).all(1)
            uncertain += int(open_rows.sum())
            most = max(most, drawn)
            for name in ("intercept", "r2"):
                getattr(whole, name)[where] = getattr(fit, name)
            for name in ("coefficients", "errors"):
                getattr(whole, name)[where, :count] = getattr(fit, name)
        text = (
            f"the standard errors of {uncertain} of {batch} samples are above tolerance after {most} samples"
        )
        return whole, most, (*warned(told), *((text,) if uncertain else ()))

    def explanation(
        self, masking: Masking, fits: Fit, total: Numbers, samples: int, warnings: tuple[str, ...]
    ) -> Explanation[Any, Tensor]:
        def rows(table: Numbers) -> tuple[list[float], ...]:
            return tuple(
                row[:count] for row, count in zip(table.tolist(), masking.counts.tolist(), strict=True)
            )

        notes = {
            "samples": samples,
            "r2": tuple(fits.r2.tolist()),
            "intercept": tuple(fits.intercept.tolist()),
            "coefficients": rows(fits.coefficients),
            "standard_errors": rows(fits.errors),
        }
        device = masking.score.device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        values = masking.spread(torch.from_numpy(fits.coefficients).to(device, dtype))
        whole = torch.from_numpy(total).to(device, dtype)
        return masking.explanation(self, values, whole, notes=notes, warnings=warnings)


def has_random_scores(masking: Masking) -> bool:
    """True if one mask may have different scores."""
    return any(part.replacement.random for part in masking.parts)


def variance_of_mean(runs: Numbers) -> Numbers | None:
    """The variance of the mean over (rows, times, masks) scores; None where each was run once."""
    times = runs.shape[1]
    return runs.var(1, ddof=1) / times if times > 1 else None


def as_numbers(scores: Tensor) -> Numbers:
    return scores.cpu().double().numpy()
