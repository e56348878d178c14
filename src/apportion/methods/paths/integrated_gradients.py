"""Integrated Gradients: the gradient integrated along a straight path from a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from apportion.core.calling import Model
from apportion.core.features import Features
from apportion.core.from_call import with_call
from apportion.core.inputs import Given, Inputs
from apportion.core.settings import Told, checked, later
from apportion.core.target import Neuron, Target
from apportion.engines.substitution import Gradients, Score
from apportion.errors import InputError, check, check_whole, did_you_mean
from apportion.methods.paths.bisection import integrate_by_halves
from apportion.methods.paths.paths import Paths, pieces
from apportion.methods.paths.quadrature import RULES, Array, check_nodes
from apportion.methods.paths.token_baselines import is_of_tokens, known_baseline, note_of
from apportion.results.explanation import Explanation


@dataclass(frozen=True)
@checked
class IntegratedGradients(Told):
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
    only, and a number stands for a tensor of it), or with one more leading dimension for several: then the values
    are the mean over the baselines (expected gradients, Erion et al. 2021) and `total` is `f(x)` minus the mean of
    `f(x′)`. With `at`, too, they are inputs of the model. Raises InputError for shapes that do not fit.

    With `at` and `path="inputs"` the values are the conductance of the layer (Dhamdhere et al. 2018): `∫ ∂f/∂y dy`
    while the inputs go along their line and the layer follows; they add up to the same total. With
    `multiply_by_inputs=False` they are the mean gradient, of a layer on that path its internal influence (Leino et
    al. 2018); these do not claim to add up. With `through` they are what the score changes through one neuron: the
    sum of the conductance of that neuron.

    Cost: one forward pass, one more per baseline, and one forward and backward pass per node and baseline, with
    `path="inputs"` another forward pass, with `through` two more backward passes.

    Attributes:
        baseline (float or str, default 0.0): The x′ of every entry (of every embedding entry for token ids), or one of
            the names above; 0.0: for token ids, the first of them that is known.
        nodes (int, default None): Nodes of each path, used as they are; None: as many as the tolerance needs.
        tolerance (float, default 0.01, share of |total|): Largest |remainder| of a path.
        max_nodes (int, default 512): Most nodes of a path; of all classes of one row together, but for 8 of each.
        chunk (int, default 32, rows): Rows that run at once, which bounds the memory.
        at (str or list of str, default None): Modules to explain instead of the inputs; None: the inputs.
        rule (str, default "gauss-legendre"): Where the nodes are and what they weigh; also "midpoint", "riemann"
            and "trapezoid".
        path (str, default "layer"): Where the line is straight if `at` names a layer: there, or in the "inputs".
        multiply_by_inputs (bool, default True): Multiply by what differs from the baseline; False: the mean gradient.
        through (Neuron, default None): Count only what passes through this neuron; None: everything.

    >>> e = IntegratedGradients()(lambda x: x[:, :1] * x[:, 1:], torch.tensor([[2.0, 3.0]]))
    >>> e.values.round(decimals=4).tolist()
    [[3.0, 3.0]]
    """

    baseline: float | str | Tensor = 0.0
    nodes: int | None = None
    tolerance: float = 1e-2
    max_nodes: int = 512
    chunk: int = 32
    at: str | Sequence[str] | None = None
    rule: str = "gauss-legendre"
    path: Literal["layer", "inputs"] = later("layer")
    multiply_by_inputs: bool = later(True)
    through: Neuron | None = later(None)
    once: ClassVar[int] = 1  # nodes of a path fill a chunk

    def __post_init__(self) -> None:
        check_accuracy(self.nodes, self.max_nodes, self.tolerance, self.chunk)
        if self.rule not in RULES:
            hint = did_you_mean(str(self.rule), RULES)
            raise InputError(f"rule is {self.rule!r}; {hint}accepted: {', '.join(RULES)}")
        if self.rule == "trapezoid" and self.nodes == 1:
            raise InputError("nodes is 1; accepted for the trapezoid rule: at least 2")
        check("path", self.path, ("layer", "inputs").__contains__, "'layer', 'inputs'")
        if self.path == "inputs" and not self.at:
            raise InputError(
                "path is 'inputs', but at names no layer that follows them; accepted: at='layer3'"
            )
        check("through", self.through, lambda v: v is None or isinstance(v, Neuron), "a Neuron, or None")
        if self.through is not None and self.at is not None:
            raise InputError("through and at are both given; accepted: one of them")

    def __call__(
        self,
        model: Model,
        inputs: Given,
        target: Target = None,
        *,
        baseline: Inputs | float | str | None = None,
        mask: int | None = None,
        features: Sequence[Features] = (),
    ) -> Explanation[Given, Tensor]:
        along = self.path == "inputs"
        via = self.at if along else self.through.layer if self.through is not None else ()
        subject = Gradients(model, inputs, target, None if along else self.at, via or (), self.once)
        score = subject.forward()
        made = with_call(self, subject.inputs, baseline=baseline)
        made, begins = known_baseline(made, subject, score, mask)
        paths = Paths.between(subject, score, begins, mask, features)
        of_tokens = is_of_tokens(score)
        chained = _computed_from_another(score)
        ends = [place.detach() for place in score.passed] if along else paths.ends
        values = [torch.zeros_like(end) for end in ends]  # (batch, …) each
        missed: set[int] = set()
        coarse: set[int] = set()
        most = 0
        for block in pieces(torch.arange(paths.many), self.chunk):
            found, nodes, open_paths, rounded = self._converge(paths, ends, block)
            most = max(most, nodes)
            missed |= {int(p) % subject.batch for p in open_paths}
            coarse |= {int(p) % subject.batch for p in rounded}
            for value, new in zip(values, found, strict=True):
                value.index_add_(0, (block % subject.batch).to(value.device), new / paths.baselines)
        spent = f"after max_nodes={self.max_nodes} nodes{' of all together' if paths.once else ''}{_ADD_UP * of_tokens}"
        warnings = () if self.nodes else warn_of_shortfalls(paths, missed, coarse - missed, spent)
        notes = {"nodes": most, "baselines": paths.baselines, **note_of(begins)}
        total = paths.totals() if self.multiply_by_inputs and self.through is None else None
        subject.chained = subject.chained or chained
        slots = score.via_slots if along else score.slots
        result = subject.explanation(made, score, values, total, warnings=warnings, notes=notes, slots=slots)
        told = _warn_of_nothing_apportioned(result.left_over) if of_tokens else ()
        return replace(result, warnings=(*told, *result.warnings))

    def _converge(
        self, paths: Paths, ends: Sequence[Tensor], block: Tensor
    ) -> tuple[list[Tensor], int, Tensor, Tensor]:
        """The values of each path, the most nodes used, and the paths that are not within tolerance: for want of
        nodes, and for want of digits.

        What does not pass through a layer or neuron is not in its values, whatever the nodes: there, the change from
        half as many nodes tells as well, times four to be on the safe side.
        """
        plain = self.path == "layer" and self.through is None
        if plain and not self.nodes and self.rule == "gauss-legendre":
            means, most, short, rough = integrate_by_halves(
                paths, block, self.tolerance, self.max_nodes, self.chunk
            )
            if not self.multiply_by_inputs:
                return means, most, short, rough
            steps = paths.steps(block)
            return [mean * step for mean, step in zip(means, steps, strict=True)], most, short, rough
        values = [torch.zeros_like(end[block % paths.batch]) for end in ends]  # (paths, …) each
        still = torch.arange(len(block))
        rounded: list[Tensor] = []
        nodes = self.nodes or max(min(8, self.max_nodes), 2 if self.rule == "trapezoid" else 1)
        before: Tensor | None = None
        while True:
            which = block[still]
            found = self._integrate(paths, which, RULES[self.rule](nodes))
            chosen = found.attributions if self.multiply_by_inputs else found.gradients
            for value, new in zip(values, chosen, strict=True):
                value[still.to(value.device)] = new
            total = paths.at_ends[which] - paths.at_starts[which]  # (paths,)
            reached = sum(v.reshape(len(v), -1).double().sum(1) for v in found.attributions).cpu()  # type: ignore[union-attr]
            gap = (total - reached).abs()
            if not plain:
                change = torch.full_like(gap, torch.inf) if before is None else 4 * (reached - before).abs()
                gap = change if self.through is not None else gap.minimum(change)
            wide, fine = paths.judge(which, gap, self.tolerance, found.low, found.high)
            rounded.append(which[fine])
            still, before = still[wide], reached[wide]
            if self.nodes or not len(still) or nodes >= self.max_nodes:
                return values, nodes, block[still], torch.cat(rounded)
            nodes = min(2 * nodes, self.max_nodes)

    def _integrate(self, paths: Paths, which: Tensor, rule: tuple[Array, Array]) -> Integral:
        if self.path == "inputs":
            return integrate_on_the_way(paths, which, rule, self.chunk)
        return integrate(paths, which, rule, self.chunk, self.through)


class Integral(NamedTuple):
    """Of some paths: the mean gradient, and that times the way, one (paths, …) tensor each for what is explained; and
    the lowest and highest score met."""

    gradients: list[Tensor]
    attributions: list[Tensor]
    low: Tensor
    high: Tensor


def integrate(
    paths: Paths, which: Tensor, rule: tuple[Array, Array], chunk: int, through: Neuron | None = None
) -> Integral:
    """`∫ ∇f dα` of the paths `which` at their leaves, and `(x − x′)` times it."""
    places, weights = (torch.as_tensor(np.asarray(a)) for a in rule)
    slots = torch.arange(len(which)).repeat(len(places))  # (nodes · paths,): the path of each row
    places, weights = (a.repeat_interleave(len(which)) for a in (places, weights))
    of = Score.gradients if through is None else partial(_gradients_through, through)
    sums, scores = paths.weigh_gradients(which, slots, places, weights, chunk, of)
    grid = scores.view(-1, len(which))  # (nodes, paths)
    moved = [s * step for s, step in zip(sums, paths.steps(which), strict=True)]
    return Integral(sums, moved, grid.amin(0), grid.amax(0))


def integrate_on_the_way(paths: Paths, which: Tensor, rule: tuple[Array, Array], chunk: int) -> Integral:
    """`∫ ∂f/∂y dα` and `∫ ∂f/∂y dy` of the layers y on the way, while the leaves go along their paths `which`.

    Each node stands for a cell of the path as long as its weight, in which y changes by what it is at the ends of the
    cell: whatever y does there, these changes add up.
    """
    nodes, weights = (torch.as_tensor(np.asarray(a)) for a in rule)
    borders = torch.cat([weights.new_zeros(1), weights.cumsum(0)[:-1], weights.new_ones(1)])
    together = max(1, chunk // len(which))  # nodes
    gradients: list[Tensor] = []
    attributions: list[Tensor] = []
    met = []
    for begin in range(0, len(nodes), together):
        part = nodes[begin : begin + together]
        many = len(part)

        def rows(places: Tensor) -> tuple[Tensor, Tensor]:
            return which.repeat(len(places)), places.repeat_interleave(len(which))

        score = paths.forward(*rows(part))
        met.append(score.value.detach().double().cpu().view(many, -1))
        passed = paths.forward(*rows(borders[begin : begin + many + 1]), grad=False).passed
        found, moved = [], []
        for gradient, y in zip(score.gradients_on_the_way(), passed, strict=True):
            each = gradient.view(many, len(which), *gradient.shape[1:])  # (nodes, paths, …)
            share = weights[begin : begin + many].to(each).view(-1, *[1] * (each.dim() - 1))
            found.append((share * each).sum(0))
            moved.append((each * y.view(many + 1, *each.shape[1:]).diff(dim=0)).sum(0))
        gradients = [a + b for a, b in zip(gradients, found, strict=True)] if gradients else found
        attributions = [a + b for a, b in zip(attributions, moved, strict=True)] if attributions else moved
    grid = torch.cat(met)  # (nodes, paths)
    return Integral(gradients, attributions, grid.amin(0), grid.amax(0))


def _gradients_through(neuron: Neuron, score: Score) -> list[Tensor]:
    """The gradient of the score at the leaves as far as it passes through a neuron: `∂f/∂y · ∂y/∂x`."""
    (gradient,) = neuron.of(score.gradients_on_the_way(), len(score.value)).T
    (y,) = neuron.of(score.passed, len(score.value)).T
    return score.gradients(gradient.detach() * y)


def _computed_from_another(score: Score) -> str:
    """The name of a layer on the way that is computed from another one; empty if there is none."""
    for i in range(1, len(score.passed)):
        before = score.passed[:i]
        found = torch.autograd.grad(score.passed[i].sum(), before, retain_graph=True, allow_unused=True)
        if any(gradient is not None for gradient in found):
            return str(score.via_slots[i].layer)
    return ""


def check_accuracy(nodes: int | None, max_nodes: int, tolerance: float, chunk: int) -> None:
    """Raise InputError for settings that no integral can be taken with."""
    check_nodes(nodes=1 if nodes is None else nodes, max_nodes=max_nodes)
    check_whole(1, chunk=chunk)
    check("tolerance", tolerance, lambda v: v > 0, "a positive share of the total")


def warn_of_shortfalls(paths: Paths, missed: set[int], coarse: set[int], why: str) -> tuple[str, ...]:
    """A warning for the samples that were missed, which says `why`, and one for those that want digits."""
    reasons = (
        (missed, why),
        (coarse, f"in {paths.dtype}, whose rounding is larger; a wider number format would tell"),
    )
    return tuple(f"samples {_list_samples(s)} are not within tolerance {why}" for s, why in reasons if s)


_ADD_UP = "; KernelSHAP(), which hides words, and DeepLIFT() add up"


def _warn_of_nothing_apportioned(left_over: Tensor | None) -> tuple[str, ...]:
    """A warning for samples of token ids whose remainder is more than what there was to apportion."""
    if left_over is None or not bool((left_over > 1).any()):
        return ()
    beyond = set((left_over > 1).nonzero()[:, 0].tolist())
    return (
        f"samples {_list_samples(beyond)}: more than the total is left over, so the values are no shares of the score; "
        "KernelSHAP(), which hides words, and LRP(bias='place') add up",
    )


def _list_samples(samples: set[int]) -> str:
    some = sorted(samples)
    return f"{some[:8]} and {len(some) - 8} more" if len(some) > 8 else str(some)
