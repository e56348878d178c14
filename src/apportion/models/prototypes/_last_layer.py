"""The last layer: a convex problem, solved to a tolerance by an accelerated proximal gradient method."""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.models.prototypes.settings import LastLayer


def solve(
    similarities: Tensor, labels: Tensor, own: Tensor, start: Tensor, settings: LastLayer
) -> tuple[Tensor, int]:
    """The (classes, prototypes) weights W that minimise `mean CE(S Wᵀ) + l1 Σ_{not own} |W| + ridge/2 Σ W²`, and
    the iterations.

    `similarities` S is (n, prototypes), `own` (classes, prototypes) says which weights are not penalised. FISTA
    (Beck & Teboulle 2009) with the restart of O'Donoghue & Candès 2015. The softmax's Hessian is at most 1/2,
    so that 1/L with `L = λmax(SᵀS) / 2n + ridge` is a safe step.

    >>> s = torch.tensor([[5.0, 1.0], [1.0, 5.0]])
    >>> w, _ = solve(s, torch.tensor([0, 1]), torch.eye(2).bool(), torch.eye(2), LastLayer())
    >>> (s @ w.t()).argmax(1).tolist()
    [0, 1]
    """
    many = len(similarities)
    gram = similarities.t() @ similarities / many
    bound = float(torch.linalg.matrix_norm(gram, 2)) / 2 + settings.ridge or 1.0
    threshold = torch.where(own, 0.0, settings.l1 / bound).to(similarities)
    wanted = torch.nn.functional.one_hot(labels, own.shape[0]).to(similarities)
    weight = ahead = start.to(similarities)
    momentum, done = 1.0, 0
    for done in range(1, settings.iterations + 1):
        gradient = (
            (similarities @ ahead.t()).softmax(1) - wanted
        ).t() @ similarities / many + settings.ridge * ahead
        step = ahead - gradient / bound
        new = step - step.clamp(-threshold, threshold)  # soft threshold
        move = new - weight
        if bool(((ahead - new) * move).sum() > 0):
            momentum = 1.0
        if float((new - ahead).abs().max()) * bound <= settings.tolerance:
            return new, done
        grown = (1 + (1 + 4 * momentum * momentum) ** 0.5) / 2
        weight, ahead, momentum = new, new + (momentum - 1) / grown * move, grown
    return weight, done
