"""LRP beside zennit (with its canonizers) on VGG- and ResNet-like networks, and LXT's rules on a BERT and a ViT."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import apportion as ap
import peers
from apportion.methods.propagation.composites import Composite
from apportion.methods.propagation.rules import AlphaBeta, Box, Epsilon, Flat, Gamma, WSquare, Zero


def vgg_like(biased: bool) -> nn.Sequential:
    def conv(a: int, b: int) -> nn.Conv2d:
        return nn.Conv2d(a, b, 3, padding=1, bias=biased)

    return nn.Sequential(
        conv(3, 6), nn.ReLU(), conv(6, 6), nn.ReLU(), nn.MaxPool2d(2), conv(6, 8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32, 12, bias=biased), nn.ReLU(), nn.Linear(12, 5, bias=biased),
    )  # fmt: skip


class Block(nn.Module):
    def __init__(self, a: int, b: int, add: Any) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b)
        self.conv2, self.bn2 = nn.Conv2d(b, b, 3, padding=1, bias=False), nn.BatchNorm2d(b)
        self.down = nn.Sequential(nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b)) if a != b else None
        self.relu1, self.relu2, self.add = nn.ReLU(), nn.ReLU(), add

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(self.add(y, x if self.down is None else self.down(x)))  # type: ignore[no-any-return]


def resnet_like(add: Any) -> nn.Sequential:
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), Block(6, 6, add),
        Block(6, 8, add), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0  # zennit's merged batch norm still divides by √(1 + eps)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return net


def plain_add(a: Tensor, b: Tensor) -> Tensor:
    return a + b


CASES: dict[str, tuple[Composite, Any]] = {
    "epsilon": (Composite(), lambda r: (r.Epsilon(1e-6), r.Epsilon(1e-6), None)),
    "z+": (Composite(convolution=AlphaBeta(1, 0)), lambda r: (r.ZPlus(), r.Epsilon(1e-6), None)),
    "z+ dense": (
        Composite(convolution=AlphaBeta(1, 0), linear=AlphaBeta(1, 0)),
        lambda r: (r.ZPlus(), r.ZPlus(), None),
    ),
    "alpha2beta1": (
        Composite(convolution=AlphaBeta(2, 1)),
        lambda r: (r.AlphaBeta(2, 1), r.Epsilon(1e-6), None),
    ),
    "gamma": (
        Composite(convolution=Gamma(0.25), linear=Gamma(0.25)),
        lambda r: (r.Gamma(0.25), r.Gamma(0.25), None),
    ),
    "epsilon without biases": (
        Composite(bias="ignore"),
        lambda r: (*[r.Epsilon(1e-6, zero_params="bias")] * 2, None),
    ),
    "z+ without biases": (
        Composite(convolution=AlphaBeta(1, 0), linear=AlphaBeta(1, 0), bias="ignore"),
        lambda r: (*[r.ZPlus(zero_params="bias")] * 2, None),
    ),
    "alpha2beta1 without biases": (
        Composite(convolution=AlphaBeta(2, 1), linear=AlphaBeta(2, 1), bias="ignore"),
        lambda r: (*[r.AlphaBeta(2, 1, zero_params="bias")] * 2, None),
    ),
    "flat": (Composite(first=Flat()), lambda r: (r.Epsilon(1e-6), r.Epsilon(1e-6), r.Flat())),
    "w2": (
        Composite(first=WSquare()),
        lambda r: (r.Epsilon(1e-6), r.Epsilon(1e-6), r.WSquare(zero_params="bias")),
    ),
    "box": (
        Composite(first=Box((-3.0, -2.5, -4.0), (3.0, 4.0, 3.5))),
        lambda r: (
            r.Epsilon(1e-6),
            r.Epsilon(1e-6),
            r.ZBox(
                torch.tensor([-3.0, -2.5, -4.0]).view(1, 3, 1, 1),
                torch.tensor([3.0, 4.0, 3.5]).view(1, 3, 1, 1),
            ),
        ),
    ),
}


def with_zennit(net: nn.Module, x: Tensor, target: int, rules: Any) -> Tensor:
    zennit = peers.zennit()
    convolution, dense, first = rules(zennit.rules)
    # Additions and averages need no stabiliser here, so theirs is made negligible.
    layers = [
        (zennit.types.Activation, zennit.rules.Pass()),
        (zennit.layer.Sum, zennit.rules.Norm(1e-15)),
        (zennit.types.AvgPool, zennit.rules.Norm(1e-15)),
        (zennit.types.Convolution, convolution),
        (zennit.types.Linear, dense),
    ]
    canonizers = [zennit.canonizers.SequentialMergeBatchNorm()]
    if first is None:
        composite = zennit.composites.LayerMapComposite(layers, canonizers=canonizers)
    else:
        composite = zennit.composites.SpecialFirstLayerMapComposite(
            layers, [(zennit.types.Linear, first)], canonizers=canonizers
        )
    with zennit.attribution.Gradient(model=net, composite=composite) as attributor:
        # Relevance starts at the output's own value.
        _, found = attributor(x, lambda out: out * F.one_hot(torch.tensor([target] * len(out)), out.shape[1]))
    return found.detach()  # type: ignore[no-any-return]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("net", ["vgg", "vgg biased", "resnet"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_zennit(case: str, net: str, dtype: torch.dtype, tolerance: float) -> None:
    composite, rules = CASES[case]
    try:
        zennit = peers.zennit()
    except ImportError:
        pytest.skip("zennit is not installed")
    ours = resnet_like(plain_add) if net == "resnet" else vgg_like("biased" in net)
    theirs = copy.deepcopy(ours)
    for module in theirs.modules():
        if isinstance(module, Block):
            add = zennit.layer.Sum()
            module.sum_ = add
            module.add = lambda a, b, add=add: add(torch.stack([a, b], dim=-1))
    ours, theirs = ours.to(dtype).eval(), theirs.to(dtype).eval()
    x = torch.randn(3, 3, 8, 8, dtype=dtype)
    found = ap.LRP(composite)(ours, x, target=2).values
    expected = with_zennit(theirs, x, 2, rules)
    if "without biases" in case and dtype == torch.float32:
        tolerance = 1e-3  # denominators come near zero, and enlarge what float32 rounds; float64 shows that they agree
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_lxt(kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    try:
        rules = peers.lxt_rules()
    except ImportError:
        pytest.skip("lxt is not installed")
    size: dict[str, Any] = {
        "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40,
        "attn_implementation": "eager", "num_labels": 4,
    }  # fmt: skip
    if kind == "bert":
        config = transformers.BertConfig(vocab_size=60, **size)
        model = transformers.BertForSequenceClassification(config).double().eval()
        ids = torch.randint(1, 60, (2, 9))
        embedded = model.bert.embeddings.word_embeddings(ids).detach()
        inputs: dict[str, Tensor] = {"inputs_embeds": embedded}
    else:
        config = transformers.ViTConfig(image_size=16, patch_size=4, **size)
        model = transformers.ViTForImageClassification(config).double().eval()
        inputs = {"pixel_values": torch.randn(2, 3, 16, 16, dtype=torch.float64)}
    exact = Composite(linear=Zero(), convolution=Zero(), matmul=Zero())
    found = ap.LRP(exact, strict=True)(model, inputs, target=1).values
    (name, x), = inputs.items()  # fmt: skip
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(peers.as_lxt(model, rules)(**{name: x}).logits[:, 1].sum(), x)
    expected = (x * gradient).detach()
    assert isinstance(found, dict)
    assert float((found[name] - expected).abs().max()) <= 1e-9 * float(expected.abs().max())
    near = ap.LRP(Composite(linear=Epsilon(1e-9), convolution=Epsilon(1e-9)))(model, inputs, target=1).values
    assert isinstance(near, dict)
    assert float((near[name] - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
