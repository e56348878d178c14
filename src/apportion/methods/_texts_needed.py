"""How many texts an explanation asks a function for: it is made once with a function that answers noise.

Which texts a method asks for does not depend on the answers, except where it goes on until a tolerance is met, and
noise never meets one.
"""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from apportion.core.classifier import Classifier
from apportion.core.progress import watched
from apportion.domains.raw_text import StringModel
from apportion.domains.remote import Remote
from apportion.errors import InputError

_CLASSES = 1024  # as many as may be named as the target


@dataclass
class _Noise:
    """Probabilities that depend on nothing but the text."""

    rows_at_once: int | None
    asked: dict[str, Any] = field(default_factory=dict)

    def __call__(self, texts: Sequence[Any]) -> np.ndarray:
        keys = [json.dumps(text) for text in texts]
        self.asked.update(zip(keys, texts, strict=True))
        draws = np.array([zlib.crc32(key.encode()) for key in keys]) / 2**32
        return np.asarray(0.1 + 0.8 * (draws[:, None] * (7 * np.arange(_CLASSES) + 13) % 1))


def is_of_texts(model: Classifier) -> bool:
    return isinstance(model.model, StringModel)


def remote_of(model: Classifier) -> Remote | None:
    """The function with a budget that this classifier asks, if it does."""
    function = model.model.function if isinstance(model.model, StringModel) else None
    return function if isinstance(function, Remote) and function.budget is not None else None


def texts_needed(model: Classifier, explained: Callable[[Classifier], Any]) -> int:
    """How many texts `explained` asks this model for that it does not know the answers to."""
    assert isinstance(model.model, StringModel)
    noise, function = _Noise(model.model.rows_at_once), model.model.function
    with warnings.catch_warnings(), watched(lambda done, total, what: None):
        warnings.simplefilter("ignore")
        explained(replace(model, model=StringModel(noise, model.model.encoding)))
    asked = list(noise.asked.values())
    return function.unanswered(asked) if isinstance(function, Remote) else len(asked)


def check_budget(remote: Remote, model: Classifier, explained: Callable[[Classifier], Any]) -> None:
    """InputError if `explained` asks for more texts than are left."""
    try:
        needed = texts_needed(model, explained)
    except InputError:
        return  # what is wrong is told by the explanation itself, which the budget still holds back
    left = remote.left
    if left is not None and needed > left:
        raise InputError(
            f"budget is {remote.budget} texts, of which {left} are left, but this explanation asks for {needed}; "
            "accepted: a larger budget, or a method with fewer samples, such as KernelSHAP(samples=…, exact=0)"
        )
