"""One call of a torch function while a model runs, and what a substitute may use of the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from apportion.core.trees import tensors_in
from apportion.engines.substitution.explained import Explained
from apportion.engines.substitution.function_names import Function
from apportion.engines.substitution.tensor_notes import TensorNotes


class Run(Protocol):
    """What a substitute may use of the run that its call belongs to."""

    state: Any
    """What the method keeps of this run, such as LRP's rows of the ledger: handed in by it, and its own affair."""

    notes: TensorNotes
    """What substitutes say of tensors to one another, such as that one weighs, or how a layer made it."""

    explained: Explained
    """The leaves, and which feature each entry of a tensor is where that is known."""

    def again(self, function: Function, *args: Any, **kwargs: Any) -> Any:
        """Call a torch function from inside a substitute so that it is substituted in its turn."""

    def where(self) -> str:
        """The dotted name of the module whose code is running, "" for the model itself."""


@dataclass(slots=True)
class Call:
    """One function call that an active tensor (one that depends on the explained input) takes part in."""

    run: Run
    function: Function
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def native(self) -> Any:
        """What the model asked for."""
        return self.function(*self.args, **self.kwargs)

    @property
    def place(self) -> str:
        """The function and whose code calls it, in words."""
        return f"{self.name!r} in {self.run.where() or 'the model'!r}"

    @property
    def actives(self) -> list[Tensor]:
        return [t for t in tensors_in((self.args, self.kwargs)) if t.requires_grad]


Substitute = Callable[..., Any]
"""`substitute(call, *args, **kwargs)` returns what the function is to return."""


def native(call: Call, *args: Any, **kwargs: Any) -> Any:
    return call.native()
