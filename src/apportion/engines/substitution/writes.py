"""In-place operations of a model, without writing into anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from apportion.core.private_torch import base_of
from apportion.core.trees import tensors_in
from apportion.engines.substitution.tensor_notes import TensorNotes


class Writes(TensorNotes):
    """Which tensor stands for each one that would have been written into.

    An in-place step is run out of place, and its result stands for what was written from then on. What makes this hard
    is that one storage has many holders: the tensor itself, its views, the tensor of which it is a view, and whatever
    stood for one of these after an earlier write. All of them read the new numbers.
    """

    def current(self, tensor: Tensor) -> Tensor:
        """The tensor that stands for this one after all that was written into it or into what it views."""
        if not self:
            return tensor
        found = self.get(tensor)
        if found is not None:
            return self.current(found)
        base = base_of(tensor)
        if base is not None and (now := self.current(base)) is not base:
            return now.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
        return tensor

    def into(
        self, written: Any, result: Any, source: Tensor | None, clone: Callable[[Tensor], Tensor]
    ) -> Any:
        """Let the result stand for the tensors that were written, of which `source` stood for the only one before;
        None for `out=`, which also takes another shape. `clone` copies where another view was made."""
        if source is None:
            for old, new in zip(tensors_in(written), tensors_in(result), strict=True):
                self[old] = new
            return result
        if not isinstance(written, Tensor) or result is source:  # as dropout in eval mode
            return result
        base = base_of(written)
        same = base_of(source)
        if (viewed := base_of(result)) is not None and viewed is (source if same is None else same):
            if (result.shape, result.stride()) == (source.shape, source.stride()):
                return result  # nothing was written: a dropout that is switched off
            result = clone(result)  # another view of the same, as by `unsqueeze_`
            self[written] = result
            return result
        if result.shape != source.shape or result.dtype != written.dtype:
            result = result.expand(source.shape).to(written.dtype)
        place = (written.size(), written.stride(), written.storage_offset())
        if base is not None and place != (base.size(), base.stride(), base.storage_offset()):
            # torch.as_strided_scatter has a wrong gradient for what it leaves.
            now = self.current(base).clone()
            now.as_strided(*place).copy_(result)
            self._replace(base, _laid_out_as(base, now))
            return written  # a view, so that what is written into it next goes to the same place
        result = _laid_out_as(written, result)
        if base is not None:
            self._replace(base, result)
        self._replace(written, result)
        return result

    def _replace(self, written: Tensor, result: Tensor) -> None:
        """Also for whoever holds what stood for it before."""
        before = self.current(written)
        self[written] = result
        if before is not written and before is not result:
            self[before] = result


def _laid_out_as(like: Tensor, tensor: Tensor) -> Tensor:
    """The same numbers with the strides of another tensor, which views of it count on."""
    if tensor.shape != like.shape or tensor.stride() == like.stride():
        return tensor
    order = sorted(range(like.dim()), key=lambda axis: -like.stride()[axis])
    back = sorted(range(like.dim()), key=order.__getitem__)
    return tensor.permute(order).contiguous().permute(back)
