"""The private parts of torch that the package stands on, each with the reason why nothing public serves.

They are named here and nowhere else, so that a new version of torch is checked against this page.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch._C import _set_grad_enabled as set_grad_enabled
from torch._ops import OpOverload as Operator
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.conv import _ConvNd as Convolution
from torch.nn.modules.dropout import _DropoutNd as Dropout

__all__ = [
    "BatchNorm",  # the common class of batch norms of every dimension
    "Convolution",  # the same of convolutions
    "Dropout",  # the same of dropouts
    "Operator",  # one overload of an operator, as exported programs call them
    "base_of",
    "function_modes",
    "functions_are_seen",
    "hooks_of",
    "is_watched",
    "keeps_as_it_is",
    "module_of_line",
    "named_operator",
    "no_saved_hooks",
    "original_of",
    "overload_of",
    "put_function_modes",
    "put_functions_are_seen",
    "put_no_saved_hooks",
    "safe_softmax",
    "set_grad_enabled",  # `torch.no_grad` takes as long as a small function itself, and is needed around each
    "storage_of",
    "transform_level",
    "unwrapped",
    "without_functions",
]

# Inside `vmap` and `grad` of torch.func a mode sees wrapped tensors that do not say what they depend on.
transform_level = _functorch.maybe_current_level

# What autograd saves is handed to somebody, as in a checkpoint, who gives it back later.
_saved_for = torch._C._autograd._top_saved_tensors_default_hooks


def keeps_as_it_is() -> bool:
    """Whether autograd keeps what it saves for the backward pass itself."""
    return _saved_for(False) is None


# What is called inside it is seen by no mode, our own included.
without_functions = torch._C.DisableTorchFunction

# A softmax whose rows may be masked altogether: zero there, where `softmax` gives NaN.
safe_softmax = torch._safe_softmax


def is_watched() -> bool:
    """Whether a mode sees the functions that are called here, as under the substitution engine."""
    return torch._C._len_torch_function_stack() > 0


def function_modes() -> list[Any]:
    """The modes that see functions now, the outermost first."""
    return [torch._C._get_function_stack_at(place) for place in range(torch._C._len_torch_function_stack())]


def put_function_modes(modes: list[Any]) -> None:
    """Let these modes see functions, and no others: an interrupt can leave some behind, or leave one twice."""
    now = function_modes()
    if len(now) == len(modes) and all(a is b for a, b in zip(now, modes, strict=True)):
        return
    while torch._C._len_torch_function_stack():
        torch._C._pop_torch_function_stack()
    for mode in modes:
        torch._C._push_on_torch_function_stack(mode)


functions_are_seen = torch._C._is_torch_function_enabled

# A guard puts back what it found, as often as it is left: this one found that functions are seen.
with torch._C._EnableTorchFunction():
    _seen = without_functions()
    with _seen:
        pass


def put_functions_are_seen(seen: bool) -> None:
    """Let functions be seen by modes and subclasses in this thread, or not."""
    if seen:
        _seen.__exit__(None, None, None)
    else:
        without_functions().__enter__()


no_saved_hooks = torch._C._autograd._saved_tensors_hooks_get_disabled_error_message


def put_no_saved_hooks(told: str | None) -> None:
    """Say what an attempt to hand saved tensors to somebody is refused with, or let it be."""
    if told is None:
        torch._C._autograd._saved_tensors_hooks_enable()
    else:
        torch._C._autograd._saved_tensors_hooks_disable(told)


def hooks_of(module: Any) -> list[dict[int, Any]]:
    """The hooks of a module that run around its forward pass, or those of all modules for None."""
    if module is None:
        of_all = torch.nn.modules.module
        return [of_all._global_forward_hooks, of_all._global_forward_pre_hooks]
    return [module._forward_hooks, module._forward_pre_hooks]


def unwrapped(tensor: Tensor) -> Tensor:
    """The tensor in what `torch.func` made of it."""
    while _functorch.is_functorch_wrapped_tensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


def base_of(tensor: Tensor) -> Tensor | None:
    """The tensor of which this one is a view: what is written into one of them is read in the other."""
    return tensor._base if tensor._is_view() else None


def storage_of(tensor: Tensor) -> int:
    """The identity of the storage. Its address will not do: tensors of other kinds, as distributed ones, have none."""
    return int(tensor.untyped_storage()._cdata)


def named_operator(operator: Operator) -> tuple[str, str]:
    """The name space and the name of an operator, as "aten" and "linear"."""
    space, name = str(operator._schema.name).split("::")
    return space, name


def overload_of(operator: Operator, name: str) -> Any:
    """The same overload of another operator of torch's, or None."""
    return getattr(getattr(torch.ops.aten, name, None), operator._overloadname, None)


def original_of(model: Any) -> Any:
    """The module that was compiled: compiled code calls no torch function that could be seen."""
    return getattr(model, "_orig_mod", model)


def module_of_line(owner: Any, line: int) -> str:
    """The module that a line of an exported program came from; such programs have lost their modules' calls."""
    lines = getattr(owner, "_lineno_map", None) if isinstance(owner, torch.fx.GraphModule) else None
    if not lines:
        return ""
    before = getattr(owner, "_prologue_start", None) or 0  # before torch 2.9 there is none
    node = list(owner.graph.nodes)[lines.get(line - before, 0)]
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""
