"""What is known of tensors while they live."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor


class TensorNotes:
    """A dictionary by the identity of tensors, which forgets with them."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.KeyedRef[int, Tensor], Any]] = {}
        # What forgets does not hold the notes: a cycle would keep all that they know until the collector comes.
        mine = weakref.ref(self)

        def forget(gone: weakref.KeyedRef[int, Tensor]) -> None:
            if (notes := mine()) is not None:
                notes._entries.pop(gone.key, None)

        self._forget = forget

    def __setitem__(self, tensor: Tensor, value: Any) -> None:
        self._entries[id(tensor)] = (weakref.KeyedRef(tensor, self._forget, id(tensor)), value)

    def get(self, tensor: Tensor) -> Any:
        found = self._entries.get(id(tensor))
        return None if found is None or found[0]() is not tensor else found[1]

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __contains__(self, tensor: Tensor) -> bool:
        return self.get(tensor) is not None
