"""The straight lines from baselines to samples along which the path methods integrate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from apportion.core.features import Features
from apportion.core.from_call import given_of
from apportion.core.inputs import Held, Inputs, unmarked
from apportion.core.numbers import holds
from apportion.core.trees import keyed
from apportion.engines.substitution import HARMLESS, Gradients, Score, Substitute, Substitution
from apportion.engines.substitution.leaves import check_samples
from apportion.errors import InputError
from apportion.methods.paths.token_baselines import scored_at, starts_of

# A remainder is compared with |total|, but with no less than this share of what the score spans along the
# path: where f(x) equals f(x′) no finite accuracy would be a share of the total.
SMALLEST_TOTAL = 0.01

_NUMBERS_OF_GRADIENTS = 1 << 24


@dataclass
class Paths:
    """The straight lines from each baseline to each sample: path `p` runs from baseline `p // batch` to sample
    `p % batch`.

    Attributes:
        subject (Gradients): The model, and what it is explained at.
        starts (list of Tensor): (baselines, batch or 1, …) for each leaf.
        ends (list of Tensor): (batch, …) for each leaf.
        table (dict, default HARMLESS): Substitutes that the model runs under.
        at_starts (Tensor): Scores at the starts, (paths,) in double precision on the CPU.
        at_ends (Tensor): Scores at the ends, likewise.
    """

    subject: Gradients
    starts: list[Tensor]
    ends: list[Tensor]
    table: Mapping[str, Substitute] = field(default_factory=lambda: HARMLESS)
    at_starts: Tensor = field(default_factory=lambda: torch.empty(0))
    at_ends: Tensor = field(default_factory=lambda: torch.empty(0))

    @classmethod
    def between(
        cls,
        subject: Gradients,
        score: Score,
        baseline: Inputs | float | str,
        mask: int | None = None,
        features: Sequence[Features] = (),
    ) -> Paths:
        """The paths to the leaves of `score`, from what the caller gave as `baseline`."""
        ends = [leaf.detach() for leaf in score.leaves]
        check_samples(ends, subject.batch)
        paths = cls(subject, baselines_of(subject, score, ends, baseline, mask, features), ends)
        at_ends = score.value.detach().double().cpu().repeat(paths.baselines)
        with scored_at(baseline):
            at_starts = paths.values(torch.arange(paths.many), torch.zeros(paths.many))
        paths = replace(paths, at_starts=at_starts, at_ends=at_ends)
        paths._compare_starts(score)
        return paths

    @property
    def batch(self) -> int:
        return self.subject.batch

    @property
    def baselines(self) -> int:
        return self.starts[0].shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """The coarsest number format of the leaves."""
        return max((end.dtype for end in self.ends), key=lambda dtype: torch.finfo(dtype).eps)

    @property
    def many(self) -> int:
        return self.baselines * self.batch

    def forward(self, which: Tensor, places: Tensor, grad: bool = True) -> Score:
        """One forward pass at `places` of the paths `which`, both (rows,)."""
        of, run_at, at = None, which, places
        if self.once:  # samples of one baseline are at one point where they are at one place
            found, of = self._points(which, places)
            run_at, at = found[:, 0].long() * self.batch, found[:, 1]
        points = []
        for start, end in zip(self.starts, self.ends, strict=True):
            row = run_at.to(end.device)
            part = at.to(end).view(-1, *[1] * (end.dim() - 1))  # (rows, 1, …)
            points.append(torch.lerp(self._start_of(start, row), end[row % self.batch], part))  # (rows, …)
        run = Substitution(self.table, model=self.subject.model)
        score = self.subject.forward(run, points, which % self.batch, grad, of)
        for place, known in ((0.0, self.at_starts), (1.0, self.at_ends)):
            if len(known) and bool((here := places == place).any()):
                self.subject.compare(
                    known[which[here]], score.value[here.to(score.value.device)], score.output
                )
        return score

    def _together(self, which: Tensor, places: Tensor, chunk: int) -> Iterator[Tensor]:
        """Rows in chunks of so many points, at each of which are as many; of fewer points where the gradients of all
        these rows would hold too many numbers."""
        point = self._points(which, places)[1]
        alike = point.bincount()  # (points,)
        width = sum(end[0].numel() for end in self.ends)
        for many in alike.unique().tolist():
            points = (alike == many).nonzero().flatten()
            for some in pieces(points, max(1, min(chunk, _NUMBERS_OF_GRADIENTS // (many * width)))):
                yield torch.isin(point, some).nonzero().flatten()

    @property
    def once(self) -> bool:
        """Whether the paths of all samples from a baseline are one path, which is run once for all of them."""
        return self.subject.once and all(start.shape[1] == 1 for start in self.starts)

    def _points(self, which: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """The baseline and the place of each point that is run, (points, 2), and the point of each row, (rows,)."""
        each = torch.stack([(which // self.batch).double(), places.double()], 1)
        return each.unique(dim=0, return_inverse=True)  # type: ignore[no-any-return]

    def _compare_starts(self, score: Score) -> None:
        """Samples that have the start in common, and no input beside it, have one score there for each target."""
        inputs = keyed(self.subject.inputs)
        alone = not self.subject.layers and all(slot.positions is None for slot in score.slots)
        shared = all(start.shape[1] == 1 for start in self.starts)
        if not (alone and shared and len(score.slots) == len(inputs)):
            return
        target = self.subject.resolved
        kind = target.tolist() if isinstance(target, Tensor) else [0] * self.batch
        first = torch.tensor([kind.index(one) for one in kind])
        found = self.at_starts.view(self.baselines, self.batch)
        self.subject.compare(found[:, first], found, score.output)

    def values(self, which: Tensor, places: Tensor, chunk: int = 32) -> Tensor:
        """The scores at these places: (rows,) in double precision on the CPU."""
        parts = zip(pieces(which, chunk), pieces(places, chunk), strict=True)
        # Only what could have a gradient is substituted, so a table that replaces needs a graph.
        graph = self.table is not HARMLESS
        return torch.cat([self.forward(w, u, grad=graph).value.detach().double().cpu() for w, u in parts])

    def weigh_gradients(
        self,
        which: Tensor,
        slot: Tensor,
        places: Tensor,
        weights: Tensor,
        chunk: int,
        of: Callable[[Score], Sequence[Tensor]] = Score.gradients,
    ) -> tuple[list[Tensor], Tensor]:
        """Sums of weighted gradients, (len(which), …) for each leaf, and the scores met, (rows,) in double precision on
        the CPU. Sum `i` is over the rows whose `slot` is `i`, at their `places` of path `which[i]`; all but `which` are
        (rows,)."""
        sums = [torch.zeros_like(end[which.to(end.device) % self.batch]) for end in self.ends]
        met = torch.empty(len(slot), dtype=torch.float64)
        for rows in (
            self._together(which[slot], places, chunk)
            if self.once
            else pieces(torch.arange(len(slot)), chunk)
        ):
            score = self.forward(which[slot[rows]], places[rows])
            met[rows] = score.value.detach().double().cpu()
            for total, gradient in zip(sums, of(score), strict=True):
                column = weights[rows].to(gradient).view(-1, *[1] * (gradient.dim() - 1))  # (rows, 1, …)
                total.index_add_(0, slot[rows].to(gradient.device), gradient * column)
        return sums, met

    def steps(self, which: Tensor) -> list[Tensor]:
        """`x − x′` of the paths `which`, one tensor for each leaf."""
        rows = [which.to(end.device) for end in self.ends]
        pairs = zip(self.starts, self.ends, rows, strict=True)
        return [end[row % self.batch] - self._start_of(start, row) for start, end, row in pairs]

    def totals(self) -> Tensor:
        """The amount to apportion for each sample, (batch,): `f(x)` minus the mean of `f(x′)`."""
        total = (self.at_ends - self.at_starts).view(self.baselines, self.batch).mean(0)  # (batch,)
        return total.to(self.ends[0].device)

    def scale(self, which: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The measure of a remainder: |total|, or a share of the span of the score if that is more.

        `low` and `high` are the lowest and highest scores met inside the paths `which`.
        """
        ends = torch.stack([self.at_starts[which], self.at_ends[which]])  # (2, rows)
        span = torch.maximum(high, ends.amax(0)) - torch.minimum(low, ends.amin(0))  # (rows,)
        return torch.maximum((ends[1] - ends[0]).abs(), SMALLEST_TOTAL * span)

    def judge(
        self, which: Tensor, gap: Tensor, tolerance: float, low: Tensor, high: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Find the gaps above the tolerance: those that more nodes may close, and those that the number format
        cannot tell from zero."""
        over = gap - tolerance * self.scale(which, low, high)  # (rows,)
        rounding = self.rounding(which)
        return over > rounding, (over > 0) & (over <= rounding)

    def rounding(self, which: Tensor) -> Tensor:
        """A difference of scores that the number format cannot tell from zero."""
        size = torch.maximum(self.at_starts[which].abs(), self.at_ends[which].abs())
        return 32 * torch.finfo(self.dtype).eps * size

    def _start_of(self, start: Tensor, which: Tensor) -> Tensor:
        return start.expand(-1, self.batch, *start.shape[2:])[which // self.batch, which % self.batch]


def pieces(rows: Tensor, chunk: int) -> list[Tensor]:
    """`rows`, at most `chunk` at a time."""
    return [rows[begin : begin + chunk] for begin in range(0, len(rows), chunk)]


def baselines_of(
    subject: Gradients,
    score: Score,
    ends: list[Tensor],
    baseline: Inputs | float | str,
    mask: int | None = None,
    features: Sequence[Features] = (),
) -> list[Tensor]:
    """One (baselines, batch or 1, …) tensor for each leaf. `mask` is the token that a baseline called "mask" puts in
    the place of those that `features` do not call special."""
    found = _each_baseline(subject, score, ends, baseline, mask, features)
    return [
        start[:, :1] if subject.once and bool((start == start[:, :1]).all()) else start for start in found
    ]


def _each_baseline(
    subject: Gradients,
    score: Score,
    ends: list[Tensor],
    baseline: Inputs | float | str,
    mask: int | None,
    features: Sequence[Features],
) -> list[Tensor]:
    baseline = given_of(baseline)
    if isinstance(baseline, str):
        return starts_of(subject, score, ends, baseline, mask, features)
    if isinstance(baseline, int | float) and math.isfinite(baseline):
        number = torch.tensor(baseline, dtype=torch.float64)
        return [_in_format_of(end, number).expand(1, *end[:1].shape) for end in ends]
    if not isinstance(baseline, Tensor | tuple | Mapping):
        raise InputError(
            f"baseline is {baseline!r:.60}; accepted: a finite number, or tensors like the inputs"
        )
    given = _by_key(baseline)
    inputs = _by_key(subject.inputs)
    for key, tensor in given.items():
        if not isinstance(tensor, Tensor):
            raise InputError(
                f"baseline holds {type(tensor).__name__}; accepted: a number, or tensors like the inputs and numbers"
            )
        if key not in inputs:
            raise InputError(f"baseline names input {key!r}; the inputs are {list(inputs)}")
        if not bool(torch.isfinite(tensor).all()):
            raise InputError("baseline contains NaN or infinite numbers")
        if isinstance(inputs[key], Held) and not torch.equal(unmarked(tensor), unmarked(inputs[key])):
            raise InputError(
                f"baseline names input {key!r}, which is held; accepted: one of what is explained"
            )
    direct = len(ends) == 1 and len(given) == 1
    if direct and score.slots[0].positions is not None and next(iter(given.values())).is_floating_point():
        return [stack_baselines(next(iter(given.values())), ends[0], "the embedding")]
    if not subject.layers and all(slot.positions is None for slot in score.slots):
        keys = [slot.key for slot in score.slots]
        found = [
            stack_baselines(given.get(k, inputs[k]), e, "the input") for k, e in zip(keys, ends, strict=True)
        ]
        most = max(start.shape[0] for start in found)
        if any(start.shape[0] not in (1, most) for start in found):
            raise InputError(
                f"baselines number {[s.shape[0] for s in found]}; accepted: as many for each input"
            )
        return [start.expand(most, *start.shape[1:]) for start in found]
    for key, tensor in given.items():
        if not tensor.dim() and not inputs[key].is_floating_point():
            raise InputError(
                f"baseline of input {key!r} is a number; accepted: token ids, or one number for all inputs"
            )
    return _look_up(subject, inputs, given, ends)


def _look_up(
    subject: Gradients, inputs: dict[object, Tensor], given: dict[object, Tensor], ends: list[Tensor]
) -> list[Tensor]:
    """Baselines that must pass through the model first: token ids, or inputs below an inner layer."""
    wide = {
        k: stack_baselines(given.get(k, t), t, "the input").expand(-1, subject.batch, *t.shape[1:])
        for k, t in inputs.items()
    }
    most = max(t.shape[0] for t in wide.values())
    flat = {k: t.expand(most, *t.shape[1:]).flatten(0, 1) for k, t in wide.items()}
    form: Inputs = (
        next(iter(flat.values()))
        if isinstance(subject.inputs, Tensor)
        else tuple(flat.values())
        if isinstance(subject.inputs, tuple)
        else {str(k): t for k, t in flat.items()}
    )
    wanted = subject.resolved
    target = wanted.repeat(most, *[1] * (wanted.dim() - 1)) if isinstance(wanted, Tensor) else wanted
    other = Gradients(subject.model, form, target, subject.at)
    leaves = [leaf.detach() for leaf in other.forward(grad=False).leaves]
    subject.ran(len(leaves[0]))
    if [leaf.shape[1:] for leaf in leaves] != [end.shape[1:] for end in ends]:
        raise InputError(
            "the baseline takes another way through the model than the inputs; their leaves differ"
        )
    return [leaf.view(most, subject.batch, *leaf.shape[1:]) for leaf in leaves]


def _by_key(inputs: Inputs) -> dict[object, Tensor]:
    if isinstance(inputs, Tensor):
        return {None: inputs}
    return dict(enumerate(inputs)) if isinstance(inputs, tuple) else {key: inputs[key] for key in inputs}


def stack_baselines(baseline: Tensor, end: Tensor, what: str) -> Tensor:
    """As (baselines, batch or 1, …): what broadcasts to `end`, or has one dimension more."""
    several = baseline.dim() > end.dim()
    one = baseline if several else baseline[None]
    try:
        shape = np.broadcast_shapes(one.shape[1:], end.shape)
    except ValueError:
        shape = ()
    if shape != tuple(end.shape) or one.dim() > end.dim() + 1 or not one.numel():
        raise InputError(
            f"baseline has shape {tuple(baseline.shape)}; accepted: {tuple(end.shape)} as {what}, what "
            "broadcasts to it, or one more leading dimension for several baselines"
        )
    one = _in_format_of(end, one.detach())
    while one.dim() < end.dim() + 1:
        one = one.unsqueeze(1)
    rows = end.shape[0] if one.shape[1] == end.shape[0] else 1
    return one.expand(one.shape[0], rows, *end.shape[1:])


def _in_format_of(end: Tensor, baseline: Tensor) -> Tensor:
    """A baseline in the number format of the inputs. InputError where it is another one there, but for rounding."""
    if not holds(end.dtype, baseline, False):
        raise InputError(
            f"baseline has numbers that {end.dtype}, the format of the inputs, does not hold; accepted: numbers that "
            "fit, or inputs in a wider format, such as x.double()"
        )
    return baseline.to(end)
