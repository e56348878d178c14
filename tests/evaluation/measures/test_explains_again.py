"""Tests that explain again explain as the explanation was made, with what its call gave."""

import pytest
import torch

import apportion as ap
from apportion.errors import InputError
from apportion.evaluation.reference_maps import Reversed

torch.manual_seed(0)
MODEL = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double().eval()
X = torch.randn(4, 5, dtype=torch.double)
EACH = torch.randn(4, 5, dtype=torch.double)
SEVERAL = torch.randn(3, 4, 5, dtype=torch.double)
AGAIN = [ap.MaxSensitivity(), ap.LocalLipschitz(), ap.RandomLogit(), ap.ParameterRandomisation()]
METHODS = [ap.IntegratedGradients(nodes=8), ap.DeepLIFT()]


@pytest.mark.parametrize("test", AGAIN, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_a_baseline_of_the_call_is_used_again(method, test):
    setting = type(method)(**{**vars(method), "baseline": 2.0})(MODEL, X)
    wanted = test(MODEL, X, setting).values
    for baseline in (2.0, torch.full((5,), 2.0), torch.full((4, 5), 2.0), torch.full((2, 4, 5), 2.0)):
        called = method(MODEL, X, baseline=baseline)
        torch.testing.assert_close(called.values, setting.values)
        torch.testing.assert_close(test(MODEL, X, called).values, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("test", AGAIN, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("baseline", [EACH, SEVERAL], ids=["each", "several"])
def test_the_baseline_of_each_sample_stays_its_own(baseline, test):
    """Against each sample alone, with its own baseline."""
    method = ap.IntegratedGradients(nodes=8)
    found = method(MODEL, X, target=1, baseline=baseline)
    alone = [
        test(
            MODEL, X[i : i + 1], method(MODEL, X[i : i + 1], target=1, baseline=baseline[..., i : i + 1, :])
        ).values
        for i in range(4)
    ]
    torch.testing.assert_close(test(MODEL, X, found).values, torch.cat(alone))
    cut = torch.cat(
        [test(MODEL, X[i : i + 1], found[i]).values for i in range(4)]
    )  # one of the batch, with its own
    torch.testing.assert_close(cut, torch.cat(alone))


def test_data_of_a_taylor_decomposition_are_used_again():
    data = 2 * torch.randn(30, 5, dtype=torch.double)
    method, target = ap.Taylor(steps=60), ap.Contrast(0, 1)
    found = method(MODEL, X, target, data=data)
    other = torch.nn.Sequential(MODEL[0], torch.nn.Sigmoid(), MODEL[2])
    torch.testing.assert_close(
        found.method(other, X, target).values, method(other, X, target, data=data).values
    )
    test = ap.MaxSensitivity(samples=2)
    assert (
        test(MODEL, X, found, target=target).mean
        != test(MODEL, X, method(MODEL, X, target), target=target).mean
    )


@pytest.mark.parametrize(
    ("inputs", "baseline"),
    [
        ((X, X[:, :2]), (EACH, EACH[:, :2])),
        ({"a": X, "b": X[:, :2]}, {"a": EACH}),
    ],
    ids=["tuple", "dict"],
)
def test_baselines_of_several_inputs_are_used_again(inputs, baseline):
    def model(a, b):
        return MODEL(a * b.sum(1, keepdim=True))

    method = ap.IntegratedGradients(nodes=4)
    found = method(model, inputs, target=0, baseline=baseline)
    again = found.method(model, inputs, target=0)
    for a, b in zip(found.parts(1), again.parts(1), strict=True):
        assert torch.equal(a[1], b[1])
    first = (
        {k: v[:1] for k, v in inputs.items()} if isinstance(inputs, dict) else tuple(v[:1] for v in inputs)
    )
    test = ap.MaxSensitivity(samples=3)
    torch.testing.assert_close(test(model, inputs, found).values[:1], test(model, first, found[0]).values)


def test_a_baseline_of_token_ids_is_repeated():
    torch.manual_seed(1)
    table, head = torch.nn.Embedding(9, 4), torch.nn.Linear(12, 2)

    def model(ids):
        return head(table(ids).flatten(1)).tanh()

    ids = torch.randint(0, 9, (3, 3))
    for baseline in (torch.zeros_like(ids), torch.randn(3, 3, 4)):
        found = ap.IntegratedGradients(nodes=4)(model, ids, target=0, baseline=baseline)
        test = ap.MaxSensitivity(samples=3)
        alone = [test(model, ids[i : i + 1], found[i]).values for i in range(3)]
        torch.testing.assert_close(test(model, ids, found).values, torch.cat(alone), rtol=1e-4, atol=1e-6)


def test_the_method_named_is_the_one_that_made_it(tmp_path):
    method = ap.IntegratedGradients(nodes=4)
    found, other = (method(MODEL, X, baseline=b) for b in (EACH, EACH + 1))
    assert "baseline=0.0" not in repr(found.method)
    assert "<4×5 float64" in repr(found.method)
    assert found.method == method(MODEL, X, baseline=EACH.clone()).method != other.method
    assert hash(found.method) != hash(other.method)
    assert torch.equal(found.method(MODEL, X).values, found.values)
    assert method(MODEL, X, baseline=2.0).method == ap.IntegratedGradients(nodes=4, baseline=2.0)
    assert method(MODEL, X).method is method
    kept = EACH.clone()
    written = method(MODEL, X, baseline=kept)
    kept.zero_()
    assert torch.equal(written.method(MODEL, X).values, found.values)
    turned = Reversed(method)(MODEL, X)
    assert turned.method == Reversed(method)
    loaded = ap.Explanation.load(found.save(tmp_path / "map"))
    assert loaded == found
    assert repr(loaded.method) == repr(found.method)
    assert type(loaded.method).__name__ == "IntegratedGradients"
    for test in AGAIN:
        with pytest.raises(InputError, match="read from a file without the data in its settings"):
            test(MODEL, X, loaded)


def test_interactions_name_the_baseline_and_the_groups_of_the_call():
    groups = torch.tensor([0, 0, 1, 1, 2])
    found = ap.IntegratedHessians(nodes=3)(MODEL, X, target=0, baseline=EACH, groups=groups)
    assert "baseline=<4×5 float64" in repr(found.method)
    assert "groups=<5 int64" in repr(found.method)
    assert torch.equal(found.method(MODEL, X, target=0).values, found.values)
    one = found[2]
    torch.testing.assert_close(one.method(MODEL, X[2:3], target=0).values, one.values)
    found = ap.InputHessian()(MODEL, X, target=0, groups=[[0, 1], [2, 3, 4]])
    assert found.method == ap.InputHessian(groups=[[0, 1], [2, 3, 4]])
