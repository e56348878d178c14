"""Which methods can explain a model, found out without the work: each is begun, and refuses in its own words."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from torch import nn

from apportion.core.progress import watched
from apportion.core.registry import from_repr
from apportion.domains.remote import Remote
from apportion.errors import InputError
from apportion.methods.gradients.attention import AttentionWeights
from apportion.methods.hiding.base import Hiding
from apportion.methods.interactions.shapley import ShapleyInteractions
from apportion.pipeline.prepared import Prepared

_PASSES = 3  # of a reference, of what begins there, and of the input


class _BegunError(Exception):
    """It would go on."""


def asks_elsewhere(model: Any) -> bool:
    """True for a function of texts behind an address, which may cost with each question."""
    return isinstance(getattr(model, "function", None), Remote)


def why_unsuitable(ready: Prepared, names: Iterable[str]) -> dict[str, str]:
    """Why those of the methods that cannot explain a model at this input refuse it.

    What an input must be like is checked before a model is called, so a method that calls it suits. Whether a function
    stays in PyTorch, and whether a model has attention, is seen only in forward passes, for which a method asks after
    those of its reference: some are granted for that, but none to a model that is asked elsewhere.
    """
    model = ready.classifier.model
    found, local = {}, not asks_elsewhere(model)
    for name in names:
        method = from_repr(name)
        if isinstance(method, ShapleyInteractions):
            continue  # it refuses no model, and what it imports takes seconds
        leaves = not isinstance(model, nn.Module) and not isinstance(method, Hiding)
        granted = (_PASSES if leaves else int(isinstance(method, AttentionWeights))) if local else 0
        calls = 0

        def report(*_: Any, most: int = granted) -> None:
            nonlocal calls
            calls += 1
            if calls > most:
                raise _BegunError

        try:
            with warnings.catch_warnings(), watched(report):
                warnings.simplefilter("ignore")
                ready.explain(method)
        except _BegunError:
            pass
        except InputError as error:
            found[name] = str(error)
    return found
