"""What goes into a model: tensors with one batch dimension, of which some are explained and some held constant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import TypeVar

from apportion.core.numbers import check_dense, tensor_of
from apportion.core.trees import all_finite, keyed
from apportion.errors import InputError

Inputs = Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]
"""What a model is given."""

Values = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
"""A number for each entry of the inputs, in their form."""

Given = TypeVar("Given", bound=Inputs)
"""The form of the inputs of a call, which is that of its values."""


# Keyword inputs of `transformers` models that say how to read the input.
_SIDE_INPUTS = frozenset(
    "attention_mask token_type_ids position_ids head_mask decoder_attention_mask langs bbox labels "
    "pixel_mask padding_mask global_attention_mask".split()
)


class Held(Tensor):
    """A tensor that is marked as `held`; so is what is cut, repeated or put together of such."""


def held(tensor: Tensor | np.ndarray) -> Tensor:
    """Mark an input that is held constant: the model gets it as it is, with the samples that are run.

    Masks need no mark, nor do whole numbers by the names of positions or types. What is held is not explained, not
    hidden and not moved to a baseline; it has one row a sample, or one for all.

    >>> import apportion as ap
    >>> x, weights = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 10.0], [100.0, 0.0]])
    >>> ap.Occlusion()(lambda x, w: (x * w).sum(1), (x, ap.held(weights))).values[0].tolist()
    [[1.0, 20.0], [300.0, 0.0]]
    """
    if isinstance(tensor, np.ndarray):
        tensor = tensor_of("held", tensor)
    if not isinstance(tensor, Tensor) or not tensor.dim():
        came = "a number" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise InputError(
            f"held got {came}; accepted: a tensor or an array with one row a sample, or one for all"
        )
    check_dense("held", tensor)
    return tensor.detach().as_subclass(Held)


def unmarked(tensor: Tensor) -> Tensor:
    """The same tensor without a mark, as a model is given it."""
    return tensor.as_subclass(Tensor) if isinstance(tensor, Held) else tensor


def is_side(key: Any, tensor: Tensor) -> bool:
    """Whether an input is held constant: what is marked so, masks (booleans, or floating-point ones by their names),
    and integers that go by the names of positions, types or labels."""
    if isinstance(tensor, Held):
        return True
    known = key in _SIDE_INPUTS and (key.endswith("mask") or not tensor.is_floating_point())
    return known or tensor.dtype == torch.bool


def checked_inputs(inputs: Any, missing: bool = False) -> Inputs:
    """Tensors with one batch dimension in common, detached from any graph; with `missing`, NaN is a value."""
    if hasattr(inputs, "data") and isinstance(inputs, Mapping) and not isinstance(inputs, dict):
        inputs = dict(inputs)
    if not isinstance(inputs, Tensor | tuple | Mapping):
        raise InputError(
            f"inputs is {type(inputs).__name__}; accepted: a tensor, or a tuple or dict of tensors{_as_numbers(inputs)}"
        )
    items = keyed(inputs)
    if not items or not all(isinstance(t, Tensor) for _, t in items):
        raise InputError("inputs must hold tensors only, at least one")
    for key, tensor in items:
        check_dense("inputs" if key is None else f"input {key!r}", tensor)
    explained = [(key, t) for key, t in items if not is_side(key, t)] or items
    sizes = {t.shape[0] if t.dim() else None for _, t in explained}
    batch = sizes.pop() if len(sizes) == 1 else None
    # A mask or the positions may be the same for all samples.
    if not batch or not all(
        t.dim() and (t.shape[0] == batch or (is_side(k, t) and len(t) == 1)) for k, t in items
    ):
        shapes = [tuple(t.shape) for _, t in items]
        raise InputError(
            f"inputs have shapes {shapes}; accepted: one batch dimension in common, at least one sample; a graph is "
            "one sample x[None] for lambda rows: torch.cat([model(row, edges) for row in rows])"
            if len(shapes) > 1 and all(len(shape) > 0 for shape in shapes)
            else f"inputs have shapes {shapes}; accepted: one batch dimension in common, at least one sample"
        )
    for key, tensor in explained:
        if not all_finite(tensor) and not (missing and not bool(tensor.isinf().any())):
            what = "inputs contain" if key is None else f"input {key!r} contains"
            raise InputError(
                f"{what} {'' if missing else 'NaN or '}infinite numbers{'' if missing else _MISSING}"
            )
    return rekeyed(
        inputs, lambda _, t: t.detach() if len(t) == batch else t.detach().expand(batch, *t.shape[1:])
    )


_MISSING = (
    "; missing values as NaN are taken from functions that are no torch module, such as a forest's predict_proba, by "
    "methods that hide features: Occlusion, LIME, KernelSHAP"
)


def _as_numbers(given: Any) -> str:
    """How what was given becomes tensors, where that is known."""
    if isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], str)):
        return "; a text for a function of texts goes to apportion.explain(function, text, method), one at a time"
    if hasattr(given, "columns") and hasattr(given, "iloc"):
        return "; a function of arrays, as of a forest, takes frame.to_numpy(), one that wants a frame makes it itself"
    if hasattr(given, "iloc"):
        return "; one row for a function of arrays is row.to_numpy()[None]"
    if hasattr(given, "toarray"):
        return "; for a function of arrays its toarray()"
    if isinstance(given, np.ndarray):
        return ", such as torch.from_numpy(x); methods that hide features take arrays too, for functions of arrays"
    return (
        ", such as torch.tensor(rows), or np.array(rows) for a function of arrays"
        if isinstance(given, list)
        else ""
    )


def explained_alone(inputs: Any) -> Tensor | None:
    """The one tensor of some inputs that is explained; None if there are others."""
    if isinstance(inputs, Tensor):
        return inputs
    items = keyed(inputs) if isinstance(inputs, tuple | Mapping) else []
    found = [t for key, t in items if isinstance(t, Tensor) and not is_side(key, t)]
    return found[0] if len(found) == 1 else None


def rekeyed(inputs: Inputs, change: Callable[[Any, Tensor], Tensor]) -> Inputs:
    """Inputs of the same form, of which each tensor is changed with its key in view."""
    if isinstance(inputs, Tensor):
        return change(None, inputs)
    if isinstance(inputs, Mapping):
        return {key: change(key, t) for key, t in inputs.items()}
    return tuple(change(i, t) for i, t in enumerate(inputs))


def rows_of(inputs: Inputs, rows: Tensor) -> Inputs:
    """The inputs of these samples; on a CPU several times faster than indexing with the rows."""
    return rekeyed(inputs, lambda _, t: t.index_select(0, rows.to(t.device)))


FEW = 1 << 14
"""Numbers of a row below which several run side by side in less time than one after the other."""

_WIDTH = 512  # about as many numbers are looked up for a token


def runs_once(inputs: Inputs, few: int = FEW) -> bool:
    """Whether all rows are one row in memory, as of `x.expand(3, -1)`, of at least so many numbers.

    >>> row = torch.zeros(1, 20_000)
    >>> runs_once(row.expand(3, -1)), runs_once(row.repeat(3, 1)), runs_once(row[:, :30].expand(3, -1))
    (True, False, False)
    """
    items = keyed(inputs)
    explained = [t[0] for key, t in items if not is_side(key, t)]
    size = sum(row.numel() * (1 if row.is_floating_point() else _WIDTH) for row in explained)
    return size >= few and all(len(t) == 1 or t.stride(0) == 0 for _, t in items)


def placed(found: Mapping[Any, Tensor], inputs: Inputs) -> Values:
    """Values by key in the form of the inputs; zero in a tuple for an input that has none."""
    if isinstance(inputs, Tensor):
        return found[None]
    if isinstance(inputs, tuple):
        return tuple(found.get(i, torch.zeros(t.shape, device=t.device)) for i, t in enumerate(inputs))
    return {str(key): found[key] for key in inputs if key in found}


def offsets_of(inputs: Inputs) -> dict[Any, tuple[int, Tensor]]:
    """Where the flat positions of each integer input begin, so that all are distinct."""
    begin, found = 0, {}
    for key, tensor in keyed(inputs):
        if not tensor.is_floating_point():
            found[key] = (begin, tensor)
            begin += tensor.numel()
    return found
