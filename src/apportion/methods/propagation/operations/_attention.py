"""Attention, written out in operations that have rules."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.core.private_torch import safe_softmax
from apportion.engines.substitution import Call
from apportion.methods.propagation._tags import tag, unruled


def attention(
    call: Call, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False, **_: Any,
) -> Any:  # fmt: skip
    """Scaled dot-product attention, as products and a softmax."""
    run = call.run
    if enable_gqa:
        key, value = (
            run.again(torch.repeat_interleave, t, query.shape[-3] // t.shape[-3], -3) for t in (key, value)
        )
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    products = run.again(torch.matmul, query, run.again(torch.transpose, key, -2, -1))  # (…, queries, keys)
    scores = run.again(torch.mul, products, scale)
    if is_causal:
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        scores = run.again(torch.Tensor.masked_fill, scores, ~ones.tril(), float("-inf"))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = run.again(torch.Tensor.masked_fill, scores, ~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = run.again(torch.add, scores, attn_mask)
    # A query that may attend to nothing gets zeros, as in the fused kernels.
    weights = run.again(torch.softmax if attn_mask is None else safe_softmax, scores, -1)
    if dropout_p:
        weights = run.again(F.dropout, weights, dropout_p)
    return run.again(torch.matmul, weights, value)  # (…, queries, width)


def attention_with_statistics(call: Call, *args: Any, **kwargs: Any) -> Any:
    """The fused kernels' operators, which return more than the output."""
    names = {"_scaled_dot_product_efficient_attention": 3, "_scaled_dot_product_cudnn_attention": 3}
    query, key, value = args[:3]
    bias = args[3] if call.name in names and len(args) > 3 else kwargs.get("attn_mask")
    rest = args[5:] if call.name in names else args[3:]
    found = attention(
        call, query, key, value, bias, is_causal=bool(kwargs.get("is_causal", rest[1] if len(rest) > 1 else False)),
        scale=kwargs.get("scale"),
    )  # fmt: skip
    return found, *([None] * 8)


def multi_head_attention(
    call: Call, query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int, in_proj_weight: Any,
    in_proj_bias: Any, bias_k: Any, bias_v: Any, add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor,
    out_proj_bias: Any, training: bool = True, key_padding_mask: Any = None, need_weights: bool = True,
    attn_mask: Any = None, use_separate_proj_weight: bool = False, q_proj_weight: Any = None, k_proj_weight: Any = None,
    v_proj_weight: Any = None, static_k: Any = None, static_v: Any = None, average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Any:  # fmt: skip
    """`nn.MultiheadAttention`: projections, attention per head, projection; inputs are (length, batch, width)."""
    run = call.run
    again = run.again
    if bias_k is not None or add_zero_attn or static_k is not None or static_v is not None:
        return unruled(call)
    batched = query.dim() == 3
    if not batched:
        query, key, value = (again(torch.unsqueeze, t, 1) for t in (query, key, value))
    width = query.shape[-1]
    weights = (
        (q_proj_weight, k_proj_weight, v_proj_weight)
        if use_separate_proj_weight
        else in_proj_weight.split(width)
    )
    biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.split(width)

    def heads(t: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        projected = again(F.linear, t, w, b)  # (length, batch, width)
        split = again(torch.Tensor.view, projected, t.shape[0], t.shape[1], num_heads, width // num_heads)
        return again(torch.permute, split, (1, 2, 0, 3))  # type: ignore[no-any-return]

    q, k, v = (heads(t, w, b) for t, w, b in zip((query, key, value), weights, biases, strict=True))
    mask = _add_masks(attn_mask, key_padding_mask, q, k, num_heads)
    scores = again(
        torch.matmul, again(torch.mul, q, 1 / math.sqrt(q.shape[-1])), again(torch.transpose, k, -2, -1)
    )
    scores = scores if mask is None else again(torch.add, scores, mask)
    weight = again(torch.softmax, scores, -1)  # (batch, heads, queries, keys)
    if dropout_p and training:
        weight = again(F.dropout, weight, dropout_p)
    mixed = again(torch.permute, again(torch.matmul, weight, v), (2, 0, 1, 3))  # (queries, batch, heads, …)
    out = again(
        F.linear,
        again(torch.reshape, mixed, (query.shape[0], query.shape[1], width)),
        out_proj_weight,
        out_proj_bias,
    )
    shown = None
    if need_weights:
        shown = tag(call, again(torch.mean, weight, 1), "gate") if average_attn_weights else weight
    if not batched:
        return again(torch.squeeze, out, 1), None if shown is None else again(torch.squeeze, shown, 0)
    return out, shown


def _add_masks(attn_mask: Any, padding: Any, q: Tensor, k: Tensor, heads: int) -> Tensor | None:
    """Masks as an additive (batch, heads, queries, keys) bias."""
    bias = None
    for mask, shape in ((attn_mask, None), (padding, (q.shape[0], 1, 1, k.shape[2]))):
        if mask is None:
            continue
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, float("-inf"))
        if shape is not None:
            mask = mask.view(shape)
        elif mask.dim() == 3:
            mask = mask.view(-1, heads, mask.shape[1], mask.shape[2])
        bias = mask if bias is None else bias + mask
    return bias
