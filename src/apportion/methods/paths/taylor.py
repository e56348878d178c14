"""Taylor decomposition: relevance from the first-order expansion at a root point of the score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from apportion.core.calling import Model
from apportion.core.content import ByContent
from apportion.core.inputs import Given
from apportion.core.settings import checked
from apportion.core.target import Target, classes_of, pick
from apportion.engines.substitution import Gradients, Score
from apportion.engines.substitution.leaves import check_samples
from apportion.errors import InputError, check, check_whole
from apportion.results.explanation import Explanation


@dataclass(frozen=True)
@checked
class Taylor:
    """Expand the score at a root point `f(x₀) = 0` near the input (Bach et al. 2015, eq. 7 and 8):
    `R = (x − x₀) · ∇f(x₀)`.

    Without `data`, the root is searched by following the gradient with Newton steps of the score,
    `x ← x − f ∇f / |∇f|²`, halved while they overshoot; with `data=` in the call (samples of the inputs' form), on
    the line to the nearest sample whose score has the other sign, by bisection. On sparse data that line may lead far
    away: a warning names samples whose root is more than three times as far as where the slope at the input leads to
    zero, `|f| / |∇f|`.

    `total` is `f(x)`; the remainder says how far from linear the score is between root and input. The explained
    score needs a root: for a classifier that is often a difference of scores, such as `target=Contrast(3, 5)`.
    Raises InputError where no root was found, saying how close the search came. Cost: one forward and backward
    pass a step, and one at the root; with data one backward pass, one forward pass over it (one for each sample where
    the model has other inputs, or `at` names a layer) and one for each bisection.

    Attributes:
        steps (int, default 200): Most steps of the search.
        tolerance (float, default 0.001, share of |f(x)|): Largest |f| at what counts as a root.
        low (float, default None): Smallest entry of a root; None: no bound.
        high (float, default None): Largest entry of a root; None: no bound.
        chunk (int, default 32, rows): Rows that run at once.
        at (str or list of str, default None): Modules to explain instead of the inputs; None: the inputs.

    >>> weight = torch.tensor([[1.0, -1.0]])
    >>> e = Taylor()(lambda x: x @ weight.T, torch.tensor([[3.0, 1.0]]))
    >>> e.values.tolist(), e.remainder.abs().item() < 1e-6
    ([[1.0, 1.0]], True)
    """

    steps: int = 200
    tolerance: float = 1e-3
    low: float | None = None
    high: float | None = None
    chunk: int = 32
    at: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_whole(1, steps=self.steps, chunk=self.chunk)
        check("tolerance", self.tolerance, lambda v: 0 < v < 1, "a share of f(x) between 0 and 1")
        for name in ("low", "high"):
            check(
                name,
                getattr(self, name),
                lambda v: v is None or float(v) == v,
                "a number, or None for no bound",
            )
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise InputError(f"low={self.low} is not below high={self.high}")

    def __call__(
        self, model: Model, inputs: Given, target: Target = None, *, data: Tensor | None = None
    ) -> Explanation[Given, Tensor]:
        subject = Gradients(model, inputs, target, self.at)
        score = subject.forward()
        ends = [leaf.detach() for leaf in score.leaves]
        check_samples(ends, subject.batch)
        made = self._with_data(data)
        if data is None:
            roots, left = self._follow_gradient(subject, score, ends)
        else:
            roots, left = self._search_lines(subject, score, ends, data)
        value = score.value.detach()
        bad = (left.abs() > self.tolerance * value.abs()).nonzero().flatten().tolist()
        if bad:
            near = ", ".join(
                f"sample {i}: f = {float(left[i]):.3g} of {float(value[i]):.3g}" for i in bad[:4]
            )
            raise InputError(
                f"no root point was found; closest came {near}. Try more steps, other bounds, or a score "
                "that changes sign, such as target=Contrast(predicted class, another class)"
            )
        at_roots = subject.forward(leaves=roots)
        subject.compare(left, at_roots.value, score.output)
        gradients = at_roots.gradients()
        values = [(x - root) * g for x, root, g in zip(ends, roots, gradients, strict=True)]
        distance = _flatten([x - root for x, root in zip(ends, roots, strict=True)]).norm(dim=1).tolist()
        notes = {"root_score": tuple(left.tolist()), "distance": tuple(distance)}
        warnings = () if data is None else _warn_of_far_roots(distance, score, value)
        return subject.explanation(made, score, values, value, notes=notes, warnings=warnings)

    def _with_data(self, data: Tensor | None) -> Taylor:
        """The method that the result names, which knows the data of the call."""
        if not isinstance(data, Tensor):
            return self
        own = {each.name: getattr(self, each.name) for each in fields(Taylor)}
        return TaylorWithData(**own, data=data.detach().clone())

    def _follow_gradient(
        self, subject: Gradients, score: Score, ends: list[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """The best point met for each sample, and its score."""
        value = score.value.detach().clone()
        allowed = self.tolerance * value.abs()
        best, left = [x.clone() for x in ends], value.clone()
        size = torch.ones_like(left)
        gradients = [gradient.clone() for gradient in score.gradients()]  # they may be expanded
        for _ in range(self.steps):
            open_rows = (left.abs() > allowed).nonzero().flatten()
            if not len(open_rows):
                break
            free = [g * self._mark_free(x, g, left) for x, g in zip(best, gradients, strict=True)]
            slope = _flatten(free).square().sum(1)  # (batch,)
            # Where the gradient is zero, no step: an infinite one times zero would be NaN.
            part = torch.where(slope > 0, size * left / slope.clamp(min=torch.finfo(slope.dtype).tiny), 0)
            tried = [
                self._keep_inside(x - g * _as_column(part.to(x), x)) for x, g in zip(best, free, strict=True)
            ]
            there = subject.forward(leaves=[t[open_rows] for t in tried], rows=open_rows)
            found, slopes = there.value.detach(), there.gradients()
            better = torch.isfinite(found) & (found.abs() < left[open_rows].abs())
            moved, stayed = open_rows[better], open_rows[~better]
            size[moved], size[stayed] = 1.0, size[stayed] / 2
            left[moved] = found[better]
            for x, t, gradient, new in zip(best, tried, gradients, slopes, strict=True):
                x[moved], gradient[moved] = t[moved], new[better]
        return best, left

    def _mark_free(self, x: Tensor, gradient: Tensor, value: Tensor) -> Tensor:
        """1 where a step against the score may go, 0 where a bound is in its way."""
        direction = -gradient * _as_column(value.sign(), x)
        free = torch.ones_like(x)
        if self.low is not None:
            free[(x <= self.low) & (direction < 0)] = 0
        if self.high is not None:
            free[(x >= self.high) & (direction > 0)] = 0
        return free

    def _keep_inside(self, x: Tensor) -> Tensor:
        if self.low is None and self.high is None:
            return x
        # `clamp` takes no bounds beyond these.
        least, most = torch.finfo(x.dtype).min, torch.finfo(x.dtype).max
        low, high = (b if b is None else min(max(b, least), most) for b in (self.low, self.high))
        return x.clamp(low, high)

    def _search_lines(
        self, subject: Gradients, score: Score, ends: list[Tensor], data: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """The root on the line to the nearest sample of the other sign, and the score there."""
        if not isinstance(data, Tensor):
            raise InputError(f"data is {type(data).__name__}; accepted: a tensor of samples")
        if (
            len(ends) != 1
            or data.dim() != ends[0].dim()
            or data.shape[1:] != ends[0].shape[1:]
            or not len(data)
        ):
            wanted = [("samples", *end.shape[1:]) for end in ends]
            raise InputError(
                f"data has shape {tuple(data.shape)}; accepted: {wanted[0]} in the form of one input"
            )
        data = self._keep_inside(data.detach().to(ends[0]))
        x, value = ends[0], score.value.detach()
        # Nothing but the leaf goes into a model that reads one tensor of numbers: its scores hold for every sample.
        whole = (
            not subject.layers
            and subject.places is None
            and isinstance(subject.inputs, Tensor)
            and score.slots[0].positions is None
        )
        scores = self._score_once(subject, data) if whole else self._score_each(subject, data)
        other = scores * value[:, None] <= 0
        lost = ((value != 0) & ~other.any(1)).nonzero().flatten()
        if len(lost):
            row = int(lost[0])
            closest = float(scores[row, scores[row].abs().argmin()])
            raise InputError(
                f"no root point was found: the score of sample {row} is {float(value[row]):.3g} and no sample of the "
                f"data has the other sign (closest: {closest:.3g}); try a target=Contrast(…)"
            )
        own, theirs = (_widen(points.reshape(len(points), -1)) for points in (x, data))
        distance = torch.cdist(own, theirs, compute_mode="donot_use_mm_for_euclid_dist")
        far = data[distance.masked_fill(~other, torch.inf).argmin(1)]  # (batch, …)
        root, left = self._bisect(subject, x, far, value)
        return [root], left

    def _score_once(self, subject: Gradients, data: Tensor) -> Tensor:
        """The score of each datum for the target of each sample: (batch, data), with one pass over the data."""
        zero = torch.zeros(len(data), dtype=torch.long, device=data.device)
        parts = zip(data.split(self.chunk), zero.split(self.chunk), strict=True)
        outputs = torch.cat([subject.forward(leaves=[d], rows=z, grad=False).output for d, z in parts])
        if isinstance(subject.resolved, Tensor):
            return outputs[:, classes_of(subject.resolved).to(outputs.device)].T
        return pick(subject.resolved, outputs).expand(subject.batch, -1)

    def _score_each(self, subject: Gradients, data: Tensor) -> Tensor:
        """Score each datum where samples bring inputs of their own: beside the others of each sample."""
        pairs = torch.arange(subject.batch * len(data), device=data.device).split(self.chunk)
        found = [_score(subject, data[pair % len(data)], pair // len(data)) for pair in pairs]
        return torch.cat(found).view(subject.batch, -1)

    def _bisect(self, subject: Gradients, x: Tensor, far: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The best point met on the line from each sample to its far end, where the score has the other sign."""
        root, left = x.clone(), value.clone()
        low, high = _widen(x.new_zeros(len(x))), _widen(x.new_ones(len(x)))
        open_rows = (value != 0).nonzero().flatten()
        for _ in range(min(self.steps, 60)):
            if not len(open_rows):
                break
            middle = (low[open_rows] + high[open_rows]) / 2
            points = torch.lerp(_widen(x[open_rows]), _widen(far[open_rows]), _as_column(middle, x)).to(x)
            parts = zip(points.split(self.chunk), open_rows.split(self.chunk), strict=True)
            found = torch.cat([_score(subject, point, rows) for point, rows in parts])
            own = value[open_rows]
            same, better = found * own > 0, found.abs() < left[open_rows].abs()
            low[open_rows] = torch.where(same, middle, low[open_rows])
            high[open_rows] = torch.where(same, high[open_rows], middle)
            root[open_rows[better]], left[open_rows[better]] = points[better], found[better]
            open_rows = open_rows[~(found.abs() <= self.tolerance * own.abs())]
        return root, left


@dataclass(frozen=True, eq=False, repr=False)
class TaylorWithData(ByContent, Taylor):
    """`Taylor` with the `data=` of its call: what a result names, so that it explains the same again. Settings: that
    below and those of [Taylor][apportion.methods.paths.taylor.Taylor].

    Attributes:
        data (Tensor): Samples in the form of the inputs.
    """

    data: Tensor = field(kw_only=True)

    def __call__(
        self, model: Model, inputs: Given, target: Target = None, *, data: Tensor | None = None
    ) -> Explanation[Given, Tensor]:
        return super().__call__(model, inputs, target, data=self.data if data is None else data)


def _warn_of_far_roots(distance: list[float], score: Score, value: Tensor) -> tuple[str, ...]:
    """Whether roots on lines to data are far beside those that the slopes at the inputs speak of."""
    near = value.abs() / _flatten([g.detach() for g in score.gradients()]).norm(dim=1)  # (batch,)
    times = [far / by if by > 0 else 0.0 for far, by in zip(distance, near.tolist(), strict=True)]
    many = sum(each > _FAR for each in times)
    if not many:
        return ()
    worst = max(range(len(times)), key=times.__getitem__)
    return (
        f"the root of {many} of {len(times)} samples is far away: {times[worst]:.1f} times as far as the slope at "
        f"sample {worst} leads to zero ({distance[worst]:.3g}, not {float(near[worst]):.3g}); on data as sparse as "
        "these the expansion is not a local one, without data= the search is",
    )


_FAR = 3.0


def _widen(numbers: Tensor) -> Tensor:
    """At least in single precision, for places on a line between numbers of half precision."""
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


def _score(subject: Gradients, points: Tensor, rows: Tensor) -> Tensor:
    there = subject.forward(leaves=[points], rows=rows, grad=False)
    return there.value.detach()


def _flatten(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.reshape(len(t), -1) for t in tensors], 1)


def _as_column(numbers: Tensor, like: Tensor) -> Tensor:
    return numbers.view(-1, *[1] * (like.dim() - 1))
