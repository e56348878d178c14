"""Layer-wise relevance propagation over a plain input gradient, beside Captum and zennit."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

import apportion as ap
import architectures
import peers
from gradient import FromEmbeddings, Row, frozen, plain
from subjects import perceptron

OURS = ("epsilon", "epsilon-plus-flat", "epsilon-gamma-box", "epsilon-alpha2beta1-flat")


def ours(model: Any, x: Any) -> dict[str, Callable[[], object]]:
    return {f"apportion {name}": lambda name=name: ap.LRP(name)(model, x, target=0) for name in OURS}


def zennit(model: torch.nn.Module, x: torch.Tensor, canonizers: list[Any]) -> dict[str, Callable[[], object]]:
    """zennit's composites; registering its hooks is part of the call, as it is of ours."""
    package = peers.zennit()
    composites = package.composites
    makers = {
        "epsilon": lambda: composites.LayerMapComposite(
            [
                (package.types.Activation, package.rules.Pass()),
                (package.types.Linear, package.rules.Epsilon(1e-6)),
                (package.types.AvgPool, package.rules.Norm()),
            ],
            canonizers=canonizers,
        ),
        "epsilon-plus-flat": lambda: composites.EpsilonPlusFlat(canonizers=canonizers),
        "epsilon-gamma-box": lambda: composites.EpsilonGammaBox(low=-3.0, high=3.0, canonizers=canonizers),
        "epsilon-alpha2beta1-flat": lambda: composites.EpsilonAlpha2Beta1Flat(canonizers=canonizers),
    }

    def run(make: Callable[[], Any]) -> object:
        with make().context(model) as changed:
            leaf = x.detach().requires_grad_()
            score = changed(leaf)
            return torch.autograd.grad(score, leaf, torch.eye(score.shape[1])[[0] * len(x)])[0]

    return {f"zennit {name}": lambda make=make: run(make) for name, make in makers.items()}


def captum(model: torch.nn.Module, x: torch.Tensor) -> dict[str, Callable[[], object]]:
    theirs = peers.captum().LRP(copy.deepcopy(model))
    return {"captum epsilon": lambda: theirs.attribute(x.clone(), target=0)}


def vgg16() -> Iterator[Row]:
    model, x = frozen(architectures.trained_like(architectures.vgg16())), architectures.pictures(2)
    runs = {
        "plain gradient": lambda: plain(model, x),
        **ours(model, x),
        **zennit(model, x, []),
        **captum(model, x),
    }
    yield "VGG-16, 2 × 224²", "plain gradient", runs


def resnet18() -> Iterator[Row]:
    """The others explain a copy whose residual sums are modules; ours takes the model with `+`."""
    package = peers.zennit()
    model, x = frozen(architectures.trained_like(architectures.resnet18())), architectures.pictures(4)
    theirs = frozen(architectures.trained_like(architectures.resnet18(sum_=package.layer.Sum)))
    canonizers = [package.canonizers.SequentialMergeBatchNorm()]
    runs = {"plain gradient": lambda: plain(model, x), **ours(model, x), **zennit(theirs, x, canonizers)}
    yield "ResNet-18, 4 × 224²", "plain gradient", {**runs, **captum(model, x)}


def efficientnet() -> Iterator[Row]:
    """With trained weights and the methods that add up, of which placed biases are the default."""
    package = peers.zennit()
    model, x = frozen(ap.load("imagenet").model), architectures.pictures(1)
    more = {"apportion placed": ap.LRP(bias="place"), "apportion DeepLIFT": ap.DeepLIFT()}
    runs = {
        "plain gradient": lambda: plain(model, x),
        **ours(model, x),
        **{name: partial(how, model, x, target=0) for name, how in more.items()},
        **zennit(model, x, [package.canonizers.SequentialMergeBatchNorm()]),
    }
    yield "EfficientNet-Lite0, 224²", "plain gradient", runs


def small() -> Iterator[Row]:
    """One input of networks that take a millisecond or less."""
    for name, model, x in (
        ("digits, 28²", frozen(ap.load("digits").model), torch.randn(1, 1, 28, 28)),
        ("perceptron, 30 columns", frozen(perceptron()), torch.randn(1, 30)),
    ):
        yield name, "plain gradient", {"plain gradient": partial(plain, model, x), **ours(model, x)}


def dispatch() -> Iterator[tuple[str, str, dict[str, Callable[[], float]], str]]:
    """What each torch function takes beside its arithmetic: chains of 100 and of 8 layers of 8 units."""

    def chain(layers: int) -> nn.Module:
        parts: list[nn.Module] = [part for _ in range(layers) for part in (nn.Linear(8, 8), nn.ReLU())]
        return frozen(nn.Sequential(*parts).eval())

    x, few, many = torch.randn(1, 8), 8, 100

    def seconds(run: Callable[..., object], layers: int) -> float:
        model, found = chain(layers), []
        for _ in range(40):
            begin = time.process_time()
            run(model, x, target=0)
            found.append(time.process_time() - begin)
        return min(found)

    def each(run: Callable[..., object]) -> float:
        return 1e6 * (seconds(run, many) - seconds(run, few)) / (2 * (many - few))

    methods: dict[str, Callable[..., object]] = {
        "plain gradient": plain,
        "apportion Saliency": ap.Saliency(),
        "apportion epsilon": ap.LRP("epsilon"),
        "apportion placed": ap.LRP(bias="place"),
        "apportion DeepLIFT": ap.DeepLIFT(),
    }
    runs = {name: partial(each, method) for name, method in methods.items()}
    yield "one torch function", "plain gradient", runs, "µs"


def lxt(wrapped: torch.nn.Module, rows: torch.Tensor) -> dict[str, Callable[[], object]]:
    """LXT's rules on the same model; it has its own copies of models for older versions of transformers only."""
    theirs = peers.as_lxt(wrapped, peers.lxt_rules())

    def run() -> object:
        leaf = rows.detach().requires_grad_()
        return torch.autograd.grad(theirs(leaf)[:, 0].sum(), leaf)[0]

    return {"lxt": run}


def bert() -> Iterator[Row]:
    """Captum has no rule for attention, zennit none for its products: they are left out."""
    model, inputs = frozen(architectures.bert()), architectures.tokens(2)
    rows = model.bert.embeddings.word_embeddings(inputs["input_ids"]).detach()
    wrapped = FromEmbeddings(model, inputs["attention_mask"])
    runs = {
        "plain gradient": lambda: plain(wrapped, rows),
        "apportion transformer": lambda: ap.LRP("transformer")(model, inputs, target=0),
        "apportion epsilon": lambda: ap.LRP("epsilon")(model, inputs, target=0),
        **lxt(wrapped, rows),
    }
    yield "BERT base, 2 × 128", "plain gradient", runs
