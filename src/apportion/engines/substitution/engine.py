"""The mode under which a model runs: every torch function that it calls comes here first.

`torch.overrides.TorchFunctionMode` sees them however they are called. A method is a table from a function's *name*
("linear" stands for `F.linear`, `torch._C._nn.linear` and `aten.linear.default`) to its substitute; `+=`, `relu_` and
`inplace=True` arrive as their out-of-place twins.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from apportion.core.private_torch import (
    keeps_as_it_is,
    module_of_line,
    set_grad_enabled,
    transform_level,
    unwrapped,
)
from apportion.core.trees import map_tensors, tensors_in
from apportion.engines.substitution.call import Call, Substitute, native
from apportion.engines.substitution.explained import Explained
from apportion.engines.substitution.follow import embed, follow
from apportion.engines.substitution.function_names import MOVES, Function, Identity, identify
from apportion.engines.substitution.harmless import HARMLESS, NORMS, takes_statistics, without_running_updates
from apportion.engines.substitution.tensor_notes import TensorNotes
from apportion.engines.substitution.writes import Writes
from apportion.errors import InputError


@dataclass(eq=False)
class Substitution(TorchFunctionMode):
    """Runs whatever is called inside `with` under a table of substitutes; a `Run` for these.

    `table` gives the substitute of a name, `default` that of all other active calls, those that depend on what is
    `explained`. `state` is the method's own. `arrived(run, tensor)` is told of every tensor with a gradient that is
    computed with or returned by the model, and gives what stands for it; `returned(result)` is told of what substitutes
    made. What happens in the run is kept in three places: `explained` (the leaves), `writes` (what stands for tensors
    that the model writes into) and `met` (what could not be replaced).

    >>> double = Substitution({"relu": lambda call, input, **_: 2 * input})
    >>> x = torch.ones(2, requires_grad=True) * 1  # leaves are taken for parameters, which are constant
    >>> with double:
    ...     print(torch.nn.functional.relu(x).tolist())
    [2.0, 2.0]
    """

    table: Mapping[str, Substitute] = field(default_factory=lambda: HARMLESS)
    default: Substitute = native
    model: Any = None
    state: Any = None
    explained: Explained = field(default_factory=Explained)
    arrived: Callable[[Substitution, Tensor], Tensor] | None = None
    returned: Callable[[Any], None] | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self.notes = TensorNotes()
        self.writes = Writes()
        self.met = Met()

    # ---- the dispatch ----

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        identity = identify(func)
        if identity.passive:
            return self._ask(func, identity, args, kwargs)
        if keeps_as_it_is():
            return self._replaced(func, identity, args, kwargs)
        # Inside a checkpoint, which would run this again in the backward pass, where nothing is replaced.
        with saved_tensors_hooks(lambda saved: saved, lambda saved: saved):
            return self._replaced(func, identity, args, kwargs)

    def _replaced(
        self, func: Function, identity: Identity, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A call that computes, with its substitute in its place."""
        # Weights are standardised by the same function, laid out as one row.
        if identity.name == "batch_norm" and takes_statistics(args, kwargs) and _is_of_rows(args, kwargs):
            self.met.of_batch.add(_OF_BATCH.format(self.where() or "the model"))
        if transform_level() is not None:
            return self._transformed(func, identity, args, kwargs)
        # `out=` is written into, too, but read by none: `source` below is what the call reads and then writes.
        out = kwargs.get("out")
        in_place = identity.in_place or bool(kwargs.get("inplace")) or out is not None
        if self.explained.waiting and not in_place and not self.writes:
            return _before_what_is_explained(func, identity, args, kwargs)
        written = (args[0] if args else kwargs.get("input")) if in_place and out is None else out
        if in_place:
            kwargs = {k: False if k == "inplace" else v for k, v in kwargs.items() if k != "out"}
        args, kwargs, active = self._ready(args, kwargs, in_place)
        source = None if out is not None else args[0] if args else kwargs.get("input")
        if not active:
            return self._inactive(func, identity, args, kwargs, written, source)
        if identity.in_place:
            func = identity.twin or _on_a_copy(func)
        elif identity.name in ("view", "view_as"):
            func = _of_any_layout(func)
        call = Call(self, func, identity.name, args, kwargs)
        result = self.table.get(identity.name, self.default)(call, *call.args, **call.kwargs)
        if self.returned is not None:
            self.returned(result)
        if self.explained.probing and self.explained.origins:
            follow(call, result)
        return self._write(written, result, source) if in_place else result

    def _ask(self, func: Function, identity: Identity, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that computes nothing (a shape, a type, a number as Python's), of the tensor as it is by now."""
        if self.writes:
            args = map_tensors(args, self.current)
        if identity.name == "requires_grad_":
            if not isinstance(args[0], torch.nn.Parameter):
                self.explained.also(args[0])
        elif identity.name in _LEAVES_TORCH and args[0].requires_grad:
            raise InputError(
                "the model leaves PyTorch (it makes a NumPy array of what depends on the input), so there is no "
                "gradient; use a method that hides features instead, such as Occlusion or KernelSHAP"
            )
        return func(*args, **kwargs)

    def _transformed(
        self, func: Function, identity: Identity, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A call under `vmap` or `grad` of `torch.func`, whose tensors hide what they depend on: not replaced."""
        substitute = self.table.get(identity.name)
        replaced = substitute is not None and substitute is not HARMLESS.get(identity.name)
        if replaced and any(self._depends(unwrapped(t)) for t in tensors_in((args, kwargs))):
            self.met.transformed.add(identity.name)
        if self.writes:
            args, kwargs = map_tensors(args, self.current), map_tensors(kwargs, self.current)
        return func(*args, **kwargs)

    def _ready(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], in_place: bool
    ) -> tuple[tuple[Any, ...], dict[str, Any], bool]:
        """The arguments as they are by now, parameters as constants, and whether anything among them is active."""
        redirected, active = bool(self.writes), False
        # Without gradients nothing leads back to the input; a custom autograd function runs its forward like that. What
        # it writes in place must be seen all the same.
        graph = in_place or torch.is_grad_enabled()

        def ready(tensor: Tensor) -> Tensor:
            nonlocal active
            if redirected:
                tensor = self.current(tensor)
            if graph and tensor.is_inference():  # a weight made there, which no graph may hold
                return tensor.detach().clone()
            if not tensor.requires_grad:
                return tensor
            if tensor.is_leaf and tensor not in self.explained:
                return tensor.detach()
            if graph:
                if self.arrived is not None:
                    tensor = self.arrived(self, tensor)
                active = active or tensor.requires_grad
            return tensor

        args = map_tensors(args, ready)
        return args, map_tensors(kwargs, ready) if kwargs else kwargs, active

    def _inactive(
        self,
        func: Function,
        identity: Identity,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        written: Any,
        source: Any,
    ) -> Any:
        """A call on constants, which may look up what is explained, and must not write into anything either."""
        before = args
        if identity.name in NORMS:
            args, kwargs = without_running_updates(args, kwargs)
        elif kwargs.get("max_norm") is not None:  # an embedding that would shrink its weights first
            args = map_tensors(args, lambda t: t.clone() if t.is_floating_point() else t)
        self.met.spared |= args is not before
        if identity.in_place:  # the twin of `bernoulli_` and of some others does something else
            func = identity.twin if identity.twin and identity.name in MOVES else _on_a_copy(func)
        call = Call(self, func, identity.name, args, kwargs)
        origins = self.explained.origins
        if origins and identity.name in ("embedding", "embedding_bag"):
            found = embed(call)
            if found is not None:
                return found
        result = func(*args, **kwargs)
        if identity.name == "view_as":
            self.met.given[result] = args[0]
        if origins and not (isinstance(result, Tensor) and result.is_floating_point()):
            follow(call, result)
        if written is not None:
            self._write(written, result, source)
        # Not the result: `self.count += 1` would bind it to the model's attribute. `current` finds it.
        return result if written is None else written

    # ---- what substitutes and methods use ----

    def again(self, function: Function, *args: Any, **kwargs: Any) -> Any:
        """Call a torch function from inside a substitute so that it is substituted in its turn."""
        return self.__torch_function__(function, (), args, kwargs)

    def where(self) -> str:
        """The dotted name of the module whose code is running, found on the call stack ("" for the model)."""
        frame = sys._getframe(1)
        while frame is not None:
            if "self" in frame.f_code.co_varnames:
                owner = frame.f_locals.get("self")
                name = self._names.get(id(owner))
                if name is not None:
                    return module_of_line(owner, frame.f_lineno) or name
            frame = frame.f_back  # type: ignore[assignment]
        return ""

    def current(self, tensor: Tensor) -> Tensor:
        """The tensor that stands for this one after all that the model wrote."""
        return self.writes.current(tensor)

    def settled(self, tensor: Tensor) -> Tensor:
        """The same of a tensor that the model returned, which may come from a function that was not seen."""
        tensor = self.current(tensor)
        return self.arrived(self, tensor) if tensor.requires_grad and self.arrived is not None else tensor

    def put(self, stand_in: Tensor, tensor: Tensor) -> None:
        """Told that a tensor stands in the place of another from here on, for runs that follow it."""

    @cached_property
    def _names(self) -> dict[int, str]:
        """The dotted name of each module of the model, by identity."""
        known = isinstance(self.model, torch.nn.Module)
        return {id(module): name for name, module in self.model.named_modules()} if known else {}

    def _depends(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on what is explained, and is no parameter."""
        return tensor.requires_grad and (not tensor.is_leaf or tensor in self.explained)

    def _write(self, written: Any, result: Any, source: Tensor | None) -> Any:
        return self.writes.into(written, result, source, partial(self.again, torch.clone))


@dataclass(eq=False)
class Met:
    """What a run met that no substitute could see: the names of functions under `torch.func`, and what a custom
    autograd function was given, by the view of it that it returned. `spared` says that a function would have written
    into weights or buffers, and got copies of them; `of_batch` what makes a row's scores depend on the others."""

    transformed: set[str] = field(default_factory=set)
    given: TensorNotes = field(default_factory=TensorNotes)
    spared: bool = False
    of_batch: set[str] = field(default_factory=set)


def _is_of_rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a function of the first axis is given more than one row."""
    return len(args[0] if args else kwargs["input"]) > 1


_OF_BATCH = (
    "a batch norm in {!r} takes the statistics of the batch, also in evaluation mode: a score depends on the rows that "
    "are run with it, so the values depend on them too; accepted: running statistics, as of track_running_stats=True"
)


_LEAVES_TORCH = frozenset({"numpy", "__array__"})


def _before_what_is_explained(
    func: Function, identity: Identity, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A call that nothing explained can have reached yet: nothing is recorded for a backward pass."""
    if identity.name in NORMS:
        args, kwargs = without_running_updates(args, kwargs)
    before = torch.is_grad_enabled()
    set_grad_enabled(False)
    try:
        return func(*args, **kwargs)
    finally:
        set_grad_enabled(before)


@cache
def _of_any_layout(view: Function) -> Function:
    """A view of what a substitute may have laid out otherwise in memory than the function in its place, such as a fused
    attention, did."""

    def viewed(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        try:
            return view(tensor, *args, **kwargs)
        except RuntimeError:
            return view(tensor.contiguous(), *args, **kwargs)

    return viewed


@cache
def _on_a_copy(function: Function) -> Function:
    """An in-place function without an out-of-place twin, as one."""

    def out_of_place(written: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        fresh = written.clone()
        function(fresh, *args, **kwargs)
        return fresh

    return out_of_place
