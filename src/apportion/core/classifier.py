"""A model with its preprocessing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from apportion.core.features import Features
from apportion.core.inputs import Inputs
from apportion.core.numbers import holds
from apportion.core.trees import map_tensors
from apportion.core.visible import visible
from apportion.errors import InputError

Encoded = TypeVar("Encoded", bound=Inputs, covariant=True, default=Inputs)
"""What `encode` gives: a tensor, or several in a tuple or dict."""


@dataclass(frozen=True, repr=False)
class Classifier(Generic[Encoded]):
    """A model with its preprocessing.

    Calling a classifier calls its model, so it can be given wherever a model can.

    Attributes:
        model (callable): The model.
        encode (callable): Turns one raw input into a batch of one and its features.
        labels (tuple of str): Names of the classes.
        domain (str): "text", "image" or "tabular".
        name (str): What a person calls it.
        mask (int or Tensor, default None): What stands for what is hidden: the id of a token, or rows of data,
            (rows, …) like encoded inputs, of which hidden columns take their values; None: nothing is known.
        panels (callable, default None): `panels(raw, target=None, top=10)` gives the reasons of a decision as plain
            data, where these are patches of training pictures (`ProtoPNet.panels`); None: they are not.
    """

    model: Callable[..., Any]
    encode: Callable[[Any], tuple[Encoded, Features]]
    labels: tuple[str, ...]
    domain: Literal["text", "image", "tabular"]
    name: str
    mask: int | Tensor | None = None
    panels: Callable[..., list[dict[str, Any]]] | None = None

    def __repr__(self) -> str:
        classes = ", ".join(self.labels[:4]) or "scores"
        more = f" and {len(self.labels) - 4} more" if len(self.labels) > 4 else ""
        return visible(f"Classifier {self.name!r}: {self.domain} → {classes}{more}")

    def is_encoded(self, inputs: Any) -> bool:
        """True if these are tensors for the model; False for a raw input, which may be a picture as a tensor too."""
        picture = self.domain == "image" and isinstance(inputs, Tensor) and inputs.dim() < 4
        return isinstance(inputs, Tensor | tuple | dict) and not picture

    def are_several(self, inputs: Any) -> bool:
        """True for a list of raw inputs, and not one: a row may be a list of its values, a text one of messages."""
        if not isinstance(inputs, list) or not inputs:
            return False
        if self.domain == "tabular":
            return not isinstance(inputs[0], str) and hasattr(inputs[0], "__len__")
        return self.domain == "image" or all(isinstance(each, str) for each in inputs)

    def encoded(self, raw: Any) -> tuple[Inputs, Features]:
        """What `encode` gives; of a row for a function, such as a forest, in double precision where that takes it: a
        date or a threshold is not rounded then."""
        inputs, features = self.encode(raw)
        in_double = getattr(self.encode, "in_double", None)
        if in_double is None or isinstance(self.model, nn.Module):
            return inputs, features
        double = in_double(raw)
        rounded = inputs.double() != double  # type: ignore[union-attr]
        if self._takes_double is None and bool((rounded & ~double.isnan()).any()):
            vars(self)["_takes_double known"] = self._try(double)
        if self._takes_double is False and not holds(torch.float32, double, False):
            warnings.warn(
                f"{self.name} takes float32, which rounds whole numbers of this row, such as a date or an id; take "
                "something off that column, or give a model in double precision",
                stacklevel=3,
            )
        return double if self._takes_double else inputs, features

    @property
    def _takes_double(self) -> bool | None:
        """Whether the function computes with numbers in double precision; None: that was not tried."""
        return vars(self).get("_takes_double known")

    def _try(self, double: Tensor) -> bool:
        try:
            with torch.no_grad():
                self.model(double.clone())
        except Exception as error:  # what is wrong otherwise is told when the row is explained
            return not any(word in str(error) for word in ("dtype", "scalar type", "tensor(double)"))
        return True

    def prepared(self, raw: Any) -> tuple[Inputs, tuple[Features, ...]]:
        """What `encoded` gives, on the device of the model; of several rows for an encoding that takes `several`."""
        several = getattr(self.encode, "several", None)
        if several is not None:
            return several(raw)  # type: ignore[no-any-return]
        inputs, features = self.encoded(raw)
        weight = next(self.model.parameters(), None) if isinstance(self.model, nn.Module) else None
        if weight is not None:
            inputs = map_tensors(inputs, lambda t: t.to(weight.device))
        return inputs, (features,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], str | Path | list):
            raise InputError(
                f"{self.name} was called with {args[0]!r:.40}; accepted: what its `encode` gives; "
                "apportion.explain(classifier, input) takes inputs as they are"
            )
        return self.model(*args, **kwargs)
