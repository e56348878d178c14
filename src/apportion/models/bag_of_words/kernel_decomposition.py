"""Kernel decomposition as a method: of kernel machines over rows, and of Bag-of-Words classifiers to pixels."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from apportion.core.features import TabularFeatures
from apportion.core.settings import checked
from apportion.core.target import Target, pick, resolve, scores_of
from apportion.engines.subject import Subject
from apportion.errors import InputError, check
from apportion.methods.paths.quadrature import check_nodes
from apportion.models.bag_of_words._decomposition import (
    KernelScore,
    Relevance,
    decompose_by_path,
    decompose_by_sum,
    decompose_by_taylor,
    score_of,
)
from apportion.models.bag_of_words._machine import KernelMachine, machine_of
from apportion.results.explanation import Explanation

WAYS = ("auto", "sum", "path", "taylor")
NEAR = 1e-6  # share of f(x) that a root may be off without a warning


@dataclass(frozen=True)
@checked
class KernelDecomposition:
    """Decompose kernel machines (Bach et al. 2015, eq. 10 to 16), to columns or to pixels.

    The model is a fitted `BagOfWords`, whose inputs are pictures, (batch, 3, height, width) tensors in [0, 1], or one
    of scikit-learn's SVC, NuSVC, SVR, KernelRidge, linear models or OneVsRestClassifier of these, whose inputs are
    rows: a (batch, columns) tensor, array, sparse matrix or data frame.

    The root of a score lies on the line to the nearest support vector on the other side of zero. From dimensions to
    local features (eq. 14, 15) and to pixels (eq. 16) sums are kept; a pixel's relevance is in three equal parts on
    its channels. `total` is f(x). The sums at each stage are in `notes["stages"]`. Cost: one forward pass, and one
    backward pass of the kernels alone unless by "sum".

    Attributes:
        by (str, default "auto"): How the relevance of the dimensions is found. "sum" (eq. 12), for kernels that are
            sums over dimensions (linear, histogram intersection, χ²): exact, with the bias in equal parts. "path",
            for the others (exponential χ², RBF, Laplacian, polynomial): the gradient integrated from a root of the
            score. "taylor" (eq. 13): the gradient at that root only; the remainder is what the second order would be.
            "auto": "sum" where the kernels allow it, else "path".
        nodes (int, default 8): Gauss-Legendre nodes of the path, doubled up to 512 until the sum is near enough to
            f(x).
        tolerance (float, default 1e-3): Distance of the sum from f(x), as a share of it, that is near enough.

    >>> from sklearn.svm import SVC
    >>> rows, labels = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0]]), [0, 1, 1]
    >>> e = KernelDecomposition()(SVC(kernel="rbf").fit(rows, labels), rows)
    >>> e.values.shape, e.notes["by"], bool((e.remainder.abs() < 1e-6).all())
    (torch.Size([3, 2]), 'path', True)
    """

    unit: ClassVar[str] = "units of the score"  # of a machine, whose scores are no logits

    by: str = "auto"
    nodes: int = 8
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.by not in WAYS:
            raise InputError(f"by is {self.by!r}; accepted: {', '.join(WAYS)}")
        check_nodes(nodes=self.nodes)
        check("tolerance", self.tolerance, lambda v: v > 0, "a positive share of f(x)")

    def __call__(self, model: Any, inputs: Any, target: Target = None) -> Explanation[Tensor, Tensor]:
        start = time.perf_counter()
        best = getattr(model, "best_estimator_", None)
        model = best if hasattr(best, "bags") else model
        if not hasattr(model, "bags"):
            return self._rows(model, inputs, target, start)
        bags = model.bags(inputs)
        x = torch.as_tensor(np.stack([bag.vector for bag in bags]))
        found = _Known(model.machine_, x, target, self, start)
        of_features = [
            bag.to_features(r) for bag, r in zip(bags, found.relevance.values.numpy(), strict=True)
        ]
        of_pixels = [bag.to_pixels(r) for bag, r in zip(bags, of_features, strict=True)]
        values = torch.as_tensor(np.stack(of_pixels))[:, None].expand(inputs.shape) / inputs.shape[1]
        sums = found.relevance.values.sum(1).tolist()
        stages = tuple(
            {"dimensions": d, "features": float(sum(part.sum() for part in f)), "pixels": float(p.sum())}
            for d, f, p in zip(sums, of_features, of_pixels, strict=True)
        )
        return found.explanation(values.to(inputs.device), {"stages": stages})

    def _rows(self, model: Any, inputs: Any, target: Target, start: float) -> Explanation[Tensor, Tensor]:
        x, columns = _as_rows(inputs)
        machine = machine_of(model).to(x)
        width = machine.points.shape[1]
        if x.shape[1] != width:
            raise InputError(
                f"inputs have {x.shape[1]} columns; accepted: the {width} that the model was fitted to"
            )
        found = _Known(machine, x, target, self, start)
        labels = tuple(map(str, getattr(model, "classes_", ()))) or None
        features = None
        if columns is not None:
            cells = [tuple(f"{cell:g}" for cell in row) for row in x.tolist()]
            features = tuple(TabularFeatures(columns, row, tuple(range(width))) for row in cells)
        warnings = _votes(model, inputs, found.output)
        return found.explanation(found.relevance.values, warnings=warnings, labels=labels, features=features)


class _Known(Subject):
    """What is known before the relevance of the dimensions goes on to pixels."""

    def __init__(
        self, machine: KernelMachine, x: Tensor, target: Target, method: KernelDecomposition, start: float
    ) -> None:
        super().__init__(machine, x, target, start=start)
        self.method = method
        self.output = scores_of(machine(x), len(x))
        self.resolved = resolve(target, self.output)
        score = score_of(machine, self.output, self.resolved)
        self.by = method.by
        if self.by == "auto":
            self.by = "sum" if all(hasattr(part.kernel, "terms") for part in machine.parts) else "path"
        ways: dict[str, Callable[[KernelScore, Tensor], Relevance]] = {
            "sum": decompose_by_sum,
            "taylor": decompose_by_taylor,
            "path": partial(decompose_by_path, nodes=method.nodes, tolerance=method.tolerance),
        }
        self.relevance = ways[self.by](score, x)
        self.ran(len(x))
        self.rows_differentiated = 0 if self.by == "sum" else len(x)  # of the kernels alone

    def explanation(
        self,
        values: Tensor,
        notes: Mapping[str, Any] | None = None,
        warnings: Sequence[str] = (),
        **more: Any,
    ) -> Explanation[Tensor, Tensor]:
        total, found = pick(self.resolved, self.output), self.relevance
        rooted = {}
        if found.root_score is not None and found.distance is not None:
            left = found.root_score
            rooted = {"root_score": tuple(left.tolist()), "distance": tuple(found.distance.tolist())}
            far = (left.abs() > NEAR * total.abs()).nonzero().flatten().tolist()
            if far:
                warnings = (
                    *warnings,
                    f"no root point for {len(far)} of {len(total)} samples: no support vector scores on the "
                    "other side of zero; they are explained from the one nearest to zero, and the remainder "
                    "holds its score",
                )
        device = values.device
        if isinstance(self.resolved, Tensor):
            self.resolved = self.resolved.to(device)
        notes = {"by": self.by, **rooted, **(notes or {})}
        total, output = total.to(device), self.output.to(device)
        return self.result(Explanation, self.method, values, total, output, warnings, notes=notes, **more)


def _as_rows(inputs: Any) -> tuple[Tensor, tuple[str, ...] | None]:
    """Rows in double precision (single where a device has no other), and the names of their columns."""
    columns = getattr(inputs, "columns", None)
    if not isinstance(inputs, Tensor):
        dense = inputs.toarray() if hasattr(inputs, "toarray") else np.asarray(inputs)
        try:
            inputs = torch.as_tensor(np.array(dense, np.float64))
        except (TypeError, ValueError):
            raise InputError(f"inputs hold {dense.dtype}; accepted: rows of numbers") from None
    if inputs.dim() != 2 or not len(inputs):
        raise InputError(f"inputs have shape {tuple(inputs.shape)}; accepted: (batch, columns)")
    x = inputs.detach().to(torch.float32 if inputs.device.type == "mps" else torch.float64)
    if not bool(torch.isfinite(x).all()):
        raise InputError("inputs contain NaN or infinite numbers")
    return x, None if columns is None else tuple(map(str, columns))


def _votes(model: Any, inputs: Any, output: Tensor) -> tuple[str, ...]:
    """Where a one-vs-one machine predicts, by votes, another class than the one with the largest score."""
    if getattr(model, "classes_", None) is None or not hasattr(model, "n_support_") or output.shape[1] < 3:
        return ()
    rows = inputs.detach().cpu().numpy() if isinstance(inputs, Tensor) else inputs
    other = np.asarray(model.predict(rows)) != model.classes_[output.argmax(1).cpu().numpy()]
    if not other.any():
        return ()
    return (
        f"for {int(other.sum())} of {len(other)} samples the model's votes predict another class than the "
        "largest sum of pairwise decisions, which is what is explained",
    )
