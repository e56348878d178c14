"""What a model computes of its input where no gradient leads: conditions, indices, rounded or detached numbers.

Functions that join these to what is explained take them for constants, the same at the reference as at the input. Where
they are not, the difference is in the remainder, and is told with the name of the function.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from apportion.core.modules_behind import modules_behind
from apportion.core.private_torch import storage_of
from apportion.core.trees import map_tensors, tensors_in
from apportion.engines.substitution import Call, Substitute
from apportion.methods.propagation._rows import OpenRow


@dataclass
class Constants:
    """Compares what each function of a pass is given beside what is explained, in the order of the calls: first at the
    reference, then at the input. `weights` are the storages of the model's own tensors, which do not change."""

    weights: frozenset[int]
    given: deque[tuple[str, Any]] = field(default_factory=deque)
    calls: int = 0
    at_reference: bool = True
    lost: str = ""  # where the model called another function than at the reference
    changed: dict[str, OpenRow] = field(default_factory=dict)  # by place: what other constants changed there

    def watched(self, function: Substitute) -> Substitute:
        """The substitute, whose calls are compared; of one that is written out in others, those others."""

        def substitute(call: Call, *args: Any, **kwargs: Any) -> Any:
            watched = self.calls
            result = function(call, *args, **kwargs)
            if self.calls > watched:
                return result
            self.calls += 1
            if self.at_reference:
                self.given.append((call.name, self._kept(call)))
            elif (before := self._next(call)) is not None and not _alike((call.args, call.kwargs), before):
                self._measure(call, before, result)
            return result

        return substitute

    def _kept(self, call: Call) -> Any:
        """The arguments of a call, to be compared; None where nothing but what is explained can differ, as in a layer,
        whose input need not be kept then."""
        rest = [leaf for leaf in _flat((call.args, call.kwargs)) if not (_active(leaf) or leaf is None)]
        tensors = [leaf for leaf in rest if isinstance(leaf, Tensor)]
        if not rest or (tensors and all(storage_of(t) in self.weights for t in tensors)):
            return None
        return map_tensors((call.args, call.kwargs), Tensor.detach)

    def _next(self, call: Call) -> Any:
        name, before = self.given.popleft() if self.given else ("", None)
        if name != call.name:
            self.lost = self.lost or call.place
            self.given.clear()
            return None
        return before

    def _measure(self, call: Call, before: Any, result: Any) -> None:
        """Follow what the other constants change: the function of what was explained at the reference, with the
        constants of the input and with those of the reference. A hook learns how that counts."""
        row = self.changed.setdefault(call.place, OpenRow(call.run.where(), call.name, ruled=False))
        known = list(zip(_flat((call.args, call.kwargs)), _flat(before), strict=False))
        starts = [old for new, old in known if _active(new)]
        if any(new.shape != old.shape for new, old in known if _active(new)):
            row.rule = _RESHAPED
            return
        given = iter(starts)
        args, kwargs = map_tensors((call.args, call.kwargs), lambda t: next(given) if _active(t) else t)
        with torch.no_grad():
            pair = [list(tensors_in(call.function(*a, **k))) for a, k in ((args, kwargs), before)]
        for made, here, there in zip(tensors_in(result), *pair, strict=False):
            if not made.requires_grad:
                continue
            if made.shape != here.shape or here.shape != there.shape:
                row.rule = _RESHAPED
                continue
            made.register_hook(partial(row.add_product, "missed", here - there))

    def warnings(self, size: float, dtype: torch.dtype) -> tuple[str, ...]:
        """What is told once the multipliers are known: amounts that are more than the rounding of scores of a size."""
        told = []
        if self.lost or self.given:
            where = self.lost or f"the last {self.given[-1][0]!r}"
            told.append(
                f"at {where} the model took another way for the reference: what it adds there is in the remainder"
            )
        for place, row in self.changed.items():
            amount = row.sum_of("missed")
            if row.rule or abs(amount) > 32 * torch.finfo(dtype).eps * size:
                what = row.rule or f"{amount:.4g} of the scores"
                told.append(
                    f"at {place} a condition, an index or another number that is computed from the input differs "
                    f"between the reference and the input: what that changes ({what}) is in the remainder"
                )
        return tuple(told)


def storages_of_weights(model: Any) -> frozenset[int]:
    """Those of the model's own tensors, parameters and buffers."""
    tensors = (t for one in modules_behind(model) for t in (*one.parameters(), *one.buffers()))
    return frozenset(map(storage_of, tensors))


_RESHAPED = "results of another shape"


def _active(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.requires_grad


def _flat(tree: Any) -> Iterator[Any]:
    """Everything in some arguments, the ends of slices too."""
    if isinstance(tree, tuple | list):
        for item in tree:
            yield from _flat(item)
    elif isinstance(tree, dict):
        yield from _flat(list(tree.values()))
    elif isinstance(tree, slice):
        yield from (tree.start, tree.stop, tree.step)
    else:
        yield tree


def _alike(new: Any, old: Any) -> bool:
    """Whether two calls were given the same beside what is explained."""
    pairs = list(zip_longest(_flat(new), _flat(old), fillvalue=_NOTHING))
    return all(_active(a) or _equal(a, b) for a, b in pairs)


_NOTHING = object()


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a is b or a.shape != b.shape or a.dtype != b.dtype:
            return a is b
        return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())
    known = isinstance(a, int | float | complex | str | None) and isinstance(
        b, int | float | complex | str | None
    )
    return bool(a == b or (a != a and b != b)) if known else (a is _NOTHING) == (b is _NOTHING)
