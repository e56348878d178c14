"""What can be said of scores beyond their mean: how sure it is, and whether one method is better than another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from apportion.errors import InputError, check, check_seed, check_whole

Numbers = npt.NDArray[np.float64]

# Numbers drawn at once: large enough to be quick, small enough for many samples.
_DRAWN_AT_ONCE = 1 << 22


def bootstrap_means(values: npt.ArrayLike, resamples: int = 2000, seed: int = 0) -> Numbers:
    """The means of `resamples` samples drawn from the values with replacement (Efron 1979).

    Columns of a (samples, columns) array are resampled together. Returns (resamples,) or (resamples, columns).

    >>> bootstrap_means([1.0, 1.0], resamples=3)
    array([1., 1., 1.])
    """
    data = np.asarray(values, dtype=np.float64)
    n = len(data)
    random = np.random.default_rng(seed)
    rows = max(1, _DRAWN_AT_ONCE // max(1, n))
    parts = []
    for begin in range(0, resamples, rows):
        counts = random.multinomial(n, np.full(n, 1 / n), min(rows, resamples - begin))  # (rows, samples)
        parts.append(counts @ data / n)
    return np.concatenate(parts)


def interval_of_mean(
    values: npt.ArrayLike, level: float = 0.95, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """The expanded percentile bootstrap interval of the mean (Hesterberg 2015); NaN without values.

    >>> interval_of_mean([0.5, 0.5, 0.5])
    (0.5, 0.5)
    """
    data = np.asarray(values, dtype=np.float64)
    low, high = band_of_mean(data[:, None], level, seed, resamples)
    return float(low[0]), float(high[0])


def band_of_mean(
    values: npt.ArrayLike, level: float = 0.95, seed: int = 0, resamples: int = 2000
) -> tuple[Numbers, Numbers]:
    """The lower and upper ends of that interval for each column of (samples, columns) values.

    The plain percentiles are too narrow for few samples, about as a normal is beside Student's t: 88 % of the
    intervals of ten samples hold the mean. So wider ones are taken.
    """
    check("level", level, lambda v: 0 < v < 1, "a share between 0 and 1, such as 0.95")
    check_whole(1, resamples=resamples)
    check_seed(seed)
    data = np.asarray(values, dtype=np.float64)
    n = len(data)
    if n < 2:
        ends = data[0] if n else np.full(data.shape[1:], math.nan)
        return ends, ends
    tail = NormalDist().cdf(math.sqrt(n / (n - 1)) * _student_quantile((1 - level) / 2, n - 1))
    low, high = np.quantile(bootstrap_means(data, resamples, seed), [tail, 1 - tail], axis=0)
    constant = (data == data[0]).all(0)
    return np.where(constant, data[0], low), np.where(constant, data[0], high)


def say_if_few(n: int) -> str:
    """What is to be said of the interval of so few values; "" where it holds the mean about as often as it should
    (`studies/coverage_of_errors.py`).

    >>> say_if_few(3)
    'too few to rely on the interval'
    """
    if n < 5:
        return "too few to rely on the interval" if n > 1 else ""
    return "few, so the interval is a hint" if n < 10 else ""


def _student_quantile(p: float, freedom: int) -> float:
    """A quantile of Student's t (Abramowitz & Stegun 26.7.5)."""
    z = NormalDist().inv_cdf(p)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / float(freedom) ** power for power, term in enumerate(terms, 1))


def sign_flip_p(differences: npt.ArrayLike, flips: int = 10_000, seed: int = 0) -> float:
    """How often a mean difference as far from zero arises if each difference may as well have the other sign
    (the two-sided paired permutation test, Fisher 1935). All 2ⁿ signs are tried where they are no more than
    `flips`; else that many at random, and the observed ones are counted among them.

    >>> sign_flip_p([1.0, 2.0, 3.0])  # 2 of 8
    0.25
    """
    return float(sign_flip_ps(np.asarray(differences, dtype=np.float64)[:, None], flips, seed)[0])


def sign_flip_ps(differences: npt.ArrayLike, flips: int = 10_000, seed: int = 0) -> Numbers:
    """The same for each column of (samples, comparisons) differences, all with the same signs; NaN differences are not
    counted, and a column without others has NaN."""
    given = np.asarray(differences, dtype=np.float64)
    data, n = np.nan_to_num(given), len(given)
    total = data.sum(0)
    observed = np.abs(total) - 1e-12 * np.abs(data).sum(0)  # what rounding may take
    if n < 60 and 2**n <= flips:
        turned = (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.float64)  # (flips, samples)
        p = (np.abs(total - 2 * turned @ data) >= observed).mean(0)
    else:
        random = np.random.default_rng(seed)
        rows = max(1, _DRAWN_AT_ONCE // n)
        as_far = np.ones(data.shape[1])
        for begin in range(0, flips, rows):
            many = min(rows, flips - begin)
            bits = np.frombuffer(random.bytes(many * -(-n // 8)), dtype=np.uint8).reshape(many, -1)
            turned = np.unpackbits(bits, axis=1, count=n).astype(np.float64)  # (many, samples)
            as_far += (np.abs(total - 2 * turned @ data) >= observed).sum(0)
        p = as_far / (flips + 1)
    return np.where(np.isnan(given).all(0), np.nan, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are (Holm 1979); NaN stays NaN and is not counted.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    found = np.asarray(p_values, dtype=np.float64)
    result = np.full_like(found, np.nan)
    order = np.argsort(found)
    order = order[~np.isnan(found[order])]
    scaled = found[order] * np.arange(len(order), 0, -1)
    result[order] = np.minimum(np.maximum.accumulate(scaled), 1.0) if len(order) else scaled
    return [float(p) for p in result]


@dataclass(frozen=True)
class Comparison:
    """Two methods on the same samples: the mean of `first − second`, its bootstrap interval, the p-value of
    the sign-flip test, and the same corrected for the number of comparisons."""

    first: str
    second: str
    difference: float
    interval: tuple[float, float]
    p: float
    corrected: float
    n: int


def compare_pairs(
    values: Mapping[str, npt.ArrayLike],
    pairs: Sequence[tuple[str, str]] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> list[Comparison]:
    """Compare methods pair by pair on the samples where both are defined, with Holm's correction.

    `values` maps each method to one value per sample, in the same order; `pairs` are those to compare (default: all).

    >>> found = compare_pairs({"a": [0.9, 0.8, 0.7, 0.9], "b": [0.1, 0.2, 0.1, 0.3]})
    >>> round(found[0].difference, 2), found[0].p
    (0.65, 0.125)
    """
    data = {name: np.asarray(v, dtype=np.float64) for name, v in values.items()}
    sizes = {name: v.shape for name, v in data.items()}
    if len(set(sizes.values())) > 1 or any(len(shape) != 1 for shape in sizes.values()):
        raise InputError(
            f"the methods have values of shapes {sizes}; accepted: one per sample, as many for each"
        )
    chosen = list(combinations(data, 2)) if pairs is None else list(pairs)
    for name in {name for pair in chosen for name in pair}:
        if name not in data:
            raise InputError(f"no values for {name!r}; there are those of {', '.join(data)}")
    if not chosen:
        return []
    differences = np.stack([data[a] - data[b] for a, b in chosen], 1)  # (samples, pairs)
    known = ~np.isnan(differences)
    ends = np.stack(band_of_mean(differences, level, seed), 1)  # (pairs, 2)
    for column in np.flatnonzero(~known.all(0)):
        ends[column] = interval_of_mean(differences[known[:, column], column], level, seed)
    p_values = sign_flip_ps(differences, seed=seed).tolist()
    found = []
    for i, ((a, b), p, corrected) in enumerate(zip(chosen, p_values, holm(p_values), strict=True)):
        d = differences[known[:, i], i]
        mean = float(d.mean()) if len(d) else math.nan
        low, high = ends[i].tolist()
        found.append(Comparison(a, b, mean, (low, high), p, corrected, len(d)))
    return found


def ranks(values: Mapping[str, float], higher_is_better: bool = True) -> dict[str, float]:
    """The rank of each method, 1 the best; equal ones share the mean of their ranks, NaN has none.

    >>> ranks({"a": 0.1, "b": 0.7, "c": 0.1})
    {'a': 2.5, 'b': 1.0, 'c': 2.5}
    """
    data = np.asarray(list(values.values()), dtype=np.float64) * (-1 if higher_is_better else 1)
    before = (data[None] < data[:, None]).sum(1)
    equal = (data[None] == data[:, None]).sum(1)
    found = np.where(np.isnan(data), np.nan, before + (equal + 1) / 2)
    return {name: float(rank) for name, rank in zip(values, found, strict=True)}
