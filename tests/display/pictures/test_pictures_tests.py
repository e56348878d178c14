import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import apportion as ap
from apportion import InputError
from apportion.display.pictures._evaluation import COLOURS, GREY, agreement, curves, scores
from apportion.evaluation.compare import compare


@pytest.fixture
def table():
    model = torch.nn.Linear(6, 2)
    return compare(
        model, torch.randn(12, 6), ["inputxgradient", "saliency"], ["pixel-flipping", "deletion-rate"]
    )


def test_scores_have_a_row_each_with_its_interval(table):
    ax = scores(table, "pixel-flipping")
    assert [label.get_text() for label in ax.get_yticklabels()] == list(table.scores)[::-1]
    low, high = table.scores["saliency"]["pixel-flipping"].interval()
    assert any(np.allclose(line.get_xdata(), [low, high]) for line in ax.lines)
    assert {to_hex(line.get_color()) for line in ax.lines} == {COLOURS[1], GREY}
    assert ax.figure._suptitle is None
    with pytest.raises(InputError, match="no test 'none'"):
        scores(table, "none")


def test_curves_have_bands_but_for_references():
    random = np.random.default_rng(0)
    values = {name: random.random((20, 5)) for name in ("a", "b", "random")}
    ax = curves(values, np.linspace(0, 1, 5), references=("random",))
    assert len(ax.collections) == 2
    assert np.allclose(ax.lines[0].get_ydata(), values["a"].mean(0))
    assert to_hex(ax.lines[2].get_color()) == GREY
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "random"]
    with pytest.raises(InputError, match=r"shape \(20, 5\); accepted: \(samples, 4\)"):
        curves(values, np.linspace(0, 1, 4))


def test_many_methods_are_told_apart_by_dashes_too():
    ax = curves({str(i): np.ones((2, 3)) for i in range(12)}, [0, 0.5, 1])
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines}) == 12


def test_agreement_writes_its_numbers_and_leaves_out_what_is_not_known():
    ax = agreement(["a", "b"], [[1, -0.5], [-0.5, np.nan]])
    assert [text.get_text() for text in ax.texts] == ["1.00", "−0.50", "−0.50", "–"]
    with pytest.raises(InputError, match="accepted: \\(3, 3\\)"):
        agreement(["a", "b", "c"], np.eye(2))


def test_given_axes_are_drawn_on(table):
    axes = Figure().subplots(3)
    assert scores(table, "deletion-rate", axes[0]) is axes[0]
    assert curves({"a": np.ones((2, 2))}, [0, 1], axes[1]) is axes[1]
    assert agreement(["a"], [[1]], axes[2]) is axes[2]


def test_every_result_shows_itself_in_a_notebook(table):
    sentiment = ap.load("sentiment")
    explained = ap.explain(sentiment, "not bad", "LRP(ledger=True)")
    results = [
        explained,
        explained.ledger,
        ap.explain(sentiment, "not bad", "ih"),
        table,
        table.scores["saliency"]["deletion-rate"],
    ]
    assert all(result._repr_html_().startswith("<") for result in results)
