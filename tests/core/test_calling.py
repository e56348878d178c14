"""What a user's model raises, told so that what it was given is seen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.core.memory import keep_freed_memory
from apportion.engines.masking.engine import Masking
from apportion.errors import InputError

METHODS = [ap.Saliency(), ap.LIME(samples=20)]


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 4), nn.Linear(4, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids).mean(1))


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_ids_that_an_embedding_does_not_have(method) -> None:
    message = r"no entry for one of the ids from 3 to 25 in inputs of shape \(1, 2\).*int64.*embeddings have 20 rows"
    with pytest.raises(InputError, match=message) as raised:
        method(Bag(), torch.tensor([[3, 25]]))
    assert isinstance(raised.value.__cause__, IndexError)
    with pytest.raises(InputError, match=r"looks up ids, but .*'ids' of shape .*float32; accepted: integers"):
        method(Bag(), {"ids": torch.tensor([[3.0, 2.0]])})


@pytest.mark.parametrize("method", [*METHODS, ap.GradCAM()], ids=lambda m: type(m).__name__)
def test_other_errors_of_a_model_are_its_own_with_a_note(method) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 5), nn.Flatten(), nn.Linear(32, 2))
    with pytest.raises(RuntimeError, match="Kernel size can't be greater") as raised:
        method(model, torch.rand(1, 3, 4, 4))
    assert raised.value.__notes__ == [
        "the model was called with inputs of shape (1, 3, 4, 4) and type torch.float32"
    ]


def test_the_first_call_in_a_process_runs_as_many_rows_at_once_as_the_next() -> None:
    keep_freed_memory.cache_clear()
    first = Masking(nn.Linear(3, 2), torch.rand(1, 3)).chunk
    keep_freed_memory()
    second = Masking(nn.Linear(3, 2), torch.rand(1, 3)).chunk
    assert first == second == 4096


def test_a_library_leaves_the_allocator_of_the_process_alone() -> None:
    keep_freed_memory.cache_clear()
    ap.Saliency()(nn.Linear(3, 2), torch.rand(1, 3))
    ap.LIME(samples=20)(nn.Linear(3, 2), torch.rand(1, 3))
    assert keep_freed_memory.cache_info().currsize == 0


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_a_target_that_raises(method) -> None:
    with pytest.raises(
        InputError, match=r"the target callable raised IndexError: .* scores of shape \(1, 2\)"
    ):
        method(nn.Linear(3, 2), torch.rand(1, 3), lambda scores: scores[:, 7])
    with pytest.raises(InputError, match="target is class 5, but the model has 2 classes"):
        method(nn.Linear(3, 2), torch.rand(1, 3), ap.Contrast(5, 0))


@pytest.mark.parametrize(
    "method",
    [
        ap.InputXGradient(),
        ap.LRP("epsilon"),
        ap.IntegratedGradients(),
        ap.SmoothGrad(samples=5),
        ap.Occlusion(),
        ap.KernelSHAP(),
        ap.IntegratedHessians(nodes=4),
    ],
    ids=lambda m: type(m).__name__,
)
@pytest.mark.parametrize("size", [1, 2])
def test_an_exported_program_of_one_size_of_batch_is_called_as_often_as_it_needs(method, size: int) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double().eval()
    x = torch.randn(2, 4, dtype=torch.float64)
    program = torch.export.export(model, (x[:size],)).module()
    torch.testing.assert_close(method(program, x, 1).values, method(model, x, 1).values)


def test_a_batch_that_an_exported_program_cannot_take_is_said() -> None:
    program = torch.export.export(nn.Linear(4, 3), (torch.randn(2, 4),)).module()
    with pytest.raises(
        InputError, match=r"takes batches of 2, but 3 rows are to be run; accepted: .*dynamic_shapes"
    ):
        ap.Saliency()(program, torch.randn(3, 4))


@pytest.mark.parametrize(
    "method", ["saliency", "ig", "lrp", "occlusion", "kernelshap", "shapleyinteractions"]
)
def test_a_target_that_gives_nan_is_named_by_every_engine(method: str) -> None:
    if method == "shapleyinteractions":
        pytest.importorskip("shapiq")
    model, x = torch.nn.Linear(4, 3), torch.ones(2, 4)
    with pytest.raises(
        InputError, match="the target callable gives NaN or infinite values for scores that are finite"
    ):
        ap.explain(model, x, method, lambda scores: scores[:, 0] * torch.nan)


def test_scores_of_each_step_are_refused_with_advice() -> None:
    for method in ("ig", "occlusion"):
        with pytest.raises(
            InputError, match=r"shape \(2, 5, 1\) .* one is explained at a time: lambda x: model\(x\)"
        ):
            ap.explain(lambda x: x[:, :, :1], torch.ones(2, 5, 4), method)
