"""What comes from functions that no mode sees: custom autograd functions, TorchScript, compiled code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from apportion.core.modules_behind import modules_behind
from apportion.core.private_torch import base_of
from apportion.core.trees import tensors_in
from apportion.engines.substitution.engine import Substitution
from apportion.engines.substitution.explained import Explained
from apportion.engines.substitution.tensor_notes import TensorNotes
from apportion.errors import InputError

_OF_HOOKS = "BackwardHookFunctionBackward"


@dataclass(eq=False)
class Unseen:
    """Tells the tensors that seen functions made from others that depend on what is explained.

    The `arrived` and `returned` of a run must be this one's. `told(run, tensor, maker)` is called once of each tensor
    that `maker`, the name of a gradient function, made where nothing was seen.
    """

    told: Callable[[Substitution, Tensor, str], None]
    known: TensorNotes = field(default_factory=TensorNotes)

    def returned(self, result: Any) -> None:
        """Registers what a substitute made."""
        for tensor in tensors_in(result):
            if tensor.requires_grad:
                self.known[tensor] = True

    def arrived(self, run: Substitution, tensor: Tensor) -> Tensor:
        """Notices tensors that come from functions which were not seen. What was computed from parameters before the
        model was called is a constant."""
        explained = run.explained
        while tensor.grad_fn is not None and tensor.grad_fn.name() == _OF_HOOKS:
            tensor = run.met.given.get(tensor)  # a module's backward hooks are no part of the model
        if not tensor.requires_grad or tensor in explained:
            return tensor
        depends = self.known.get(tensor)
        if depends is None:
            self.known[tensor] = depends = _is_explained(tensor, explained)
            if depends and not self._is_view_of_seen(run, tensor):
                self.told(run, tensor, "unknown" if tensor.grad_fn is None else tensor.grad_fn.name())
        return tensor if depends else tensor.detach()

    def _is_view_of_seen(self, run: Substitution, tensor: Tensor) -> bool:
        if isinstance(tensor.grad_fn, BackwardCFunction):
            return False  # a view of its input, whose gradient is the function's own
        base = base_of(tensor)
        if base is not None and (self.known.get(base) or base in run.explained):
            return True
        maker = "" if tensor.grad_fn is None else tensor.grad_fn.name()
        return maker.startswith(("AsStrided", "torch::autograd::CopySlices"))


def describe_unseen(maker: str, where: str) -> str:
    """What a warning says of a function that was not seen, called before this module (or by the model)."""
    return f"a function that cannot be seen ({maker}) is called {f'before {where!r}' if where else 'by the model'}"


def check_visible(model: Any) -> None:
    """Raise InputError for TorchScript, in which no function can be replaced."""
    for name, module in (named for one in modules_behind(model) for named in one.named_modules()):
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(
                f"{name or 'the model'} is TorchScript, whose functions cannot be seen; explain the original module "
                "or a torch.export'ed program instead"
            )


def _is_explained(tensor: Tensor, explained: Explained) -> bool:
    """True if a tensor was computed from what is explained."""
    seen, nodes = set(), [tensor.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        if getattr(node, "variable", None) in explained:
            return True
        seen.add(node)
        nodes.extend(before for before, _ in node.next_functions)
    return False
