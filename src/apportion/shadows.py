"""Which feature each entry of a tensor is, followed through what a model does with its input before it computes.

The shadow of an integer tensor holds, entry by entry, positions in the token ids (-1: none); that of a
floating-point tensor is a zero probe of its shape, whose gradient is what arrives at the input's entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.identity import MOVES
from apportion.trees import map_tensors, tensors_in

if TYPE_CHECKING:
    from apportion.substitution import Call, Substitution

# Re-scaling an input by constants leaves each entry the same feature; so does arithmetic with token ids, and looking
# them up in a table.
_AFFINE = frozenset({"add", "sub", "mul", "div", "dropout", "clamp"})
_OF_IDS = _AFFINE | frozenset(
    """neg rsub remainder fmod floor_divide maximum minimum where masked_fill clamp_min clamp_max abs bitwise_and
    bitwise_or bitwise_xor getitem take gather index_select index""".split()
)
_JOINS = frozenset({"cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"})


def follow(call: Call, result: Any) -> None:
    """Give the result of a call the shadow of what it was made from, if it still is the input alone."""
    shadows = call.run.shadows
    shadowed = [t for t in tensors_in((call.args, call.kwargs)) if shadows.get(t) is not None]
    if not shadowed:
        return
    probing = shadowed[0].is_floating_point()
    outputs = [t for t in tensors_in(result) if t.is_floating_point() == probing and t.dtype != torch.bool]
    if outputs and call.name in MOVES and any(_is_content(call, t) for t in shadowed):
        _move(call, result, outputs[0], probing)
    elif len(shadowed) == 1 and call.name in (_AFFINE if probing else _OF_IDS):
        if probing and any(t is not shadowed[0] for t in call.actives):
            return  # partly something else: no longer the input alone
        known = shadows.get(shadowed[0])
        for output in outputs:
            if output.shape == known.shape:
                shadows[output] = known


def _move(call: Call, result: Any, first: Tensor, probing: bool) -> None:
    shadows = call.run.shadows
    contents = [t for t in tensors_in((call.args, call.kwargs)) if _is_content(call, t)]
    if probing and any(shadows.get(t) is None for t in contents):
        return  # partly something else: no longer the input alone

    def shadow_of(t: Tensor) -> Tensor:
        known: Tensor | None = shadows.get(t)
        if known is not None:
            return known
        if t.is_floating_point() != probing or t.dtype == torch.bool or not _is_content(call, t):
            return t
        return t.new_zeros(t.shape) if probing else torch.full_like(t, -1)

    args, kwargs = map_tensors(call.args, shadow_of), map_tensors(call.kwargs, shadow_of)
    if call.name == "setitem":
        target, place, value = args
        fresh = target.clone()
        fresh[place] = value if isinstance(value, Tensor) else 0.0 if probing else -1
        shadows[first] = fresh
        return
    for output, shadow in zip(tensors_in(result), tensors_in(call.function(*args, **kwargs)), strict=True):
        if output is not shadow and output.shape == shadow.shape and shadows.get(output) is None:
            shadows[output] = shadow


def _is_content(call: Call, tensor: Tensor) -> bool:
    """Whether a tensor argument of a move holds entries that are moved, not indices that say where."""
    if call.name == "setitem":
        return tensor.is_floating_point() or tensor is call.args[0] or tensor is call.args[2]
    return call.name in _JOINS or tensor is (call.args[0] if call.args else call.kwargs.get("input"))


def embed(call: Call) -> Any:
    """The embedding of token ids whose shadow is known, handed to `run.on_embedding`; None for all others."""
    run = call.run
    ids = next((t for t in tensors_in((call.args, call.kwargs)) if run.shadows.get(t) is not None), None)
    if ids is None or run.on_embedding is None:
        return None
    if call.name == "embedding_bag":
        return _embedding_bag(run, ids, *call.args, **call.kwargs)
    return run.on_embedding(call.native(), run.shadows.get(ids))


def _embedding_bag(run: Substitution, ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
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
