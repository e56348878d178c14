"""Pictures of interactions: they draw what they are given, on the axes they are given."""

import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from apportion import InputError, IntegratedHessians
from apportion.core.features import TextFeatures
from apportion.display.pictures import interactions as pictures
from apportion.display.views import AGAINST, FOR
from surfaces import pairs


@pytest.fixture(scope="module")
def found():
    x = torch.tensor([[2.0, 3.0, 1.0], [1.0, -1.0, 2.0]])
    return IntegratedHessians()(lambda t: t[:, 0] * t[:, 1] * t[:, 2], x).named(["good", "not", "very"])


@pytest.mark.parametrize("draw", [pictures.heatmap, pictures.arcs, pictures.ring])
def test_pictures_name_every_feature_and_say_what_is_left_over(found, draw):
    ax = Figure().add_subplot()
    assert draw(found, 1, ax) is ax
    ax.figure.canvas.draw()
    texts = [t.get_text() for t in ax.texts] + [
        t.get_text() for t in (*ax.get_xticklabels(), *ax.get_yticklabels())
    ]
    assert {"good", "not", "very"} <= set(texts)
    assert "left over" in ax.get_title()


def test_arcs_are_for_the_strongest_pairs(found):
    assert len(pictures.arcs(found, 0, most=2).patches) == 2


def test_a_text_is_drawn_with_arcs_and_all_else_as_a_matrix(found):
    text = TextFeatures("not very good", ("not", "very", "good"), ((0, 3), (4, 8), (9, 13)), (0, 1, 2))
    assert found.with_features((text, text)).plot().patches
    assert found.plot().images


def test_dependence_draws_a_dot_for_each_sample(found):
    against = torch.tensor([1.0, 2.0])
    ax = pictures.dependence(found, "good", 1, against, colour=against, against_name="age")
    assert ax.collections[0].get_offsets().shape == (2, 2)
    assert ax.get_xlabel() == "age"
    with pytest.raises(InputError, match="there is no feature 'bad'"):
        pictures.dependence(found, "bad", 1, against)
    with pytest.raises(InputError, match="accepted: \\(2,\\)"):
        pictures.dependence(found, 0, 1, torch.ones(3))


def test_missing_pairs_are_left_blank():
    x = torch.tensor([[2.0, 3.0, 1.0]])
    some = IntegratedHessians(pairs=((0, 1),))(lambda t: t[:, 0] * t[:, 1] * t[:, 2], x)
    for draw in (pictures.heatmap, pictures.arcs, pictures.ring):
        draw(some).figure.canvas.draw()


def test_colours_are_those_of_every_picture():
    image = pictures.heatmap(pairs()).images[0]
    assert to_rgb(image.cmap(1.0)) == pytest.approx([channel / 255 for channel in FOR])
    assert to_rgb(image.cmap(0.0)) == pytest.approx([channel / 255 for channel in AGAINST])
    labels = [text.get_text() for text in image.colorbar.ax.get_yticklabels()]
    assert labels == ["−3.00", "0", "+3.00"]
