"""The pictures of pixel-wise explanations, of any explanation over an image."""

import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from apportion import InputError
from apportion.display.pictures.explanations import fade_photo
from apportion.display.pictures.pixels import binarised, edges, heatmap, pixels_png, with_edges
from apportion.display.views import AGAINST, FOR
from surfaces import made, picture, row


def pixels(ax):
    return np.asarray(ax.images[0].get_array())


def test_every_pixel_has_the_colour_of_its_relevance():
    shown = pixels(heatmap(picture(height=8, width=8)))
    assert shown.shape == (8, 8, 3)
    assert (shown[0, 0] == FOR).all()
    assert (shown[0, -1] == 255).all()
    half = 255 - (255 - np.array(AGAINST)) * 0.5
    np.testing.assert_allclose(shown[-1, -1], half, atol=1)


def test_edges_are_drawn_upon_the_map():
    explanation = picture()
    photo = np.zeros((64, 96, 3), np.uint8)
    photo[20:44, 30:60] = 255
    features = type(explanation.features[0])(torch.from_numpy(photo))
    explanation = explanation.with_features([features])
    found = edges(photo)
    assert found[20, 45] or found[19, 45]
    assert not found[32, 45]
    shown, plain = pixels(with_edges(explanation)), pixels(heatmap(explanation))
    assert (shown[~found] == plain[~found]).all()
    assert (shown[found] < 40).all()


def test_the_picture_shows_where_the_relevance_is_above_the_threshold():
    explanation = picture()
    photo = explanation.features[0].picture.numpy()
    shown = pixels(binarised(explanation))
    assert (shown[:32, :48] == photo[:32, :48]).all()
    pale = fade_photo(photo) // 5 * 4
    assert (shown[32:] == pale[32:]).all()
    assert (pixels(binarised(explanation, threshold=10.0)) == pale).all()


def test_a_coarse_map_is_drawn_in_blocks():
    values = torch.zeros(1, 4, 6)
    values[0, 0, 0] = 1
    shown = pixels(heatmap(picture(values=values[None])))
    assert shown.shape == (64, 96, 3)
    assert (shown[:16, :16] == FOR).all()
    assert (shown[16:] == 255).all()


def test_they_are_written_together(tmp_path):
    path = pixels_png(picture(), tmp_path / "p.png")
    width, height = Image.open(path).size
    assert width > 3 * height / 2


def test_axes_in_axes_out():
    ax = Figure().add_subplot()
    assert heatmap(picture(), ax=ax) is ax
    assert with_edges(picture(), ax=ax) is ax
    assert binarised(picture(), ax=ax) is ax


def test_what_is_not_over_an_image_is_refused(monkeypatch):
    with pytest.raises(InputError, match="over bars, not over an image"):
        heatmap(row())
    unknown = made(torch.randn(3, 8, 8), None)
    assert pixels(heatmap(unknown)).shape == (8, 8, 3)
    with pytest.raises(InputError, match="does not know its picture"):
        with_edges(unknown)
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(InputError, match=r"pip install 'apportion\[image\]'"):
        with_edges(picture())
