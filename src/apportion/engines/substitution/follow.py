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
_JOINS = frozenset({"cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"})


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

    def origin_of(t: Tensor) -> Tensor:
        known: Tensor | None = origins.get(t)
        if known is not None:
            return known
        if t.is_floating_point() != probing or t.dtype == torch.bool or not _is_content(call, t):
            return t
        return t.new_zeros(t.shape) if probing else torch.full_like(t, -1)

    args, kwargs = map_tensors(call.args, origin_of), map_tensors(call.kwargs, origin_of)
    if call.name == "setitem":
        target, place, value = args
        fresh = target.clone()
        fresh[place] = value if isinstance(value, Tensor) else 0.0 if probing else -1
        origins[first] = fresh
        return
    for output, origin in zip(tensors_in(result), tensors_in(call.function(*args, **kwargs)), strict=True):
        if output is not origin and output.shape == origin.shape and origins.get(output) is None:
            origins[output] = origin


def _is_content(call: Call, tensor: Tensor) -> bool:
    """Whether a tensor argument of a move holds entries that are moved, not indices that say where."""
    if call.name == "setitem":
        return tensor.is_floating_point() or tensor is call.args[0] or tensor is call.args[2]
    return call.name in _JOINS or tensor is (call.args[0] if call.args else call.kwargs.get("input"))


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
