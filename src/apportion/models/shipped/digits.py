"""The shipped model of handwritten digits (MNIST): a small convolutional network.

Plain modules with biases and ReLU only, so that every method applies to it; made by
`training/train_digits.py`.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from apportion.core.classifier import Classifier
from apportion.domains.image import ImagePreparation

WEIGHTS = Path(__file__).parent / "weights" / "digits.safetensors"

# Strokes are light on a background of exactly 0, so that a zero baseline is an empty page.
PREPARATION = ImagePreparation(resize=None, crop=None, accept=(28, 28), mean=(0.0,), std=(1.0,))


class DigitsNet(nn.Module):
    """Two 3x3 convolutions, a pooling, a linear layer: (batch, 1, 28, 28) in [0, 1] to (batch, 10) scores.

    >>> import torch
    >>> DigitsNet()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 12 * 12, 10),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        scores: Tensor = self.layers(pictures)
        return scores


def digits() -> Classifier[Tensor]:
    """The shipped MNIST classifier; its `encode` takes a 28x28 picture (file, PIL image, array or tensor).

    Strokes are light on a black background, as in MNIST; other sizes raise ValueError. Scores are before
    softmax.

    >>> import numpy as np
    >>> one = np.zeros((28, 28), dtype=np.uint8)
    >>> one[4:24, 13:15] = 255
    >>> classifier = digits()
    >>> inputs, features = classifier.encode(one)
    >>> inputs.shape, classifier.labels[int(classifier.model(inputs).argmax())]
    (torch.Size([1, 1, 28, 28]), '1')
    """
    model = DigitsNet()
    model.load_state_dict(load_file(WEIGHTS))
    return Classifier(
        model=model.eval().requires_grad_(False),
        encode=PREPARATION,
        labels=tuple("0123456789"),
        domain="image",
        name="digits",
    )
