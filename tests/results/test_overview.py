"""Many explanations summed up: means and intervals against NumPy, cohorts, partners that are known, what is refused."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.results.cohorts import cohorts_of, permutation_ps
from apportion.results.statistics import band_of_mean

NAMES = ["age", "mass", "noise"]


def rows(many: int = 400) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(many, 3)))


def product(x):
    """Age counts by itself, and twice as much with mass."""
    return x[:, 0] + 2 * x[:, 0] * x[:, 1]


def explained(many: int = 400, **asked):
    return ap.explain(product, rows(many), ap.KernelSHAP(), feature_names=NAMES, **asked)


def test_means_and_intervals_are_those_of_the_values() -> None:
    e = explained()
    s = ap.summary(e)
    sizes = np.abs(np.asarray(e))
    by_name = {one.name: one for one in s.features}
    low, high = band_of_mean(sizes)
    for j, name in enumerate(NAMES):
        one = by_name[name]
        assert (one.size, one.low, one.high) == pytest.approx((sizes[:, j].mean(), low[j], high[j]), abs=1e-9)
        assert one.mean == pytest.approx(np.asarray(e)[:, j].mean(), abs=1e-9)
    assert [one.name for one in s.features] == ["age", "mass", "noise"]
    assert s.told == "nothing left over"


def test_explanations_of_a_batch_of_a_list_and_of_a_run_are_summed_up_alike(tmp_path) -> None:
    e = explained(40)
    listed = ap.summary([e[i] for i in range(40)])
    np.testing.assert_allclose(listed.values, ap.summary(e).values)
    model = torch.nn.Linear(3, 1)
    run = ap.explain_dataset(model, rows(5).float(), "inputxgradient", tmp_path / "run", progress=False)
    direct = ap.summary(ap.InputXGradient()(model, rows(5).float()))
    np.testing.assert_allclose(ap.summary(run).values, direct.values, atol=1e-2)


def test_the_partner_is_the_one_that_the_values_depend_on() -> None:
    s = ap.summary(explained())
    assert s.partner("age")[0] == "mass"
    assert s.partner("mass")[0] == "age"
    assert s.partner("noise")[0] is None
    pairs = ap.ShapleyInteractions()(product, rows(20).float()).named(NAMES)
    few = ap.summary(explained(20))
    name, why = few.partner("age", pairs)
    assert name == "mass"
    assert why.startswith("largest mean |interaction|")


def test_cohorts_are_values_quarters_and_the_frequent_ones() -> None:
    assert cohorts_of(np.array([1.0, 0.0, math.nan]))[1] == ("0", "1", "missing")
    names, order = cohorts_of(np.arange(100.0))
    assert order == ("≤ 24", "24 to 49", "49 to 74", "> 74")
    assert set(Counter(names).values()) == {25}
    assert names[24:26] == ["≤ 24", "24 to 49"]
    texts = tuple("aaabbccdefgh")
    assert cohorts_of(texts)[1][:3] == ("a", "b", "c")
    assert cohorts_of(texts)[1][-1] == "others"


def test_cohorts_differ_surely_where_they_do_and_not_where_they_do_not() -> None:
    x = rows(300)
    by = ["old" if age > 0 else "young" for age in x[:, 0].tolist()]
    e = ap.explain(lambda x: x[:, 0].exp() + x[:, 1], x, "kernelshap", feature_names=NAMES)
    s = ap.summary(e, by=by)
    found = {d.column: d for d in s.differences}
    sizes, old = np.abs(s.values[:, 0]), np.array([b == "old" for b in by])
    assert found["age"].corrected < 0.01
    sign = 1 if found["age"].cohort == "old" else -1
    assert sign * found["age"].difference == pytest.approx(sizes[old].mean() - sizes[~old].mean())
    assert found["age"].interval[0] < found["age"].difference < found["age"].interval[1]
    assert found["mass"].corrected > 0.05
    frame = s.to_frame() if pytest.importorskip("pandas") else None
    assert list(frame.rows.unique()) == [300, *Counter(by).values()] or set(frame.rows) == {
        300,
        *Counter(by).values(),
    }


def test_a_permutation_test_is_that_of_all_permutations() -> None:
    from itertools import combinations

    sizes = np.array([[1.0], [2.0], [4.0], [0.5], [0.1], [0.3], [3.0]])
    inside = np.array([True, True, True, False, False, False, False])
    apart = [abs(sizes[list(c)].mean() - np.delete(sizes, c, 0).mean()) for c in combinations(range(7), 3)]
    exact = np.mean(np.array(apart) >= abs(sizes[inside].mean() - sizes[~inside].mean()) - 1e-12)
    assert permutation_ps(sizes, inside)[0] == pytest.approx(exact, abs=0.02)


def test_right_and_wrong_are_by_name_and_by_number() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    e = ap.explain(lambda x: x, x, "kernelshap", target=0, feature_names=["a", "b"])
    assert ap.summary(e, truth=[0, 1, 1]).cohorts == ("right", "right", "wrong")
    assert ap.summary(e, truth=["class 0", "class 0", "class 0"]).cohorts == ("right", "wrong", "right")


def test_a_cohort_of_all_is_shown_and_not_compared() -> None:
    s = ap.summary(explained(9), by=["x"] * 9)
    assert s.differences == ()
    assert "cohorts by the given values: x (9); all in one, nothing to compare" in repr(s)
    s.side_by_side()


def test_explanations_of_several_classes_are_not_mixed() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    e = ap.explain(lambda x: x, x, "kernelshap", target="all", feature_names=["a", "b"])
    with pytest.raises(ap.InputError, match="of several classes: class 0"):
        ap.summary(e)
    np.testing.assert_allclose(ap.summary(e, target="class 1").values, np.asarray(e)[1::2])
    np.testing.assert_allclose(ap.summary(e, target=0).values, np.asarray(e)[::2])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"by": "agee"}, "no column 'agee'; nearest: age"),
        ({"by": ["x"]}, "by has 1 values for 9"),
        ({"truth": [0] * 9}, "the model has one score"),
        ({"target": "cat"}, "target is 'cat', but the explanations are of: score"),
        ({"by": ["x"] * 9, "truth": [0] * 9}, "both given"),
    ],
)
def test_what_cannot_be_summed_up_so_is_refused(asked, message: str) -> None:
    with pytest.raises(ap.InputError, match=message):
        ap.summary(explained(9), **asked)


def test_what_is_no_explanation_of_rows_is_refused() -> None:
    e = explained(3)
    other = ap.explain(product, rows(2), "kernelshap", feature_names=["age", "mass", "size"])
    texts = ap.explain(lambda texts: [float(len(text)) for text in texts], "so good", "occlusion")
    for given, message in (
        ([], "an empty list"),
        (e.values, "Tensor"),
        ([e, other], "other columns"),
        (texts, "no explanations of rows of a table"),
        (ap.InputHessian()(product, rows(2)), "these are interactions"),
    ):
        with pytest.raises(ap.InputError, match=message):
            ap.summary(given)
    with pytest.raises(ap.InputError, match="do not say what stands"):
        ap.summary(ap.KernelSHAP()(product, rows(4))).dependence("input[0]")
