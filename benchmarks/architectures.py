"""The models that are timed, with random weights: VGG-16, ResNet-18 and a BERT of the base size.

They are written so that every package can explain them: modules only, each used once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """Features, flattened, and a head."""

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features, self.head = features, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.features(x), 1))


def vgg16(classes: int = 1000) -> Network:
    """Simonyan & Zisserman 2015, configuration D, for 224 × 224 pictures."""
    layers: list[nn.Module] = []
    before = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if width == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
        before = width
    head = [nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, classes)]
    return Network(nn.Sequential(*layers), nn.Sequential(*head))


class BasicBlock(nn.Module):
    def __init__(self, before: int, width: int, stride: int, sum_: nn.Module | None) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.shortcut: nn.Module | None = None
        if stride > 1 or before != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        self.sum, self.relu2 = sum_, nn.ReLU()

    def skipped(self, x: Tensor) -> Tensor:
        return x if self.shortcut is None else self.shortcut(x)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(self.sum(torch.stack([y, self.skipped(x)], -1)))


class FunctionalBlock(BasicBlock):
    """The same with the sum that everyone writes."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.skipped(x))


def resnet18(classes: int = 1000, sum_: type[nn.Module] | None = None) -> Network:
    """He et al. 2016. Residual sums are `+`, or a module of type `sum_` that sums over a last dimension."""
    block = FunctionalBlock if sum_ is None else BasicBlock
    stages: list[nn.Module] = []
    before = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for step in (stride, 1):
            stages.append(block(before, width, step, None if sum_ is None else sum_()))
            before = width
    stem = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return Network(nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1)), nn.Linear(512, classes))


def trained_like(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and batch norm statistics that keep the scale of activations, as training does."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.05, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.0, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.8, 1.2, generator=generator)
    return model.eval()


def bert(layers: int = 12, attention: str = "sdpa") -> Any:
    """A BERT classifier of the base size (Devlin et al. 2019)."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=layers, num_labels=2, attn_implementation=attention)
    return BertForSequenceClassification(config).eval()


def pictures(batch: int) -> Tensor:
    return torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def tokens(batch: int, length: int = 128) -> dict[str, Tensor]:
    ids = torch.randint(1000, 30000, (batch, length), generator=torch.Generator().manual_seed(2))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
