"""VarGrad, guided backprop, deconvnet and DeepLIFT against captum and closed forms."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import apportion as ap
from apportion.errors import InputError


def rectified() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2), nn.ReLU(inplace=False),
        nn.Flatten(), nn.Linear(4 * 16, 8), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip
    return layers.double().eval()


def captum(name: str, model: nn.Module):
    attr = pytest.importorskip("captum.attr")
    return getattr(attr, name)(model)


def images(many: int = 2) -> Tensor:
    return torch.randn(many, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("ours", "theirs"), [("GuidedBackprop", "GuidedBackprop"), ("Deconvnet", "Deconvolution")]
)
def test_rectified_gradients_agree_with_captum(ours: str, theirs: str) -> None:
    model, x = rectified(), images()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = captum(theirs, model).attribute(x, target=1)
    found = getattr(ap, ours)()(model, x, 1)
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-12)
    assert found.warnings == ()
    assert found.cost.forwards == found.cost.backwards == 1


def test_functional_and_in_place_rectifiers_count_too() -> None:
    def model(x: Tensor) -> Tensor:
        y = x.clone().relu_() - x.relu()
        return (y + torch.nn.functional.relu(-x, inplace=True))[:, :1]

    x = torch.tensor([[2.0, 1.0], [-2.0, 1.0]])
    found = ap.Deconvnet()(model, x)
    # Backwards: +1 through the first ReLU, −1 is cut at the second, +1 through the third, whose input is −x.
    assert found.values.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert ap.GuidedBackprop()(model, x).values[:, 0].tolist() == [1.0, -1.0]


@pytest.mark.parametrize("name", ["GuidedBackprop", "Deconvnet"])
def test_no_rectifier_is_said(name: str) -> None:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)), torch.ones(1, 3)
    found = getattr(ap, name)()(model, x, 1)
    assert "no ReLU" in found.warnings[0]
    torch.testing.assert_close(found.values.abs(), ap.Saliency()(model, x, 1).values)


def test_vargrad_is_the_variance_of_the_gradients() -> None:
    """A quadratic has gradient 2x, so its variance is four times that of the noise."""
    x = torch.rand(2, 3, dtype=torch.float64)
    found = ap.VarGrad(samples=4000, noise=0.5)(lambda z: (z**2).sum(1), x)
    spread = 0.5 * (x.amax(1) - x.amin(1))
    expected = (4 * spread**2)[:, None].expand(2, 3)
    torch.testing.assert_close(found.values, expected, rtol=0.15, atol=0)


@pytest.mark.parametrize("method", [ap.SmoothGrad, ap.VarGrad])
@pytest.mark.parametrize("width", [3, 40])
def test_noise_depends_on_the_seed_alone(method: Any, width: int) -> None:
    """Neither the chunk, nor the rest of the batch, nor the number format draws another noise."""
    x = torch.rand(2, width, dtype=torch.float64)

    def values(rows: Tensor, **more: Any) -> Tensor:
        return method(samples=20, **more)(lambda z: (z**3).sum(1), rows).values.double()

    whole = values(x, chunk=1000)
    for chunk in (1, 7):
        torch.testing.assert_close(values(x, chunk=chunk), whole)
    torch.testing.assert_close(values(x[1:]), whole[1:])
    torch.testing.assert_close(values(x.float()), whole, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(values(x, seed=1), whole, rtol=1e-2)


@pytest.mark.parametrize("name", ["GuidedBackprop", "Deconvnet"])
def test_of_the_hard_tanhs_only_relu6_is_a_rectifier(name: str) -> None:
    x = torch.tensor([[0.5, -0.5]])
    found = getattr(ap, name)()(lambda z: -nn.Hardtanh()(z).sum(1), x)
    assert found.values.tolist() == [[-1.0, -1.0]]
    assert "no ReLU" in found.warnings[0]
    rectified = getattr(ap, name)()(lambda z: -nn.ReLU6()(z).sum(1), x)
    assert rectified.values.tolist() == [[0.0, 0.0]]
    assert not rectified.warnings


# ---- DeepLIFT ----


@pytest.mark.parametrize(
    "middle",
    [
        [nn.ReLU()],
        [nn.Tanh(), nn.BatchNorm2d(4)],
        [nn.ELU()],
        [nn.MaxPool2d(2)],
        [nn.Sigmoid(), nn.Conv2d(4, 4, 3), nn.Softplus()],
        [nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3), nn.LeakyReLU(0.1)],
    ],
    ids=str,
)
def test_deeplift_agrees_with_captum(middle: list[nn.Module]) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), *middle, nn.Flatten()).double().eval()
    x, baseline = images(), torch.rand(1, 3, 12, 12, dtype=torch.float64)
    model = nn.Sequential(body, nn.Linear(body(x).shape[1], 3)).double().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = captum("DeepLift", model).attribute(x, baseline.expand_as(x).contiguous(), target=2)
    found = ap.DeepLIFT()(model, x, 2, baseline=baseline)
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-10)
    assert found.remainder.abs().max() < 1e-12


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_deeplift_adds_up(seed: int) -> None:
    """Also where rectifier follows rectifier, and through attention, gates and overlapping pools."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.query, self.key = nn.Conv2d(2, 4, 3), nn.Linear(4, 4), nn.Linear(4, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.nn.functional.max_pool2d(torch.tanh(self.conv(x)).relu(), 3, stride=2, padding=1)
            tokens = y.flatten(2).transpose(1, 2)
            mixed = (self.query(tokens) @ self.key(tokens).transpose(1, 2)).softmax(-1) @ tokens
            return self.head((mixed * torch.sigmoid(tokens)).mean(1))

    torch.manual_seed(seed)
    model, x = Model().double(), torch.randn(2, 2, 9, 9, dtype=torch.float64)
    found = ap.DeepLIFT(baseline=0.3)(model, x, 0)
    assert found.remainder.abs().max() < 1e-12
    torch.testing.assert_close(found.output, model(x).detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.total, (model(x) - model(torch.full_like(x, 0.3)))[:, 0].detach())


def test_deeplift_rescales() -> None:
    """A ReLU that the reference leaves closed has slope y / (z − z′), not 1."""
    found = ap.DeepLIFT(baseline=-1.0)(lambda x: torch.relu(x).sum(1), torch.tensor([[3.0, -2.0]]))
    assert found.values.tolist() == [[3.0, 0.0]]
    same = ap.DeepLIFT(baseline=3.0)(lambda x: torch.relu(x).sum(1), torch.tensor([[3.0, 3.0]]))
    assert same.values.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("gap", [10.0**-k for k in range(2, 10)])
def test_deeplift_close_to_the_reference(gap: float) -> None:
    """There the difference quotient is lost to rounding; that of a kink is exact."""
    x = torch.tensor([[0.25, 0.25 - gap]])
    found = ap.DeepLIFT()(lambda x: torch.sigmoid(x[:, :1] - x[:, 1:]), x)
    torch.testing.assert_close(found.values, 0.25 * x * torch.tensor([1.0, -1.0]), rtol=1e-3, atol=0)
    x, start = torch.tensor([[gap / 2]]), torch.tensor([[-gap / 2]])
    for function, slope in ((torch.relu, 0.5), (nn.LeakyReLU(0.5), 0.75), (nn.Hardtanh(-1, 0), 0.5)):
        kink = ap.DeepLIFT()(lambda x, f=function: f(x), x, baseline=start)
        torch.testing.assert_close(kink.values, torch.tensor([[slope * gap]]))


def test_deeplift_where_the_derivative_is_infinite() -> None:
    found = ap.DeepLIFT(baseline=4.0)(lambda x: torch.sqrt(x).sum(1), torch.tensor([[0.0, 9.0]]))
    torch.testing.assert_close(found.values, torch.tensor([[-2.0, 1.0]]))


def test_deeplift_of_a_square_and_of_masked_attention() -> None:
    x = torch.tensor([[3.0, -2.0]])
    square = ap.DeepLIFT(baseline=1.0)(lambda z: (z * z).sum(1), x)  # (x − x′)(x + x′)
    assert square.values.tolist() == [[8.0, 3.0]]

    mask = torch.tensor([0.0, -torch.inf])
    masked = ap.DeepLIFT()(lambda z: ((z + mask).softmax(1) * z).sum(1), x)
    torch.testing.assert_close(masked.values, torch.tensor([[3.0, 0.0]]))


class Pooled(nn.Module):
    """The same head on the mean over time of any model."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body, self.head = body, nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(1))


class TimeFirst(nn.Module):
    """What a model makes of (batch, time, features), computed as (time, batch, features)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.transpose(0, 1)).transpose(0, 1)


@pytest.mark.parametrize("length", [3, 4, 6])  # 6 is twice the batch
def test_deeplift_of_models_with_the_batch_on_another_axis(length: int) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))
    first, second = (
        nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=batch_first)
        for batch_first in (True, False)
    )
    second.load_state_dict(first.state_dict())
    x = torch.randn(3, length, 4, dtype=torch.float64)
    for one, other in ((layers, TimeFirst(layers)), (first, TimeFirst(second))):
        found, expected = (ap.DeepLIFT()(Pooled(model).double().eval(), x, 1) for model in (other, one))
        torch.testing.assert_close(found.values, expected.values)
        assert found.cost.forwards == 3
        assert found.cost.backwards == 1
    exact = ap.DeepLIFT()(Pooled(TimeFirst(layers)).double(), x, 1)
    assert exact.remainder.abs().max() < 1e-12


def test_deeplift_says_where_the_model_took_another_way() -> None:
    x = torch.tensor([[1.0, 2.0, -3.0]])

    def positive_alone(z: Tensor) -> Tensor:
        return torch.tanh(z[:, z[0] > 0]).sum(1) + torch.sigmoid(z).sum(1)

    fewer = ap.DeepLIFT()(positive_alone, x)
    way, condition, left_over = fewer.warnings
    assert way == (
        "at 'tanh' in 'the model' the model took other shapes for the reference: its gradient was used"
    )
    assert condition.startswith("at 'getitem' in 'the model' a condition, an index or another number")
    assert left_over.startswith("left over: ")
    found = ap.DeepLIFT()(
        lambda z: (torch.relu(z) if z.sum() == 0 and z[0, 0] > 0 else torch.tanh(z)).sum(1), x
    )
    assert "at 'relu' in 'the model' the model took another way" in found.warnings[0]


def test_deeplift_of_tokens() -> None:
    torch.manual_seed(0)

    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(torch.tanh(self.table(ids).sum(1)))

    found = ap.DeepLIFT()(Text().double(), torch.tensor([[1, 2, 3]]))
    assert found.values.shape == (1, 3)
    assert found.remainder.abs().max() < 1e-12


def test_bad_baselines() -> None:
    x = torch.ones(1, 3)
    with pytest.raises(InputError, match="baseline has shape"):
        ap.DeepLIFT()(lambda z: z.sum(1), x, baseline=torch.ones(2, 4))
    for wrong in ("mean", [0.0, 0.0, 0.0]):
        with pytest.raises(InputError, match=r"baseline is .*; accepted: a (finite )?number"):
            ap.DeepLIFT()(lambda z: z.sum(1), x, baseline=wrong)
    with pytest.raises(InputError, match=r"names input None; the inputs are \[0, 1\]"):
        ap.DeepLIFT()(lambda a, b: (a + b).sum(1), (x, x), baseline=x)
    for bad in ({"samples": 0}, {"samples": 2.5}, {"noise": -1.0}, {"chunk": 0}):
        with pytest.raises(InputError):
            ap.VarGrad(**bad)


@pytest.mark.parametrize(
    "pool",
    [
        lambda z: F.max_pool2d(z, 2, return_indices=True)[0],
        lambda z: F.max_pool2d(z, 3, 2, 1, 1, False, True)[0],
        lambda z: torch.ops.aten.max_pool2d_with_indices(z, [2, 2])[0],
        lambda z: F.adaptive_max_pool2d(z, (2, 3)),
        lambda z: F.adaptive_max_pool2d(z, 2, True)[0],
        lambda z: F.max_unpool2d(*F.max_pool2d(z, 2, return_indices=True), 2),
    ],
)
def test_deeplift_hands_on_the_change_of_every_kind_of_maximum(pool: Any) -> None:
    weight, x, reference = torch.randn(4, 3, 3, 3).double(), *torch.randn(2, 2, 3, 8, 8).double()
    found = ap.DeepLIFT()(
        lambda x: pool(F.conv2d(x, weight)).mean((2, 3)), x, target=0, baseline=reference[:1]
    )
    assert found.total.abs().min() > 0.01
    assert found.remainder.abs().max() < 1e-12


def test_what_pytorch_cannot_differentiate_is_named() -> None:
    with pytest.raises(InputError, match="derivative for aten::floor_divide is not implemented"):
        ap.Saliency()(lambda x: x // 2.0, torch.ones(1, 3))
    assert ap.LRP("epsilon")(lambda x: x // 2.0, torch.full((1, 3), 5.0), 0).values.tolist() == [[2, 0, 0]]


def test_taylor_of_embeddings_without_an_axis_of_samples() -> None:
    table = torch.randn(9, 2)

    def model(ids: Tensor) -> Tensor:
        return F.embedding(ids.t().flatten(), table).view(*ids.t().shape, 2).tanh().sum(0)

    with pytest.raises(InputError, match=r"an embedding has shape \(6, 2\) for 2 samples"):
        ap.Taylor()(model, torch.tensor([[1, 2, 3], [4, 5, 6]]), target=ap.Contrast(0, 1))


@pytest.mark.parametrize(
    "relu",
    [
        lambda z: z.clamp(min=0),
        lambda z: z.clamp_min(0.0),
        lambda z: F.threshold(z, 0.0, 0.0),
        lambda z: F.hardtanh(z, 0.0, 99.0),
        lambda z: z.clone().clamp_(0, None),
        lambda z: torch.maximum(z, torch.zeros_like(z)),
    ],
)
def test_a_relu_by_another_name(relu: Any) -> None:
    weight, x = torch.randn(6, 6).double(), torch.randn(2, 6).double()
    named, plain = lambda x: relu(x @ weight) @ weight.T, lambda x: F.relu(x @ weight) @ weight.T
    known = [ap.LRP("epsilon"), ap.DeepLIFT(baseline=0.5), ap.IntegratedHessians(beta=9.0)]
    if relu(torch.tensor(1.0, requires_grad=True)).grad_fn.name() != "MaximumBackward0":
        known += [ap.GuidedBackprop(), ap.Deconvnet()]
    for method in known:
        found, expected = method(named, x, 0), method(plain, x, 0)
        torch.testing.assert_close(found.values, expected.values)
        assert found.warnings == expected.warnings


def _attended(x: Tensor) -> Tensor:
    mask = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])
    return F.scaled_dot_product_attention(x @ SQUARE, x, x, attn_mask=mask)


SQUARE = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    "model",
    [
        nn.LSTM(4, 3, num_layers=2, bidirectional=True, batch_first=True),
        nn.GRU(4, 3, batch_first=True),
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, norm_first=True).eval(),
        nn.RMSNorm(4),
        _attended,
        lambda x: torch.einsum("bij,bkj->bik", x @ SQUARE, x.tanh()),
        lambda x: torch.baddbmm(x[..., :3], x @ SQUARE, x.mT),
        lambda x: F.glu(x @ SQUARE),
    ],
)
def test_deeplift_adds_up_through_what_is_made_of_products_and_element_wise_functions(model: Any) -> None:
    model = model.double() if isinstance(model, nn.Module) else model
    x, reference = torch.randn(2, 2, 3, 4, dtype=torch.float64)

    def scores(x: Tensor) -> Tensor:
        output = model(x)
        return (output if isinstance(output, Tensor) else output[0]).square().mean(1)

    found = ap.DeepLIFT()(scores, x, target=0, baseline=reference)
    torch.testing.assert_close(found.output, scores(x).detach())
    assert found.remainder.abs().max() < 1e-12
