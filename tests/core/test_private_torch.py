"""The private parts of torch do what they are used for; a new version of torch is tried against this first."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from apportion.core import private_torch


def test_all_that_is_named_is_there() -> None:
    assert all(hasattr(private_torch, name) for name in private_torch.__all__)


def test_a_view_knows_what_it_is_a_view_of() -> None:
    whole = torch.zeros(2, 3)
    assert private_torch.base_of(whole[0]) is whole
    assert private_torch.base_of(whole) is None
    assert private_torch.storage_of(whole[0]) == private_torch.storage_of(whole)
    assert private_torch.storage_of(whole.clone()) != private_torch.storage_of(whole)


def test_transforms_are_seen_and_looked_through() -> None:
    seen: list[tuple[bool, tuple[int, ...]]] = []

    def look(x: Tensor) -> Tensor:
        seen.append((private_torch.transform_level() is not None, tuple(private_torch.unwrapped(x).shape)))
        return x.sum()

    look(torch.ones(2))
    torch.func.vmap(torch.func.grad(look))(torch.ones(3, 2))
    assert seen == [(False, (2,)), (True, (3, 2))]


def test_a_row_that_is_masked_altogether_has_a_softmax_of_zero() -> None:
    scores = torch.tensor([[float("-inf")] * 2, [0.0, 0.0]])
    assert private_torch.safe_softmax(scores, -1).tolist() == [[0.0, 0.0], [0.5, 0.5]]


def test_operators_have_names_and_their_like() -> None:
    add = torch.ops.aten.add_.Tensor
    assert isinstance(add, private_torch.Operator)
    assert private_torch.named_operator(add) == ("aten", "add_")
    assert private_torch.overload_of(add, "add") is torch.ops.aten.add.Tensor
    assert private_torch.overload_of(add, "no such operator") is None


def test_the_module_behind_a_compiled_one() -> None:
    model = nn.Linear(2, 1)
    assert private_torch.original_of(torch.compile(model)) is model
    assert private_torch.original_of(model) is model


def test_only_exported_programs_tell_modules_by_their_lines() -> None:
    assert private_torch.module_of_line(nn.Linear(2, 1), 3) == ""
    assert private_torch.module_of_line(torch.fx.symbolic_trace(nn.Linear(2, 1)), 3) == ""


def test_the_common_classes_of_layers() -> None:
    for common, layers in {
        private_torch.BatchNorm: (nn.BatchNorm1d, nn.BatchNorm3d),
        private_torch.Convolution: (nn.Conv1d, nn.ConvTranspose2d),
        private_torch.Dropout: (nn.Dropout, nn.AlphaDropout),
    }.items():
        assert all(issubclass(layer, common) for layer in layers)
