"""Integrated Hessians: how two features act together, by integrating second derivatives along a path."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from apportion.core.calling import Model, with_gradients
from apportion.core.features import Features
from apportion.core.from_call import with_call
from apportion.core.inputs import Inputs
from apportion.core.settings import checked
from apportion.core.target import Target
from apportion.engines.substitution import Gradients, Substitution
from apportion.errors import InputError, check, check_whole
from apportion.methods.interactions._adaptive_nodes import adapt
from apportion.methods.interactions._groups import GroupsLike, check_groups, groups_of
from apportion.methods.interactions._second_derivatives import Sums, rows_for
from apportion.methods.interactions._smooth_functions import STAND_INS
from apportion.methods.interactions.smoothing import TWICE, record_kinks, refuse, smoothing
from apportion.methods.paths.integrated_gradients import check_accuracy, warn_of_shortfalls
from apportion.methods.paths.paths import Paths
from apportion.methods.paths.quadrature import MOST_LOG_NODES, panel
from apportion.methods.paths.token_baselines import known_baseline, note_of
from apportion.results.interactions import Interactions

# A matrix larger than this is a mistake more often than a wish.
MOST_ENTRIES = 2**28

BETAS = tuple(5.0 * 2**k for k in range(10))


@dataclass(frozen=True)
@checked
class IntegratedHessians:
    """Integrate second derivatives from a baseline to the input (Janizek, Sturmfels & Lee 2020, eq. 5 and 6):
    `Γᵢⱼ = φⱼ(φᵢ)`, from one integral.

    With `u = αβ` the double integral of the paper is `Γ = ∫ −ln u [u H(u) + diag g(u)] du` along the path,
    where `H` and `g` are the second and first derivatives with respect to each feature's part of `x − x′`.
    The rows of `values` add up to Integrated Gradients, all entries to `f(x) − f(x′)`.

    The path is divided into panels until their error, known from scalar derivatives along it, is within the
    tolerance (single entries can be ten times less accurate).

    ReLU, max pooling and other functions with a kink have no second derivative: models that use them are run with
    smooth stand-ins, as by [smooth][apportion.methods.interactions.smoothing.smooth].

    In the call, `baseline=` as in IntegratedGradients; with several, the values are the mean over them (expected
    Hessians). Raises InputError for shapes and groups that do not fit, for a model that is not twice
    differentiable, and for derivatives that are NaN. Cost: per path and node one forward and one backward pass,
    and one double-backward pass for each group; plus three passes per node for finding the panels.

    Attributes:
        baseline (float or str, default 0.0): The x′ of every entry, as in IntegratedGradients.
        groups (int or list of lists of int, default None): One feature of several entries: the side of square
            patches, or lists of flat entries (or tokens); in the call `groups=` also takes a tensor with the group
            of each. None: each entry of a floating point input, each token of a text.
        pairs (list of int or pairs of int, default None): Pairs `(i, j)`, or one feature `i` against all, at the
            cost of those alone; None: all pairs.
        tolerance (float, default 0.01, share of |total|): Largest error of a path.
        nodes (int, default None): One Gauss rule of so many nodes, used as it is; None: as the tolerance needs.
        max_nodes (int, default 512): Most Hessians of a path.
        beta (float, default None): Sharpness of the stand-ins; None: the smallest of 5, 10, 20 … that `drift` allows.
        drift (float, default 0.05, share of the score's span along the path): How far smoothing may move the score
            at both ends.
        smooth (bool, default True): Use stand-ins; False leaves the model as it is, so that interactions through
            kinks are missing, and the remainder shows it.
        chunk (int, default 32, rows): Rows that run at once, which bounds the memory.
        vectorize (int, default None, groups): Groups that share a double-backward pass; None: several where the
            input is small.
        at (str or list of str, default None): Modules to explain instead of the inputs; None: the inputs.

    >>> i = IntegratedHessians()(lambda x: x[:, :1] * x[:, 1:], torch.tensor([[2.0, 3.0]]))
    >>> i.values.round(decimals=4).tolist()
    [[[1.5, 1.5], [1.5, 1.5]]]
    """

    baseline: float | str = 0.0
    groups: int | Sequence[Sequence[int]] | None = None
    pairs: Sequence[int | tuple[int, int]] | None = None
    tolerance: float = 1e-2
    nodes: int | None = None
    max_nodes: int = 512
    beta: float | None = None
    drift: float = 0.05
    smooth: bool = True
    chunk: int = 32
    vectorize: int | None = None
    at: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_accuracy(self.nodes, self.max_nodes, self.tolerance, self.chunk)
        if self.nodes is not None and self.nodes > MOST_LOG_NODES:
            raise InputError(f"nodes is {self.nodes}; accepted: 1 to {MOST_LOG_NODES}, or a tolerance")
        if self.beta is not None:
            smoothing(self.beta)
        check("drift", self.drift, lambda v: v > 0, "a positive share of what the score spans")
        check_whole(1, vectorize=1 if self.vectorize is None else self.vectorize)
        check_groups(self.groups)
        check("pairs", self.pairs, lambda v: v is None or len(v) > 0, "some pairs, or None for all")

    @with_gradients()
    def __call__(
        self,
        model: Model,
        inputs: Inputs,
        target: Target = None,
        *,
        baseline: Inputs | float | str | None = None,
        groups: GroupsLike = None,
        mask: int | None = None,
        features: Sequence[Features] = (),
    ) -> Interactions[Tensor]:
        subject = Gradients(model, inputs, target, self.at)
        met: set[str] = set()
        score = subject.forward(Substitution(record_kinks(met), model=subject.model))
        made = with_call(self, subject.inputs, baseline=baseline, groups=groups)
        made, begins = known_baseline(made, subject, score, mask)
        paths = Paths.between(subject, score, begins, mask, features)
        grouped = groups_of(subject, score, paths.steps(torch.arange(paths.many)), made.groups)
        if len(grouped) ** 2 * subject.batch > MOST_ENTRIES:
            raise InputError(
                f"{len(grouped)} features make {len(grouped)}² interactions a sample; give groups, such as "
                "groups=16 for patches of 16 × 16"
            )
        kinks = met & STAND_INS.keys()
        if self.smooth:
            refuse(met)
        betas = self._choose_betas(paths, bool(kinks))
        sums = Sums(paths, grouped, rows_for(self.pairs, len(grouped)), self.chunk, self.vectorize)
        missed: set[int] = set()
        coarse: set[int] = set()
        smooth_total = torch.zeros(subject.batch, dtype=torch.float64)
        for beta in sorted(set(betas)):
            which = torch.tensor([p for p in range(paths.many) if betas[p % subject.batch] == beta])
            smooth = _smooth_paths(paths, which, beta)
            totals = (smooth.at_ends - smooth.at_starts)[which] / paths.baselines
            smooth_total.index_add_(0, which % subject.batch, totals)
            if self.nodes or (kinks and not self.smooth):  # no accuracy is to be had from kinks
                sums.add(smooth, which.tolist(), [panel(0.0, 1.0, self.nodes or 32)] * len(which))
            else:
                lines, short, rounded = adapt(smooth, which, self.tolerance, self.max_nodes, self.chunk)
                missed |= {p % subject.batch for p in short}
                coarse |= {p % subject.batch for p in rounded}
                sums.add(smooth, [line.path for line in lines], [line.nodes() for line in lines])
        total, dtype = paths.totals(), score.dtype
        moved = (total - smooth_total.to(total.device)).to(dtype)
        smoothed = sorted(kinks) if self.smooth else []
        why = f"after max_nodes={self.max_nodes} nodes, or for a kink that has no stand-in"
        warnings = [*warn_of_shortfalls(paths, missed, coarse - missed, why)]
        if kinks and not self.smooth:
            warnings.append(f"{', '.join(sorted(kinks))}: no second derivative, so interactions are missing")
        if max(betas) == math.inf:
            warnings.append(f"even with beta={BETAS[-1]:g} the score moves by more than drift={self.drift:g}")
        return subject.result(
            Interactions,
            made,
            sums.values().to(dtype),
            total.to(dtype) if sums.whole else None,
            score.output,
            warnings,
            attributions=sums.phi.to(dtype),
            names=(grouped.names,),
            smoothing=moved if smoothed else None,
            notes={
                "nodes": max(int((r.second != 0).sum()) for r in sums.rules),
                "baselines": paths.baselines,
                **note_of(begins),
                "smoothed": smoothed,
                "beta": tuple(min(beta, BETAS[-1]) for beta in betas) if smoothed else None,
            },
        )

    def _choose_betas(self, paths: Paths, kinks: bool) -> list[float]:
        """The sharpness for each sample; 0 where nothing is smoothed, infinite where none was enough."""
        if not kinks or not self.smooth:
            return [0.0] * paths.batch
        if self.beta is not None:
            return [self.beta] * paths.batch
        every = torch.arange(paths.many)
        places = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
        inside = paths.values(every.repeat(9), places.repeat_interleave(paths.many), self.chunk).view(9, -1)
        scores = torch.cat([inside, paths.at_starts[None], paths.at_ends[None]])
        allowed = self.drift * (scores.amax(0) - scores.amin(0)) + paths.rounding(every)
        found = [math.inf] * paths.batch
        for beta in BETAS:
            samples = {s for s in range(paths.batch) if found[s] == math.inf}
            which = torch.tensor([p for p in range(paths.many) if p % paths.batch in samples])
            if not len(which):
                break
            smooth = _smooth_paths(paths, which, beta)
            moved = torch.maximum(
                (smooth.at_ends - paths.at_ends).abs(), (smooth.at_starts - paths.at_starts).abs()
            )
            bad = {int(p) % paths.batch for p in which if moved[p] > allowed[p]}
            for sample in samples - bad:
                found[sample] = beta
        return found


def _smooth_paths(paths: Paths, which: Tensor, beta: float) -> Paths:
    """The same paths through the model smoothed with `beta`, its scores known at the ends of `which`."""
    if not beta:
        return replace(paths, table=TWICE)
    unknown = torch.empty(0)
    smooth = replace(
        paths,
        table=smoothing(min(beta, BETAS[-1]) if beta == math.inf else beta),
        at_starts=unknown,
        at_ends=unknown,
    )
    ends = []
    for known, place in ((paths.at_starts, 0.0), (paths.at_ends, 1.0)):
        values = smooth.values(which, torch.full((len(which),), place))
        ends.append(known.index_copy(0, which, values.to(known)))
    return replace(smooth, at_starts=ends[0], at_ends=ends[1])
