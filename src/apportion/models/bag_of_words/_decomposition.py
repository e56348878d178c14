"""The relevance of the dimensions that a kernel machine sees, R³ of Bach et al. 2015: eq. 12, 13, and a path."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from apportion.core.target import pick
from apportion.errors import InputError
from apportion.methods.paths.quadrature import Array, gauss_legendre
from apportion.models.bag_of_words._machine import KernelMachine
from apportion.models.bag_of_words.kernels import NUMBERS

BISECTIONS = 60
MOST_NODES = 512
NEAREST = 16  # points of the other side whose score is computed before all others


class KernelScore(NamedTuple):
    """What is explained of each of a batch: `α` (batch, points) and `bias` (batch,) of its own expansion."""

    machine: KernelMachine
    alpha: Tensor
    bias: Tensor

    def __call__(self, x: Tensor, rows: Tensor) -> Tensor:
        """The scores at `x` (many, dimensions), each by the expansion of sample `rows` (many,)."""
        return (self.machine.kernel(x) * self.alpha[rows]).sum(1) + self.bias[rows]


class Relevance(NamedTuple):
    """`values` (batch, dimensions); with a root also the scores at the roots and their distances, (batch,)."""

    values: Tensor
    root_score: Tensor | None = None
    distance: Tensor | None = None


def score_of(
    machine: KernelMachine, output: Tensor, resolved: Tensor | Callable[[Tensor], Tensor]
) -> KernelScore:
    """The expansion of what is explained: of a class, or of a linear function of the classes' scores."""
    with torch.enable_grad():
        scores = output.detach().requires_grad_()
        picked = pick(resolved, scores)
        weights = torch.autograd.grad(picked.sum(), scores)[0] if picked.requires_grad else None
    picked = picked.detach()
    if weights is None or not torch.allclose((weights * output).sum(1), picked, rtol=1e-6, atol=1e-9):
        raise InputError(
            "the target is not a linear function of the scores; accepted: a class index, or a combination such "
            "as Contrast(3, 5)"
        )
    return KernelScore(machine, weights @ machine.coefficients, weights @ machine.bias)


def decompose_by_sum(score: KernelScore, x: Tensor) -> Relevance:
    """`R_d = b/V + Σ_i α_i k^(d)(x_i,d, x_d)` for sum-decomposable kernels (eq. 12); their sum is f(x)."""
    machine = score.machine
    values = (score.bias / x.shape[1])[:, None].expand(x.shape).clone()  # (batch, dimensions)
    for part in machine.parts:
        terms = getattr(part.kernel, "terms", None)
        if terms is None:
            raise InputError(
                f"{part.kernel!r} is not a sum over dimensions (it has no `terms`), which eq. 12 needs; "
                "accepted: by='path', or by='taylor'"
            )
        points, rows = part.sees(machine.points), part.sees(x)
        for chunk in torch.arange(len(x)).split(max(1, NUMBERS // max(1, points.numel()))):
            found = torch.einsum("nm,nmd->nd", score.alpha[chunk], terms(rows[chunk], points))
            values[chunk, part.start : part.stop] += part.weight * found
    return Relevance(values)


def decompose_by_path(score: KernelScore, x: Tensor, nodes: int, tolerance: float) -> Relevance:
    """The integral of the gradient along the line from the root, `(x − x₀)_d ∫ ∂_d f(x₀ + u (x − x₀)) du`.

    Integrated gradients (Sundararajan et al. 2017) from the root point that Taylor would expand at, by
    Gauss-Legendre nodes; the sum is f(x) but for the quadrature, where Taylor has its second order missing.
    The nodes are doubled until that error is at most `tolerance` of |f(x)|: kinks (histogram intersection,
    Laplacian) ask for more of them than smooth kernels.
    """
    root, left = find_roots(score, x)
    every = torch.arange(len(x), device=x.device)
    wanted = score(x, every) - left  # (batch,)
    values = _integrate_line(score, x, root, *gauss_legendre(nodes))
    while True:
        error = (values.sum(1) - wanted).abs()
        rough = (error > tolerance * wanted.abs()).nonzero().flatten()
        nodes *= 2
        if not len(rough) or nodes > MOST_NODES:
            return Relevance(values, left, (x - root).norm(dim=1))
        own = score._replace(alpha=score.alpha[rough], bias=score.bias[rough])
        values[rough] = _integrate_line(own, x[rough], root[rough], *gauss_legendre(nodes))


def decompose_by_taylor(score: KernelScore, x: Tensor) -> Relevance:
    """`R_d = (x − x₀)_d Σ_i α_i ∂k(x_i, ·)/∂x_d (x₀)` at a root x₀ (eq. 13)."""
    for part in score.machine.parts:
        if not getattr(part.kernel, "differentiable", True):
            raise InputError(
                f"{part.kernel!r} is not differentiable, which eq. 13 needs; accepted: by='sum', or by='path', "
                "which meets its kinks in single points only"
            )
    root, left = find_roots(score, x)
    return Relevance(_integrate_line(score, x, root, np.zeros(1), np.ones(1)), left, (x - root).norm(dim=1))


def _integrate_line(score: KernelScore, x: Tensor, root: Tensor, places: Array, weights: Array) -> Tensor:
    """`x − x₀` times the weighted sum of the gradients at these places of the line from the root."""
    u, w = (torch.as_tensor(each, dtype=x.dtype, device=x.device) for each in (places, weights))
    step = x - root
    points = (root + u[:, None, None] * step).flatten(0, 1)  # (nodes · batch, dimensions)
    rows = torch.arange(len(x), device=x.device).repeat(len(u))
    gradients = _gradients(score, points, rows).view(len(u), *x.shape)  # (nodes, batch, dimensions)
    return step * torch.einsum("u,und->nd", w, gradients)


def _gradients(score: KernelScore, points: Tensor, rows: Tensor) -> Tensor:
    found = []
    for chunk in torch.arange(len(points)).split(max(1, NUMBERS // max(1, score.machine.points.numel()))):
        with torch.enable_grad():
            leaf = points[chunk].detach().requires_grad_()
            try:
                value = score(leaf, rows[chunk])
            except RuntimeError as error:
                raise _not_differentiable(score) from error
            if not value.requires_grad:
                raise _not_differentiable(score)
            gradient = torch.autograd.grad(value.sum(), leaf)[0]
        found.append(gradient)
    if not all(bool(torch.isfinite(gradient).all()) for gradient in found):
        raise InputError("the gradient of a kernel is NaN or infinite; accepted: by='sum', or another kernel")
    return torch.cat(found)


def _not_differentiable(score: KernelScore) -> InputError:
    kernels = ", ".join(repr(part.kernel) for part in score.machine.parts)
    return InputError(
        f"torch cannot differentiate {kernels}, and it has no `terms` for each dimension; accepted: a kernel "
        "written with torch functions, or one with a method terms(a, b) that gives (n, m, dimensions)"
    )


def find_roots(score: KernelScore, x: Tensor) -> tuple[Tensor, Tensor]:
    """A root of each sample's score, and the score that is left there.

    It lies on the line to the nearest point of the expansion on the other side of zero, by bisection. Where
    no point is on the other side, it is the point whose score is nearest to zero.
    """
    every = torch.arange(len(x), device=x.device)
    value = score(x, every)
    ends = _other_sides(score, x, value)
    near, far = torch.zeros_like(value), torch.ones_like(value)
    left = score(ends, every)
    found = left * value <= 0
    for _ in range(BISECTIONS):
        middle = (near + far) / 2
        there = score(torch.lerp(x, ends, middle[:, None]), every)
        same = there * value > 0
        near = torch.where(same, middle, near)
        far, left = torch.where(same, far, middle), torch.where(same | ~found, left, there)
    root = torch.where(found[:, None], torch.lerp(x, ends, far[:, None]), ends)
    return root, left


def _other_sides(score: KernelScore, x: Tensor, value: Tensor) -> Tensor:
    """For each sample the nearest point whose score has another sign; else the one nearest to zero."""
    points = score.machine.points
    distance = torch.cdist(x, points)  # (batch, points)
    # Points that are counted against the score are mostly on the other side of it; few need computing.
    against = score.alpha * value[:, None] < 0
    likely = distance.masked_fill(~against, torch.inf).argsort(1)[:, :NEAREST]  # (batch, nearest)
    chosen, found = _first_across(score, likely, torch.arange(len(x), device=x.device), value)
    rest = (~found).nonzero().flatten()
    if len(rest):
        chosen[rest] = _first_across(score, distance[rest].argsort(1), rest, value[rest])[0]
    return points[chosen]


def _first_across(
    score: KernelScore, candidates: Tensor, rows: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Of the (rows, candidates) points the first whose score has another sign than `value`, and whether there is
    one; else the one whose score is nearest to zero."""
    each = rows.repeat_interleave(candidates.shape[1])
    scores = score(score.machine.points[candidates.flatten()], each).view(candidates.shape)
    other = scores * value[:, None] <= 0
    found = other.any(1)
    place = torch.where(found, other.int().argmax(1), scores.abs().argmin(1))
    return candidates.gather(1, place[:, None])[:, 0], found
