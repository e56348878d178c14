"""What is shown of a sample: nothing that the sum counts is left out, and everything has its own name."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import apportion as ap
import surfaces
from apportion.core.features import ImageFeatures, TextFeatures, from_json, to_json
from apportion.display.page import summary
from apportion.display.views import HeatView, TextView, view
from apportion.domains.image import ImagePreparation
from surfaces import made


class Two(torch.nn.Module):
    def forward(self, picture, numbers):
        return torch.stack([picture.sum((1, 2, 3)) + numbers @ torch.tensor([2.0, -5.0]), numbers[:, 0]], 1)


def test_several_inputs_are_all_shown():
    picture = torch.arange(16.0).view(1, 1, 4, 4)
    found = ap.InputXGradient()(Two(), (picture, torch.ones(1, 2)), target=0)
    shown = view(found)
    assert sum(shown.values) == pytest.approx(float(found.apportioned))
    assert shown.top(1) == [("input 0: x 3–4, y 3–4", 15.0)]
    assert ("input 1[1]", -5.0) in shown.named


def test_inputs_by_name_keep_it():
    found = ap.InputXGradient()(
        lambda mass, age: mass + age, {"mass": torch.ones(1, 2), "age": torch.ones(1, 2)}
    )
    assert view(found).names == ("mass[0]", "mass[1]", "age[0]", "age[1]")


def test_an_input_that_has_no_value_does_not_hide_the_words():
    found = surfaces.words()
    assert isinstance(view(replace(found, values=(found.values, torch.zeros(1, 5)))), TextView)


def test_the_units_of_a_layer_have_its_name():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    x = torch.ones(1, 2)
    assert view(ap.LRP(at="0")(model, x)).names == ("0[0]", "0[1]", "0[2]")
    assert view(ap.LRP(at=("0", "2"))(model, x)).names == ("0[0]", "0[1]", "0[2]", "2[0]", "2[1]")


def test_a_text_that_was_padded_is_shown_by_its_words():
    text = TextFeatures("not bad", ("not", "bad"), ((0, 3), (4, 7)), (0, 1))
    found = view(surfaces.made(torch.tensor([1.0, -2.0, 0.0]), text))
    assert found.named == [("not", 1.0), ("bad", -2.0)]


def test_a_picture_keeps_its_map():
    assert isinstance(view(surfaces.picture()), HeatView)


@pytest.mark.parametrize(
    "preparation",
    [
        ImagePreparation(resize=64, crop=56),
        ImagePreparation(resize=(56, 56), crop=None),
        ImagePreparation(resize=None, crop=None),
        ImagePreparation(resize=None, crop=700),  # beyond the photo, which is black there
    ],
)
def test_regions_are_named_by_the_pixels_of_the_photo(preparation):
    """A white square in a black photo is found where it was put, however the photo is resized and cropped."""
    photo = np.zeros((300, 460, 3))
    photo[120:180, 200:260] = 1.0
    values, features = preparation(photo)
    seen = (values - values.min())[0].sum(0, keepdim=True).sum(0)
    e = made(seen[None], features)
    shown = view(e)
    ((name, _),) = shown.top(1)
    x0, x1, y0, y1 = map(int, re.findall(r"\d+", name))
    assert 0 <= x0 < 260
    assert 200 < x1 <= 460
    assert 0 <= y0 < 180
    assert 120 < y1 <= 300
    assert shown.pixels_of == "the photo (460 × 300)"
    assert summary(e)["pixels_of"] == shown.pixels_of
    whole = [list(map(int, re.findall(r"\d+", name))) for name, _ in shown.named]
    left, top, right, bottom = shown.frame
    assert min(region[0] for region in whole) == max(0, round(left))
    assert max(region[1] for region in whole) == min(460, round(right))
    assert min(region[2] for region in whole) == max(0, round(top))
    assert max(region[3] for region in whole) == min(300, round(bottom))
    assert from_json(json.loads(json.dumps(to_json(features))), features.picture).part == features.part


def test_values_have_the_unit_of_what_they_are_parts_of():
    model, x = (
        torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(32, 2)),
        torch.rand(1, 1, 6, 6),
    )
    named = ap.Classifier(
        model,
        lambda _: (x, ImageFeatures(torch.zeros(6, 6, 3, dtype=torch.uint8))),
        ("no", "yes"),
        "image",
        "own",
    )
    likely = replace(named, model=torch.nn.Sequential(model, torch.nn.Softmax(1)))
    units = {
        name: ap.explain(named, np.zeros((6, 6)), name).unit
        for name in ("inputxgradient", "occlusion", "rise", "gradcam", "saliency")
    }
    assert units == {
        "inputxgradient": "logit",
        "occlusion": "logit",
        "rise": "logit",
        "gradcam": "",
        "saliency": "",
    }
    assert ap.explain(likely, np.zeros((6, 6)), "occlusion").unit == "probability"
    assert ap.explain(model, x, "occlusion").unit == "units of the score"
    assert ap.explain(named, np.zeros((6, 6)), "occlusion", ap.Contrast(0, 1)).unit == "units of the score"
