"""What a sum of trees is given, seen from the features that are hidden: columns of an array or a frame, also before the
steps of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch

from apportion.domains.estimators import answer_to
from apportion.domains.frames import FrameModel
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.replacements import Background, Constant, Replacement
from apportion.errors import InputError
from apportion.methods.trees._leaf_games import Leaves, TreeGame
from apportion.methods.trees._reading import ACCEPTED, Bools, Ensemble, Floats, Whole, ensemble_of

_MIXED = 64  # rows with some features hidden on which what was read is tried, at least
_KEPT = 2**23  # leaves × rows of data that are kept for the next call
_NEAR = 1e-4  # share of the largest score that sums in single precision may be off


@dataclass(frozen=True)
class SumOfTrees:
    """A masking of a sum of trees. `scores` (batch, classes) and `of_data` (rows, classes) are those that the leaves
    add up to; `called` says what these are where they are not what the model returns."""

    masking: Masking
    ensemble: Ensemble
    rows: Floats
    data: Floats
    feature_of: Whole
    raw_rows: Floats
    raw_data: Floats
    called: str
    key: tuple[bytes, bytes]

    @classmethod
    def of(cls, masking: Masking) -> SumOfTrees:
        """InputError where the scores of the model are no sum of trees over these features."""
        if len(masking.parts) > 1 or masking.parts[0].x.dim() != 2:
            raise InputError("the inputs are no table; accepted: rows (batch, columns)")
        part, (function, give) = masking.parts[0], _seen_through(masking.model)
        labels = part.labels[0].numpy()
        if (len(part.labels) > 1 and bool((part.labels != part.labels[:1]).any())) or int(labels.min()) < 0:
            raise InputError(
                "the partition differs from row to row, or leaves columns out; accepted: one for all rows"
            )
        rows = part.x.numpy()
        data = _rows_of(part.replacement, part.x)
        before, estimator = _steps(function.__self__)  # type: ignore[attr-defined]
        made = _Made(give, before, estimator)
        many, until = len(rows), len(rows) + len(data)
        x, z, shown = _mixture(rows, data, int(labels.max()) + 1)
        stack = np.concatenate([rows, data, np.where(shown[:, labels], rows[x], data[z])])
        every_number, every_raw = made.both(stack)
        numbers, raw = every_number[:until], every_raw[:until]
        key = (data.tobytes(), labels.tobytes())
        # What an earlier call learnt may not hold for these rows.
        for known in (made.ensemble.learnt.get(key), None):
            feature_of = (
                made.feature_of(stack[:until], numbers, labels) if known is None else known.feature_of
            )
            expected = np.where(shown[:, feature_of], numbers[x], numbers[many + z])
            if not _differs(every_number[until:], expected).any():
                break
        else:
            raise InputError(_JOINED)
        made.check_sums(every_number, every_raw)
        masking.ran(len(stack))
        own = masking.output.double().cpu().numpy()
        called = _called(function, raw[:many], own)
        return cls(
            masking,
            made.ensemble,
            numbers[:many].T,
            numbers[many:].T,
            feature_of,
            raw[:many],
            raw[many:],
            called,
            key,
        )

    @cached_property
    def games(self) -> list[TreeGame]:
        known = self.ensemble.learnt.get(self.key)
        if known is not None and np.array_equal(known.feature_of, self.feature_of):
            return known.games  # type: ignore[no-any-return]
        many, leaves = self.masking.many, [Leaves.of(tree, self.feature_of) for tree in self.ensemble.trees]
        games = [
            TreeGame(tree, its, self.data, many)
            for tree, its in zip(self.ensemble.trees, leaves, strict=True)
        ]
        self.ensemble.learnt.clear()
        if sum(len(its.values) for its in leaves) * self.data.shape[1] <= _KEPT:
            self.ensemble.learnt[self.key] = _Learnt(self.feature_of, games)
        return games

    def shapley(self) -> Floats:
        """(batch, features, classes)."""
        return self.as_scores(sum((game.shapley(self.rows) for game in self.games), start=np.zeros(())))

    def pairs(self) -> Floats:
        """(batch, features, features, classes)."""
        return self.as_scores(sum((game.pairs(self.rows) for game in self.games), start=np.zeros(())))

    @property
    def scores(self) -> Floats:
        return self.as_scores(self.raw_rows)

    @property
    def of_data(self) -> Floats:
        return self.as_scores(self.raw_data)

    def as_scores(self, raw: Floats) -> Floats:
        """One score for each class: log-odds of two classes are each other's opposite."""
        two = raw.shape[-1] == 1 and self.masking.output.shape[1] == 2
        return np.concatenate([-raw, raw], -1) if two else raw

    @property
    def notes(self) -> dict[str, Any]:
        """What was gone through, and what is explained where it is not what the model returns."""
        leaves = sum(int((tree.left < 0).sum()) for tree in self.ensemble.trees)
        rows = self.data.shape[1]
        done = {
            "work": f"{leaves} leaves of {len(self.ensemble.trees)} trees over {rows} rows; the passes check them"
        }
        if not self.called:
            return done
        each = self.raw_rows.shape[1] == 1 and "log-odds" in self.called
        return {**done, "scores": self.called, **({"probabilities": "sigmoid"} if each else {})}

    def weights(self) -> Floats:
        """How much of the score of each class is explained, (batch, classes). InputError for a target that is no
        weighted sum of scores."""
        resolved, scores = self.masking.resolved, self.scores
        if isinstance(resolved, torch.Tensor):
            if resolved.dim() > 1:
                raise InputError("the target names a place; accepted for a sum of trees: a class")
            classes: Floats = np.eye(scores.shape[1])[resolved.cpu().numpy()]
            return classes
        ask = _asked(resolved)
        origin = ask(np.zeros_like(scores))
        found = np.stack(
            [ask(np.broadcast_to(unit, scores.shape)) - origin for unit in np.eye(scores.shape[1])], 1
        )
        for shift in (0.0, 1.0):  # at the scores themselves, and elsewhere
            there = scores + shift * np.arange(1, 1 + scores.shape[1])
            off = np.abs(ask(there) - origin - (found * there).sum(1)).max()
            if not off <= 1e-6 * max(1.0, np.abs(there).max()):
                raise InputError(
                    "the target is a function that is no weighted sum of the scores; accepted for a sum of trees: a "
                    "class, or Contrast(positive, negative)"
                )
        return found


@dataclass(frozen=True)
class _Learnt:
    """What the next call over the same data begins with."""

    feature_of: Whole
    games: list[TreeGame]


_JOINED = (
    "a column that the pipeline makes depends on several features, which are hidden apart; accepted: a partition that "
    "has these together, or kernelshap"
)


@dataclass(frozen=True)
class _Made:
    """What an estimator is given: rows of numbers as its `give` has them, through the steps before it."""

    give: Callable[[npt.NDArray[Any]], Any]
    before: Sequence[Any]
    estimator: Any

    @cached_property
    def ensemble(self) -> Ensemble:
        return _read(self.estimator)

    def through(self, rows: npt.NDArray[Any]) -> Any:
        given = self.give(rows)
        for steps in self.before:
            given = answer_to(steps.transform, given, f"{len(rows)} rows")
        return given

    def numbers(self, rows: npt.NDArray[Any]) -> Floats:
        return self._numbers_of(self.through(rows))

    def _numbers_of(self, given: Any) -> Floats:
        try:
            return self.ensemble.numbers(given)
        except (TypeError, ValueError) as error:
            raise InputError(f"the trees are given what is no number: {error}") from None

    def both(self, rows: npt.NDArray[Any]) -> tuple[Floats, Floats]:
        """The numbers that thresholds are compared with, and the scores, (rows, outputs)."""
        given = self.through(rows)
        raw = np.asarray(self.ensemble.raw(given), np.float64)
        return self._numbers_of(given), raw.reshape(len(raw), -1)

    def feature_of(self, stack: npt.NDArray[Any], numbers: Floats, labels: Whole) -> Whole:
        """The feature that each column of the trees comes from: the one whose values change it where they are moved by
        one row. A column that stays as it is comes from any."""
        if not self.before and isinstance(self.give(stack[:1]), np.ndarray):
            return labels
        found = np.zeros((int(labels.max()) + 1, numbers.shape[1]), bool)
        for feature in range(len(found)):
            moved, its = stack.copy(), labels == feature
            moved[:, its] = np.roll(stack[:, its], 1, 0)
            found[feature] = _differs(self.numbers(moved), numbers).any(0)
        if (found.sum(0) > 1).any():
            raise InputError(_JOINED)
        feature_of: Whole = found.argmax(0)
        return feature_of

    def check_sums(self, numbers: Floats, raw: Floats) -> None:
        """InputError if the leaves do not add up to the scores, but for a constant: something was not read."""
        for fresh in (False, True):
            ensemble = self.ensemble
            if fresh:  # it may have been fitted anew since it was read
                _known.pop(self.estimator, None)
                ensemble = vars(self)["ensemble"] = _read(self.estimator)
            left = raw - ensemble.sums(numbers)
            if np.ptp(left, axis=0).max() <= _NEAR * max(np.abs(raw).max(), 1e-12):
                return
        raise InputError(
            f"the leaves of {type(self.estimator).__name__} do not add up to its scores, so its trees cannot be read; "
            "accepted: kernelshap"
        )


_known: WeakKeyDictionary[Any, Ensemble] = WeakKeyDictionary()


def _read(estimator: Any) -> Ensemble:
    """The trees of an estimator, which are read once."""
    try:
        if estimator not in _known:
            _known[estimator] = ensemble_of(estimator)
        return _known[estimator]
    except TypeError:  # what cannot be a key
        return ensemble_of(estimator)


def is_of_trees(model: Any) -> bool:
    """Whether the scores of a model come from trees that can be read."""
    try:
        function, _ = _seen_through(model)
        _read(_steps(function.__self__)[1])  # type: ignore[attr-defined]
    except InputError:
        return False
    return True


def _seen_through(model: Any) -> tuple[Callable[..., Any], Callable[[npt.NDArray[Any]], Any]]:
    """The answer of an estimator behind a model, and what turns rows of numbers into what it takes."""
    function, give = model, lambda rows: rows.copy()  # for steps that write into what they are given
    if isinstance(model, FrameModel):
        function, give = model.function, lambda rows: model.rows.frame(torch.from_numpy(rows))
    if not hasattr(getattr(function, "__self__", None), "get_params"):
        kind = getattr(function, "__name__", type(function).__name__)
        raise InputError(f"the model is {kind}, behind which no trees are seen; accepted: {ACCEPTED}")
    return function, give


def _steps(estimator: Any) -> tuple[list[Any], Any]:
    """The steps of a pipeline before its last, and this."""
    before = []
    while True:
        if (best := getattr(estimator, "best_estimator_", None)) is not None:
            estimator = best
        elif isinstance(steps := getattr(estimator, "steps", None), list):
            if len(steps) > 1:
                before.append(estimator[:-1])
            estimator = steps[-1][1]
        else:
            return before, estimator


def _rows_of(replacement: Replacement, x: torch.Tensor) -> npt.NDArray[Any]:
    """The rows that hidden columns take their values from."""
    if isinstance(replacement, Background) and not replacement.random:
        found: npt.NDArray[Any] = replacement.data.to(x).numpy()
        return found
    if isinstance(replacement, Constant):
        hidden = replacement.prepare(x[:1], torch.zeros_like(x[:1], dtype=torch.long))
        constant: npt.NDArray[Any] = hidden.expand(1, x.shape[1]).to(x).numpy()
        return constant
    raise InputError(
        f"replacement is {replacement!r}; accepted for a sum of trees: Background(rows), or Constant"
    )


def _mixture(rows: Floats, data: Floats, features: int) -> tuple[Whole, Whole, Bools]:
    """Which rows are mixed with which of the data, and which features are shown in each mixture."""
    draw = np.random.default_rng(0)
    many = max(_MIXED, min(len(rows) // 8, 1024))
    x, z = draw.integers(len(rows), size=many), draw.integers(len(data), size=many)
    return x, z, draw.random((many, features)) < 0.5


def _differs(one: Floats, other: Floats) -> Bools:
    """Where numbers differ by more than the rounding of a scaler."""
    return ~np.isclose(one, other, 1e-6, 1e-9, equal_nan=True)


def _called(function: Callable[..., Any], raw: Floats, own: Floats) -> str:
    """What the sum of the leaves is, seen from what the model returns; empty where it is that."""
    name = function.__name__
    with np.errstate(over="ignore"):
        for words, of_raw in _links(raw):
            if of_raw.shape == own.shape and np.abs(of_raw - own).max() <= _NEAR * max(
                np.abs(own).max(), 1e-12
            ):
                return words and f"{words} {name}"
    raise InputError(
        f"{name} is no sum of the trees, nor the probabilities of one; accepted: its predict_proba or "
        "decision_function, or kernelshap"
    )


def _links(raw: Floats) -> Iterator[tuple[str, Floats]]:
    yield "", raw
    chance = 1 / (1 + np.exp(-raw))
    if raw.shape[1] == 1:
        yield "log-odds of", np.concatenate([1 - chance, chance], 1)
        yield "log-odds of", chance
        yield "logarithm of", np.exp(raw)
    else:
        shares = np.exp(raw - raw.max(1, keepdims=True))
        yield "scores before the softmax of", shares / shares.sum(1, keepdims=True)


def _asked(target: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Floats], Floats]:
    def ask(scores: Floats) -> Floats:
        found: Floats = target(torch.from_numpy(np.array(scores))).detach().double().numpy()
        return found

    return ask
