"""Places inside a model: what a module returns, or what it is given.

`"layer3"` is the first floating point tensor that the module returns, `"lstm:1"` the second of them; `"layer3:input"`
is the first one that it is given, `"mix:input:1"` the second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from apportion.core.calling import Model, module_named
from apportion.core.trees import map_tensors, tensors_in
from apportion.errors import InputError

Take = Callable[[str, nn.Module, Tensor], Tensor]
"""`take(name of the place, module, tensor)` returns what is to stand there."""


class Place(NamedTuple):
    """A place by the name of its module, whether it is given or returned, and the number of its tensor.

    >>> place_named("layer3:input"), place_named("lstm:1").number
    (Place(module='layer3', given=True, number=0), 1)
    """

    module: str
    given: bool
    number: int


def place_named(name: str) -> Place:
    """Read the name of a place. InputError where it is none."""
    module, *rest = name.split(":")
    given = rest[:1] == ["input"]
    rest = rest[given:]
    if len(rest) > 1 or not all(each.isdecimal() for each in rest):
        raise InputError(
            f"there is no place {name!r}; accepted: the name of a module, and after it :input for what it is given, "
            "or :1 for the second tensor that it returns"
        )
    return Place(module, given, int(rest[0]) if rest else 0)


@contextmanager
def taking(model: Model, names: Sequence[str], take: Take) -> Iterator[None]:
    """Hand the tensors at these places to `take` while the model runs, in this thread."""
    thread = threading.get_ident()
    with ExitStack() as stack:
        for name in names:
            place = place_named(name)
            module = module_named(model, place.module)

            def replaced(tree: Any, module: nn.Module, name: str = name, place: Place = place) -> Any:
                found = [t for t in tensors_in(tree) if t.is_floating_point()]
                if place.number >= len(found):
                    raise InputError(_too_few(name, place, tree, len(found)))
                one = found[place.number]
                new = take(name, module, one)
                return tree if new is one else map_tensors(tree, lambda t: new if t is one else t)

            def after(module: nn.Module, _: Any, output: Any, replaced: Any = replaced) -> Any:
                return replaced(output, module) if threading.get_ident() == thread else None

            def before(module: nn.Module, args: Any, kwargs: Any, replaced: Any = replaced) -> Any:
                return replaced((args, kwargs), module) if threading.get_ident() == thread else None

            handle = (
                module.register_forward_pre_hook(before, with_kwargs=True)
                if place.given
                else module.register_forward_hook(after)
            )
            stack.callback(handle.remove)
        yield


def axis_of_samples(module: nn.Module, tensor: Tensor) -> int:
    """The axis of the samples in what a module returns or is given."""
    return int(tensor.dim() == 3 and getattr(module, "batch_first", True) is False)


def samples_first(module: nn.Module, tensor: Tensor) -> Tensor:
    """The same with the samples on the first axis."""
    axis = axis_of_samples(module, tensor)
    return tensor.movedim(axis, 0) if axis else tensor


def _too_few(name: str, place: Place, tree: Any, many: int) -> str:
    what = "is given" if place.given else f"returns {type(tree).__name__} with" if many else "returns"
    if not many:
        kind = (
            "no floating point tensor"
            if place.given
            else f"{type(tree).__name__} without a floating point tensor"
        )
        return f"layer {name!r} {what} {kind}"
    first = place.module + ":input" * place.given
    return f"layer {name!r} {what} {many} floating point tensors; accepted: {first}:0 to {first}:{many - 1}"
