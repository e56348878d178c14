"""Integrated Gradients: the gradient integrated along a straight path from a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from apportion.core.calling import Model
from apportion.core.features import Features
from apportion.core.from_call import with_call
from apportion.core.inputs import Inputs
from apportion.core.target import Target
from apportion.engines.substitution import Gradients
from apportion.errors import InputError, check, check_whole, did_you_mean
from apportion.methods.paths.bisection import integrate_by_halves
from apportion.methods.paths.paths import Paths, pieces
from apportion.methods.paths.quadrature import RULES, Array
from apportion.methods.paths.token_baselines import known_baseline, naming, note_of
from apportion.results.explanation import Explanation


@dataclass(frozen=True)
class IntegratedGradients:
    """Integrate the gradient on the line from a baseline to the input (Sundararajan et al. 2017):
    `φᵢ = (xᵢ − x′ᵢ) ∫₀¹ ∂ᵢf(x′ + α(x − x′)) dα`.

    The values add up to `total`, `f(x) − f(x′)`. A path whose |remainder| at 8 nodes is above the tolerance is divided
    into panels, and those again where the gradient is hard to integrate (by the rules other than Gauss, the nodes
    are doubled); a warning on the explanation says where that was not enough, or where the number format cannot tell
    so small a remainder from zero. A total near zero counts as 1 % of what the score spans along the path.

    Token ids begin, by default, at a token that says nothing to the model, named in `notes["baseline"]` of the result:
    "mask" (what a `Classifier` hides words with, or `mask=` in the call), else "pad" or "end" (as the model's
    configuration or its embedding says), else "mean" (of all embeddings). Special tokens stay as they are, where
    `features=` or the configuration says which these are. "zero" is the embedding of zeros.

    In the call, `baseline=` takes tensors in the form of the inputs (token ids too; a dict may name some inputs
    only), or with one more leading dimension for several: then the values are the mean over the baselines
    (expected gradients, Erion et al. 2021) and `total` is `f(x)` minus the mean of `f(x′)`. Raises InputError for
    shapes that do not fit. Cost: one forward pass, one more per baseline, and one forward and backward pass per
    node and baseline.

    Attributes:
        baseline (float or str, default 0.0): The x′ of every entry (of every embedding entry for token ids), or one of
            the names above; 0.0: for token ids, the first of them that is known.
        nodes (int, default None): Nodes of each path, used as they are; None: as many as the tolerance needs.
        tolerance (float, default 0.01, share of |total|): Largest |remainder| of a path.
        max_nodes (int, default 512): Most nodes of a path.
        chunk (int, default 32, rows): Rows that run at once, which bounds the memory.
        at (str or list of str, default None): Modules to explain instead of the inputs; None: the inputs.
        rule (str, default "gauss-legendre"): Where the nodes are and what they weigh; also "midpoint", "riemann"
            and "trapezoid".

    >>> e = IntegratedGradients()(lambda x: x[:, :1] * x[:, 1:], torch.tensor([[2.0, 3.0]]))
    >>> e.values.round(decimals=4).tolist()
    [[3.0, 3.0]]
    """

    baseline: float | str = 0.0
    nodes: int | None = None
    tolerance: float = 1e-2
    max_nodes: int = 512
    chunk: int = 32
    at: str | Sequence[str] | None = None
    rule: str = "gauss-legendre"

    def __post_init__(self) -> None:
        check_accuracy(self.nodes, self.max_nodes, self.tolerance, self.chunk)
        if self.rule not in RULES:
            hint = did_you_mean(str(self.rule), RULES)
            raise InputError(f"rule is {self.rule!r}; {hint}accepted: {', '.join(RULES)}")
        RULES[self.rule](self.nodes or 8)  # a rule says itself how few nodes it can do with

    def __call__(
        self,
        model: Model,
        inputs: Inputs,
        target: Target = None,
        *,
        baseline: Inputs | float | str | None = None,
        mask: int | None = None,
        features: Sequence[Features] = (),
    ) -> Explanation:
        subject = Gradients(model, inputs, target, self.at)
        score = subject.forward()
        made = with_call(self, subject.inputs, baseline=baseline)
        begins = known_baseline(subject, score, made.baseline, mask)
        made = naming(made, begins)
        paths = Paths.between(subject, score, begins, mask, features)
        values = [torch.zeros_like(end) for end in paths.ends]  # (batch, …) each
        missed: set[int] = set()
        coarse: set[int] = set()
        most = 0
        for block in pieces(torch.arange(paths.many), self.chunk):
            found, nodes, open_paths, rounded = self._converge(paths, block)
            most = max(most, nodes)
            missed |= {int(p) % subject.batch for p in open_paths}
            coarse |= {int(p) % subject.batch for p in rounded}
            for value, new in zip(values, found, strict=True):
                value.index_add_(0, (block % subject.batch).to(value.device), new / paths.baselines)
        warnings = (
            ()
            if self.nodes
            else warn_of_shortfalls(paths, missed, coarse - missed, f"after max_nodes={self.max_nodes} nodes")
        )
        notes = {"nodes": most, "baselines": paths.baselines, **note_of(begins)}
        return subject.explanation(made, score, values, paths.totals(), warnings=warnings, notes=notes)

    def _converge(self, paths: Paths, block: Tensor) -> tuple[list[Tensor], int, Tensor, Tensor]:
        """The values of each path, the most nodes used, and the paths that are not within tolerance: for want of
        nodes, and for want of digits."""
        if not self.nodes and self.rule == "gauss-legendre":
            means, most, short, rough = integrate_by_halves(
                paths, block, self.tolerance, self.max_nodes, self.chunk
            )
            steps = paths.steps(block)
            return [mean * step for mean, step in zip(means, steps, strict=True)], most, short, rough
        values = [torch.zeros_like(end[block % paths.batch]) for end in paths.ends]  # (paths, …) each
        still = torch.arange(len(block))
        rounded: list[Tensor] = []
        nodes = self.nodes or max(min(8, self.max_nodes), 2 if self.rule == "trapezoid" else 1)
        while True:
            which = block[still]
            found, low, high = integrate(paths, which, RULES[self.rule](nodes), self.chunk)
            for value, new in zip(values, found, strict=True):
                value[still.to(value.device)] = new
            total = paths.at_ends[which] - paths.at_starts[which]  # (paths,)
            gap = (total - sum(v.reshape(len(v), -1).double().sum(1) for v in found).cpu()).abs()  # type: ignore[union-attr]
            wide, fine = paths.judge(which, gap, self.tolerance, low, high)
            rounded.append(which[fine])
            still = still[wide]
            if self.nodes or not len(still) or nodes >= self.max_nodes:
                return values, nodes, block[still], torch.cat(rounded)
            nodes = min(2 * nodes, self.max_nodes)


def integrate(
    paths: Paths, which: Tensor, rule: tuple[Array, Array], chunk: int
) -> tuple[list[Tensor], Tensor, Tensor]:
    """`(x − x′) ∫ ∇f dα` of the paths `which`, each (len(which), …), and the lowest and highest score met."""
    places, weights = (torch.as_tensor(np.asarray(a)) for a in rule)
    slots = torch.arange(len(which)).repeat(len(places))  # (nodes · paths,): the path of each row
    places, weights = (a.repeat_interleave(len(which)) for a in (places, weights))
    sums = [torch.zeros_like(end[which.to(end.device) % paths.batch]) for end in paths.ends]  # (paths, …)
    met = []
    parts = (pieces(a, chunk) for a in (slots, places, weights))
    for slot, place, weight in zip(*parts, strict=True):
        score = paths.forward(which[slot], place)
        met.append(score.value.detach().double().cpu())
        for total, gradient in zip(sums, score.gradients(), strict=True):
            column = weight.to(gradient).view(-1, *[1] * (gradient.dim() - 1))  # (rows, 1, …)
            total.index_add_(0, slot.to(gradient.device), gradient * column)
    grid = torch.cat(met).view(-1, len(which))  # (nodes, paths)
    return [s * step for s, step in zip(sums, paths.steps(which), strict=True)], grid.amin(0), grid.amax(0)


def check_accuracy(nodes: int | None, max_nodes: int, tolerance: float, chunk: int) -> None:
    """Raise InputError for settings that no integral can be taken with."""
    check_whole(1, nodes=1 if nodes is None else nodes, max_nodes=max_nodes, chunk=chunk)
    check("tolerance", tolerance, lambda v: v > 0, "a positive share of the total")


def warn_of_shortfalls(paths: Paths, missed: set[int], coarse: set[int], why: str) -> tuple[str, ...]:
    """A warning for the samples that were missed, which says `why`, and one for those that want digits."""
    reasons = (
        (missed, why),
        (coarse, f"in {paths.dtype}, whose rounding is larger; a wider number format would tell"),
    )
    return tuple(f"samples {_list_samples(s)} are not within tolerance {why}" for s, why in reasons if s)


def _list_samples(samples: set[int]) -> str:
    some = sorted(samples)
    return f"{some[:8]} and {len(some) - 8} more" if len(some) > 8 else str(some)
