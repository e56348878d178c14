"""Whether a model ends in a sigmoid or softmax, so that its scores are probabilities already."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor
from torch.overrides import TorchFunctionMode

from apportion.core.private_torch import storage_of
from apportion.engines.substitution.function_names import MOVES, identify

Kind = Literal["classes", "labels", "logits", "logit", "logits of labels", "log-probabilities", "numbers"]
"""What a model's scores are: probabilities of classes or of labels, logits of these, logarithms of the probabilities of
labels, or numbers that are nothing of the kind, as of a regression. A model may say it itself, as `scores_are`."""

# What moves numbers between a model of another kind and tensors.
_ONLY_MOVES = MOVES | {"detach", "tensor", "as_tensor", "from_numpy", "asarray"}


class LastSquash(TorchFunctionMode):
    """Remembers what the last sigmoid or softmax returned, to tell whether a model ends in it, and whether any function
    was `seen` to compute: not in a scripted model, nor in a forest behind tensors.

    >>> with LastSquash() as last:
    ...     chance = torch.zeros(1, 1).sigmoid()
    >>> last.gave(chance[:, 0]), last.gave(chance * 2)
    (True, False)
    """

    result: Tensor | None = None
    name = ""
    seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        called = identify(func)
        if called.name in ("sigmoid", "softmax"):
            self.result, self.name = result, called.name
        self.seen |= not called.passive and called.name not in _ONLY_MOVES
        return result

    def gave(self, scores: Tensor) -> bool:
        """Whether these scores are what it returned, or a view of it."""
        return self.result is not None and storage_of(scores) == storage_of(self.result)
