"""Only layers that were changed count, and each once."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import apportion as ap
from apportion.errors import InputError
from apportion.evaluation.measures.randomisation import randomised_copies


@pytest.mark.parametrize("way", ["cascading", "independent"])
def test_layers_that_were_not_changed_are_not_counted(way):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), weight_norm(nn.Linear(8, 3))).eval()
    x = torch.randn(4, 6)
    found = ap.ParameterRandomisation(way=way)(model, x, ap.InputXGradient()(model, x))
    assert list(found.notes["layers"]) == ["3", "0"]
    assert found.mean == pytest.approx(sum(found.notes["layers"].values()) / 2, abs=1e-6)
    for name, copy in randomised_copies(model, "independent"):
        pairs = zip(model.named_parameters(), copy.parameters(), strict=True)
        changed = {key.split(".")[0] for (key, a), b in pairs if not torch.equal(a, b)}
        assert changed == {name}


def test_a_model_whose_weights_are_all_constant_is_refused():
    with pytest.raises(InputError, match="none would change by being drawn anew"):
        list(randomised_copies(nn.LayerNorm(4), "all"))
