"""The map of a method, and the score of a test, for every document of a corpus, in batches of like length."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from apportion.core.progress import progress
from apportion.core.target import Contrast
from apportion.core.trees import tensors_in
from apportion.errors import InputError
from apportion.learning.documents import Documents, batches_by_length
from apportion.learning.training import scores_by_model
from apportion.results.scores import Scores

# Tokens with padding that are explained at once, and the most texts.
TOKENS, TEXTS = 4096, 64


def maps_of(method: Any, model: nn.Module, documents: Documents) -> tuple[Documents, dict[str, Any]]:
    """The documents with one value per token for the class that is predicted, and JSON-ready notes.

    What is explained is the margin of that class over the other, which is what the one score of a model with
    a sigmoid is; with more than two classes its score. Notes are the method's repr, the seconds, and for
    methods that add up the median and 90 % quantile of |remainder| / |total|.
    """
    begin = time.perf_counter()
    maps: dict[int, Tensor] = {}
    missing = []
    scores = scores_by_model(model, replace(documents, maps=None))
    predicted = scores.argmax(1)
    for label in predicted.unique().tolist():
        target = Contrast(label, 1 - label) if scores.shape[1] == 2 else label
        chosen = (predicted == label).nonzero().flatten().cpu()
        batches = [
            chosen[rows].tolist() for rows in batches_by_length(documents.lengths[chosen], TOKENS, TEXTS)
        ]
        for rows in progress(batches, len(chosen), type(method).__name__):
            ids = documents.batch(rows)[0]
            explanation = hide_tokens(method, ids)(model, ids, target=target)
            (values,) = tensors_in(explanation.values)
            maps |= {row: value[: len(documents.ids[row])] for row, value in zip(rows, values, strict=True)}
            if explanation.total is not None:
                missing.append((explanation.remainder / explanation.total).abs().double())
    notes: dict[str, Any] = {"method": repr(method), "seconds": time.perf_counter() - begin}
    if missing:
        share = torch.cat(missing).nan_to_num(0.0, posinf=1e9)
        notes |= {"remainder median": float(share.median()), "remainder 90 %": float(share.quantile(0.9))}
    return replace(documents, maps=tuple(maps[i].float() for i in range(len(documents)))), notes


def run_test(test: Any, model: nn.Module, documents: Documents) -> Scores:
    """The score of every document's map. Where the test hides features, padding is none."""
    if documents.maps is None:
        raise InputError("the documents have no maps; accepted: documents with one value per token")
    values = torch.empty(len(documents), dtype=torch.float64)
    batches = list(batches_by_length(documents.lengths, TOKENS, TEXTS))
    undefined = ""
    for rows in progress(batches, len(documents), type(test).__name__):
        ids, maps = documents.batch(rows)
        scores = hide_tokens(test, ids)(model, ids, maps)
        values[rows] = scores.values
        undefined = undefined or scores.undefined
    return Scores(values, repr(test), test.higher_is_better, undefined=undefined)


def hide_tokens(way: Any, ids: Tensor) -> Any:
    """A method or test, set to hide tokens, of which padding (id 0) is none, if it hides features at all."""
    if not hasattr(way, "partition"):
        return way
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    return replace(way, partition=places.masked_fill(ids == 0, -1))
