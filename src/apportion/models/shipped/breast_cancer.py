"""A small network for rows of a table, and the breast cancer model that ships with the package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn

from apportion.core.classifier import Classifier
from apportion.core.files import stored
from apportion.domains.tabular import TabularPreparation

WEIGHTS = Path(__file__).parent / "weights" / "breast_cancer.safetensors"


class MLP(nn.Module):
    """Linear layers with ReLU between them: (batch, inputs) to (batch, classes) scores before softmax.

    >>> import torch
    >>> MLP(4, (8,), 3)(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """

    def __init__(self, inputs: int, hidden: Sequence[int], classes: int) -> None:
        super().__init__()
        sizes = (inputs, *hidden)
        layers: list[nn.Module] = []
        for width, next_width in pairwise(sizes):
            layers += [nn.Linear(width, next_width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], classes))

    def forward(self, rows: Tensor) -> Tensor:
        scores: Tensor = self.layers(rows)
        return scores


def breast_cancer() -> Classifier[Tensor]:
    """The shipped tabular classifier: malignant or benign from 30 measurements of cell nuclei.

    Trained on scikit-learn's breast cancer set (Wisconsin, Street et al. 1993). Its `encode` takes a row
    with that set's column names (a dict, a pandas row) or the 30 values in order, and standardises it: 0 is
    the training mean.

    >>> classifier = breast_cancer()
    >>> means = {column.name: column.mean for column in classifier.encode.columns}
    >>> inputs, features = classifier.encode(means)
    >>> inputs.shape, inputs.abs().max().item(), features.columns[0], classifier.labels
    (torch.Size([1, 30]), 0.0, 'mean radius', ('malignant', 'benign'))
    """
    notes, state = stored(WEIGHTS)
    preparation = TabularPreparation.from_json(notes["preparation"])
    labels: list[str] = json.loads(notes["labels"])
    hidden: list[int] = json.loads(notes["hidden"])
    model = MLP(sum(column.size for column in preparation.columns), hidden, len(labels))
    model.load_state_dict(state)
    return Classifier(
        model=model.eval().requires_grad_(False),
        encode=preparation,
        labels=tuple(labels),
        domain="tabular",
        name="breast-cancer",
    )
