"""How often intervals and standard errors hold what they speak of: by simulation.

    python studies/coverage_of_errors.py [--runs 4000] [--seeds 200] [--only intervals]

Prints the tables of docs/faithfulness.md; minutes on one core. Everything is drawn from fixed seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.results.agreement import krippendorff_alpha
from apportion.results.statistics import band_of_mean, bootstrap_means, sign_flip_ps

Numbers = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Numbers]

SCORES: dict[str, tuple[Draw, float]] = {  # what scores may look like, with the true mean
    "normal": (lambda random, shape: random.standard_normal(shape), 0.0),
    "uniform": (lambda random, shape: random.random(shape), 0.5),
    "yes or no, p = 0.7": (lambda random, shape: (random.random(shape) < 0.7).astype(float), 0.7),
    "exponential (skewed)": (lambda random, shape: random.exponential(size=shape), 1.0),
    "log-normal (very skewed)": (lambda random, shape: random.lognormal(size=shape), float(np.exp(0.5))),
}
SIZES = (2, 3, 5, 10, 20, 50, 200)


def intervals(runs: int) -> Iterator[list[str]]:
    """The share of 95 % intervals of `Scores.interval` that hold the true mean."""
    yield ["scores", *(f"n = {n}" for n in SIZES)]
    for name, (draw, mean) in SCORES.items():
        held = []
        for n in SIZES:
            # Each column is a run; a few hundred are resampled together, so that resampling is not one draw for all.
            many = [draw(np.random.default_rng((n, part)), (n, 200)) for part in range(runs // 200)]
            bands = [band_of_mean(values, seed=part) for part, values in enumerate(many)]
            held.append(np.mean([(low <= mean + 1e-12) & (mean - 1e-12 <= high) for low, high in bands]))
        yield [name, *(f"{100 * share:.0f} %" for share in held)]


def flips(runs: int) -> Iterator[list[str]]:
    """The share of sign-flip tests of two equal methods with p ≤ 0.05."""
    yield ["differences", *(f"n = {n}" for n in SIZES)]
    for name in ("normal", "exponential (skewed)"):
        draw, mean = SCORES[name]
        found = []
        for n in SIZES:
            p = sign_flip_ps(draw(np.random.default_rng((n, 7)), (n, runs)) - mean, flips=2000)
            found.append(float((p <= 0.05).mean()))
        yield [name, *(f"{100 * share:.1f} %" for share in found)]


def other_intervals(runs: int) -> Iterator[list[str]]:
    """The share of the other 95 % intervals that are printed that hold what they speak of: paired differences of two
    methods, F1 and agreement of the text study."""
    sizes = tuple(n for n in SIZES if n >= 10)
    yield ["interval", *(f"n = {n}" for n in sizes)]
    paired, f1s, alphas = [], [], []
    for n in sizes:
        random = np.random.default_rng((n, 3))
        common = random.exponential(size=(n, runs))  # how hard a sample is, for both methods
        first, second = (common + random.normal(mean, 0.5, (n, runs)) for mean in (0.2, 0.0))
        low, high = band_of_mean(first - second)  # as `compare_pairs` has it
        paired.append(float(((low <= 0.2) & (high >= 0.2)).mean()))
        held = []
        for seed in range(runs):
            random = np.random.default_rng((n, seed, 4))
            label = random.random(n) < 0.5
            said = np.where(
                random.random(n) < 0.8, label, ~label
            )  # F1 0.8: as many of both classes, 80 % right
            counts = np.stack([said & label, said != label], 1).astype(float)
            means = bootstrap_means(counts, 500, seed)
            with np.errstate(invalid="ignore"):
                low, high = np.nanquantile(2 * means[:, 0] / (2 * means[:, 0] + means[:, 1]), [0.025, 0.975])
            held.append(low <= 0.8 <= high)
        f1s.append(float(np.mean(held)))
        held = []
        truth = (
            np.array([[0.0, 1, 2, 3, 4], [0, 1, 2, 4, 3], [1, 0, 2, 3, 4]]) / 4
        )  # what three tests say of five maps
        for seed in range(min(runs, 200)):
            random = np.random.default_rng((n, seed, 5))
            drawn = [bootstrap_means(row + random.normal(0, 1, (n, 5)), 100, seed) for row in truth]
            each = [_alpha([means[k] for means in drawn]) for k in range(100)]
            low, high = np.quantile(each, [0.025, 0.975])
            held.append(low <= _alpha(list(truth)) <= high)
        alphas.append(float(np.mean(held)))
    for name, shares in (
        ("difference of two methods (compare)", paired),
        ("F1 of a model (text study)", f1s),
        ("Krippendorff's α of three tests (text study)", alphas),
    ):
        yield [name, *(f"{100 * share:.0f} %" for share in shares)]


def _alpha(raters: list[Numbers]) -> float:
    return krippendorff_alpha([[float(rank) for rank in row.argsort().argsort()] for row in raters])


def network(features: int) -> tuple[nn.Module, Tensor]:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(features, 24), nn.ReLU(), nn.Linear(24, 1)).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return model, torch.randn(1, features, generator=generator, dtype=torch.float64)


def errors(seeds: int, features: int = 14) -> Iterator[list[str]]:
    """The share of values within 1.96 standard errors of the value that all masks give, and of the mean over the seeds:
    the ridge penalty of LIME weighs less the more masks there are."""
    model, x = network(features)
    samples = (60, 100, 200, 500)
    yield ["method", *(f"{many} masks" for many in samples)]
    makers = {"Kernel SHAP": ap.KernelSHAP, "LIME": ap.LIME}
    for name, made in makers.items():
        exact = _numbers(
            made(samples=2 ** (features + 1), partition=ap.Columns())(model, x, 0), "coefficients"
        )
        around: dict[str, list[float]] = {"all masks": [], "its mean": []}
        for many in samples:
            drawn = [
                made(samples=many, seed=seed, partition=ap.Columns())(model, x, 0) for seed in range(seeds)
            ]
            found, error = (
                torch.stack([_numbers(each, key) for each in drawn])
                for key in ("coefficients", "standard_errors")
            )
            for of, truth in (("all masks", exact), ("its mean", found.mean(0))):
                around[of].append(float(((found - truth).abs() <= 1.96 * error).double().mean()))
        for of, shares in around.items():
            yield [f"{name}, around {of}", *(f"{100 * share:.0f} %" for share in shares)]


def _numbers(explanation: ap.Explanation, key: str) -> Tensor:
    return torch.tensor(explanation.notes[key][0], dtype=torch.float64)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--only", choices=("intervals", "others", "flips", "errors"))
    given = parser.parse_args()
    tables = {
        "intervals": lambda: intervals(given.runs),
        "others": lambda: other_intervals(given.runs // 4),
        "flips": lambda: flips(given.runs),
        "errors": lambda: errors(given.seeds),
    }
    for name, table in tables.items():
        if given.only in (None, name):
            head, *rows = table()
            print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
            for row in rows:
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
