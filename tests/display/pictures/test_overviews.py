"""Pictures of many rows and of the way from the start to the score: what they draw, on whose Axes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import apportion as ap
from apportion.display.pictures.overviews import jitter, shares_of, steps_of

NAMES = ["age", "a name that is so long that nobody would ever write it in a table of data", "cost $x$"]


def explained(many: int = 30):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(many, 3)))
    return ap.explain(lambda x: x[:, 0] * x[:, 1] + x[:, 2] + 1, x, "kernelshap", feature_names=NAMES)


@pytest.fixture(scope="module")
def overview():
    return ap.summary(explained(), by=["x", "y", "y"] * 10)


@pytest.mark.parametrize("picture", ["bars", "beeswarm", "side_by_side", "plot"])
def test_every_picture_is_drawn_on_the_axes_that_are_given(picture: str, overview, tmp_path) -> None:
    ax = Figure().subplots()
    assert getattr(overview, picture)(ax) is ax
    getattr(overview, picture)().figure.savefig(tmp_path / "p.png")


def test_lines_are_sorted_and_end_with_what_is_left_over(overview) -> None:
    names = [label.get_text() for label in overview.bars().get_yticklabels()]
    assert names[0] == overview.features[0].name.replace("$", r"\$")[:44] or names[0].endswith("…")
    assert names[-1] == "left over"
    assert len(names) == 4
    assert [label.get_text() for label in overview.beeswarm().get_yticklabels()] == names


def test_columns_that_are_not_drawn_are_a_line_together() -> None:
    x = torch.eye(20) + 0.1
    s = ap.summary(ap.InputXGradient()(lambda x: x.sum(1), x))
    names = [label.get_text() for label in s.bars().get_yticklabels()]
    assert names[12:] == ["8 smaller ones", "left over"]


def test_a_dependence_names_its_partner_and_how_it_was_found(overview) -> None:
    title = overview.dependence("age", partner="cost $x$").get_title(loc="left")
    assert "partner" not in title
    assert "residual" in overview.dependence("age").get_title(loc="left")


def test_a_waterfall_goes_from_the_start_to_the_score() -> None:
    e = explained(3)
    steps, begin, end = steps_of(e, 1)
    assert begin == ("start", pytest.approx(float(e.start[1])))
    assert end == ("score", pytest.approx(float(e.output[1, 0])))
    assert begin[1] + sum(value for _, value in steps) == pytest.approx(end[1])
    sizes = [abs(value) for _, value in steps[:-1]]
    assert sizes == sorted(sizes, reverse=True)
    assert steps[-1] == ("left over", 0.0)
    ax = Figure().subplots()
    assert e.waterfall(1, ax) is ax


def test_a_waterfall_shows_what_is_left_over_and_what_is_no_sum() -> None:
    e = ap.InputXGradient()(lambda x: x.sum(1) + 2, torch.ones(1, 14))
    steps, begin, end = steps_of(e, 0)
    assert steps[-2:] == [("4 smaller ones", 4.0), ("left over", 2.0)]
    assert (begin, end) == (("zero", 0.0), ("score", 16.0))
    assert steps_of(ap.Occlusion()(lambda x: x.sum(1), torch.ones(1, 2)), 0)[2] == ("sum of values", 2.0)


def test_shares_are_ranks_and_missing_ones_have_none() -> None:
    found = shares_of(np.array([1.0, 100.0, np.nan, 2.0]))
    np.testing.assert_allclose(found, [0, 1, np.nan, 0.5])
    assert shares_of(np.array([1.0, 1.0])) is None
    assert shares_of(("a", "b")) is None


def test_points_at_one_place_stand_apart_and_lone_ones_on_the_line() -> None:
    up = jitter(np.array([0.5] * 9 + [0.9]))
    assert len(set(up[:9])) == 9
    assert np.abs(up).max() <= 0.5
    assert up[9] == 0
