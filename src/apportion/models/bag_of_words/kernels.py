"""Kernels over histograms, and what each allows: a sum over dimensions (eq. 12), a gradient (eq. 13), or both.

A kernel is any callable from (n, dimensions) and (m, dimensions) tensors to (n, m). If it also has `terms`,
(n, m, dimensions) numbers whose sum over the dimensions it is, the decomposition is exact; if it is
differentiable (torch functions are, unless `differentiable = False` says otherwise), it can be decomposed along
a path or by Taylor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from apportion.errors import InputError, did_you_mean

Kernel = Callable[[Tensor, Tensor], Tensor]

NUMBERS = 1 << 24  # that a kernel which compares every dimension holds at once
TINY = 1e-300


@dataclass(frozen=True)
class Linear:
    """`Σ_d a_d b_d`. Sum-decomposable and differentiable."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b.T

    def terms(self, a: Tensor, b: Tensor) -> Tensor:
        return a[:, None] * b


@dataclass(frozen=True)
class Intersection:
    """Histogram intersection, `Σ_d min(a_d, b_d)` for numbers from zero on. Sum-decomposable, with kinks.

    Computed as `½ (|a|₁ + |b|₁ − |a − b|₁)`.

    >>> Intersection()(torch.tensor([[0.2, 0.8]]), torch.tensor([[0.5, 0.5]])).item()
    0.699...
    """

    differentiable = False
    nonnegative = True

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return (a.sum(1)[:, None] + b.sum(1) - torch.cdist(a, b, p=1)) / 2

    def terms(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.minimum(a[:, None], b)


@dataclass(frozen=True)
class ChiSquared:
    """`Σ_d 2 a_d b_d / (a_d + b_d)` for numbers from zero on. Sum-decomposable and differentiable."""

    nonnegative = True

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return _evaluate_in_rows(lambda rows, b: self.terms(rows, b).sum(2), a, b)

    def terms(self, a: Tensor, b: Tensor) -> Tensor:
        return 2 * a[:, None] * b / (a[:, None] + b).clamp(min=TINY)  # (n, m, dimensions)


@dataclass(frozen=True)
class _OfDistance:
    """The base of kernels `exp(−γ d)` of a distance d."""

    gamma: float | None = None

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        raise NotImplementedError

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        if self.gamma is None:
            raise InputError(f"{self!r} has no gamma yet; accepted: a number, or fitting it to data")
        return torch.exp(-float(self.gamma) * self.distance(a, b))  # (n, m)


@dataclass(frozen=True)
class ExponentialChiSquared(_OfDistance):
    """`exp(−γ Σ_d (a_d − b_d)² / (a_d + b_d))` for numbers from zero on. Differentiable.

    Attributes:
        gamma (float, default None): γ; None: the inverse of the mean distance of the training images.
    """

    nonnegative = True

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        def each(rows: Tensor, b: Tensor) -> Tensor:
            return ((rows[:, None] - b).square() / (rows[:, None] + b).clamp(min=TINY)).sum(2)

        return _evaluate_in_rows(each, a, b)


@dataclass(frozen=True)
class RBF(_OfDistance):
    """`exp(−γ |a − b|²)`. Differentiable.

    Attributes:
        gamma (float, default None): γ; None: the inverse of the mean distance of the training images.
    """

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * (a @ b.T)
        return squares.clamp(min=0)


@dataclass(frozen=True)
class Laplacian(_OfDistance):
    """`exp(−γ |a − b|₁)`. Differentiable but where a coordinate of both is equal: a path meets that in single points
    only.

    Attributes:
        gamma (float, default None): γ; None: the inverse of the mean distance of the training images.
    """

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cdist(a, b, p=1)


@dataclass(frozen=True)
class Polynomial:
    """`(γ Σ_d a_d b_d + c)^degree`. Differentiable.

    Attributes:
        degree (float, default 3): The exponent.
        gamma (float, default 1.0): γ.
        constant (float, default 0.0): c.
    """

    degree: float = 3
    gamma: float = 1.0
    constant: float = 0.0

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return (self.gamma * (a @ b.T) + self.constant) ** self.degree


@dataclass(frozen=True)
class Sigmoid:
    """`tanh(γ Σ_d a_d b_d + c)`. Differentiable.

    Attributes:
        gamma (float, default 1.0): γ.
        constant (float, default 0.0): c.
    """

    gamma: float = 1.0
    constant: float = 0.0

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.tanh(self.gamma * (a @ b.T) + self.constant)


@dataclass(frozen=True)
class Cosine:
    """`Σ_d a_d b_d / (|a| |b|)`. Differentiable."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = (torch.nn.functional.normalize(x, dim=1) for x in (a, b))
        return a @ b.T


KERNELS: dict[str, Callable[[], Kernel]] = {
    "linear": Linear,
    "intersection": Intersection,
    "chi2": ChiSquared,
    "exponential-chi2": ExponentialChiSquared,
    "rbf": RBF,
    "laplacian": Laplacian,
}


def choose(given: Any, names: dict[str, Callable[[], Any]], what: str) -> Any:
    """What a short name stands for; a callable as it is."""
    if isinstance(given, str):
        if given not in names:
            hint = did_you_mean(given, names)
            raise InputError(f"{what} is {given!r}; {hint}accepted: {', '.join(names)}, or a callable")
        return names[given]()
    if not callable(given) or isinstance(given, type):
        raise InputError(f"{what} is {given!r}; accepted: {', '.join(names)}, or a callable")
    return given


def fit_scale(kernel: Kernel, x: Tensor) -> Kernel:
    """The kernel with its scale, where that was left open: the inverse of the mean distance of rows of `x`.

    >>> fit_scale(RBF(), torch.tensor([[0.0], [2.0]])).gamma
    0.5
    """
    if getattr(kernel, "gamma", 1.0) is not None:
        return kernel
    mean = float(kernel.distance(x, x).mean())  # type: ignore[attr-defined]
    return replace(kernel, gamma=1 / mean if mean > 0 else 1.0)  # type: ignore[type-var]


def evaluate(kernel: Kernel, a: Tensor, b: Tensor) -> Tensor:
    """`kernel(a, b)`, checked: (n, m) finite numbers."""
    if getattr(kernel, "nonnegative", False) and min(float(a.detach().min()), float(b.min())) < 0:
        raise InputError(
            f"{kernel!r} is for numbers from zero on (histograms, counts), but some are negative; accepted: a "
            "kernel such as linear, rbf or laplacian"
        )
    found = torch.as_tensor(kernel(a, b))
    if found.shape != (len(a), len(b)):
        raise InputError(
            f"kernel {kernel!r} returned shape {tuple(found.shape)} for {len(a)} and {len(b)} rows; accepted: "
            f"{(len(a), len(b))}"
        )
    if not bool(torch.isfinite(found).all()):
        raise InputError(f"kernel {kernel!r} returned NaN or infinite numbers")
    return found.to(a.dtype)


def _evaluate_in_rows(each: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """`each(rows, b)` for as many rows of `a` at a time as fit."""
    rows = max(1, NUMBERS // max(1, b.numel()))
    return torch.cat([each(part, b) for part in a.split(rows)])
