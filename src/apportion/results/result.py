"""What explanations and interactions have in common: the fields, the balance, and the file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, cast

import torch
from torch import Tensor
from typing_extensions import TypeVar

from apportion.core import features as features_module
from apportion.core.features import Features, ImageFeatures
from apportion.core.files import read_tensors, write_tensors, written
from apportion.core.from_call import for_samples
from apportion.core.registry import is_listed, recorded
from apportion.core.target import are_probabilities, classes_of, probabilities
from apportion.core.trees import map_tensors, tensors_in
from apportion.core.visible import visible
from apportion.errors import InputError, check
from apportion.results.cost import Cost
from apportion.results.display import display
from apportion.results.words import (
    WARN_FROM,
    describe_left_over,
    format_number,
    write_balance,
    write_share,
    write_start,
)

R = TypeVar("R", bound="Result")

Total = TypeVar("Total", bound=Tensor | None, covariant=True, default=Tensor | None)
"""What a method claims: a tensor where its values are to add up, None where they are not."""

SCHEMA = 1

_LEFT = "left over: "  # how the warning of a remainder begins
_ASKED = "warn_from"  # a note of the share that it was asked from, if that is another

# The (batch,) amounts and (batch, …) numbers that are tensors in a file, beside the values.
_TENSORS = ("total", "output", "target")


@dataclass(frozen=True, eq=False)
class Result(Generic[Total]):
    """What a method found for a batch; `Explanation` and `Interactions` say what their `values` are."""

    kind: ClassVar[str]  # of its files
    called: ClassVar[str]

    values: Any
    total: Total
    output: Tensor
    target: Tensor | str
    method: Any
    cost: Cost
    features: tuple[Features, ...] | None = field(default=None, kw_only=True)
    labels: tuple[str, ...] | None = field(default=None, kw_only=True)
    warnings: tuple[str, ...] = field(default=(), kw_only=True)
    notes: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @property
    def apportioned(self) -> Tensor:
        """The (batch,) sums of all values."""
        raise NotImplementedError

    @property
    def remainder(self) -> Total:
        """`total` minus the sum of the values of each sample; None where the method does not add up."""
        if self.total is None:
            return self.total
        apportioned = self.apportioned
        return cast("Total", self.total.to(apportioned.dtype) - apportioned)

    @property
    def score(self) -> Tensor | None:
        """The (batch,) explained scores, in log-odds where these are what is apportioned; None where the target is no
        class of the output."""
        if isinstance(self.target, str):
            return None
        output = self.output.detach().to(self.apportioned.dtype)
        classes = classes_of(self.target).to(output.device)
        if int(classes.max()) >= output.shape[1]:
            return None
        score = output.gather(1, classes[:, None])[:, 0]
        return score.logit() if getattr(self.method, "link", None) == "logit" else score

    @property
    def start(self) -> Tensor | None:
        """Where a total of the form f(x) − f(x′) starts from: f(x′), the score less `total`. Zero where that is no more
        than rounding; None where the method does not add up, or the explained score is not known."""
        if self.total is None or (score := self.score) is None:
            return None
        start = score - self.total.to(score)
        eps = torch.finfo(self.total.dtype).eps if self.total.is_floating_point() else 0.0
        return torch.where(start.abs() <= 64 * eps * score.abs(), 0.0, start)

    @property
    def unit(self) -> str:
        """The unit of the values: "logit", "probability", "log-odds", the "log-probability" of an answer, what
        the scores of trees are, "units of the score" where more is not known; empty where they are no parts of the
        score, as those of Grad-CAM."""
        if self.total is None and not getattr(self.method, "in_score", False):
            return ""
        if own := getattr(self.method, "unit", None) or self.notes.get("scores"):
            return str(own)
        if "answer" in self.notes:
            return str(self.notes["answer"]["score"])
        if getattr(self.method, "link", None) == "logit":
            return "log-odds"
        if isinstance(self.target, str):
            return "units of the score"
        if are_probabilities(self.output):
            return "probability"
        return "logit" if self.labels and self.output.shape[1] > 1 else "units of the score"

    @property
    def left_over(self) -> Total:
        """|remainder| as a share of |total| for each sample, zero where it is no more than rounding; None where the
        method does not add up."""
        if self.total is None or (remainder := self.remainder) is None:
            return self.total
        total = self.total.to(remainder.dtype)
        eps = torch.finfo(self.total.dtype).eps if self.total.is_floating_point() else 0.0
        rounding = 64 * eps * torch.maximum(total.abs(), (total - remainder).abs())
        return cast("Total", torch.where(remainder.abs() <= rounding, 0.0, remainder.abs() / total.abs()))

    def __len__(self) -> int:
        return self.output.shape[0]

    def __getitem__(self, index: int) -> Self:
        """The result of one sample, as a batch of one."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        one = replace(self, **self._of_one(slice(index % len(self), index % len(self) + 1)))
        # What is said of the remainder is said of this sample then.
        return one.warn_from(self.notes.get(_ASKED, WARN_FROM)) if len(self) > 1 else one

    @property
    def warnings_of_each(self) -> list[tuple[str, ...]]:
        """What is said of each sample alone, as the result of that one has it."""
        if len(self) == 1:
            return [self.warnings]
        left, share = self.left_over, self.notes.get(_ASKED, WARN_FROM)
        found = [self._other_warnings] * len(self)
        if left is not None:
            for i in (left > share).nonzero()[:, 0].tolist():
                found[i] += _warn_of_left_over(left[i : i + 1], share)
        return found

    @property
    def _other_warnings(self) -> tuple[str, ...]:
        """Those that are not of the remainder."""
        return tuple(told for told in self.warnings if not told.startswith(_LEFT))

    def _of_one(self, part: slice) -> dict[str, Any]:
        """The fields that differ from sample to sample, cut to one of them."""
        notes = {key: note[part] if isinstance(note, tuple) else note for key, note in self.notes.items()}
        cut = {name: map_tensors(getattr(self, name), lambda t: t[part]) for name in ("values", *_TENSORS)}
        shape = next(tensors_in(self.values)).shape
        return {
            **cut,
            "method": for_samples(self.method, lambda given: given.cut(part, shape)),
            "features": None if self.features is None else self.features[part],
            "notes": notes,
        }

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        (mine, header), (theirs, other_header) = self._packed(), other._packed()
        same = header == other_header and mine.keys() == theirs.keys()
        return same and all(_equal(mine[name], theirs[name]) for name in mine)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        lines = [self.summary(i) for i in range(min(len(self), 5))]
        return visible("\n".join([*lines, f"… and {len(self) - 5} more"] if len(self) > 5 else lines))

    # ---- in words ----

    def label(self, index: int = 0) -> str:
        """The explained class of a sample, by name where names are known."""
        if isinstance(self.target, str):
            return self.target
        number, *place = self.target[index].reshape(-1).tolist()
        return self.class_name(number) + (f" at {tuple(place)}" if place else "")

    def class_name(self, number: int) -> str:
        """A class by name where names are known."""
        labels = self.labels or ()
        if number < len(labels):
            return labels[number]
        return f"class {number}" if self.output.shape[1] > 1 else "score"

    def balance(self, index: int = 0) -> str:
        """The one line that every result owes: how much of the total is explained, and what is left over.

        >>> import apportion as ap
        >>> ap.InputXGradient()(lambda x: x + 1, torch.ones(1, 1)).balance()
        'explained 1.00 of 2.00: 1.00 left over'
        """
        return self._balance(index)

    def _balance(self, index: int, share: float | None = None) -> str:
        """The same, with the share that is left over where it is given and not nothing."""
        if self.total is None:
            explained = float(self.apportioned[index])
            return (
                f"the values sum to {format_number(explained, abs(explained))}; they do not claim to add up"
            )
        return write_balance(float(self.total[index]), self._parts(index), share)

    def _parts(self, index: int) -> dict[str, float]:
        """What the values of a sample sum to, in the parts that are told apart."""
        return {"explained": float(self.apportioned[index])}

    def opening(self, index: int = 0) -> str:
        """From where to where the total goes: score = start + total; empty where it starts from zero, or that is not
        known.

        >>> import apportion as ap
        >>> ap.IntegratedGradients()(lambda x: x.exp(), torch.zeros(1, 1), baseline=-torch.ones(1, 1)).opening()
        'score 1.000 = start 0.368 + 0.632'
        """
        start, score = self.start, self.score
        if start is None or score is None or self.total is None or not float(start[index]):
            return ""
        return write_start(float(score[index]), float(self.total[index]))

    def verdict(self, index: int = 0) -> str:
        """How much is left over, as a share and as a word; empty where the method does not claim to add up.

        >>> import apportion as ap
        >>> ap.InputXGradient()(lambda x: x + 1, torch.ones(1, 1)).verdict()
        '50 % left over: does not add up'
        """
        if (left_over := self.left_over) is None or bool(left_over[index].isnan()):
            return ""
        return describe_left_over(float(left_over[index]))

    def account(self, index: int = 0) -> str:
        """From where the total starts, and the balance with the share that it leaves, as a number and as a word.

        >>> import apportion as ap
        >>> ap.InputXGradient()(lambda x: x + 1, torch.ones(1, 1)).account()
        'explained 1.00 of 2.00: 1.00 left over (50 %, does not add up)'
        """
        opening, left_over = self.opening(index), self.left_over
        told = self._balance(index, None if left_over is None else float(left_over[index]))
        return f"{opening}; {told}" if opening else told

    def warn_from(self, share: float) -> Self:
        """The same result with a warning if more than this share of a total is left over, and without if not."""
        check("warn_from", share, lambda v: v > 0, "a positive share of the total")
        notes = self.notes if share == WARN_FROM else {**self.notes, _ASKED: share}
        return replace(
            self, warnings=(*self._other_warnings, *_warn_of_left_over(self.left_over, share)), notes=notes
        )

    def summary(self, index: int = 0) -> str:
        """One line: what was apportioned, and what was not."""
        said = [text for text in (self.opening(index), self.balance(index)) if text]
        return f"{type(self.method).__name__} of {self.label(index)}: {'; '.join(said)}"

    @property
    def input_name(self) -> str | None:
        """What the input was called on the command line or in a run."""
        return self.notes.get("input")

    @property
    def model_name(self) -> str | None:
        """What the model was called there."""
        return self.notes.get("model")

    @property
    def panels(self) -> Mapping[str, Any] | None:
        """Of an explanation over prototypes: the picture, and what in it looks like what in which training picture."""
        return self.notes.get("panels")

    def with_features(self, features: Sequence[Features], labels: Sequence[str] | None = None) -> Self:
        """The same result, with the features of each sample and the class names."""
        if len(features) != len(self):
            raise InputError(f"{len(features)} features for {len(self)} samples; accepted: one per sample")
        return replace(self, features=tuple(features), labels=None if labels is None else tuple(labels))

    # ---- in files ----

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file with a JSON header; it appears whole or not at all."""
        return write_tensors(path, self.kind, *self._packed())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote. Raises InputError for other files and for files of a newer schema."""
        return read_tensors(path, cls.kind, cls.called, SCHEMA, cls._unpacked)

    def _packed(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors, and what else there is as data for JSON; subclasses add their own."""
        features = self.features or ()
        tensors = {name: t for name in _TENSORS if isinstance(t := getattr(self, name), Tensor)}
        tensors |= {f"picture.{i}": f.picture for i, f in enumerate(features) if isinstance(f, ImageFeatures)}
        own, header = self._own_packed()
        header |= {
            "schema": SCHEMA,
            "target": self.target if isinstance(self.target, str) else None,
            "method": repr(self.method),
            "listed": is_listed(self.method),
            "cost": asdict(self.cost),
            "features": None if self.features is None else [features_module.to_json(f) for f in features],
            "labels": self.labels,
            "warnings": self.warnings,
            "notes": dict(self.notes),
            "each": [key for key, note in self.notes.items() if isinstance(note, tuple)],
        }
        return tensors | own, json.loads(json.dumps(header))

    def _own_packed(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        raise NotImplementedError

    @classmethod
    def _check_file(cls, header: Any, tensors: dict[str, Tensor]) -> None:
        raise NotImplementedError

    @classmethod
    def _own_unpacked(cls, tensors: dict[str, Tensor], header: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    @classmethod
    def _unpacked(cls, tensors: dict[str, Tensor], header: dict[str, Any]) -> Self:
        cls._check_file(header, tensors)
        features = None
        if header["features"] is not None:
            described = enumerate(header["features"])
            features = tuple(features_module.from_json(d, tensors.get(f"picture.{i}")) for i, d in described)
        each = {key: tuple(header["notes"][key]) for key in header.get("each", ())}
        return cls(
            total=tensors.get("total"),  # type: ignore[arg-type]
            output=tensors["output"],
            target=header["target"] if header["target"] is not None else tensors["target"],
            method=recorded(header["method"], header.get("listed", True)),
            cost=Cost(**header["cost"]),
            features=features,
            labels=None if header["labels"] is None else tuple(header["labels"]),
            warnings=tuple(header["warnings"]),
            notes={**header["notes"], **each},
            **cls._own_unpacked(tensors, header),
        )

    # ---- as pictures and pages ----

    def plot(self, index: int = 0, ax: Any = None) -> Any:
        """Draw one sample on matplotlib Axes (made if not given) and return them."""
        return display().plot(self, index, ax)

    def to_html(self, path: str | Path | None = None) -> str:
        """One self-contained HTML page; also written to `path` if given."""
        return written(display().page_of([self]), path)

    def _repr_html_(self) -> str:
        html: str = display().frame(self)
        return html


def joined(results: Sequence[R]) -> R:
    """Results of the samples of one batch, by one method, as one."""
    first = results[0]
    if len(results) == 1:
        return first
    found: dict[str, Any] = {}
    for name in (each.name for each in fields(first)):
        parts = [getattr(result, name) for result in results]
        if isinstance(parts[0], Tensor):
            found[name] = torch.cat(parts)
        elif name == "values":
            whole = map(torch.cat, zip(*map(tensors_in, parts), strict=True))
            found[name] = map_tensors(parts[0], partial(_next_of, whole))
        elif name == "ledger":  # which is of a whole batch
            found[name] = None
        elif name == "features" and parts[0] is not None:
            found[name] = tuple(feature for part in parts for feature in part)
        elif name == "warnings":
            found[name] = tuple(dict.fromkeys(told for part in parts for told in part))
        elif name == "cost":
            found[name] = Cost(*(sum(each) for each in zip(*map(astuple, parts), strict=True)))
        elif name == "notes":
            found[name] = {
                key: sum((part[key] for part in parts), ()) if isinstance(note, tuple) else note
                for key, note in parts[0].items()
            }
    return replace(first, **found)


def _next_of(tensors: Iterator[Tensor], _: Tensor) -> Tensor:
    return next(tensors)


def _warn_of_left_over(left_over: Tensor | None, share: float) -> tuple[str, ...]:
    if left_over is None or not bool((left_over > share).any()):
        return ()
    most = write_share(float(left_over.nan_to_num(0.0).max()))
    many = int((left_over > share).sum())
    which = (
        f" at most, and more than {write_share(share)} in {many} of {len(left_over)} samples"
        if len(left_over) > 1
        else ""
    )
    return (
        f"{_LEFT}{most} of the total{which}: the values say where, not how much (kernelshap always adds up)",
    )


def _equal(a: Tensor, b: Tensor) -> bool:
    """To the bit, where NaN stands for what was not asked for."""
    same = a.shape == b.shape and a.dtype == b.dtype
    return same and torch.allclose(a.cpu(), b.cpu(), 0, 0, equal_nan=True)


@dataclass(frozen=True)
class Decision:
    """What the model decided: the classes with the highest scores, as (name, score, probability), best
    first. The probability is None where the model has one score only."""

    ranking: tuple[tuple[str, float, float | None], ...]
    classes: int

    @property
    def label(self) -> str:
        return self.ranking[0][0]

    @property
    def score(self) -> float:
        return self.ranking[0][1]

    @property
    def probability(self) -> float | None:
        return self.ranking[0][2]


def decision(result: Result, index: int = 0, k: int = 5) -> Decision:
    """The k best classes of a sample, with their probabilities."""
    scores = result.output[index].detach().double().cpu()
    several = len(scores) > 1
    chances = probabilities(scores[None], each=result.notes.get("probabilities") == "sigmoid")[0]
    best = scores.argsort(descending=True, stable=True)[:k].tolist()
    ranking = tuple(
        (result.class_name(i), float(scores[i]), float(chances[i]) if several else None) for i in best
    )
    return Decision(ranking, len(scores))
