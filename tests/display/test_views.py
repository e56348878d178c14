"""What is shown of a sample: nothing that the sum counts is left out, and everything has its own name."""

from dataclasses import replace

import pytest
import torch

import apportion as ap
import surfaces
from apportion.core.features import TextFeatures
from apportion.display.views import HeatView, TextView, view


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
