"""The result of every test: one number for each sample, and what can be said of their mean."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apportion.core.files import damage_named, path_of, write_whole
from apportion.core.schema import hold, parsed
from apportion.errors import InputError
from apportion.results.cost import Cost
from apportion.results.display import display
from apportion.results.statistics import interval_of_mean, say_if_few

SCHEMA = 1


REFUSED = "not applicable: "  # begins the reason of what no score was asked of


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores that a test gives, one number for each sample.

    A value that is not defined is NaN; such samples are left out of the mean, the interval and `n`. Raises InputError
    for values that are not one number each, infinite, or NaN without a reason.

    Attributes:
        values (Tensor): The numbers, (n,), on the CPU in double precision.
        test (str): The repr of the test, or its name.
        higher_is_better (bool): The direction; None: neither end is better (complexity).
        undefined (str, default ""): Why some values are NaN; "": none is.
        each (str, default "sample"): What a value stands for: a sample, or a seed where a test trains models.
        cost (Cost, default None): Passes of the whole batch and seconds; None: not known.
        notes (dict, default {}): JSON-ready notes of the test.

    >>> scores = Scores([0.2, 0.4, 0.9], "DeletionRate()", higher_is_better=False)
    >>> scores
    DeletionRate(): 0.5 [0.2, 0.9] over 3 samples, too few to rely on the interval (lower is better)
    """

    values: Tensor
    test: str
    higher_is_better: bool | None
    undefined: str = ""
    each: str = "sample"
    cost: Cost | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            values = torch.as_tensor(self.values, dtype=torch.float64, device="cpu").detach()
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"values is {type(self.values).__name__}; accepted: numbers ({error})") from None
        if values.dim() != 1 or not len(values):
            raise InputError(f"values have shape {tuple(values.shape)}; accepted: one number per sample")
        if bool(values.isinf().any()):
            raise InputError(f"{self.test} gave infinite scores for samples {_where(values.isinf())}")
        if bool(values.isnan().any()) and not self.undefined:
            raise InputError(
                f"{self.test} gave NaN for samples {_where(values.isnan())} and no reason (`undefined`)"
            )
        object.__setattr__(self, "values", values)

    @property
    def defined(self) -> Tensor:
        """The values that are defined, (n,)."""
        return self.values[~self.values.isnan()]

    @property
    def n(self) -> int:
        """How many values are defined."""
        return len(self.defined)

    @property
    def refusal(self) -> str:
        """Why the test could not be run at all; "" where it was."""
        return (
            "" if self.n or not self.undefined.startswith(REFUSED) else self.undefined.removeprefix(REFUSED)
        )

    @property
    def mean(self) -> float:
        """The mean of the defined values; NaN if there are none."""
        return float(self.defined.mean()) if self.n else math.nan

    @property
    def oriented(self) -> Tensor:
        """The values turned so that higher is better; as they are where no direction is declared."""
        return -self.values if self.higher_is_better is False else self.values

    def interval(self, level: float = 0.95, seed: int = 0, resamples: int = 2000) -> tuple[float, float]:
        """Where the mean lies in the middle `level` of bootstrap samples, widened where they are few (the expanded
        percentile interval). At 0.95 it holds the true mean of normal, uniform and yes-or-no scores in 94 to 97 % of
        cases from ten samples on, in 84 to 92 % of five and in 61 to 75 % of three; of skewed (exponential) ones in
        91 % of ten and 70 % of three, of very skewed (log-normal) ones in 85 % of ten and 91 % of fifty
        (`studies/coverage_of_errors.py`).

        It speaks of the samples as drawn at random from the data, not of the training of the model. With one
        value both ends are that value; with none, NaN.
        """
        return interval_of_mean(self.defined.numpy(), level, seed, resamples)

    def __len__(self) -> int:
        return len(self.values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scores):
            return NotImplemented
        return json.dumps(self.to_dict()) == json.dumps(other.to_dict())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if not self.n:
            return f"{self.test}: undefined for all {len(self)} {self.each}s ({self.undefined})"
        low, high = self.interval()
        many = f"{self.n} {self.each}s" if self.n > 1 else f"1 {self.each}"
        left_out = f", undefined for {len(self) - self.n} ({self.undefined})" if self.n < len(self) else ""
        few = f", {said}" if (said := say_if_few(self.n)) else ""
        return f"{self.test}: {self.mean:.3g} [{low:.3g}, {high:.3g}] over {many}{few}{left_out} ({self.direction})"

    @property
    def direction(self) -> str:
        """The direction in words."""
        names = {True: "higher is better", False: "lower is better", None: "neither end is better"}
        return names[self.higher_is_better]

    def _repr_html_(self) -> str:
        html: str = display().paragraph(repr(self))
        return html

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON; undefined values are None."""
        return {
            "schema": SCHEMA,
            "test": self.test,
            "higher_is_better": self.higher_is_better,
            "values": [None if math.isnan(v) else v for v in self.values.tolist()],
            "undefined": self.undefined,
            "each": self.each,
            "cost": None if self.cost is None else asdict(self.cost),
            "notes": dict(self.notes),
        }

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Scores:
        """Rebuild what `to_dict` described. Raises InputError for anything else, and for a newer schema."""
        try:
            fields = dict(description)
            schema = fields.pop("schema")
            hold(dict(description), _Described)
            if schema > SCHEMA:
                raise InputError(
                    f"the scores have schema {schema}, newer than the {SCHEMA} that this version of apportion "
                    "reads; install a newer apportion"
                )
            fields["values"] = [math.nan if value is None else value for value in fields["values"]]
            fields["cost"] = None if fields["cost"] is None else Cost(**fields["cost"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"these are not scores of apportion ({type(error).__name__}: {error})"
            ) from error

    def save(self, path: str | Path) -> Path:
        """Write one JSON file; it appears whole or not at all."""
        return write_whole(path_of("path", path), json.dumps(self.to_dict(), indent=1).encode())

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """Read what `save` wrote. Raises InputError for other files."""
        path = path_of("path", path)
        if not path.is_file():
            raise InputError(f"no file with scores at {path}")
        with damage_named(path, "file with scores"):
            return cls.from_dict(parsed(path.read_text(encoding="utf-8")))


@dataclass
class _Described:
    """What `to_dict` writes."""

    schema: int
    test: str
    higher_is_better: bool | None
    values: list[float | None]
    undefined: str
    each: str
    cost: Cost | None
    notes: dict[str, Any]


def _where(which: Tensor) -> list[int]:
    return [int(i) for i in which.nonzero().flatten()[:5]]


def tied(scores: Sequence[Sequence[Scores]]) -> list[str]:
    """The tests in which several explanations have one and the same score, which tells nothing about them.

    >>> one = [Scores([0.5], "A()", True), Scores([0.2], "B()", True)]
    >>> tied([one, [Scores([0.5], "A()", True), Scores([0.3], "B()", True)]]), tied([one])
    (['A()'], [])
    """
    found: dict[str, list[float]] = {}
    for each in (s for of_one in scores for s in of_one if s.n):
        found.setdefault(each.test, []).append(float(f"{each.mean:.6g}"))
    return [test for test, means in found.items() if len(means) > 1 and len(set(means)) == 1]


def say_tie(test: str, methods: int, inputs: int = 1) -> str:
    """What a tie of all explanations means.

    >>> say_tie("DeletionRate", 3)
    'DeletionRate: all 3 methods have the same score, so this input does not tell them apart'
    """
    which = "this input does" if inputs == 1 else f"these {inputs} inputs do"
    many = "both methods" if methods == 2 else f"all {methods} methods"
    return f"{test}: {many} have the same score, so {which} not tell them apart"


def refused_scores(test: Any, many: int, why: str) -> Scores:
    """What stands in a table for a test that cannot be run here, and why.

    >>> refused_scores("ROAR()", 2, "there are no labels").refusal
    'there are no labels'
    """
    better = getattr(test, "higher_is_better", None)
    return Scores(torch.full((many,), torch.nan), repr(test), better, undefined=f"{REFUSED}{why}")
