"""Class activation maps over a plain input gradient."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import apportion as ap
import architectures
import peers
from gradient import Row, frozen, plain
from subjects import photo


def grad_cam() -> Iterator[Row]:
    """Captum is told the layer, ours looks for it, or is told it too."""
    captum = peers.captum()
    efficientnet, picture, _ = photo()
    resnet = frozen(architectures.trained_like(architectures.resnet18()))
    cases = (
        ("EfficientNet-Lite0, 224²", efficientnet, picture, "conv_head"),
        ("ResNet-18, 224²", resnet, architectures.pictures(1), "features.11"),
    )
    for name, model, x, layer in cases:
        theirs = captum.LayerGradCam(model, dict(model.named_modules())[layer])

        def forward(model: nn.Module = model, x: Tensor = x) -> None:
            with torch.no_grad():
                model(x)

        runs = {
            "plain gradient": lambda model=model, x=x: plain(model, x),
            "forward pass alone": forward,
            "apportion": lambda model=model, x=x: ap.GradCAM()(model, x, 0),
            "apportion, layer named": lambda model=model, x=x, la=layer: ap.GradCAM(la)(model, x, 0),
            "captum, layer named": lambda theirs=theirs, x=x: theirs.attribute(x, 0),
        }
        yield name, "plain gradient", runs
