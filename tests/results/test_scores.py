"""Scores and the statistics on them, beside SciPy and slow transcriptions."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from apportion.errors import InputError
from apportion.results.agreement import kendall_tau, krippendorff_alpha, tau_table
from apportion.results.cost import Cost
from apportion.results.scores import Scores
from apportion.results.statistics import (
    _student_quantile,
    band_of_mean,
    bootstrap_means,
    compare_pairs,
    holm,
    interval_of_mean,
    ranks,
    sign_flip_p,
    sign_flip_ps,
)

numbers = st.integers(-40, 40).map(lambda i: i / 4)


def made(**fields: Any) -> Scores:
    given = {"values": [0.1, 0.7, 0.3], "test": "Some(settings=1)", "higher_is_better": True}
    return Scores(**{**given, **fields})


# ---- Scores ----


def test_mean_and_interval() -> None:
    scores = made()
    assert scores.mean == pytest.approx(1.1 / 3)
    low, high = scores.interval()
    assert 0.1 - 1e-9 <= low < scores.mean < high <= 0.7 + 1e-9
    many = made(values=torch.arange(50) ** 1.5)
    assert many.interval() == many.interval(seed=0) != many.interval(seed=1)
    narrow = scores.interval(level=0.5)
    assert low <= narrow[0] <= narrow[1] <= high
    assert torch.equal(made(higher_is_better=False).oriented, -scores.values)


def test_undefined_values_are_left_out() -> None:
    scores = made(values=[0.5, math.nan, 0.7], undefined="the document is empty")
    assert scores.mean == pytest.approx(0.6)
    assert (len(scores), scores.n) == (3, 2)
    assert "undefined for 1 (the document is empty)" in repr(scores)
    nothing = made(values=[math.nan], undefined="<b>")
    assert math.isnan(nothing.mean)
    assert all(math.isnan(end) for end in nothing.interval())
    assert "&lt;b&gt;" in nothing._repr_html_()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([math.nan, 1.0], "NaN for samples \\[0\\] and no reason"),
        ([math.inf], "infinite scores for samples \\[0\\]"),
        ([[1.0]], "shape \\(1, 1\\)"),
        ([], "shape \\(0,\\)"),
        ("text", "values is str"),
    ],
)
def test_wrong_values(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made(values=values)


def test_save_and_load(tmp_path: Any) -> None:
    scores = made(values=[1 / 3, math.nan], undefined="why", cost=Cost(2, 1, 0.5), notes={"fractions": [0.1]})
    again = Scores.load(scores.save(tmp_path / "folder" / "scores.json"))
    assert again == scores
    assert again.cost == Cost(2, 1, 0.5)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["scores.json"]
    with pytest.raises(InputError, match="no file"):
        Scores.load(tmp_path / "nothing.json")
    for text in ("{", "[]", "{}", '{"schema": 99}', '{"schema": 1, "values": 3, "cost": null}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError):
            Scores.load(tmp_path / "bad.json")


# ---- statistics ----


def test_bootstrap_beside_scipy() -> None:
    data = np.random.default_rng(0).gamma(2.0, size=80)
    theirs = stats.bootstrap((data,), np.mean, n_resamples=9999, method="percentile").confidence_interval
    assert interval_of_mean(data, resamples=9999) == pytest.approx(tuple(theirs), abs=0.02)


def test_bootstrap_of_many_samples_is_drawn_in_parts() -> None:
    data = np.random.default_rng(0).normal(size=3000)
    means = bootstrap_means(data, resamples=3000)
    assert means.shape == (3000,)
    assert means.std() == pytest.approx(data.std() / math.sqrt(3000), rel=0.1)
    assert bootstrap_means(np.ones((5, 2)), resamples=4).shape == (4, 2)


@pytest.mark.parametrize("many", [6, 10, 60])
def test_intervals_cover_the_mean_as_often_as_they_say(many: int) -> None:
    random = np.random.default_rng(1)
    found = [interval_of_mean(random.standard_normal(many), resamples=500) for _ in range(1000)]
    assert np.mean([low <= 0 <= high for low, high in found]) == pytest.approx(0.945, abs=0.025)


@pytest.mark.parametrize("freedom", [3, 9, 100])
@pytest.mark.parametrize("p", [0.005, 0.025, 0.25])
def test_student_beside_scipy(freedom: int, p: float) -> None:
    assert _student_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=0.04)


def test_bands_are_the_intervals_of_their_columns() -> None:
    columns = np.random.default_rng(0).normal(size=(9, 4))
    expected = np.array([interval_of_mean(column) for column in columns.T]).T
    np.testing.assert_allclose(band_of_mean(columns), expected)


@given(st.lists(numbers, min_size=1, max_size=9))
def test_sign_flips_are_exact_where_few(differences: list[float]) -> None:
    data = np.array(differences)
    signs = itertools.product((1, -1), repeat=len(data))
    far = [abs(sum(s * d for s, d in zip(sign, data, strict=True))) for sign in signs]
    expected = np.mean([value >= abs(data.sum()) - 1e-9 * max(1, abs(data.sum())) for value in far])
    assert sign_flip_p(data) == pytest.approx(expected, abs=0.05)
    assert 0 < sign_flip_p(data) <= 1


def test_random_sign_flips_beside_scipy() -> None:
    data = np.random.default_rng(2).normal(0.25, 1, 50)
    theirs = stats.permutation_test((data,), np.mean, permutation_type="samples", n_resamples=20000).pvalue
    assert sign_flip_p(data) == pytest.approx(theirs, abs=0.02)
    assert sign_flip_p(np.full(50, 1.0)) == 1 / 10001


def test_sign_flips_of_several_comparisons_leave_out_what_is_undefined() -> None:
    data = np.random.default_rng(4).normal(0.4, 1, (11, 3))
    data[2:5, 1] = data[:, 2] = math.nan
    found = sign_flip_ps(data)
    assert found[:2] == pytest.approx(
        [sign_flip_p(data[:, 0]), sign_flip_p(np.delete(data[:, 1], [2, 3, 4]))]
    )
    assert math.isnan(found[2])
    many = np.random.default_rng(5).normal(0.1, 1, (300, 2))
    assert sign_flip_ps(many) == pytest.approx([sign_flip_p(column) for column in many.T])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm(p_values: list[float]) -> None:
    found = holm(p_values)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    largest = 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        assert found[i] == pytest.approx(largest)


def test_paired() -> None:
    random = np.random.default_rng(3)
    base = random.normal(size=40)
    values = {"good": base + 1, "same": base, "other": base + 1e-3 * random.normal(size=40)}
    better, _, unclear = compare_pairs(values)
    assert (better.first, better.second, better.n) == ("good", "same", 40)
    assert better.interval == (pytest.approx(1.0), pytest.approx(1.0))
    assert better.p < 0.001
    assert better.corrected == pytest.approx(better.p * 3, rel=0.5)
    assert unclear.interval[0] < 0 < unclear.interval[1]
    assert compare_pairs({"a": [1.0, math.nan], "b": [0.0, 1.0]})[0].n == 1
    with pytest.raises(InputError, match="as many for each"):
        compare_pairs({"a": [1.0], "b": [1.0, 2.0]})
    with pytest.raises(InputError, match="no values for 'c'"):
        compare_pairs({"a": [1.0]}, [("a", "c")])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_ranks(values: list[int]) -> None:
    named = {str(i): float(v) for i, v in enumerate(values)}
    assert list(ranks(named, False).values()) == stats.rankdata(values).tolist()
    assert list(ranks(named).values()) == stats.rankdata([-v for v in values]).tolist()


# ---- agreement ----


@given(st.lists(st.lists(st.integers(0, 5), min_size=6, max_size=6), min_size=2, max_size=4))
def test_kendall_beside_scipy(rows: list[list[int]]) -> None:
    tau = kendall_tau(rows)
    for i, j in itertools.product(range(len(rows)), repeat=2):
        expected = stats.kendalltau(rows[i], rows[j]).statistic
        assert tau[i, j] == pytest.approx(expected, nan_ok=True)


def test_kendall_counts_what_both_have() -> None:
    tau = kendall_tau([[1, 2, 3, np.nan], [1, 2, np.nan, 0]])
    assert tau[0, 1] == 1
    names, table = tau_table({"one": {"a": 1, "b": 2}, "two": {"b": 1, "c": 0}})
    assert names == ["one", "two"]
    assert math.isnan(table[0, 1])


def alpha(data: np.ndarray, distance: Any) -> float:
    """Krippendorff's α as his definition reads: all pairs of values of an item against all pairs of values."""
    units = [[v for v in column if not np.isnan(v)] for column in data.T]
    units = [unit for unit in units if len(unit) > 1]
    values = [v for unit in units for v in unit]
    within = sum(
        distance(a, b, values) / (len(unit) - 1) for unit in units for a, b in itertools.permutations(unit, 2)
    )
    across = sum(distance(a, b, values) for a, b in itertools.permutations(values, 2)) / (len(values) - 1)
    return 1 - within / across


def ordinal(a: float, b: float, values: list[float]) -> float:
    low, high = min(a, b), max(a, b)
    between = sum(low <= v <= high for v in values) - (values.count(low) + values.count(high)) / 2
    return 0.0 if a == b else between**2


def test_krippendorff() -> None:
    nan = np.nan  # the example of Krippendorff (2011), section C: nominal α = 0.743, ordinal α = 0.815
    data = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
            [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
        ]
    )
    assert krippendorff_alpha(data, "nominal") == pytest.approx(0.743, abs=1e-3)
    assert krippendorff_alpha(data, "ordinal") == pytest.approx(0.815, abs=1e-3)
    assert krippendorff_alpha(data, "interval") == pytest.approx(0.849, abs=1e-3)
    assert krippendorff_alpha(data) == pytest.approx(alpha(data, ordinal))
    assert krippendorff_alpha(data, "nominal") == pytest.approx(alpha(data, lambda a, b, _: float(a != b)))
    assert krippendorff_alpha(data, "interval") == pytest.approx(alpha(data, lambda a, b, _: (a - b) ** 2))
    assert krippendorff_alpha([[1, 2, 3], [1, 2, 3]]) == 1
    assert krippendorff_alpha([[1, 2, 3], [3, 2, 1]]) < 0
    assert math.isnan(krippendorff_alpha([[1, 1], [1, 1]]))
    assert math.isnan(krippendorff_alpha([[1, np.nan], [np.nan, 1]]))
    with pytest.raises(InputError, match="level is 'ratio'"):
        krippendorff_alpha(data, "ratio")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="shape"):
        krippendorff_alpha([1.0])
