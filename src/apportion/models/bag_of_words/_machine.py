"""Kernel machines: scores that are weighted sums of kernels with known points, also those of scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from apportion.errors import InputError
from apportion.models.bag_of_words.kernels import (
    RBF,
    Cosine,
    ExponentialChiSquared,
    Kernel,
    Laplacian,
    Linear,
    Polynomial,
    Sigmoid,
    evaluate,
)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class WeightedKernel:
    """One kernel of a machine: its weight β, and the columns of the input that it sees."""

    kernel: Kernel
    weight: float
    start: int
    stop: int

    def sees(self, x: Tensor) -> Tensor:
        return x[..., self.start : self.stop]


@dataclass(frozen=True, eq=False)
class KernelMachine:
    """`f_c(x) = b_c + Σ_i α_ci Σ_u β_u k_u(x_i, x)` (Bach et al. 2015, eq. 10; with several kernels eq. 11).

    `points` are the (points, dimensions) support vectors, `coefficients` the (classes, points) α (labels
    included), `bias` the (classes,) b.

    >>> machine = KernelMachine(torch.eye(2), torch.ones(1, 2), torch.zeros(1), (WeightedKernel(Linear(), 1.0, 0, 2),))
    >>> machine(torch.tensor([[3.0, 4.0]])).tolist()
    [[7.0]]
    """

    points: Tensor
    coefficients: Tensor
    bias: Tensor
    parts: tuple[WeightedKernel, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """The (batch, classes) scores."""
        return self.kernel(x) @ self.coefficients.T + self.bias

    def to(self, like: Tensor) -> KernelMachine:
        """The machine on the device and in the number format of a tensor."""
        own = (self.points, self.coefficients, self.bias)
        points, coefficients, bias = (each.to(like) for each in own)
        return KernelMachine(points, coefficients, bias, self.parts)

    def kernel(self, x: Tensor) -> Tensor:
        """`Σ_u β_u k_u(x, x_i)`, (batch, points)."""
        return sum_kernels(self.parts, x, self.points)


def sum_kernels(parts: Sequence[WeightedKernel], a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([p.weight * evaluate(p.kernel, p.sees(a), p.sees(b)) for p in parts]).sum(0)


# ---- scikit-learn's ----


def machine_of(estimator: Any) -> KernelMachine:
    """The kernel machine in a fitted estimator of scikit-learn.

    Support vector machines (a multi-class SVC is one-vs-one: the score of a class is the sum of its pairwise
    decisions), kernel ridge regression, whatever is linear (`coef_`, `intercept_`), and one-vs-rest of these.
    Two classes have the scores −f and f. Raises InputError for anything else.

    >>> from sklearn.svm import SVC
    >>> svc = SVC(gamma=1.0).fit([[0.0], [1.0]], [0, 1])
    >>> ours = machine_of(svc)(torch.tensor([[0.3]]).double())[0, 1]
    >>> torch.allclose(ours, torch.tensor(svc.decision_function([[0.3]])))
    True
    """
    if isinstance(estimator, KernelMachine):
        return estimator
    if hasattr(estimator, "best_estimator_"):
        return machine_of(estimator.best_estimator_)
    if hasattr(estimator, "estimators_") and hasattr(estimator, "label_binarizer_"):
        found = _one_vs_rest(estimator)
    elif hasattr(estimator, "dual_coef_") and hasattr(estimator, "support_"):
        found = _support_vectors(estimator)
    elif hasattr(estimator, "dual_coef_") and hasattr(estimator, "X_fit_"):
        columns = np.atleast_2d(estimator.dual_coef_.T)
        found = _machine(estimator.X_fit_, columns, np.zeros(len(columns)), _ridge_kernel(estimator))
    elif hasattr(estimator, "intercept_") and getattr(estimator, "coef_", None) is not None:
        weights = np.atleast_2d(_dense(estimator.coef_))
        bias = np.broadcast_to(np.ravel(estimator.intercept_), len(weights))
        found = _machine(weights, np.eye(len(weights)), bias, Linear())
        _check_linear(estimator, weights, bias)
    elif hasattr(estimator, "steps"):
        raise InputError(
            f"the model is a {type(estimator).__name__} of several steps; accepted: its last step with "
            "transformed inputs, KernelDecomposition()(model[-1], model[:-1].transform(inputs))"
        )
    else:
        raise _refusal(estimator)
    binary = len(found.bias) == 1 and len(getattr(estimator, "classes_", ())) == 2
    return make_two_sided(found) if binary else found


def make_two_sided(machine: KernelMachine) -> KernelMachine:
    """A machine with one score f as one with the scores −f and f of two classes."""
    both = torch.tensor([[-1.0], [1.0]], dtype=machine.bias.dtype, device=machine.bias.device)
    return KernelMachine(
        machine.points, both @ machine.coefficients, (both * machine.bias).flatten(), machine.parts
    )


def _check_linear(estimator: Any, weights: Array, bias: Array) -> None:
    """Refuse a model that has coefficients but does more with them (centres its inputs, has a link function)."""
    rows = np.random.default_rng(0).normal(size=(3, weights.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rows without the column names that the model was fitted with
        theirs = getattr(estimator, "decision_function", estimator.predict)(rows)
    ours = (rows @ weights.T + bias).reshape(np.shape(theirs))
    if not np.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * np.abs(ours).max()):
        raise InputError(
            f"the model is {type(estimator).__name__}, whose score is not its coefficients times its inputs: "
            f"for one row it says {np.ravel(theirs)[0]:.4g} where these give {np.ravel(ours)[0]:.4g} (for such "
            "models: Occlusion, KernelSHAP)"
        )


def _refusal(estimator: Any) -> InputError:
    name = type(estimator).__name__
    if hasattr(estimator, "fit") and not [key for key in vars(estimator) if key.endswith("_")]:
        return InputError(f"the {name} is not fitted; accepted: a model after fit")
    return InputError(
        f"the model is {name}, which is no kernel machine; accepted: a BagOfWords, or scikit-learn's SVC, "
        "NuSVC, SVR, KernelRidge, linear models and OneVsRestClassifier of these (for others: Occlusion, "
        "KernelSHAP)"
    )


def _machine(points: Array, coefficients: Array, bias: Array, kernel: Kernel) -> KernelMachine:
    support, alpha, b = (
        torch.as_tensor(np.array(_dense(x), dtype=np.float64)) for x in (points, coefficients, bias)
    )
    return KernelMachine(support, alpha, b, (WeightedKernel(kernel, 1.0, 0, support.shape[1]),))


def _support_vectors(svc: Any) -> KernelMachine:
    if svc.kernel == "precomputed":
        raise InputError(
            "the SVC has a precomputed kernel, which does not say what its inputs were; accepted: kernel= a "
            "name or a callable"
        )
    dual, bias = _dense(svc.dual_coef_), np.ravel(svc.intercept_)
    classes = len(getattr(svc, "classes_", ()))
    if callable(svc.kernel):
        points = _dense(svc._BaseLibSVM__Xfit)[svc.support_]
    else:
        points = _dense(svc.support_vectors_)
    if classes > 2:
        dual, bias = _classes_of_pairs(dual, bias, svc.n_support_, classes)
    own = svc.kernel if callable(svc.kernel) else _kernel_named(svc, float(getattr(svc, "_gamma", 0.0)))
    return _machine(points, dual, bias, own)


def _classes_of_pairs(dual: Array, bias: Array, supports: Array, classes: int) -> tuple[Array, Array]:
    """The sum of the pairwise decisions of each class, from libsvm's table of coefficients.

    The coefficient of a support vector of class i in the pair (i, j) is in row j − 1 for i < j, else row j.
    """
    owner = np.repeat(np.arange(classes), supports)
    alpha, b = np.zeros((classes, dual.shape[1])), np.zeros(classes)
    for (i, j), offset in zip(combinations(range(classes), 2), bias, strict=True):
        pair = np.where(owner == i, dual[j - 1], 0) + np.where(owner == j, dual[i], 0)
        alpha[i] += pair
        alpha[j] -= pair
        b[i] += offset
        b[j] -= offset
    return alpha, b


def _ridge_kernel(ridge: Any) -> Kernel:
    if callable(ridge.kernel):
        return partial(_pairwise, ridge.kernel)
    return _kernel_named(ridge, ridge.gamma if ridge.gamma is not None else 1 / ridge.X_fit_.shape[1])


def _kernel_named(estimator: Any, gamma: float) -> Kernel:
    """The kernel that goes by a name in scikit-learn."""
    power = Polynomial(estimator.degree, gamma, estimator.coef0)
    kernels: dict[str, Kernel] = {
        "linear": Linear(),
        "rbf": RBF(gamma),
        "laplacian": Laplacian(gamma),
        "poly": power,
        "polynomial": power,
        "sigmoid": Sigmoid(gamma, estimator.coef0),
        "cosine": Cosine(),
        "chi2": ExponentialChiSquared(gamma),
    }
    if estimator.kernel not in kernels:
        name = type(estimator).__name__
        raise InputError(f"{name} has kernel {estimator.kernel!r}; accepted: {', '.join(kernels)}")
    return kernels[estimator.kernel]


def _pairwise(kernel: Any, a: Tensor, b: Tensor) -> Tensor:
    """A kernel that KernelRidge calls with one pair of rows at a time."""
    return torch.stack([torch.stack([torch.as_tensor(kernel(x, y)) for y in b]) for x in a])


def _one_vs_rest(estimator: Any) -> KernelMachine:
    machines = [machine_of(each) for each in estimator.estimators_]
    if any(machine.parts != machines[0].parts for machine in machines):
        raise InputError(
            "the one-vs-rest machines have different kernels (a gamma fitted to each); accepted: the same "
            "kernel with a fixed gamma"
        )
    # A machine for two classes has −f and f: the second speaks for the class.
    alphas = torch.block_diag(*[machine.coefficients[-1:] for machine in machines])
    points = torch.cat([machine.points for machine in machines])
    return KernelMachine(points, alphas, torch.stack([m.bias[-1] for m in machines]), machines[0].parts)


def _dense(x: Any) -> Array:
    return np.asarray(x.toarray() if hasattr(x, "toarray") else x)
