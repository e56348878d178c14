"""Games of features: the score of a sample with some of its features in place and the others at a baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import isfinite, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.core.calling import Model, behind
from apportion.core.features import Features
from apportion.core.from_call import OfSamples, given_of, with_call
from apportion.core.inputs import Inputs
from apportion.core.modules_behind import modules_behind
from apportion.core.numbers import common_format, holds, tensor_of
from apportion.core.target import Target
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import LabelMap, Partition, Patches
from apportion.engines.masking.replacements import Background, Replacement
from apportion.engines.subject import Subject
from apportion.engines.substitution import Gradients
from apportion.errors import InputError, check
from apportion.methods.interactions._groups import Groups, GroupsLike, groups_of, number_groups
from apportion.methods.paths.paths import Paths, pieces, stack_baselines


@dataclass(frozen=True)
class Game:
    """`score(sample, masks)` is (masks,) in double precision: of each mask (features,) the score with these features
    in place, averaged over the baselines; `total` (batch,) is f(x) less the score of none."""

    made: Any
    subject: Subject
    output: Tensor
    names: tuple[str, ...]
    total: Tensor
    score: Callable[[int, Tensor], Tensor]


def game_of(
    method: Any,
    model: Model,
    inputs: Inputs | np.ndarray,
    target: Target,
    told: Mapping[str, Any],
    features: Sequence[Features] | None,
    mask: int | None,
) -> Game:
    """The game of a method with what its call `told`. A function with no module behind it may leave PyTorch, and is run
    with features hidden; a module is run from its leaves, which may be embeddings or layers."""
    alone = method.at is None and not modules_behind(behind(model))
    if alone and isinstance(inputs, Tensor | np.ndarray):
        return _of_function(method, model, inputs, target, told, features, mask)
    return _of_module(method, model, inputs, target, told)


def _of_module(method: Any, model: Model, inputs: Any, target: Target, told: Mapping[str, Any]) -> Game:
    subject = Gradients(model, inputs, target, method.at)
    score = subject.forward(grad=False)
    made = with_call(method, subject.inputs, **told)
    given = given_of(made.baseline)
    paths = Paths.between(subject, score, given.data[:, None] if isinstance(given, Background) else given)
    groups = groups_of(subject, score, paths.steps(torch.arange(paths.many)), made.groups)

    def play(sample: int, masks: Tensor) -> Tensor:
        runs = [
            _score_coalitions(paths, groups, path, part)
            for path in range(sample, paths.many, paths.batch)
            for part in pieces(masks, method.chunk)
        ]
        return torch.cat(runs).view(paths.baselines, -1).mean(0)

    return Game(made, subject, score.output, groups.names, paths.totals().to(score.dtype), play)


def _score_coalitions(paths: Paths, groups: Groups, path: int, masks: Tensor) -> Tensor:
    """The score at the end of a path with only the features in each mask, (masks,)."""
    which, sample = torch.full((len(masks),), path), path % paths.batch
    points = []
    for start, step, ids in zip(paths.starts, paths.steps(which), groups.ids, strict=True):
        kept = masks.to(step.device)[:, ids[sample % len(ids)]].view(step.shape)
        points.append(start[path // paths.batch, sample % start.shape[1]] + step * kept)
    score = paths.subject.forward(leaves=points, rows=which % paths.batch, grad=False)
    found = score.value.detach().double().cpu()
    for here, known in ((masks.all(1), paths.at_ends), (~masks.any(1), paths.at_starts)):
        paths.subject.compare(known[which[here]], found[here], score.output)
    return found


def _of_function(
    method: Any,
    model: Model,
    inputs: Tensor | np.ndarray,
    target: Target,
    told: Mapping[str, Any],
    features: Sequence[Features] | None,
    mask: int | None,
) -> Game:
    numbers = isinstance(inputs, np.ndarray) or inputs.is_floating_point()
    x = tensor_of("inputs", inputs) if isinstance(inputs, np.ndarray) else inputs
    made = with_call(method, x, **told)
    baseline = given_of(made.baseline)
    way, names = _features(x, made.groups, numbers)
    hidden = None
    if numbers or isinstance(baseline, Tensor | Background):
        x, hidden = _starting(x, baseline, isinstance(inputs, np.ndarray))
    masking = Masking(
        model,
        x.numpy() if isinstance(inputs, np.ndarray) else x,
        target,
        partition=way,
        replacement=hidden,
        features=features if way is None else None,
        mask=mask,
        chunk=method.chunk,
    )
    if names is None:
        names = tuple(str(i) for i in range(masking.many))

    def play(sample: int, masks: Tensor) -> Tensor:
        return masking.values(masks[None].to(torch.bool), torch.tensor([sample]))[0].double().cpu()

    none = masking.values(torch.zeros(1, masking.many, dtype=torch.bool))[:, 0]
    return Game(made, masking, masking.output, names, masking.score - none, play)


def check_baseline(baseline: Any) -> None:
    """Raise InputError for what stands for no features at all."""
    if not isinstance(baseline, Background | Tensor | np.ndarray | OfSamples):
        check("baseline", baseline, isfinite, "a finite number, a Background, or tensors like the inputs")


def _features(
    x: Tensor, groups: GroupsLike, numbers: bool
) -> tuple[Partition | None, tuple[str, ...] | None]:
    """What cuts one input into features, and their names; None: its words or tokens."""
    groups = given_of(groups)
    if isinstance(groups, int):
        return Patches(groups), None
    if groups is not None:
        labels = number_groups(groups, prod(x.shape[1:]), len(x))
        if int(labels.min()) < 0:
            place = int((labels < 0).nonzero()[0, 1])
            raise InputError(f"feature {place} is in no group; put it in a group (of the rest)")
        labels = labels.view(-1, *x.shape[1:])
        return LabelMap(labels[0] if len(labels) == 1 else labels), None
    if not numbers:
        return None, None
    places = product(*map(range, x.shape[1:]))
    labels = torch.arange(prod(x.shape[1:])).view(x.shape[1:])
    return LabelMap(labels), tuple(",".join(map(str, place)) or "0" for place in places)


def _starting(x: Tensor, baseline: Any, array: bool) -> tuple[Tensor, _Starts]:
    """The inputs, for a function of arrays in a format that holds the baselines, and these in the place of what is
    hidden."""
    if isinstance(baseline, Background):
        given = baseline.data[:, None]
    elif isinstance(baseline, Tensor | np.ndarray):
        given = tensor_of("the baseline", baseline)
    else:
        check_baseline(baseline)
        whole = float(baseline).is_integer()
        given = torch.tensor(baseline, dtype=torch.int64 if whole else torch.float64)
    if array and given.dim() and not holds(x.dtype, given, True):
        x = x.to(common_format(x.dtype, given.dtype))
    return x, _Starts(stack_baselines(given, x, "the input"))


class _Starts(Replacement):
    """Each hidden feature is at its baseline, (baselines, batch or 1, …), and the scores of all are averaged."""

    def __init__(self, starts: Tensor) -> None:
        self.starts = starts

    @property
    def draws(self) -> int:
        return len(self.starts)

    def rows_of_calls(self, calls: int, random: torch.Generator) -> Tensor | None:
        return torch.arange(calls) % len(self.starts)

    def prepare(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.starts.to(x).expand(-1, *x.shape).movedim(0, 1)  # (batch, baselines, …)

    def hide(self, x: Tensor, keep: Tensor, prepared: Tensor, draw: Tensor | None = None) -> Tensor:
        assert draw is not None
        rows = torch.arange(len(x), device=x.device)
        return super().hide(x, keep, prepared[rows, draw.to(x.device)])
