"""Recurrent layers, written out step by step in operations that have rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.engines.substitution import Call, Run
from apportion.methods.propagation._tags import unruled


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
    steps = _split_steps(run, data, sizes)
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


def _split_steps(run: Run, data: Tensor, sizes: Tensor | None) -> list[Tensor]:
    return list(
        run.again(torch.unbind, data) if sizes is None else run.again(torch.split, data, sizes.tolist())
    )


def _run_direction(
    run: Run, kind: str, steps: Sequence[Tensor], state: list[Tensor], cell: Sequence[Tensor], biased: bool,
    reverse: bool,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """One direction of one layer; steps of a packed sequence hold fewer and fewer (or more and more) rows."""
    again = run.again
    step = _make_cell(run, kind, cell, biased)
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


def _make_cell(run: Run, kind: str, cell: Sequence[Tensor], biased: bool) -> Any:
    again = run.again
    w_input, w_state = cell[0], cell[1]
    b_input, b_state = (cell[2], cell[3]) if biased else (None, None)
    kind = kind.removesuffix("_cell")
    if kind == "gru":
        return _make_gru_cell(run, w_input, w_state, b_input, b_state)
    weight = torch.cat([w_input, w_state], 1)  # (gates · hidden, inputs + hidden)
    bias = None if b_input is None or b_state is None else b_input + b_state

    def gates_of(x: Tensor, h: Tensor) -> Tensor:
        return again(F.linear, again(torch.cat, [x, h], 1), weight, bias)  # type: ignore[no-any-return]

    def plain(x: Tensor, state: list[Tensor]) -> list[Tensor]:
        return [again(torch.tanh if kind == "rnn_tanh" else torch.relu, gates_of(x, state[0]))]

    def lstm(x: Tensor, state: list[Tensor]) -> list[Tensor]:
        h, c = state
        write, forget, signal, show = again(torch.chunk, gates_of(x, h), 4, 1)  # (batch, hidden) each
        kept = again(torch.mul, again(torch.sigmoid, forget), c)
        new = again(torch.mul, again(torch.sigmoid, write), again(torch.tanh, signal))
        c = again(torch.add, kept, new)
        return [again(torch.mul, again(torch.sigmoid, show), again(torch.tanh, c)), c]

    return lstm if kind == "lstm" else plain


def _make_gru_cell(run: Run, w_input: Tensor, w_state: Tensor, b_input: Any, b_state: Any) -> Any:
    again, width = run.again, w_state.shape[1]
    gate_weight = torch.cat([w_input[: 2 * width], w_state[: 2 * width]], 1)  # (2 hidden, inputs + hidden)
    gate_bias = None if b_input is None else b_input[: 2 * width] + b_state[: 2 * width]
    b_in, b_out = (None, None) if b_input is None else (b_input[2 * width :], b_state[2 * width :])

    def step(x: Tensor, state: list[Tensor]) -> list[Tensor]:
        (h,) = state
        gates = again(torch.sigmoid, again(F.linear, again(torch.cat, [x, h], 1), gate_weight, gate_bias))
        reset, keep = again(torch.chunk, gates, 2, 1)  # (batch, hidden) each
        recalled = again(torch.mul, reset, again(F.linear, h, w_state[2 * width :], b_out))
        new = again(torch.tanh, again(torch.add, again(F.linear, x, w_input[2 * width :], b_in), recalled))
        fresh = again(torch.mul, again(torch.rsub, keep, 1), new)
        return [again(torch.add, fresh, again(torch.mul, keep, h))]

    return step


def recurrent_cell(call: Call, input: Tensor, hx: Any, *weights: Any) -> Any:
    """`torch.lstm_cell`, `gru_cell`, `rnn_tanh_cell`, `rnn_relu_cell`."""
    state = list(hx) if isinstance(hx, tuple | list) else [hx]
    biased = len(weights) > 2 and weights[2] is not None
    found = _make_cell(call.run, call.name, weights, biased)(input, state)
    return tuple(found) if len(found) > 1 else found[0]
