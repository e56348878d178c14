"""Attention weights as an explanation, captured from whatever attention calls a model makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from apportion.core.calling import Model, with_gradients
from apportion.core.inputs import Given, Inputs
from apportion.core.settings import checked
from apportion.core.target import Target
from apportion.engines.substitution import HARMLESS, Call, Gradients, Score, Substitute, Substitution
from apportion.engines.substitution.explained import leaves_before
from apportion.engines.substitution.leaves import Slot
from apportion.errors import InputError
from apportion.methods.gradients.layer_grids import Grid, enlarge, grid_of
from apportion.results.explanation import Explanation


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """The weights of one attention call; each row adds up to one.

    Attributes:
        layer (str): Dotted name of the module that made the call.
        weights (Tensor): (batch, heads, queries, keys).
        output (Tensor): What the call returned.
        batch_second (bool, default False): The output has its samples on the second axis.
    """

    layer: str
    weights: Tensor
    output: Tensor
    batch_second: bool = False


@dataclass(frozen=True, eq=False)
class _Captured(AttentionMap):
    """The same, with what its keys were made from where that is known (else what was made of the weights)."""

    keys: Tensor | None = None


@dataclass(frozen=True)
@checked
class AttentionWeights:
    """Show the attention that each token gets (Bahdanau et al. 2015), from the weights of attention calls.

    Softmax, `scaled_dot_product_attention` and `multi_head_attention_forward` are seen however a model calls
    them, so no weights need to be asked of it. Values are those of tokens; of an image's patch tokens they are
    enlarged bilinearly to its size. They do not claim to add up, and need not tell what the model used (Jain &
    Wallace 2019). `notes` names the layers. Cost: one forward pass and at most one backward pass, and one more
    where there are as many heads as samples.

    Attributes:
        layer (str or int, default -1): Dotted name of a module, or number of the attention call; -1: the last.
        head (int, default None): One head; None: the mean of all.
        query (int, default None): The row of the weights; None: the rows of the queries that the score reads (the
            class token, the last token, or the mean of all where it reads all), found by a backward pass.
        rollout (bool, default False): Multiply the mean attention of all layers up to that one, half of each the
            identity for the residual path (Abnar & Zuidema 2020).
    """

    layer: str | int = -1
    head: int | None = None
    query: int | None = None
    rollout: bool = False

    @with_gradients()
    def __call__(self, model: Model, inputs: Given, target: Target = None) -> Explanation[Given, None]:
        subject = Gradients(model, inputs, target)
        score, maps = _capture(subject)
        chosen = self._choose(maps)
        last = maps[chosen]
        if self.rollout:
            streams = sum(
                leaf.dim() == 3 and leaf.shape[1] == last.weights.shape[-1] for leaf in score.leaves
            )
            if streams > 1 and self.layer == -1:
                raise InputError(
                    "rollout follows one row of tokens from layer to layer, but this model has several, as those of an "
                    "encoder and a decoder; accepted: layer= the name of the encoder"
                )
            weights = _roll_out(
                [m.weights for m in maps[: chosen + 1] if m.weights.shape == last.weights.shape]
            )
        else:
            weights = self._take_head(last)
        rows = weights.shape[1]
        if self.query is not None:
            if not -rows <= self.query < rows:
                raise InputError(f"query is {self.query}, but there are {rows} (0 to {rows - 1})")
            token = weights[:, self.query]
        else:
            read = _find_read(subject, score, last).to(weights)
            token = torch.einsum("bq,bqk->bk", read / read.sum(1, keepdim=True), weights)
        notes = {"layer": last.layer, "layers": [m.layer for m in maps]}
        slot, values = _place(score, last, token)
        return subject.explanation(self, replace(score, slots=[slot]), [values], total=None, notes=notes)

    def _choose(self, maps: Sequence[AttentionMap]) -> int:
        names = [m.layer for m in maps]
        if isinstance(self.layer, int):
            if not -len(maps) <= self.layer < len(maps):
                raise InputError(f"layer is {self.layer}, but the model made {len(maps)} attention calls")
            return self.layer % len(maps)
        found = [i for i, name in enumerate(names) if name == self.layer or name.startswith(f"{self.layer}.")]
        if not found:
            raise InputError(
                f"no attention call was made in layer {self.layer!r}; accepted: {', '.join(names)}"
            )
        return found[-1]

    def _take_head(self, found: AttentionMap) -> Tensor:
        heads = found.weights.shape[1]
        if self.head is None:
            return found.weights.mean(1)
        if not -heads <= self.head < heads:
            raise InputError(f"head is {self.head}, but layer {found.layer!r} has {heads} (0 to {heads - 1})")
        return found.weights[:, self.head]


def attention_maps(model: Model, inputs: Inputs) -> list[AttentionMap]:
    """The weights of all attention calls that a model makes, in order.

    >>> attention = torch.nn.MultiheadAttention(4, 2, batch_first=True)
    >>> class Net(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.attention = attention
    ...     def forward(self, x):
    ...         return self.attention(x, x, x)[0].mean(1)
    >>> [(m.layer, tuple(m.weights.shape)) for m in attention_maps(Net(), torch.ones(1, 3, 4))]
    [('attention', (1, 2, 3, 3))]
    """
    maps = _capture(Gradients(model, inputs))[1]
    return [AttentionMap(m.layer, m.weights.detach(), m.output.detach()) for m in maps]


def _capture(subject: Gradients) -> tuple[Score, list[_Captured]]:
    maps: list[_Captured] = []
    batch = subject.batch

    def keep(
        call: Call, weights: Tensor, output: Tensor, keys: Tensor | None = None, batch_second: bool = False
    ) -> None:
        # Heads may lie beside the samples where there are three axes; with more it is windows that do.
        own = weights.dim() == 3 or weights.shape[0] == batch
        if own and weights.shape[0] % batch == 0 and weights.shape[-1] > 1:
            whole = weights.detach()[:, None] if weights.dim() == 2 else weights.detach()
            whole = whole.reshape(batch, -1, *whole.shape[-2:])
            maps.append(_Captured(call.run.where(), whole, output, batch_second, keys))

    def softmax(call: Call, input: Tensor, dim: int | None = None, *args: Any, **kwargs: Any) -> Any:
        result = call.native()
        if dim is None:  # as torch chooses, with a warning
            dim = 0 if result.dim() in (0, 1, 3) else 1
        if result.dim() >= 2:
            weights = result.movedim(dim, -1)
            if weights.dim() == 3 and weights.shape[1] == 1:
                weights = weights[:, 0]
            keep(call, weights, result)
        return result

    def attend(
        call: Call,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        result, keys = call.native(), key
        with torch.no_grad():
            if enable_gqa:
                key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
            scores = (
                query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
            )
            if is_causal:
                future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
                scores = scores.masked_fill(future, -torch.inf)
            if attn_mask is not None:
                bias = attn_mask
                scores = scores.masked_fill(~bias, -torch.inf) if bias.dtype == torch.bool else scores + bias
            keep(call, scores.softmax(-1), result, keys)
        return result

    def many_heads(call: Call, *args: Any, **kwargs: Any) -> Any:
        result = call.native()
        with torch.no_grad():
            asked = _MANY_HEADS.bind(*args, **kwargs).arguments
            weights = call.function(**{**asked, "need_weights": True, "average_attn_weights": False})[1]
        keep(call, weights, result[0], asked["key"], batch_second=True)
        return result

    table: dict[str, Substitute] = {
        **HARMLESS,
        "softmax": softmax,
        "scaled_dot_product_attention": attend,
        "multi_head_attention_forward": many_heads,
    }
    score = subject.forward(Substitution(table, model=subject.model))
    decision = score.output.data_ptr()  # a softmax that is the model's answer weights nothing
    maps = [m for m in maps if _find_leaf(score, m) is not None and m.output.data_ptr() != decision]
    if _are_heads_first(subject, score, maps):
        maps = [
            replace(m, weights=m.weights.transpose(0, 1), batch_second=True) if _is_square(m, batch) else m
            for m in maps
        ]
    if not maps:
        raise InputError(
            "the model made no attention call over all of its input's tokens (softmax, "
            "scaled_dot_product_attention or multi_head_attention_forward); attention within windows is not taken"
        )
    return score, maps


def _is_square(found: AttentionMap, batch: int) -> bool:
    """True if there are as many heads as samples, so that either may come first."""
    shape = found.output.shape
    return not found.batch_second and len(shape) == 4 and shape[0] == shape[1] == batch


def _are_heads_first(subject: Gradients, score: Score, maps: Sequence[AttentionMap]) -> bool:
    """True if the first sample's score reads all of the first axis, and one place of the second."""
    found = [m for m in maps if _is_square(m, subject.batch) and m.output.requires_grad]
    if subject.batch == 1 or not found or not score.value.requires_grad:
        return False
    (gradient,) = subject.derivatives(score.value[0], [found[-1].output], retain_graph=True)
    return gradient is not None and bool(gradient[1:].any()) and not bool(gradient[:, 1:].any())


def _find_leaf(score: Score, found: _Captured) -> tuple[int, Grid | None] | None:
    """Find the leaf whose tokens are the keys of an attention call, and the grid of them if it is an image: of as many
    tokens, and one that the keys were computed from."""
    tokens = found.weights.shape[-1]
    source = found.output if found.keys is None or not found.keys.requires_grad else found.keys
    before = leaves_before(source)
    for index, leaf in enumerate(score.leaves):
        if id(leaf) not in before:
            continue
        if leaf.dim() == 3 and leaf.shape[1] == tokens:
            return index, None
        if leaf.dim() == 4:
            grid = grid_of(torch.empty(1, tokens, 2, device="meta"), 1, leaf.shape[2:])
            if grid is not None:
                return index, grid
    return None


def _roll_out(weights: list[Tensor]) -> Tensor:
    identity = torch.eye(weights[0].shape[-1], dtype=weights[0].dtype, device=weights[0].device)
    return reduce(lambda below, above: above @ below, [(w.mean(1) + identity) / 2 for w in weights])


def _find_read(subject: Gradients, score: Score, found: AttentionMap) -> Tensor:
    """(batch, queries): 1 where the score reads the output of a query, 0 elsewhere."""
    batch, _, queries, _ = found.weights.shape
    every = torch.ones(batch, queries, device=found.weights.device)
    if queries == 1 or not found.output.requires_grad or not score.value.requires_grad:
        return every
    (gradient,) = subject.derivatives(score.value, [found.output])
    if gradient is None:
        return every
    if found.batch_second:
        gradient = gradient.transpose(0, 1)
    read = gradient.reshape(batch, -1, queries, gradient.shape[-1]).abs().amax((1, 3)) > 0
    return torch.where(read.any(1, keepdim=True), read.float(), every)


def _place(score: Score, found: _Captured, token: Tensor) -> tuple[Slot, Tensor]:
    """The leaf that the tokens belong to, and their values in its shape."""
    place = _find_leaf(score, found)
    assert place is not None
    leaf, grid = score.leaves[place[0]], place[1]
    if grid is None:
        values = token[:, :, None] / leaf.shape[2]
    else:
        values = enlarge(grid.of(token[:, :, None])[:, 0], leaf.shape[2:])[:, None] / leaf.shape[1]
    return score.slots[place[0]], values.expand(leaf.shape).contiguous().to(leaf.dtype)


_MANY_HEADS = signature(torch.nn.functional.multi_head_attention_forward)
