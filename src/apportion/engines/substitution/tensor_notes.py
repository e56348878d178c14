"""What is known of tensors while they live."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor


class TensorNotes:
    """A dictionary by the identity of tensors, which forgets with them."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Tensor], Any]] = {}

    def __setitem__(self, tensor: Tensor, value: Any) -> None:
        key, entries = id(tensor), self._entries
        entries[key] = (weakref.ref(tensor, lambda _: entries.pop(key, None)), value)

    def get(self, tensor: Tensor) -> Any:
        found = self._entries.get(id(tensor))
        return None if found is None or found[0]() is not tensor else found[1]

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __contains__(self, tensor: Tensor) -> bool:
        return self.get(tensor) is not None
