"""Settings that hold numbers: equal, hashed and written down by their content."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from functools import cached_property
from typing import Any

from torch import Tensor


class ByContent:
    """Base of frozen dataclasses (with `eq=False, repr=False`) some of whose settings are tensors.

    Two are equal if their settings are, tensors to the bit; and the repr tells tensors apart, though it does not
    rebuild them: caches, files and pages may go by it. The tensors are not to be written into.
    """

    @cached_property
    def _content(self) -> tuple[Any, ...]:
        settings = [(each.name, getattr(self, each.name)) for each in fields(self) if each.compare]  # type: ignore[arg-type]
        return type(self).__name__, *(
            (name, digest(v) if isinstance(v, Tensor) else v) for name, v in settings
        )

    @property
    def fingerprinted(self) -> Any:
        """What a fingerprint is taken of in the place of this."""
        return self

    def __eq__(self, other: object) -> bool:
        return self._content == other._content if isinstance(other, ByContent) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._content)

    def __repr__(self) -> str:
        name, *settings = self._content
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in settings)})"


class _Digest(str):
    """A tensor in a few words, which stand in a repr as they are."""

    def __repr__(self) -> str:
        return str(self)


def digest(tensor: Tensor) -> _Digest:
    """A tensor by its kind, its shape and its content, to the bit."""
    dense = tensor.detach().cpu().contiguous()
    kind, shape = str(dense.dtype).removeprefix("torch."), "×".join(map(str, dense.shape))
    name = hashlib.sha256(f"{kind} {shape} ".encode() + dense.view(-1).numpy().tobytes()).hexdigest()[:12]
    return _Digest(f"<{shape} {kind} {name}>")
