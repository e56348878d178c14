"""The map that is tested: an Explanation, or plain tensors of values in the shape of the inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from apportion.core.calling import Model
from apportion.core.inputs import Inputs, Values
from apportion.core.numbers import check_dense
from apportion.core.settings import checked
from apportion.core.target import Target
from apportion.core.trees import all_finite, map_tensors, tensors_in
from apportion.errors import InputError, check_seed
from apportion.results.explanation import Explanation

Map = Explanation | Values
AnyMap = TypeVar("AnyMap", bound=Map)


def values_of(explanation: Map, inputs: Inputs) -> dict[Any, Tensor]:
    """The values at each explained input, in its shape: key (None for a single tensor, place, name) → tensor.

    Maps that leave out the channels, (batch, …) or (batch, 1, …), are shared by them equally. Raises
    InputError for a map of another shape, and for NaN or infinite values.
    """
    values = explanation.values if isinstance(explanation, Explanation) else explanation
    given, asked = _items(values), _items(inputs)
    found = {}
    for key, value in given.items():
        if key not in asked:
            names = ", ".join(repr(k) for k in asked)
            if key is None:
                raise InputError(
                    f"the map is one tensor, but the inputs are {names}; accepted: a map for each that is "
                    f"explained, such as {{{next(iter(asked))!r}: values}}"
                )
            raise InputError(f"the map has values for {key!r}, but the inputs are {names}")
        if not isinstance(value, Tensor | np.ndarray):
            raise InputError(f"the map holds {type(value).__name__}; accepted: an Explanation or tensors")
        value = torch.as_tensor(value)
        if value.is_complex():
            raise InputError(f"the map has type {value.dtype}; accepted: real numbers")
        found[key] = _fit_shape(value, asked[key])
    if not found:
        raise InputError("the map holds no values")
    return found


def values_in_rows(explanation: Map, inputs: Inputs) -> Tensor:
    """All values of each sample in one row, (batch, entries), padding included."""
    return torch.cat([values.flatten(1) for values in values_of(explanation, inputs).values()], 1)


def _items(tree: Any) -> dict[Any, Any]:
    if isinstance(tree, Mapping):
        return dict(tree)
    return dict(enumerate(tree)) if isinstance(tree, tuple | list) else {None: tree}


def _fit_shape(value: Tensor, x: Tensor) -> Tensor:
    shape = tuple(value.shape)
    check_dense("the map", value)
    if not value.is_floating_point():
        value = value.to(torch.float32)
    # Too coarse, and for half too small, for the sum of a large feature.
    if value.dtype in (torch.half, torch.bfloat16):
        value = value.float()
    if value.dim() == x.dim() - 1 and x.dim() > 2 and value.shape == x.shape[:1] + x.shape[2:]:
        value = value[:, None]
    fits = value.dim() == x.dim() and value.shape[0] == x.shape[0]
    fits = fits and all(a in (1, b) for a, b in zip(value.shape, x.shape, strict=True))
    if not fits:
        raise InputError(
            f"the map has shape {shape}, but the inputs have {tuple(x.shape)}; accepted: the same shape"
            + (", with or without the channels" if x.dim() > 2 else "")
        )
    if not all_finite(value):
        where = (~value.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
        raise InputError(
            f"the map has NaN or infinite values for samples {where[:5]}; there is no order in it"
        )
    value = value.detach().to(x.device)
    copies = x[0].numel() // max(1, value[0].numel())
    return value if copies == 1 else (value / copies).expand(x.shape)


def target_of(explanation: Map, target: Target) -> Target:
    """The target that was given, or else the one that was explained."""
    if target is not None or not isinstance(explanation, Explanation):
        return target
    if isinstance(explanation.target, Tensor):
        return explanation.target
    raise InputError(
        f"the explanation is of {explanation.target}, which is not kept in it; give the same target to the test"
    )


def method_of(explanation: Map, test: object) -> Any:
    """The method that made a map, for tests that explain again."""
    if not isinstance(explanation, Explanation):
        raise InputError(
            f"{type(test).__name__} explains again, so it needs an Explanation with its method; tensors were given"
        )
    return explanation.method


@dataclass(frozen=True)
@checked
class RandomMap:
    """A map of independent numbers, uniform between −1 and 1: what a method that knows nothing would give.

    Attributes:
        seed (int, default 0): Seed of the numbers.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def __call__(self, model: Model, inputs: Inputs, target: Target = None) -> Explanation:
        return _make_explanation(self, model, inputs, target)

    def values(self, like: Values) -> Values:
        generator = torch.Generator().manual_seed(self.seed)
        drawn: Values = map_tensors(
            like, lambda v: (2 * torch.rand(v.shape, generator=generator, dtype=torch.float64) - 1).to(v)
        )
        return drawn


@dataclass(frozen=True)
@checked
class UniformMap:
    """The same number everywhere: a map that does not choose. Tests that need an order take the mean over several."""

    def __call__(self, model: Model, inputs: Inputs, target: Target = None) -> Explanation:
        return _make_explanation(self, model, inputs, target)

    def values(self, like: Values) -> Values:
        ones: Values = map_tensors(like, torch.ones_like)
        return ones


@dataclass(frozen=True)
@checked
class Reversed:
    """The map of another method times −1: the opposite of what that method says.

    Attributes:
        method (method): The method whose map is turned.
    """

    method: Any

    def __call__(self, model: Model, inputs: Inputs, target: Target = None, **known: Any) -> Explanation:
        made: Explanation = self.method(model, inputs, target, **known)
        return replace(made, values=self.values(made.values), method=Reversed(made.method), total=None)

    def values(self, like: Values) -> Values:
        turned: Values = map_tensors(like, torch.neg)
        return turned


def references(explanation: AnyMap, seed: int = 0) -> dict[str, AnyMap]:
    """Make the maps that every table has beside the methods: `random`, `uniform`, and `reversed` of a map.

    They have the target, the output and the features of an explanation. A test on which a method does not do better
    than these tells nothing about it.

    Args:
        explanation (Explanation or Tensor): The map to turn, and the shape of the others.
        seed (int, default 0): Seed of the random map.

    >>> import apportion as ap
    >>> e = ap.InputXGradient()(torch.nn.Linear(2, 2), torch.ones(1, 2))
    >>> list(references(e)), bool((references(e)["reversed"].values == -e.values).all())
    (['random', 'uniform', 'reversed'], True)
    """
    made: dict[str, RandomMap | UniformMap | Reversed] = {
        "random": RandomMap(seed),
        "uniform": UniformMap(),
        "reversed": Reversed(getattr(explanation, "method", None)),
    }
    if not isinstance(explanation, Explanation):
        numbers = map_tensors(explanation, lambda t: t if t.is_floating_point() else t.float())
        return {name: cast("AnyMap", way.values(numbers)) for name, way in made.items()}
    return {
        name: replace(
            explanation, values=way.values(explanation.values), method=way, total=None, ledger=None, notes={}
        )
        for name, way in made.items()
    }


def _make_explanation(
    way: RandomMap | UniformMap, model: Model, inputs: Inputs, target: Target
) -> Explanation:
    """A map that needs only the shape of the inputs, of the numbers' type of the scores."""
    from apportion.engines.masking.engine import Masking

    masking = Masking(model, inputs, target)
    like: Any = {part.key: torch.zeros(part.x.shape).to(masking.score) for part in masking.parts}
    if isinstance(masking.inputs, Tensor):
        like = like[None]
    elif isinstance(masking.inputs, tuple):
        like = tuple(like.get(i, torch.zeros(t.shape)) for i, t in enumerate(tensors_in(masking.inputs)))
    return masking.explanation(way, way.values(like), total=None)
