"""No method and no test writes into a model, whatever the model itself would write: one contract for all of them, over
models made to provoke it."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.errors import InputError
from apportion.names import INTERACTIONS, METHODS, TESTS
from test_every_method import method
from test_every_test import made_test


class Renormalised(nn.Module):
    """Its embedding shrinks the rows that are looked up, in every pass and in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 6, max_norm=0.5), nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids).mean(1).tanh())


class Counting(nn.Module):
    """Keeps a count and a running mean, in buffers and in a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(6))
        self.seen = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.mean.mul_(0.9).add_(x.detach().mean(0) * 0.1)
        self.seen.add_(1)
        return self.layer((x - self.mean).relu())


class Summary(nn.Module):
    """What TorchScript runs as a child: it writes into its own copy and reads a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.register_buffer("scale", torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x) * self.scale
        y.relu_()
        return y


def with_a_scripted_child() -> nn.Sequential:
    return nn.Sequential(torch.jit.script(Summary()), nn.Linear(6, 3)).eval()


class Deep(nn.Module):
    """A norm in training mode three levels down, its parents in evaluation mode, beside embeddings that shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 6, max_norm=0.5)
        self.kinds = nn.EmbeddingBag(20, 6, max_norm=0.5, mode="sum")
        self.block = nn.Sequential(
            nn.Sequential(nn.Conv1d(6, 6, 1), nn.BatchNorm1d(6), nn.Dropout(0.5)), nn.Tanh()
        )
        self.head = nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.block(self.words(ids).transpose(1, 2)).mean(2) + self.kinds(ids))


def deep() -> Deep:
    model = Deep().eval()
    model.block[0][1].train()
    return model


def with_gradients(model: nn.Module) -> nn.Module:
    """Weights that hold a gradient already, as in the middle of training, and some without."""
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, 0.5) if number % 2 else None
    return model


def pictures(norm: nn.Module) -> nn.Sequential:
    pooled = [nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)]
    return nn.Sequential(nn.Conv2d(3, 6, 3), norm, *pooled).eval()


def child_in_training(norm: nn.Module) -> nn.Sequential:
    model = pictures(norm)
    model[1].train()
    return model


def given_a_gradient(x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    x.grad = torch.full_like(x, 2.0)
    return x


def behind_a_function(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: model(x)


PICTURE, ROW = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.ones(2, 6)
# The model, what is called, and its input.
PROVOKING: dict[str, Callable[[], tuple[nn.Module, Any, Tensor]]] = {
    "max_norm": lambda: (m := Renormalised().eval(), m, torch.arange(1, 11).view(2, 5)),
    "counting": lambda: (m := Counting().eval(), m, ROW),
    "instance norm": lambda: (
        m := child_in_training(nn.InstanceNorm2d(6, True, track_running_stats=True)),
        m,
        PICTURE,
    ),
    "batch norm": lambda: (m := child_in_training(nn.BatchNorm2d(6)), m, PICTURE),
    "batch norm without momentum": lambda: (
        m := child_in_training(nn.BatchNorm2d(6, momentum=None)),
        m,
        PICTURE,
    ),
    "a norm in training deep inside": lambda: (m := deep(), m, torch.arange(1, 11).view(2, 5)),
    "a scripted child": lambda: (m := with_a_scripted_child(), m, ROW),
    "gradients on weights": lambda: (
        m := with_gradients(pictures(nn.BatchNorm2d(6))),
        m,
        PICTURE.clone().requires_grad_(),
    ),
    "gradients on inputs": lambda: (m := with_gradients(Counting().eval()), m, given_a_gradient(ROW)),
    "behind a function": lambda: (m := pictures(nn.BatchNorm2d(6)).train(), behind_a_function(m), PICTURE),
}


def state(model: nn.Module, x: Tensor) -> dict[str, Any]:
    own = {name: tensor.clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    plain = {f"{name}.seen": m.seen.clone() for name, m in model.named_modules() if hasattr(m, "seen")}
    given = (*model.named_parameters(), ("the input", x))
    grads = {f"{name}.grad": None if p.grad is None else p.grad.clone() for name, p in given}
    grads |= {f"{name}.requires_grad": p.requires_grad for name, p in given} | {
        "the input": x.detach().clone()
    }
    modes = {f"{name}.training": m.training for name, m in model.named_modules()}
    chance = {"random state": torch.get_rng_state(), "NumPy's": repr(np.random.get_state()[1:])}
    return {**own, **plain, **grads, **modes, **chance, "Python's": random.getstate()}


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name, value in before.items() if not _same(value, after[name])]


def _same(value: Any, now: Any) -> bool:
    if isinstance(value, Tensor):
        return isinstance(now, Tensor) and torch.equal(value, now)
    return bool(value == now)


@pytest.mark.parametrize("provoking", PROVOKING)
@pytest.mark.parametrize("name", [*METHODS, *INTERACTIONS])
def test_no_method_writes(name: str, provoking: str) -> None:
    model, called, x = PROVOKING[provoking]()
    before = state(model, x)
    with warnings.catch_warnings(), suppress(InputError):
        warnings.simplefilter("ignore")
        method(name, "cnn" if x.dim() == 4 else "")(called, x, 1)
    assert changed(before, state(model, x)) == []


@pytest.mark.parametrize("provoking", PROVOKING)
@pytest.mark.parametrize("name", TESTS)
def test_no_test_writes(name: str, provoking: str) -> None:
    model, called, x = PROVOKING[provoking]()
    with warnings.catch_warnings(), suppress(InputError):
        warnings.simplefilter("ignore")
        explanation = ap.InputXGradient()(called, x, 1)
        before = state(model, x)
        made_test(name)(called, x, explanation, labels=torch.tensor([0, 1]))
    assert changed(before, state(model, x)) == []


@pytest.mark.parametrize("name", ["saliency", "lrp", "occlusion", "gradcam", "ih"])
def test_what_a_scripted_norm_would_write_is_refused_before(name: str) -> None:
    model = child_in_training(nn.BatchNorm2d(6))
    scripted = torch.jit.trace(model, PICTURE, check_trace=False)
    before = {key: value.clone() for key, value in scripted.state_dict().items()}
    with pytest.raises(
        InputError, match=r"1 is a TorchScript BatchNorm2d in training mode.*model.eval\(\) first"
    ):
        method(name, "cnn")(scripted, PICTURE, 1)
    assert changed(before, dict(scripted.state_dict())) == []
    assert ap.Occlusion(patch=4)(scripted.eval(), PICTURE, 1).values.shape == PICTURE.shape
