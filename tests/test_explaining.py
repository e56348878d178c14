"""One call for what a person has: features of a classifier's input, and errors that say what to give instead."""

import pytest
import torch

import apportion as ap
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
