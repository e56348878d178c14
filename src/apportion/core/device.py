"""Where a model is, by the name of a device."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from apportion.errors import InputError, first_line


def check_device(device: Any) -> None:
    """Raise InputError for what is no device; None is the usual one."""
    try:
        if device is not None and torch.device(device).type == "meta":
            raise TypeError("it holds no numbers")
    except (RuntimeError, TypeError):
        raise InputError(
            f"device is {device!r:.200}; accepted: one of PyTorch's, such as 'cpu' or 'cuda:0'"
        ) from None


def move(model: Any, device: str | None) -> None:
    """Move a module to a device; a function stays where it is, and so does all without a device."""
    check_device(device)
    if device is None or not isinstance(model, nn.Module):
        return
    try:
        model.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # there is no such device
        why = first_line(error) or type(error).__name__
        raise InputError(f"device is {device!r}, where the model cannot go: {why}") from error
