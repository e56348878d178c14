"""Padding at the end of texts: where it begins, and leaving it out where the model says the same without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from apportion.core.inputs import Inputs, rekeyed, rows_of


def attended(inputs: Inputs, x: Tensor) -> Tensor:
    """Which tokens the model looks at: for token ids, and for embeddings (batch, tokens, width), in a shape that
    broadcasts to theirs; True for any other input."""
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if mask is None or mask.dim() != 2 or mask.shape != x.shape[:2] or x.dim() != 2 + x.is_floating_point():
        return torch.ones((), dtype=torch.bool, device=x.device)
    return (mask != 0)[..., None] if x.dim() > 2 else mask != 0


def up_to_last(seen: Tensor) -> Tensor:
    """True up to the last True of each row.

    >>> up_to_last(torch.tensor([[False, True, False]])).tolist()
    [[True, True, False]]
    """
    return seen.flip(1).cumsum(1).flip(1) > 0


def without_padding(inputs: Inputs) -> Inputs:
    """The inputs up to the last token that the model looks at in any row. What has one entry a token goes along.

    >>> x = {"ids": torch.tensor([[5, 6, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}
    >>> without_padding(x)["ids"].tolist()
    [[5, 6]]
    """
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if mask is None or mask.dim() != 2:
        return inputs
    width, longest = mask.shape[1], max(1, int(up_to_last(mask != 0).any(0).sum()))
    if longest == width:
        return inputs
    return rekeyed(inputs, lambda _, t: t[:, :longest] if t.dim() > 1 and t.shape[1] == width else t)


def is_needless(inputs: Inputs, output: Tensor, run: Callable[[Inputs], Tensor]) -> bool:
    """Whether the model, `run`, says of the text with the most padding the same without it; `output` is what it
    says of all texts. A model may want one length of text, or look at padding in spite of the mask."""
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if mask is None or mask.dim() != 2:
        return False
    shortest = up_to_last(mask != 0).sum(1).argmin()[None]
    text = rows_of(inputs, shortest)
    short = without_padding(text)
    if short is text:
        return False
    try:
        alone = run(short)
    except Exception:  # whatever a model raises says that it takes no shorter texts
        return False
    tolerance = torch.finfo(output.dtype).eps ** 0.5 * float(output.abs().amax())
    return torch.allclose(alone, rows_of(output, shortest), rtol=0, atol=tolerance)  # type: ignore[arg-type]
