"""Hessian times inputs: the curvature at the input itself, to put beside Integrated Hessians."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from apportion.core.calling import Model, with_gradients
from apportion.core.from_call import with_call
from apportion.core.inputs import Inputs
from apportion.core.settings import checked
from apportion.core.target import Target
from apportion.engines.substitution import Gradients, Substitution
from apportion.errors import check_whole
from apportion.methods.interactions._groups import GroupsLike, check_groups, groups_of
from apportion.methods.interactions._second_derivatives import Sums, rows_for
from apportion.methods.interactions._smooth_functions import STAND_INS
from apportion.methods.interactions.smoothing import TWICE, record_kinks, refuse, smoothing
from apportion.methods.paths.paths import Paths
from apportion.methods.paths.quadrature import Nodes
from apportion.results.interactions import Interactions


@dataclass(frozen=True)
@checked
class InputHessian:
    """Multiply the Hessian by the inputs, `xᵢ xⱼ ∂²f / ∂xᵢ∂xⱼ` at the input itself: the curvature there, and nowhere
    else.

    It does not claim to add up. Functions with a kink are smoothed as in IntegratedHessians. Cost: two forward
    passes (one finds the kinks), one backward and one double-backward pass a group.

    Attributes:
        gradient (bool, default False): Add `xᵢ ∂f/∂xᵢ` to the diagonal: input × gradient applied to itself (the
            first-order method of Shrikumar et al. 2016 twice).
        groups (int or list of lists of int, default None): One feature of several entries: the side of square
            patches, or lists of flat entries (or tokens); in the call `groups=` also takes a tensor with the group
            of each. None: each entry of a floating point input, each token of a text.
        beta (float, default 10.0): Sharpness of the stand-ins; at one point nothing says how much is enough.
        chunk (int, default 32, rows): Rows that run at once.
        vectorize (int, default None, groups): Groups that share a double-backward pass; None: several where the
            input is small.
        at (str or list of str, default None): Modules to explain instead of the inputs; None: the inputs.

    >>> InputHessian()(lambda x: x[:, :1] * x[:, 1:], torch.tensor([[2.0, 3.0]])).values.tolist()
    [[[0.0, 6.0], [6.0, 0.0]]]
    """

    gradient: bool = False
    groups: int | Sequence[Sequence[int]] | None = None
    beta: float = 10.0
    chunk: int = 32
    vectorize: int | None = None
    at: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        smoothing(self.beta)
        check_whole(1, chunk=self.chunk, vectorize=1 if self.vectorize is None else self.vectorize)
        check_groups(self.groups)

    @with_gradients()
    def __call__(
        self, model: Model, inputs: Inputs, target: Target = None, *, groups: GroupsLike = None
    ) -> Interactions[None]:
        subject = Gradients(model, inputs, target, self.at)
        met: set[str] = set()
        score = subject.forward(Substitution(record_kinks(met), model=subject.model))
        refuse(met)
        kinks = sorted(met & STAND_INS.keys())
        # The point itself is the end of the path from zero: one node there, with weights of one.
        ends = [leaf.detach() for leaf in score.leaves]
        zeros = [torch.zeros_like(end[:1])[None] for end in ends]
        known = torch.empty(0) if kinks else score.value.detach().double().cpu()
        paths = Paths(subject, zeros, ends, smoothing(self.beta) if kinks else TWICE, at_ends=known)
        every = list(range(paths.many))
        made = with_call(self, subject.inputs, groups=groups)
        grouped = groups_of(subject, score, ends, made.groups)
        sums = Sums(paths, grouped, rows_for(None, len(grouped)), self.chunk, self.vectorize)
        one = np.ones(1)
        sums.add(paths, every, [Nodes(one, one, one)] * len(every))
        if not self.gradient:
            sums.gamma.diagonal(dim1=1, dim2=2).sub_(sums.phi)
        dtype = score.dtype
        notes = {"smoothed": kinks, "beta": self.beta if kinks else None}
        values = sums.values().to(dtype)
        return subject.result(
            Interactions, made, values, None, score.output, names=(grouped.names,), notes=notes
        )
