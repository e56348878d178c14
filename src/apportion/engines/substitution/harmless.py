"""Substitutes that change no value and no gradient: they keep buffers untouched and gradients defined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from apportion.engines.substitution.call import Call, Substitute
from apportion.errors import InputError

NORMS = ("batch_norm", "instance_norm")


def without_running_updates(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a batch or instance norm with copies of the running statistics, which training mode
    writes into."""
    if not takes_statistics(args, kwargs):
        return args, kwargs
    copied = tuple(
        a.clone() if i in (1, 2, 3, 4) and isinstance(a, Tensor) else a for i, a in enumerate(args)
    )
    return copied, {
        k: v.clone() if k.startswith("running") and v is not None else v for k, v in kwargs.items()
    }


def takes_statistics(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a batch or instance norm measures what it is given, as in training mode or without running statistics."""
    return bool(kwargs.get("training") or kwargs.get("use_input_stats") or True in args[5:6])


def _normalise(call: Call, *args: Any, **kwargs: Any) -> Any:
    args, kwargs = without_running_updates(args, kwargs)
    return call.function(*args, **kwargs)


def _recurrent(call: Call, *args: Any, **kwargs: Any) -> Any:
    # cuDNN has a backward pass in training mode only; with dropout 0 that mode computes the same.
    if not call.actives[0].is_cuda:
        return call.native()
    # (input, hx, weights, bias, layers, dropout, train, …), or one more in front of them for a packed sequence.
    padded = isinstance(args[3], bool)
    place = 5 if padded else 6
    dropout, train = args[place], args[place + 1]
    return call.function(*args[:place], dropout if train else 0.0, True, *args[place + 2 :], **kwargs)


def no_derivatives(call: Call, *args: Any, **kwargs: Any) -> Any:
    """A substitute for `torch.autograd.grad` in tables that give functions other gradients than their own."""
    raise InputError(
        "the model differentiates itself (torch.autograd.grad), and this method would change its derivatives; use one "
        "that does not replace functions, such as IntegratedGradients or Occlusion"
    )


HARMLESS: Mapping[str, Substitute] = {
    **dict.fromkeys(NORMS, _normalise),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
}
