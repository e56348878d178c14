"""What is chosen by looking at the module is the same for a function around it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.core.modules_behind import modules_behind
from apportion.errors import InputError


def cnn() -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head = nn.LSTM(5, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0].sum(1))


class Holder:
    def __init__(self, net: nn.Module) -> None:
        self.parts = {"net": net}

    def predict(self, x: Tensor) -> Tensor:
        return self.parts["net"](x)

    def __call__(self, x: Tensor) -> Tensor:
        return self.predict(x)


GLOBAL = cnn()


def by_global(x: Tensor) -> Tensor:
    return GLOBAL(x)


def around(net: nn.Module) -> dict[str, Callable[..., Any]]:
    inner = lambda x: net(x)  # noqa: E731
    return {
        "lambda": lambda x: net(x),
        "of a lambda": lambda x: inner(x),
        "inner": lambda x: next(net(y) for y in [x]),
        "default": lambda x, net=net: net(x),
        "partial": partial(lambda net, x: net(x), net),
        "bound": Holder(net).predict,
        "object": Holder(net),
        "forward": net.forward,
    }


@pytest.mark.parametrize("way", list(around(nn.Identity())))
@pytest.mark.parametrize(
    ("make", "x", "name"),
    [
        (cnn, torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), "epsilon-plus-flat"),
        (Recurrent, torch.rand(1, 6, 5, generator=torch.Generator().manual_seed(0)), "recurrent"),
    ],
)
def test_a_function_around_a_model_is_explained_as_the_model(
    way: str, make: Callable[[], nn.Module], x: Tensor, name: str
) -> None:
    net = make()
    direct, found = ap.LRP()(net, x, target=1), ap.LRP()(around(net)[way], x, target=1)
    torch.testing.assert_close(found.values, direct.values)
    assert found.notes["composite"] == direct.notes["composite"] == name
    assert f"in {type(net).__name__}, found behind the function" in found.notes["because"]


def test_a_global_model_is_found() -> None:
    assert modules_behind(by_global) == [GLOBAL]
    assert modules_behind(torch.relu) == modules_behind(lambda x: torch.nn.functional.relu(x)) == []
    note = ap.LRP()(lambda x: x.flatten(1), torch.ones(1, 2), 0).notes
    assert note == {"composite": "epsilon", "because": "no module was found behind the function"}


def test_training_mode_and_torchscript_are_noticed_behind_a_function() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with pytest.warns(UserWarning, match="training mode: 1 "):
        ap.InputXGradient()(lambda x: net(x), torch.rand(4, 3), 0)
    scripted = torch.jit.script(net.eval())
    with pytest.raises(InputError, match="TorchScript, whose functions cannot be seen"):
        ap.LRP()(lambda x: scripted(x), torch.rand(4, 3), 0)
