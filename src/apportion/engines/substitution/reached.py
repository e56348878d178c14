"""What depends on some tensors, also where no gradient leads back to them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from apportion.core.private_torch import base_of
from apportion.core.trees import tensors_in
from apportion.engines.substitution.engine import Substitution
from apportion.engines.substitution.explained import Explained
from apportion.engines.substitution.function_names import Function, identify
from apportion.engines.substitution.tensor_notes import TensorNotes


class Tracing(Substitution):
    """A run that follows what is computed `of` a tensor, before anything is explained and under `no_grad` too.

    `stood_in` says of each tensor that was put into the place of another whether that one was computed of it, and
    `ended` whether the model's output was. What functions do that no mode sees, such as TorchScript's, is lost.

    >>> import torch
    >>> x = torch.ones(2)
    >>> with Tracing(None, x) as run, torch.no_grad():
    ...     y, z = 2 * x, torch.ones(2) + 1
    >>> y in run, z in run
    (True, False)
    """

    def __init__(self, model: Any, of: Tensor, explained: Explained | None = None) -> None:
        super().__init__(model=model, explained=Explained() if explained is None else explained)
        self._reached = TensorNotes()
        self._reached[of] = True
        self.stood_in: list[bool] = []
        self.ended = False

    def __contains__(self, tensor: Tensor) -> bool:
        return tensor in self._reached

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        kwargs = kwargs or {}
        if any(tensor in self._reached for tensor in tensors_in((args, kwargs))):
            self._mark(result)
            if identify(func).in_place or kwargs.get("inplace"):
                self._mark(args[0] if args else kwargs.get("input"))
            self._mark(kwargs.get("out"))
        return result

    def _mark(self, made: Any) -> None:
        for tensor in tensors_in(made):
            for one in (tensor, base_of(tensor), self.current(tensor)):
                if one is not None:
                    self._reached[one] = True

    def put(self, stand_in: Tensor, tensor: Tensor) -> None:
        self.stood_in.append(tensor in self)
        self.ended = False
        if tensor in self:
            self._reached[stand_in] = True

    def settled(self, tensor: Tensor) -> Tensor:
        found = super().settled(tensor)
        self.ended = self.ended or tensor in self or found in self
        if tensor in self:
            self._reached[found] = True
        return found
