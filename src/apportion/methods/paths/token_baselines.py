"""What says nothing to a model of texts: where the path to token ids begins if nobody said where.

An embedding of zeros is nothing that such a model has met, and its norms divide by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from apportion.core.features import Features
from apportion.core.inputs import offsets_of
from apportion.core.modules_behind import is_language_model, modules_behind
from apportion.engines.substitution import Gradients, Score
from apportion.errors import InputError, NotFiniteError, did_you_mean

Settings = TypeVar("Settings")

# What may be named, in the order in which the default looks: the token that a `Classifier` hides words with, the
# padding and the end of a text by the model's own account, the mean of its embeddings, and zero, only by choice.
NAMES = ("mask", "pad", "end", "mean", "zero")

_IN_CONFIGURATION = {"pad": "pad_token_id", "end": "eos_token_id"}

# Tokens that a model of `transformers` begins and ends a text with; they stay where they are.
_KEPT = ("bos_token_id", "cls_token_id", "sep_token_id", "eos_token_id")


def is_of_tokens(score: Score) -> bool:
    """Whether all that is explained are embeddings of token ids."""
    return all(slot.positions is not None for slot in score.slots)


def known_baseline(
    method: Settings, subject: Gradients, score: Score, mask: int | None, of_language: str = ""
) -> tuple[Settings, Any]:
    """The method that the result names, and its setting `baseline`, by name where it is the default of 0 and token ids
    are explained: in a language model `of_language`, if that is given. A method that goes on from the mask of its call
    does not go on without it."""
    setting = method.baseline  # type: ignore[attr-defined]
    by_default = isinstance(setting, int | float) and not setting and is_of_tokens(score)
    if by_default and of_language and is_language_model(subject.model):
        setting = of_language
    elif by_default:
        width = score.leaves[0].shape[-1]
        known = (name for name in NAMES[:-2] if _token(subject, name, mask, width) is not None)
        setting = next(known, "mean")
    return (replace(method, baseline=setting) if setting == "mask" else method), setting  # type: ignore[type-var]


def note_of(baseline: Any) -> dict[str, Any]:
    """What the result notes of a baseline by name."""
    return {"baseline": baseline} if isinstance(baseline, str) else {}


@contextmanager
def scored_at(baseline: Any) -> Iterator[None]:
    """Say of a baseline at which the model has no scores that it is the baseline, and not the input."""
    try:
        yield
    except NotFiniteError as error:
        named = (
            f"baseline is {baseline!r}" if isinstance(baseline, str | int | float) else "baseline was given"
        )
        raise InputError(
            f"{named}, where the model's scores are NaN or infinite, as where a norm divides by zero; accepted: "
            "another one, such as 0.01, or for token ids 'mean'"
        ) from error


def starts_of(
    subject: Gradients,
    score: Score,
    ends: Sequence[Tensor],
    name: str,
    mask: int | None,
    features: Sequence[Features],
) -> list[Tensor]:
    """The baseline of this name, one (1, batch, …) tensor for each leaf; special tokens stay as they are."""
    if not is_of_tokens(score):
        raise InputError(f"baseline is {name!r}; accepted: a finite number, or tensors like the inputs")
    if name not in NAMES:
        hint = did_you_mean(name, NAMES)
        raise InputError(f"baseline is {name!r}; {hint}accepted: {', '.join(NAMES)}, a number, or token ids")
    kept = _kept(subject, features)
    starts = []
    for end, slot in zip(ends, score.slots, strict=True):
        positions: Tensor = slot.positions  # type: ignore[assignment]  # (batch, …), −1 for the model's own tokens
        row = _row(subject, name, mask, end, positions)
        stays = kept.to(end.device)[positions.clamp(min=0)] & (positions >= 0)
        starts.append(torch.where(stays[..., None], end, row.to(end))[None])
    return starts


def _row(subject: Gradients, name: str, mask: int | None, end: Tensor, positions: Tensor) -> Tensor:
    """The embedding that stands at every place of a leaf, (width,)."""
    if name == "zero":
        return torch.zeros_like(end[0].reshape(-1, end.shape[-1])[0])
    table, token = _table(subject, end, positions), _token(subject, name, mask, end.shape[-1])
    instead = "accepted: token ids in the form of the inputs, an embedding, or baseline='zero'"
    if table is None:
        raise InputError(
            f"baseline is {name!r}, but the table of the model's embeddings was not found; {instead}"
        )
    if name == "mean":
        return table.detach().double().mean(0)
    if token is None:
        from_whom = (
            "a Classifier says its mask, or mask= in the call" if name == "mask" else "baseline='mean'"
        )
        raise InputError(
            f"baseline is {name!r}, but no such token of the model is known; {from_whom}; {instead}"
        )
    if not 0 <= token < len(table):
        raise InputError(
            f"baseline is {name!r}, token {token}, but the model has {len(table)} embeddings; {instead}"
        )
    return table.detach()[token]


def _token(subject: Gradients, name: str, mask: int | None, width: int) -> int | None:
    """The id of the token of this name, None where the model does not say."""
    if name == "mask":
        return mask
    if name not in _IN_CONFIGURATION:
        return None
    behind = modules_behind(subject.model)
    told = [i for one in behind for i in _ids(one, (_IN_CONFIGURATION[name],))]
    if name == "pad":
        embeddings = [one for one in _embeddings(behind) if one.embedding_dim == width]
        told += [one.padding_idx for one in embeddings if one.padding_idx is not None]
    return next((i for i in told if i >= 0), None)


def _table(subject: Gradients, end: Tensor, positions: Tensor) -> Tensor | None:
    """The weights of which the rows of a leaf are a look-up."""
    flat = torch.cat([tensor.flatten() for _, tensor in offsets_of(subject.inputs).values()])
    own = positions >= 0
    ids, rows = flat.to(end.device)[positions[own]], end[own]
    found: dict[float, Tensor] = {}
    for weight in (embedding.weight.detach() for embedding in _embeddings(modules_behind(subject.model))):
        if weight.shape[1] == end.shape[-1] and int(ids.max()) < len(weight):
            found.setdefault(float((weight[ids] - rows).abs().max()), weight)
    # What is explained a little beside the input is a look-up but for how far it is moved.
    near = min(found, default=None)
    return None if near is None or (near and subject.moved is None) else found[near]


def _embeddings(behind: Sequence[nn.Module]) -> list[nn.Embedding]:
    return [module for one in behind for module in one.modules() if isinstance(module, nn.Embedding)]


def _kept(subject: Gradients, features: Sequence[Features]) -> Tensor:
    """Which of all integers of the inputs, laid flat, are special tokens."""
    ids = {i for one in modules_behind(subject.model) for i in _ids(one, _KEPT)}
    parts = []
    for _, tensor in offsets_of(subject.inputs).values():
        kept = torch.isin(tensor, torch.tensor(sorted(ids), dtype=tensor.dtype, device=tensor.device))
        for row, one in enumerate(features):
            words = getattr(one, "words", ())
            if tensor.dim() == 2 and words:
                special = [i for i, word in enumerate(words[: tensor.shape[1]]) if word is None]
                kept[row, special] = True
        parts.append(kept.flatten())
    return torch.cat(parts)


def _ids(module: nn.Module, names: Sequence[str]) -> list[int]:
    """The token ids that the configuration of a model of `transformers` has under these names."""
    found = [getattr(getattr(module, "config", None), name, None) for name in names]
    return [
        i for one in found for i in (one if isinstance(one, list | tuple) else [one]) if isinstance(i, int)
    ]
