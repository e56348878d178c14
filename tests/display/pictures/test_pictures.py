import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

import surfaces
from apportion import InputError, InputXGradient
from apportion.core.features import TextFeatures
from apportion.display.pictures.explanations import colour_map, plot, png
from apportion.display.views import AGAINST, FOR, BarsView, HeatView, TextView, view
from apportion.results.result import decision
from apportion.results.words import format_number, write_balance
from surfaces import made, picture, row, words

ONE_SCORE = {"labels": None, "output": torch.full((1, 1), 3.0), "target": torch.tensor([0])}

EVERY = {
    "words": words,
    "picture": picture,
    "row": row,
    "plain": lambda: made(torch.arange(5.0), None),
    "map": lambda: made(torch.randn(6, 9), None),
    "zeros": lambda: made(torch.zeros(3, 8, 8), None),
    "dollars": lambda: words("$x_1$ costs 5$ ^{ and \\frac"),
    "emoji": lambda: words("great 🎬 映画"),
    "long word": lambda: words("a " + "very" * 60),
    "long text": lambda: words(" ".join(f"word{i}" for i in range(400))),
    "lines": lambda: words("one\n\ntwo\nthree"),
    "one score": lambda: made(torch.ones(2), None, **ONE_SCORE),
    "no total": lambda: words(total=None),
    "callable": lambda: row(target="Contrast(1, 0)"),
    "bfloat16": lambda: made(torch.ones(3, 8, 8, dtype=torch.bfloat16), None),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_kind_of_explanation_is_drawn_and_written(name, tmp_path):
    explanation = EVERY[name]()
    figure = Figure()
    ax = figure.add_subplot()
    assert plot(explanation, 0, ax) is ax
    path = png(explanation, tmp_path / "e.png")
    width, height = Image.open(path).size
    assert width > 400
    assert 100 < height < 2000


def test_without_axes_a_figure_of_its_own_is_made():
    ax = words().plot()
    assert isinstance(ax, Axes)
    assert isinstance(ax.figure, Figure)


def test_pyplot_is_not_imported():
    code = "import surfaces, sys; surfaces.row().plot(); assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(surfaces.__file__).parent)


def test_the_colour_says_the_sign_and_the_opacity_the_size():
    rgba = colour_map(view(picture(height=8, width=8)))
    assert (rgba[0, 0] == (*FOR, 255)).all()
    assert (rgba[-1, -1, :3] == AGAINST).all()
    assert rgba[-1, -1, 3] == pytest.approx(255 / 2, abs=1)  # the 99.5th percentile is 3, the value -1.5
    assert rgba[0, -1, 3] == 0


def test_pooling_keeps_the_sum():
    heat = HeatView(np.random.default_rng(0).normal(size=(225, 131)))
    for shape in ((7, 7), (112, 112), (300, 300)):
        assert heat.pooled(*shape).sum() == pytest.approx(heat.values.sum())


@pytest.mark.parametrize("size", [(64, 192), (113, 30), (300, 451), (112, 224)])
def test_an_even_map_is_drawn_evenly(size: tuple[int, int]):
    drawn = HeatView(np.ones(size)).drawn
    np.testing.assert_allclose(drawn, drawn.mean(), rtol=1e-12)
    assert drawn.sum() == pytest.approx(size[0] * size[1])


def test_the_largest_region_is_where_the_relevance_is():
    values = torch.zeros(3, 224, 224)
    values[:, 40:50, 130:150] = 1
    name, value = made(values, None).top(1)[0], view(made(values, None)).top(1)[0]
    assert value == ("x 128–160, y 32–64", 600.0)
    assert name[1] == 1


def test_bars_have_the_colour_of_their_sign():
    ax = row().plot()
    colours = {bar.get_width(): bar.get_facecolor()[:3] for bar in ax.patches}
    assert colours[1.5] == tuple(channel / 255 for channel in FOR)
    assert colours[-0.25] == to_rgb([channel / 255 for channel in AGAINST])


def test_subwords_are_merged_and_special_tokens_kept_where_they_were():
    features = TextFeatures(
        "painfully funny!",
        ("[CLS]", "pain", "##fully", "funny", "!", "[SEP]", "[PAD]"),
        ((0, 0), (0, 4), (4, 9), (10, 15), (15, 16), (0, 0), (0, 0)),
        (None, 0, 0, 1, 2, None, None),
    )
    shown = view(made(torch.tensor([0.5, 1.0, 2.0, -1.0, 0.25, 0.125, 0.0]), features))
    assert isinstance(shown, TextView)
    assert [(p.text, p.value) for p in shown.pieces] == [
        ("[CLS]", 0.5),
        ("painfully", 3.0),
        (" ", None),
        ("funny", -1.0),
        ("!", 0.25),
        ("[SEP]", 0.125),
    ]


@pytest.mark.parametrize(("text", "leftward"), [("a fine film", False), ("«هذا فيلم رائع»", True)])
def test_words_stand_in_the_direction_of_their_script(text: str, leftward: bool):
    places = {t.get_text(): t.get_position()[0] for t in words(text).plot().texts}
    drawn = [places[word] for word in text.split()]
    assert drawn == sorted(drawn, reverse=leftward)


def test_values_of_an_inner_layer_are_drawn_by_their_own_shape():
    inner = view(picture(values=torch.ones(1, 16, 4, 6)))
    assert inner.values.shape == (4, 6)
    assert inner.photo is not None
    tokens = view(picture(values=torch.ones(1, 17, 16)))  # not a picture: tokens by dimensions
    assert tokens.photo is None
    assert isinstance(view(words(values=torch.ones(1, 7), method=InputXGradient(at="head"))), BarsView)
    assert isinstance(view(row(values=torch.ones(1, 9))), BarsView)


def test_the_balance_line():
    assert row().balance() == "explained 1.25 of 3.00: 1.75 left over"
    assert row(total=torch.tensor([1.0])).balance() == "explained 1.25 of 1.00: 0.25 too much"
    assert "do not claim to add up" in row(total=None).balance()


def test_numbers_are_never_rounded_to_nothing():
    assert [format_number(v, 1.0) for v in (0.004, -0.004, 1e-12, 12345.678)] == [
        "0.004",
        "−0.004",
        "1e-12",
        "12345.68",
    ]
    assert format_number(0.0, 0.0) == "0.00"


def test_decision_of_a_single_score_has_no_probability():
    found = decision(made(torch.ones(2), None, **ONE_SCORE))
    assert (found.label, found.probability) == ("score", None)


def test_what_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        png(words(), tmp_path / "file" / "e.png")


def test_decision_of_a_model_that_gives_probabilities():
    found = decision(made(torch.ones(2), None, output=torch.tensor([[0.1, 0.9]])))
    assert (found.label, found.probability) == ("yes", pytest.approx(0.9))


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
@example(0.00390625, 1.0)
@example(1.2e-7, 1.0)
def test_the_numbers_of_a_balance_add_up_as_printed(total, explained):
    told = write_balance(total, {"explained": explained}).replace("−", "-")
    words = told.replace(":", "").split()
    part, shown = float(words[1]), float(words[3])
    unit = 10.0 ** -len(words[3].partition(".")[2])
    if told.endswith(("nothing left over", "≈ 0 left over")):
        assert abs(total - explained) <= 1e-4 * max(abs(total), abs(explained))
    else:
        # Too much lies beyond the total, on its side of zero; what is left over has its own sign.
        left = -math.copysign(float(words[4]), total) if told.endswith("too much") else float(words[4])
        assert shown == pytest.approx(part + left, abs=0.51 * unit)


def test_a_single_score_is_called_so_everywhere():
    assert repr(made(torch.ones(2), None, **ONE_SCORE)) == (
        "InputXGradient of score: explained 2.00 of 3.00: 1.00 left over"
    )
