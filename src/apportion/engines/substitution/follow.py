"""Which feature each entry of a tensor is, followed through what a model does with its input before it computes.

The origins of an integer tensor are, entry by entry, positions in the token ids (-1: none); those of a floating-point
tensor are a zero probe of its shape, whose gradient is what arrives at the input's entries.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from apportion.core.trees import map_tensors, tensors_in
from apportion.engines.substitution.call import Call, Run
from apportion.engines.substitution.function_names import MOVES
from apportion.errors import InputError

# Re-scaling an input by constants leaves each entry the same feature; so does arithmetic with token ids, and looking
# them up in a table.
_AFFINE = frozenset({"add", "sub", "mul", "div", "dropout", "clamp"})
_OF_IDS = _AFFINE | frozenset(
    """neg rsub remainder fmod floor_divide maximum minimum where masked_fill clamp_min clamp_max abs bitwise_and
    bitwise_or bitwise_xor getitem take gather index_select index""".split()
)
_JOINS = frozenset(
    "cat concat concatenate stack hstack vstack dstack column_stack row_stack pad_sequence meshgrid".split()
)


def follow(call: Call, result: Any) -> None:
    """Give the result of a call the origins of what it was made from, if it still is the input alone."""
    origins = call.run.explained.origins
    followed = [t for t in tensors_in((call.args, call.kwargs)) if origins.get(t) is not None]
    if not followed:
        return
    probing = followed[0].is_floating_point()
    outputs = [t for t in tensors_in(result) if t.is_floating_point() == probing and t.dtype != torch.bool]
    if outputs and call.name in MOVES and any(_is_content(call, t) for t in followed):
        _move(call, result, outputs[0], probing)
    elif len(followed) == 1 and call.name in (_AFFINE if probing else _OF_IDS):
        if probing and any(t is not followed[0] for t in call.actives):
            return  # partly something else: no longer the input alone
        known = origins.get(followed[0])
        for output in outputs:
            if output.shape == known.shape:
                origins[output] = known


def _move(call: Call, result: Any, first: Tensor, probing: bool) -> None:
    origins = call.run.explained.origins
    contents = [t for t in tensors_in((call.args, call.kwargs)) if _is_content(call, t)]
    if probing and any(origins.get(t) is None for t in contents):
        return  # partly something else: no longer the input alone

    def moved(shift: int) -> list[Tensor]:
        """Where the origins go, and what is put beside them; positions are shifted."""

        def origin_of(t: Tensor) -> Tensor:
            if not _is_content(call, t):
                return t
            known: Tensor | None = origins.get(t)
            if known is not None:
                return known + shift if shift else known
            if t.is_floating_point() != probing or t.dtype == torch.bool:
                return t
            return t.new_zeros(t.shape) if probing else torch.full_like(t, -1)

        args, kwargs = map_tensors(call.args, origin_of), map_tensors(call.kwargs, origin_of)
        if call.name != "setitem":
            return list(tensors_in(call.function(*args, **kwargs)))
        target, place, value = args
        fresh = target.clone()
        fresh[place] = value if isinstance(value, Tensor) else 0.0 if probing else -1
        return [fresh]

    outputs = [first] if call.name == "setitem" else list(tensors_in(result))
    found = moved(0)
    if not probing and call.name in FILLS:
        # The model's own numbers, such as padding, look like positions: they do not move with these.
        found = [torch.where(s - f == _SHIFT, f, -1) for f, s in zip(found, moved(_SHIFT), strict=True)]
    for output, origin in zip(outputs, found, strict=True):
        if output is not origin and output.shape == origin.shape and output not in origins:
            origins[output] = origin


_SHIFT = 1 << 40

# Where in the call the tensor is that is written into the first one.
_SOURCES = {
    "setitem": (2, "value"),
    "scatter": (3, "src"),
    "index_copy": (3, "tensor"),
    "index_put": (2, "values"),
    "masked_scatter": (2, "source"),
    "slice_scatter": (1, "src"),
    "select_scatter": (1, "src"),
}

# Moves that may put numbers of the model's own beside what they move.
FILLS = frozenset(_SOURCES) | frozenset(
    "pad constant_pad_nd pad_sequence _pad_packed_sequence tril triu diag unflatten_dense_tensors im2col".split()
)


def _is_content(call: Call, tensor: Tensor) -> bool:
    """Whether a tensor argument of a move holds entries that are moved, not indices that say where."""
    place, name = _SOURCES.get(call.name, (0, "input"))
    if call.name in _JOINS or tensor is (call.args[0] if call.args else call.kwargs.get("input")):
        return True
    return place > 0 and tensor is (call.args[place] if len(call.args) > place else call.kwargs.get(name))


def embed(call: Call) -> Any:
    """The embedding of token ids whose origins are known, handed to `explained.lookup`; None for all others."""
    run, lookup = call.run, call.run.explained.lookup
    ids = next(
        (t for t in tensors_in((call.args, call.kwargs)) if run.explained.origins.get(t) is not None), None
    )
    if ids is None or lookup is None:
        return None
    if call.name == "embedding_bag":
        return _embedding_bag(run, ids, *call.args, **call.kwargs)
    return lookup(call.native(), run.explained.origins.get(ids))


def _embedding_bag(run: Run, ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The same sum or mean, computed from embeddings of their own, each of which can be explained."""
    names = (
        "input weight offsets max_norm norm_type scale_grad_by_freq mode sparse per_sample_weights "
        "include_last_offset padding_idx"
    ).split()
    bound = {**dict(zip(names, args, strict=False)), **kwargs}
    if bound["weight"] is ids:  # torch.embedding_bag takes the weight first and the mode as a number
        bound["input"], bound["weight"] = bound["weight"], bound["input"]
    mode, padding = bound.get("mode", "mean"), bound.get("padding_idx")
    if mode not in ("sum", "mean"):
        raise InputError(f"the model has an embedding_bag with mode={mode!r}; accepted: 'sum' or 'mean'")
    norm = {"max_norm": bound.get("max_norm"), "norm_type": bound.get("norm_type", 2.0)}
    rows = run.again(torch.nn.functional.embedding, ids, bound["weight"], **norm)
    weights = bound.get("per_sample_weights")
    if weights is not None:
        rows = run.again(torch.mul, rows, weights.unsqueeze(-1))
    if ids.dim() == 2:
        bags = torch.ones_like(ids, dtype=rows.dtype)[:, None]
    else:
        begins = bound["offsets"][:-1] if bound.get("include_last_offset") else bound["offsets"]
        ends = torch.cat([begins[1:], begins.new_tensor([len(ids)])])
        place = torch.arange(len(ids), device=ids.device)
        bags = ((place >= begins[:, None]) & (place < ends[:, None])).to(rows.dtype)
    if padding is not None:
        bags = bags * (ids[:, None] != padding if ids.dim() == 2 else ids != padding)
    if mode == "mean":
        bags = bags / bags.sum(-1, keepdim=True).clamp(min=1)
    sums = run.again(torch.matmul, bags, rows)
    return run.again(torch.squeeze, sums, 1) if ids.dim() == 2 else sums  # type: ignore[no-any-return]
