"""`docs/coming-from.md` says which call of another package is which of ours: both are called here, where no other
test does it (`test_gradient_family.py`, `test_occlusion.py`, `test_surrogate.py`, `test_cam.py` …)."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import apportion as ap
import peers
import small
from apportion.engines.masking.partitions import Pixels

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Captum tells of the hooks that it sets


def same(ours: Tensor, theirs: Any, within: float = 1e-5) -> None:
    theirs = torch.as_tensor(theirs).detach()
    torch.testing.assert_close(ours.detach().to(theirs.dtype), theirs, rtol=within, atol=within)


def needs(package: str) -> Any:
    found = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not found, reason=f"{package} is not installed")


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()


def rows(many: int = 2) -> Tensor:
    return torch.randn(many, 6, dtype=torch.float64)


@pytest.fixture
def captum() -> Any:
    pytest.importorskip("captum.attr")
    return peers.captum()


def test_captum_integrated_gradients(captum: Any) -> None:
    model, x, baseline = network(), rows(), rows()
    theirs, delta = captum.IntegratedGradients(model).attribute(
        x, baselines=baseline, target=1, n_steps=20, return_convergence_delta=True
    )
    ours = ap.IntegratedGradients(nodes=20)(model, x, target=1, baseline=baseline)
    same(ours.values, theirs)
    assert ours.remainder is not None
    same(ours.remainder, -delta)
    # The weights of Captum's trapezoids add up to (n − 1) / n.
    for rule, method, share in (
        ("trapezoid", "riemann_trapezoid", 19 / 20),
        ("midpoint", "riemann_middle", 1),
    ):
        theirs = captum.IntegratedGradients(model).attribute(x, target=1, n_steps=20, method=method)
        same(share * ap.IntegratedGradients(nodes=20, rule=rule)(model, x, target=1).values, theirs)


def test_captum_gradients(captum: Any) -> None:
    model, x = network(), rows()
    same(ap.Saliency()(model, x, 1).values, captum.Saliency(model).attribute(x, target=1))
    signed = captum.Saliency(model).attribute(x, target=1, abs=False)
    same(ap.SmoothGrad(samples=1, noise=0)(model, x, 1).values, signed)
    same(ap.InputXGradient()(model, x, 1).values, captum.InputXGradient(model).attribute(x, target=1))
    same(ap.GuidedBackprop()(model, x, 1).values, captum.GuidedBackprop(model).attribute(x, target=1))
    same(ap.Deconvnet()(model, x, 1).values, captum.Deconvolution(model).attribute(x, target=1))
    baseline = rows()
    theirs = captum.DeepLift(model).attribute(x, baselines=baseline, target=1)
    same(ap.DeepLIFT()(model, x, target=1, baseline=baseline).values, theirs)
    same(ap.LRP("epsilon")(model, x, 1).values, captum.LRP(model).attribute(x, target=1))
    theirs = captum.LayerGradientXActivation(model, model[0]).attribute(x, target=1)
    same(ap.InputXGradient(at="0")(model, x, 1).values, theirs)
    theirs = captum.LayerIntegratedGradients(model, model[0]).attribute(
        x, baselines=0 * x, target=1, n_steps=30
    )
    same(ap.IntegratedGradients(nodes=30, at="0")(model, x, target=1, baseline=0 * x).values, theirs)


def test_captum_tokens(captum: Any) -> None:
    model, ids = small.lstm()
    zeros = torch.zeros_like(ids)
    theirs = captum.LayerIntegratedGradients(model, model.embedding).attribute(
        ids, baselines=zeros, target=1, n_steps=32
    )
    same(ap.IntegratedGradients(nodes=32)(model, ids, target=1, baseline=zeros).values, theirs.sum(-1))


def test_captum_ablation(captum: Any) -> None:
    model, x = network(), rows()
    mask = torch.tensor([0, 0, 0, 1, 1, 2])
    theirs = captum.FeatureAblation(model).attribute(x, target=1, feature_mask=mask[None])
    same(ap.Occlusion(partition=mask)(model, x, 1).values * torch.tensor([3, 3, 3, 2, 2, 1]), theirs)


def test_dense_outputs() -> None:
    dense = nn.Conv2d(1, 4, 3, padding=1).double()
    x = torch.randn(2, 1, 5, 5, dtype=torch.float64)
    found = ap.LRP("epsilon")(lambda x: dense(x)[:, :, 2, 3], x, target=1)
    assert found.values[:, :, 0].abs().max() == 0
    same(found.values.flatten(1).sum(1) + dense.bias[1], dense(x)[:, 1, 2, 3])


@needs("zennit")
def test_zennit_relevance_of_the_score() -> None:
    zennit, model = peers.zennit(), small.convolutional().double()
    plain = nn.Sequential(*(m for m in model if not isinstance(m, small.Block)))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    before = {k: v.clone() for k, v in plain.state_dict().items()}
    ours = {name: ap.LRP(name)(plain, x, target=1).values for name in ("epsilon-plus", "epsilon-alpha2beta1")}
    assert all(torch.equal(v, before[k]) for k, v in plain.state_dict().items())
    named = {"epsilon-plus": "EpsilonPlus", "epsilon-alpha2beta1": "EpsilonAlpha2Beta1"}
    for name, theirs in named.items():
        composite = getattr(zennit.composites, theirs)(
            canonizers=[zennit.canonizers.SequentialMergeBatchNorm()]
        )
        with zennit.attribution.Gradient(model=plain, composite=composite) as attributor:
            _, found = attributor(x, lambda out: out * F.one_hot(torch.ones(2, dtype=int), 3))
        same(ours[name], found, 1e-4)


@needs("path_explain")
def test_path_explain() -> None:
    smooth = nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 3)).eval()
    x, baseline = torch.randn(2, 6), torch.zeros(1, 6)
    explainer = peers.path_explainer()(smooth)
    inputs = x.clone().requires_grad_()
    settings = {"use_expectation": False, "output_indices": torch.tensor([1, 1])}
    theirs = explainer.attributions(inputs, baseline, num_samples=300, **settings)
    same(ap.IntegratedGradients(nodes=16)(smooth, x, target=1).values, theirs, 5e-3)
    theirs = explainer.interactions(inputs, baseline, num_samples=400, verbose=False, **settings)
    ours = ap.IntegratedHessians(nodes=8)(smooth, x, target=1).values
    off = ~torch.eye(6, dtype=torch.bool)
    assert (ours - theirs)[:, off].abs().max() < 0.1 * ours[:, off].abs().max()


@needs("quantus")
def test_quantus_takes_the_map_as_it_is() -> None:
    quantus = peers.quantus()
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    x = torch.rand(2, 1, 4, 4)
    target = torch.tensor([1, 2])
    explanation = ap.InputXGradient()(model, x, target)
    known = {
        "model": model, "x_batch": x.numpy(), "y_batch": target.numpy(), "a_batch": explanation.values.numpy(),
        "device": "cpu",
    }  # fmt: skip
    mask = np.zeros((2, 1, 4, 4), int)
    mask[:, :, :2] = 1
    settings = {"abs": False, "normalise": False, "disable_warnings": True}
    theirs = quantus.PointingGame(**settings)(**known, s_batch=mask)
    assert [bool(v) for v in ap.PointingGame()(explanation, torch.tensor(mask)).values] == [
        bool(v) for v in theirs
    ]
    theirs = quantus.RelevanceRankAccuracy(**settings)(**known, s_batch=mask)
    same(
        ap.RelevanceRank()(explanation, torch.tensor(mask)).values, torch.tensor(theirs, dtype=torch.float64)
    )
    theirs = quantus.EffectiveComplexity(**{**settings, "abs": True})(**known)
    assert ap.EffectiveComplexity(partition=Pixels())(model, x, explanation).values.tolist() == theirs


def test_numbers_of_each_sample_are_held_by_a_mark_or_the_name_of_a_mask() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(6, 6), torch.randn(6, 6)

    def model(x: Tensor, attention_mask: Tensor) -> Tensor:
        return (x * attention_mask).sum(1, keepdim=True)

    for method in (ap.InputXGradient(), ap.IntegratedGradients(), ap.Occlusion(), ap.KernelSHAP(chunk=6)):
        same(method(model, {"x": x, "attention_mask": w}, 0).values["x"], x * w, 1e-4)
        same(method(model, (x, ap.held(w)), 0).values[0], x * w, 1e-4)


def test_captum_layers_start_at_what_a_zero_input_gives(captum: Any) -> None:
    model, x = network(), rows()
    theirs = captum.LayerIntegratedGradients(model, model[0]).attribute(x, target=1, n_steps=50)
    ours = ap.IntegratedGradients(at="0", nodes=50)(model, x, target=1, baseline=torch.zeros_like(x))
    same(ours.values, theirs)


def test_an_occlusion_window_that_stands_out_is_shared_by_what_is_inside(captum: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, 2)).double()
    x = torch.randn(1, 1, 5, 5, dtype=torch.float64)
    theirs = captum.Occlusion(model).attribute(x, (1, 2, 2), strides=(1, 2, 2), target=0)
    inside = torch.ones(5, 5, dtype=torch.float64)
    inside[:4, :4], inside[4, :4], inside[:4, 4] = 4, 2, 2
    same(ap.Occlusion(patch=2, stride=2)(model, x, 0).values * inside, theirs)


@needs("zennit")
def test_zennit_wsquare_without_the_bias() -> None:
    from zennit.rules import WSquare

    torch.manual_seed(0)
    layer, x = nn.Linear(6, 3).double(), rows().requires_grad_()
    ours = ap.LRP(ap.Composite(linear=ap.WSquare()))(layer, x.detach(), target=1)
    handle = WSquare(zero_params="bias").register(layer)
    score = layer(x)
    (theirs,) = torch.autograd.grad(score, x, torch.eye(3, dtype=torch.float64)[1] * score.detach())
    handle.remove()
    same(ours.values, theirs)


def test_captum_places_of_layers_and_neurons(captum: Any) -> None:
    model, x, baseline = network(), rows(), rows()
    layer, at = model[1], {"baselines": baseline, "target": 1}
    path = ap.IntegratedGradients(at="1", path="inputs", nodes=50)
    theirs = captum.LayerConductance(model, layer).attribute(x, n_steps=2000, **at)
    same(ap.IntegratedGradients(at="1", path="inputs")(model, x, 1, baseline=baseline).values, theirs, 2e-3)
    theirs = captum.InternalInfluence(model, layer).attribute(x, n_steps=50, **at)
    influence = ap.IntegratedGradients(at="1", path="inputs", nodes=50, multiply_by_inputs=False)
    same(influence(model, x, 1, baseline=baseline).values, theirs)
    assert path(model, x, 1, baseline=baseline).total is not None
    theirs = captum.NeuronConductance(model, layer).attribute(x, neuron_selector=2, n_steps=50, **at)
    through = ap.IntegratedGradients(through=ap.Neuron("1", 2), nodes=50)
    same(through(model, x, 1, baseline=baseline).values, theirs)
    neuron = ap.Neuron("1", 2)
    theirs = captum.NeuronIntegratedGradients(model, layer).attribute(x, 2, baselines=baseline, n_steps=50)
    same(ap.IntegratedGradients(nodes=50)(model, x, neuron, baseline=baseline).values, theirs)
    theirs = captum.NeuronGradient(model, layer).attribute(x, 2)
    same(ap.SmoothGrad(samples=1, noise=0)(model, x, neuron).values, theirs)
    theirs = captum.NeuronFeatureAblation(model, layer).attribute(x, 2)
    same(ap.Occlusion()(model, x, neuron).values, theirs)
    theirs = captum.LayerIntegratedGradients(model, layer).attribute(
        x, attribute_to_layer_input=True, n_steps=50, **at
    )
    given = ap.IntegratedGradients(at="1:input", nodes=50)
    same(given(model, x, 1, baseline=baseline).values, theirs)


def test_captum_without_the_factor_and_over_many_baselines(captum: Any) -> None:
    model, x, data = network(), rows(), rows(4)
    for made, theirs in (
        (ap.IntegratedGradients(nodes=50, multiply_by_inputs=False), captum.IntegratedGradients),
        (ap.DeepLIFT(multiply_by_inputs=False), captum.DeepLift),
    ):
        found = theirs(model, multiply_by_inputs=False).attribute(x, baselines=data[:2], target=1)
        same(made(model, x, 1, baseline=data[:2]).values, found)
    found = captum.LayerDeepLiftShap(model, model[1]).attribute(x, baselines=data, target=1)
    same(ap.DeepLIFT(at="1")(model, x, 1, baseline=data[:, None]).values, found)
    found = captum.NeuronDeepLiftShap(model, model[1]).attribute(x, 2, baselines=data)
    same(ap.DeepLIFT()(model, x, ap.Neuron("1", 2), baseline=data[:, None]).values, found)


def test_captum_deep_lift_at_the_input_of_a_nonlinearity_does_not_add_up(captum: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, baseline = rows(), rows()
    fall = (model(x) - model(baseline))[:, 1].detach()
    theirs = captum.LayerDeepLift(model, model[1]).attribute(
        x, baselines=baseline, target=1, attribute_to_layer_input=True
    )
    assert (theirs.sum(1) - fall).abs().max() > 0.01
    same(ap.DeepLIFT(at="1:input")(model, x, 1, baseline=baseline).values.sum(1), fall)


class Both(nn.Module):
    """A picture and a row."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.grid, self.row, self.head = nn.Conv2d(1, 2, 3), nn.Linear(4, 2), nn.Linear(2, 2)
        self.double()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head((self.grid(a).tanh().mean((2, 3)) + self.row(b)).tanh())


def test_captum_several_inputs(captum: Any) -> None:
    model = Both()
    a, b = torch.randn(2, 1, 6, 6, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    picture = torch.zeros(6, 6, dtype=torch.long)
    picture[3:] = 1
    row = torch.tensor([0, 1, 1, 2])  # 0 and 1 span both
    many = torch.cat([picture.flatten(), row]).bincount().double()
    start = torch.randn(1, 4, dtype=torch.float64)
    maps = {"target": 1, "feature_mask": (picture[None, None], row[None])}
    theirs = captum.FeatureAblation(model).attribute((a, b), baselines=(0.5, start), **maps)
    put = (ap.Constant(0.5), ap.Background(start))
    ours = ap.Occlusion(partition=(picture, row), replacement=put)(model, (a, b), 1).values
    for value, label, found in zip(ours, (picture, row), theirs, strict=True):
        same(value * many[label], found)
    theirs = captum.ShapleyValues(model).attribute((a, b), **maps)
    ours = ap.KernelSHAP(partition=(picture, row))(model, (a, b), 1).values
    for value, label, found in zip(ours, (picture, row), theirs, strict=True):
        same(value * many[label], found)
    theirs = captum.Occlusion(model).attribute((a, b), ((1, 4, 4), (2,)), strides=((1, 2, 2), (1,)), target=1)
    ours = ap.Occlusion(patch=((4, 4), 2), stride=((2, 2), 1))(model, (a, b), 1).values
    for value, size, found in zip(ours, (16, 2), theirs, strict=True):
        same(value * size, found)
    theirs = captum.IntegratedGradients(model).attribute((a, b), baselines=(0.5, start), target=1)
    ours = ap.IntegratedGradients(nodes=50)(model, (a, b), 1, baseline=(0.5, start)).values
    for value, found in zip(ours, theirs, strict=True):
        same(value, found)


def test_captum_dense_targets(captum: Any) -> None:
    torch.manual_seed(0)
    dense = nn.Conv2d(1, 4, 3, padding=1).double()
    x = torch.randn(2, 1, 5, 5, dtype=torch.float64)
    for target in ((1, 2, 3), [(1, 2, 3), (0, 4, 4)]):
        theirs = captum.Saliency(dense).attribute(x, target=target)
        same(ap.Saliency()(dense, x, target).values, theirs)


@needs("shap")
def test_shap_log_odds() -> None:
    weight, random = np.array([1.0, -2.0, 0.5]), np.random.default_rng(0)

    def model(x: Any) -> Any:
        return 1 / (1 + np.exp(-(x @ weight) - x[:, 0] * x[:, 1]))

    x, data = random.normal(size=(2, 3)), random.normal(size=(5, 3))
    theirs = peers.shap().KernelExplainer(model, data, link="logit").shap_values(x, silent=True)
    same(ap.KernelSHAP(link="logit", replacement=ap.Background(data))(model, x).values, theirs)
