"""ProtoPNet beside plain passes of its backbone: `python benchmarks/run.py prototypes`.

Push over one forward pass of the network over the same images, explaining one image over its forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

import apportion as ap
from apportion.models.prototypes._backbone_features import CHUNK, Grids
from apportion.models.prototypes._images import images_of
from apportion.models.prototypes._network import Backbone, PrototypeNet, add_on_layers
from apportion.models.prototypes._push import push
from apportion.models.prototypes.methods import PrototypeLRP, Prototypes, Upsampled

Row = tuple[str, str, dict[str, Callable[[], object]]]


def network(module: nn.Module, example: torch.Tensor, classes: int, per_class: int = 10) -> PrototypeNet:
    """With random add-on layers and prototypes of the paper's width."""
    backbone = Backbone(module, example)
    with torch.no_grad():
        channels = backbone(example).shape[1]
    class_of = torch.arange(classes).repeat_interleave(per_class)
    prototypes = torch.rand(classes * per_class, 128)
    net = PrototypeNet(backbone, add_on_layers(channels, 128), prototypes, class_of, classes)
    return net.eval().requires_grad_(False)


def pushing() -> Iterator[Row]:
    """10 000 images of 28 x 28 by a small network, and 64 of 224 x 224 by EfficientNet-Lite0."""
    small = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
    )  # fmt: skip
    photos: Any = ap.load("imagenet").model
    for name, module, x, classes in (
        ("small CNN, 10 000 of 28²", small, torch.rand(10_000, 1, 28, 28), 10),
        ("EfficientNet-Lite0, 64 of 224²", photos, torch.rand(64, 3, 224, 224), 10),
    ):
        net = network(module, x[:1], classes)
        labels = torch.arange(len(x)) % classes
        grids = Grids(images_of(x, labels, None), net.backbone)

        def forward(net: PrototypeNet = net, x: torch.Tensor = x) -> None:
            with torch.no_grad():
                for part in x.split(CHUNK):
                    net(part)

        def backbone(net: PrototypeNet = net, x: torch.Tensor = x) -> None:
            with torch.no_grad():
                for part in x.split(CHUNK):
                    net.backbone(part)

        def pushed(net: PrototypeNet = net, grids: Grids = grids, labels: torch.Tensor = labels) -> None:
            push(net, grids.patches(net, "push"), labels)

        yield name, "forward pass", {"forward pass": forward, "backbone alone": backbone, "push": pushed}


def explaining() -> Iterator[Row]:
    """One photo of 224 x 224 by EfficientNet-Lite0 with 170 prototypes; LRP also of that network's own classes."""
    module: Any = ap.load("imagenet").model
    x = torch.rand(1, 3, 224, 224)
    net = network(module, x, 17)

    def forward() -> None:
        with torch.no_grad():
            net(x)

    def slope() -> None:
        """What any explanation of pixels by a backward pass costs at least."""
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(net(leaf)[0, 0], leaf)

    runs: dict[str, Callable[[], object]] = {"forward pass": forward, "plain input gradient": slope}
    for method in (Prototypes(), Upsampled(), PrototypeLRP("epsilon")):
        runs[repr(method)] = lambda method=method: method(net, x)
    runs["LRP('epsilon'), 1000 classes"] = lambda: ap.LRP("epsilon")(module, x)
    yield "one photo, 170 prototypes", "forward pass", runs
