"""Attention and recurrent layers, written out in operations that have rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.core.private_torch import safe_softmax
from apportion.engines.substitution import Call, Run, Substitute
from apportion.methods.propagation.tags import Unruled, tag


def unruled(call: Call) -> Any:
    state: Unruled = call.run.state
    return state.unruled(call)


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
    products = run.again(torch.matmul, query, run.again(torch.transpose, key, -2, -1))
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
    return run.again(torch.matmul, weights, value)


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
        projected = again(F.linear, t, w, b)
        split = again(torch.Tensor.view, projected, t.shape[0], t.shape[1], num_heads, width // num_heads)
        return again(torch.permute, split, (1, 2, 0, 3))  # type: ignore[no-any-return]

    q, k, v = (heads(t, w, b) for t, w, b in zip((query, key, value), weights, biases, strict=True))
    mask = _attention_bias(attn_mask, key_padding_mask, q, k, num_heads)
    scores = again(
        torch.matmul, again(torch.mul, q, 1 / math.sqrt(q.shape[-1])), again(torch.transpose, k, -2, -1)
    )
    scores = scores if mask is None else again(torch.add, scores, mask)
    weight = again(torch.softmax, scores, -1)
    if dropout_p and training:
        weight = again(F.dropout, weight, dropout_p)
    mixed = again(torch.permute, again(torch.matmul, weight, v), (2, 0, 1, 3))
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


def _attention_bias(attn_mask: Any, padding: Any, q: Tensor, k: Tensor, heads: int) -> Tensor | None:
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


# ---- recurrent layers ----


def recurrent(call: Call, *args: Any, **kwargs: Any) -> Any:
    """`torch.lstm`, `gru`, `rnn_tanh` and `rnn_relu`, padded or packed, step by step.

    Each step's gates are one layer of input and state together, as in Arras et al. 2017; its gates are
    sigmoids, so that products with them give all the relevance to the signal.
    """
    run, kind = call.run, call.name
    packed = isinstance(args[3], bool) is False
    if packed:
        data, sizes, states, weights, biased, layers, dropout, train, both = args[:9]
        batch_first = False
    else:
        data, states, weights, biased, layers, dropout, train, both, batch_first = args[:9]
        data = run.again(torch.transpose, data, 0, 1) if batch_first else data
        sizes = None
    states = list(states) if isinstance(states, tuple | list) else [states]
    per_cell = len(weights) // (layers * (2 if both else 1))
    if kind == "lstm" and states[0].shape[-1] != states[1].shape[-1]:
        return unruled(call)  # projections
    steps = _steps(run, data, sizes)
    finals: list[list[Tensor]] = [[] for _ in states]
    for layer in range(layers):
        directions = []
        for direction in range(2 if both else 1):
            index = layer * (2 if both else 1) + direction
            cell = weights[index * per_cell : (index + 1) * per_cell]
            state = [run.again(torch.select, s, 0, index) for s in states]
            outputs, state = _run_direction(run, kind, steps, state, cell, biased, reverse=direction == 1)
            directions.append(outputs)
            for final, s in zip(finals, state, strict=True):
                final.append(s)
        steps = (
            directions[0]
            if len(directions) == 1
            else [run.again(torch.cat, pair, -1) for pair in zip(*directions, strict=True)]
        )
        if dropout and train and layer < layers - 1:
            steps = [run.again(F.dropout, step, dropout) for step in steps]
    out = run.again(torch.stack, steps) if sizes is None else run.again(torch.cat, steps)
    if batch_first:
        out = run.again(torch.transpose, out, 0, 1)
    return out, *(run.again(torch.stack, final) for final in finals)


def _steps(run: Run, data: Tensor, sizes: Tensor | None) -> list[Tensor]:
    return list(
        run.again(torch.unbind, data) if sizes is None else run.again(torch.split, data, sizes.tolist())
    )


def _run_direction(
    run: Run, kind: str, steps: Sequence[Tensor], state: list[Tensor], cell: Sequence[Tensor], biased: bool,
    reverse: bool,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """One direction of one layer; steps of a packed sequence hold fewer and fewer (or more and more) rows."""
    again = run.again
    step = _cell(run, kind, cell, biased)
    outputs: list[Tensor] = [steps[0]] * len(steps)
    full = state
    rows = state[0].shape[0]
    current = state
    done: list[list[Tensor]] = [[] for _ in state]
    begin = steps[-1].shape[0] if reverse else rows
    if begin < rows:
        current = [again(torch.narrow, s, 0, 0, begin) for s in state]
    for t in reversed(range(len(steps))) if reverse else range(len(steps)):
        many, now = steps[t].shape[0], current[0].shape[0]
        if many < now:  # forwards: the shortest sequences end
            for kept, s in zip(done, current, strict=True):
                kept.insert(0, again(torch.narrow, s, 0, many, now - many))
            current = [again(torch.narrow, s, 0, 0, many) for s in current]
        elif many > now:  # backwards: shorter sequences begin
            fresh = [again(torch.narrow, s, 0, now, many - now) for s in full]
            current = [again(torch.cat, [s, f]) for s, f in zip(current, fresh, strict=True)]
        current = step(steps[t], current)
        outputs[t] = current[0]
    finals = [again(torch.cat, [s, *kept]) if kept else s for s, kept in zip(current, done, strict=True)]
    return outputs, finals


def _cell(run: Run, kind: str, cell: Sequence[Tensor], biased: bool) -> Any:
    again = run.again
    w_input, w_state = cell[0], cell[1]
    b_input, b_state = (cell[2], cell[3]) if biased else (None, None)
    kind = kind.removesuffix("_cell")
    if kind == "gru":
        return _gru_cell(run, w_input, w_state, b_input, b_state)
    weight = torch.cat([w_input, w_state], 1)
    bias = None if b_input is None or b_state is None else b_input + b_state

    def gates_of(x: Tensor, h: Tensor) -> Tensor:
        return again(F.linear, again(torch.cat, [x, h], 1), weight, bias)  # type: ignore[no-any-return]

    def plain(x: Tensor, state: list[Tensor]) -> list[Tensor]:
        return [again(torch.tanh if kind == "rnn_tanh" else torch.relu, gates_of(x, state[0]))]

    def lstm(x: Tensor, state: list[Tensor]) -> list[Tensor]:
        h, c = state
        write, forget, signal, show = again(torch.chunk, gates_of(x, h), 4, 1)
        kept = again(torch.mul, again(torch.sigmoid, forget), c)
        new = again(torch.mul, again(torch.sigmoid, write), again(torch.tanh, signal))
        c = again(torch.add, kept, new)
        return [again(torch.mul, again(torch.sigmoid, show), again(torch.tanh, c)), c]

    return lstm if kind == "lstm" else plain


def _gru_cell(run: Run, w_input: Tensor, w_state: Tensor, b_input: Any, b_state: Any) -> Any:
    again, width = run.again, w_state.shape[1]
    gate_weight = torch.cat([w_input[: 2 * width], w_state[: 2 * width]], 1)
    gate_bias = None if b_input is None else b_input[: 2 * width] + b_state[: 2 * width]
    b_in, b_out = (None, None) if b_input is None else (b_input[2 * width :], b_state[2 * width :])

    def step(x: Tensor, state: list[Tensor]) -> list[Tensor]:
        (h,) = state
        gates = again(torch.sigmoid, again(F.linear, again(torch.cat, [x, h], 1), gate_weight, gate_bias))
        reset, keep = again(torch.chunk, gates, 2, 1)
        recalled = again(torch.mul, reset, again(F.linear, h, w_state[2 * width :], b_out))
        new = again(torch.tanh, again(torch.add, again(F.linear, x, w_input[2 * width :], b_in), recalled))
        fresh = again(torch.mul, again(torch.rsub, keep, 1), new)
        return [again(torch.add, fresh, again(torch.mul, keep, h))]

    return step


def recurrent_cell(call: Call, input: Tensor, hx: Any, *weights: Any) -> Any:
    """`torch.lstm_cell`, `gru_cell`, `rnn_tanh_cell`, `rnn_relu_cell`."""
    state = list(hx) if isinstance(hx, tuple | list) else [hx]
    biased = len(weights) > 2 and weights[2] is not None
    found = _cell(call.run, call.name, weights, biased)(input, state)
    return tuple(found) if len(found) > 1 else found[0]


PARTS: dict[str, Substitute] = {
    "scaled_dot_product_attention": attention,
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
        ),
        attention_with_statistics,
    ),
    "multi_head_attention_forward": multi_head_attention,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), recurrent_cell),
}
"""Functions that only call others: the ledger has rows for those."""
