"""One call for what a person has: features of a classifier's input, and errors that say what to give instead."""

import dataclasses

import pytest
import torch

import apportion as ap
from apportion import InputError
from apportion.domains.tabular import Categorical, Numeric, TabularPreparation

COLUMNS = (Categorical("island", ("Biscoe", "Dream", "Torgersen")), Numeric("mass", 4200.0, 800.0))
ROW = {"island": "Dream", "mass": 5000}


@pytest.fixture
def table():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
    return ap.Classifier(model, TabularPreparation(COLUMNS), ("Adelie", "Gentoo"), "tabular", "penguins")


@pytest.mark.parametrize("method", ["ih", "inputhessian", "shapleyinteractions"])
def test_interactions_are_of_columns(table, method):
    found = ap.explain(table, ROW, method)
    assert found.names_of() == ("island = Dream", "mass = 5000")
    assert found.values.shape == (1, 2, 2)


def test_interactions_of_other_groups_and_of_layers_on_request(table):
    assert ap.explain(table, ROW, ap.IntegratedHessians(groups=[[0, 1, 2, 3]])).values.shape == (1, 1, 1)
    assert ap.explain(table, ROW, ap.IntegratedHessians(at="0")).values.shape == (1, 6, 6)


def test_a_class_is_no_method(table):
    with pytest.raises(InputError, match=r"LRP is a class; accepted: LRP\(\)"):
        ap.explain(table, ROW, ap.LRP)


def test_a_batch_is_no_row(table):
    with pytest.raises(
        InputError, match=r"one row is explained at a time, and this array has the shape \(2, 9\)"
    ):
        ap.explain(table, torch.rand(2, 9))


def test_a_classifier_is_called_with_tensors(table):
    with pytest.raises(InputError, match="penguins was called with 'Dream'"):
        table("Dream")


def test_several_raw_inputs_are_tested_each_by_itself(table):
    rows = [["Dream", 5000], ["Biscoe", 3900]]
    found = ap.compare(table, rows, ["saliency"], ["deletion-rate"])
    each = [ap.compare(table, row, ["saliency"], ["deletion-rate"]) for row in rows]
    values = found.scores["saliency"]["deletion-rate"].values
    assert values.tolist() == [float(one.scores["saliency"]["deletion-rate"].mean) for one in each]
    assert (
        len(
            ap.compare(table, ["Dream", 5000], ["saliency"], ["deletion-rate"]).scores["random"][
                "deletion-rate"
            ]
        )
        == 1
    )


def test_a_classifier_is_shown_in_one_line(table):
    assert repr(table) == "Classifier 'penguins': tabular → Adelie, Gentoo"
    many = dataclasses.replace(table, labels=tuple("abcdef"))
    assert repr(many) == "Classifier 'penguins': tabular → a, b, c, d and 2 more"


def test_a_picture_as_a_tensor_is_a_picture():
    import apportion as ap
    from apportion.domains.image import ImagePreparation

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2)
    ).eval()
    classifier = ap.Classifier(
        network, ImagePreparation(resize=None, crop=None), (), domain="image", name="mean"
    )
    array = (torch.arange(48).reshape(4, 4, 3) * 5).to(torch.uint8)
    one, other = (ap.explain(classifier, x, "saliency") for x in (array.numpy(), array.movedim(-1, 0)))
    assert one.values.shape == (1, 3, 4, 4)
    assert torch.equal(one.values, other.values)
