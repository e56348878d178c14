"""What is explained in one run: the tensors that gradients lead back to, and where their entries went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from apportion.engines.substitution.tensor_notes import TensorNotes


def leaves_before(tensor: Tensor) -> dict[int, Tensor]:
    """The leaves of the graph that a tensor was computed from, by identity, itself if it is one."""
    found = {id(tensor): tensor} if tensor.is_leaf else {}
    seen, nodes = set(), [tensor.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            found[id(leaf)] = leaf
        nodes.extend(before for before, _ in node.next_functions)
    return found


@dataclass(eq=False)
class Explained:
    """The leaves of one run, by identity.

    `waiting` says that no leaf is there yet: until the output of a layer further on is one, nothing depends on what is
    explained. `origins` says of a tensor which feature each of its entries is (see `follow`): positions of token ids,
    and with `probing` also zero probes of floating-point inputs. `lookup(rows, positions)` is handed the embeddings of
    token ids, and makes leaves of them; `constants` says of what it gives which rows are tokens of the model's own.
    """

    probing: bool = False
    waiting: bool = False
    origins: TensorNotes = field(default_factory=TensorNotes)
    constants: TensorNotes = field(default_factory=TensorNotes)
    lookup: Callable[[Tensor, Tensor], Tensor] | None = None
    _leaves: dict[int, Tensor] = field(default_factory=dict)  # the tensors too, so that no id is given again

    def add(self, leaf: Tensor) -> Tensor:
        self._leaves[id(leaf)] = leaf
        self.waiting = False
        return leaf

    def also(self, tensor: Tensor) -> None:
        """A tensor at which the model itself takes derivatives is no parameter either."""
        self._leaves[id(tensor)] = tensor

    def __contains__(self, tensor: object) -> bool:
        return id(tensor) in self._leaves
