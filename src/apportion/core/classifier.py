"""A model with its preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from apportion.core.features import Features
from apportion.core.inputs import Inputs
from apportion.core.trees import map_tensors
from apportion.errors import InputError


@dataclass(frozen=True, repr=False)
class Classifier:
    """A model with its preprocessing.

    Calling a classifier calls its model, so it can be given wherever a model can.

    Attributes:
        model (callable): The model.
        encode (callable): Turns one raw input into a batch of one and its features.
        labels (tuple of str): Names of the classes.
        domain (str): "text", "image" or "tabular".
        name (str): What a person calls it.
        mask (int, default None): Token id that stands for a hidden word (text only); None: there is none.
        panels (callable, default None): `panels(raw, target=None, top=10)` gives the reasons of a decision as plain
            data, where these are patches of training pictures (`ProtoPNet.panels`); None: they are not.
    """

    model: Callable[..., Any]
    encode: Callable[[Any], tuple[Inputs, Features]]
    labels: tuple[str, ...]
    domain: Literal["text", "image", "tabular"]
    name: str
    mask: int | None = None
    panels: Callable[..., list[dict[str, Any]]] | None = None

    def __repr__(self) -> str:
        classes = ", ".join(self.labels[:4]) or "scores"
        more = f" and {len(self.labels) - 4} more" if len(self.labels) > 4 else ""
        return f"Classifier {self.name!r}: {self.domain} → {classes}{more}"

    def prepared(self, raw: Any) -> tuple[Inputs, Features]:
        """What `encode` gives, on the device of the model."""
        inputs, features = self.encode(raw)
        weight = next(self.model.parameters(), None) if isinstance(self.model, nn.Module) else None
        if weight is not None:
            inputs = map_tensors(inputs, lambda t: t.to(weight.device))
        return inputs, features

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], str | Path | list):
            raise InputError(
                f"{self.name} was called with {args[0]!r:.40}; accepted: what its `encode` gives; "
                "apportion.explain(classifier, input) takes inputs as they are"
            )
        return self.model(*args, **kwargs)
