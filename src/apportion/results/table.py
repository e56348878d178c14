"""The table that a comparison gives: methods and references by tests, with all that its numbers need beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from apportion.core.files import path_of, write_whole
from apportion.core.visible import visible
from apportion.errors import InputError
from apportion.results.agreement import Numbers, kendall_tau, krippendorff_alpha
from apportion.results.grid import TextTable
from apportion.results.scores import Scores, say_tie, tied
from apportion.results.statistics import Comparison, compare_pairs, ranks, say_if_few
from apportion.results.words import format_number

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console, ConsoleOptions

_SURE = 0.05
_ARROWS = {True: " ↑", False: " ↓", None: ""}


@dataclass(frozen=True, eq=False)
class Table:
    """Scores by row (a method or a reference) and test.

    Ranks, comparisons and agreement are of methods only, turned so that higher is better.

    Attributes:
        scores (dict of dict of Scores): Row → test → scores.
        references (tuple of str, default ()): Rows that are no methods.
        panel (dict, default {}): Scores of the methods by test, replacement and method.
        seed (int, default 0): Seed of the bootstrap.
        blind (tuple of str, default ()): Tests that cannot tell a map from a reference.
    """

    scores: Mapping[str, Mapping[str, Scores]]
    references: tuple[str, ...] = ()
    panel: Mapping[str, Mapping[str, Mapping[str, Scores]]] = field(default_factory=dict)
    seed: int = 0
    blind: tuple[str, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """The rows that are methods."""
        return tuple(row for row in self.scores if row not in self.references)

    @property
    def tests(self) -> tuple[str, ...]:
        """The columns."""
        left_out = self.left_out
        return tuple(test for test in next(iter(self.scores.values())) if test not in left_out)

    @property
    def left_out(self) -> dict[str, str]:
        """The tests that no method could take, which have no column, and why."""
        found = {}
        for test in next(iter(self.scores.values())):
            reasons = [self.scores[method][test].refusal for method in self.methods]
            if reasons and all(reasons):
                found[test] = "; ".join(dict.fromkeys(reasons))
        return found

    def ranks(self, test: str) -> dict[str, float]:
        """The rank of each method, 1 the best; NaN where a test has no direction or no value."""
        return ranks({method: self._oriented(method, test) for method in self.methods})

    def best(self, test: str) -> str | None:
        """The method with the best mean; None where a test has no direction or no value."""
        return _best({method: self._scores(method, test) for method in self.methods})

    def paired(self, test: str, level: float = 0.95) -> list[Comparison]:
        """Each two methods on the same samples; a difference above 0 says that the first is better."""
        values = {method: self._scores(method, test).oriented.numpy() for method in self.methods}
        return compare_pairs(values, level=level, seed=self.seed)

    def agreement(self) -> tuple[list[str], Numbers, float]:
        """The tests with a direction, Kendall's τ between the orders that they give the methods, and Krippendorff's
        α of their ranks together. Both are NaN for fewer than two tests or methods."""
        names = [
            test for test in self.tests if self._scores(self.methods[0], test).higher_is_better is not None
        ]
        means = [[self._oriented(method, test) for method in self.methods] for test in names]
        ratings = np.asarray(means, dtype=np.float64).reshape(len(names), len(self.methods))
        placed = [list(self.ranks(test).values()) for test in names]
        alpha = krippendorff_alpha(np.asarray(placed).reshape(ratings.shape)) if len(names) > 1 else math.nan
        return names, kendall_tau(ratings), alpha

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the table should know: references that beat methods, winners that change."""
        found = [f"{test} can take none of the methods: {why}" for test, why in self.left_out.items()]
        for test in (test for test in self.tests if test not in self.blind):
            for method in self.methods:
                mine = self._oriented(method, test)
                better = [row for row in self.references if self._oriented(row, test) > mine]
                if better:
                    found.append(f"{test}: {method} does worse than {' and '.join(better)}")
        for test, by_replacement in self.panel.items():
            winners = {name: _best(scores) for name, scores in by_replacement.items()}
            if len(set(winners.values())) > 1:
                said = ", ".join(f"{winner} with {name}" for name, winner in winners.items())
                found.append(f"{test}: the best method depends on the replacement ({said})")
        return tuple(found)

    @property
    def ties(self) -> tuple[str, ...]:
        """In words, the tests in which all methods have the same score: these inputs do not tell them apart."""
        many = len(self.methods)
        return tuple(
            say_tie(test, many, len(self._scores(self.methods[0], test).values))
            for test in self.tests
            if tied([[self._scores(method, test)] for method in self.methods])
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        names, tau, alpha = self.agreement()
        return {
            "tests": list(self.tests),
            "references": list(self.references),
            "scores": {
                row: {test: _describe_scores(by_test[test]) for test in self.tests}
                for row, by_test in self.scores.items()
            },
            "ranks": {test: _without_nan(self.ranks(test)) for test in self.tests},
            "paired": {test: [_without_nan(vars(c)) for c in self.paired(test)] for test in self.tests},
            "agreement": {"tests": names, "tau": _without_nan(tau.tolist()), "alpha": _without_nan(alpha)},
            "panel": {
                test: {
                    name: {method: _without_nan(scores.mean) for method, scores in by_method.items()}
                    for name, by_method in by_replacement.items()
                }
                for test, by_replacement in self.panel.items()
            },
            "warnings": list(self.warnings),
        }

    def to_frame(self) -> Any:
        """A pandas frame with a line for each method or reference and test: `method`, `reference` (whether it is no
        method), `test`, the `mean` with its 95 % bootstrap interval from `low` to `high`, `n` samples, and
        `higher_is_better`."""
        lines = []
        for row in self.scores:
            for test in self.tests:
                scores = self.scores[row][test]
                low, high = scores.interval()
                lines.append(
                    {
                        "method": row,
                        "reference": row in self.references,
                        "test": test,
                        "mean": scores.mean,
                        "low": low,
                        "high": high,
                        "n": scores.n,
                        "higher_is_better": scores.higher_is_better,
                    }
                )
        return import_module("pandas").DataFrame(lines)

    def save(self, path: Path) -> Path:
        """Write one JSON file; it appears whole or not at all."""
        import json

        return write_whole(path_of("path", path), json.dumps(self.to_dict(), indent=1).encode())

    def grid(self, title: str = "", bold: bool = True) -> TextTable:
        """The table as text: the best method of a test is bold, and so is any that is not clearly worse."""
        columns = self._columns()
        names, *rows = zip(["", *self.scores], *columns.values(), strict=True)
        leading = [self.leading(test) for test in columns]
        best = [
            (i, j)
            for i, row in enumerate(rows)
            for j, names_of in enumerate(leading, 1)
            if row[0] in names_of
        ]
        return TextTable(title, names, rows, self._remarks(bold), self.references, best)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        yield self.grid(bold=console.color_system is not None)
        yield from (f"note: {tie}" for tie in self.ties)

    def __repr__(self) -> str:
        from rich.console import Console

        console = Console(width=120, color_system=None, force_terminal=False)
        with console.capture() as captured:
            console.print(self)
        return "\n".join(line.rstrip() for line in visible(captured.get()).splitlines())

    def _repr_html_(self) -> str:
        return self.grid().html()

    def _columns(self) -> dict[str, list[str]]:
        """The head of each test and its cells, in the order of the rows."""
        return {
            test: [
                test + _ARROWS[self._scores(self.methods[0], test).higher_is_better],
                *format_cells([self._scores(row, test) for row in self.scores]),
            ]
            for test in self.tests
        }

    def _remarks(self, bold: bool = True) -> list[str]:
        first = self._scores(self.methods[0], self.tests[0])
        many = len(first.values)
        mean = f"mean over {many} {first.each}s with its 95 % bootstrap interval"
        if said := say_if_few(many):
            mean += f" ({said})"
        one = f"of one {first.each}, so there are no intervals and nothing is sure"
        remarks = [f"{one if many == 1 else mean}; ↑ higher is better, ↓ lower"]
        if bold and len(self.methods) > 1 and many > 1:
            remarks.append(
                "bold: the best method, and those not clearly worse (paired, Holm-corrected p ≥ 0.05)"
            )
        names, _, alpha = self.agreement()
        if len(names) > 1 and not math.isnan(alpha):
            remarks.append(
                f"agreement of the tests on the ranks of the methods: Krippendorff's α = {format_number(alpha)}"
            )
        shown = [(row, test, self.scores[row][test]) for row in self.scores for test in self.tests]
        why = dict.fromkeys(s.undefined for _, _, s in shown if s.undefined and not s.refusal)
        if why:
            remarks.append(f"undefined: {'; '.join(why)}")
        remarks += [f"not applicable: {test} to {row}: {s.refusal}" for row, test, s in shown if s.refusal]
        return remarks + [f"note: {warning}" for warning in self.warnings]

    def leading(self, test: str) -> set[str]:
        """The best method, and those that are not clearly worse; none where there is but one sample."""
        best = self.best(test)
        if best is None or len(self._scores(best, test)) == 1:
            return set()
        beaten = {
            c.second if c.first == best else c.first
            for c in self.paired(test)
            if best in (c.first, c.second) and c.corrected < _SURE
        }
        return set(self.methods) - beaten

    def _scores(self, row: str, test: str) -> Scores:
        if row not in self.scores or test not in self.scores[row]:
            raise InputError(
                f"no scores of {row!r} in {test!r}; rows: {', '.join(self.scores)}; tests: {', '.join(self.tests)}"
            )
        return self.scores[row][test]

    def _oriented(self, row: str, test: str) -> float:
        return _oriented(self._scores(row, test))


def join_tables(tables: Sequence[Table]) -> Table:
    """One table of the samples of several, which have the same rows and tests."""
    first = tables[0]
    if any(_names(t) != _names(first) for t in tables):
        raise InputError("the tables have other rows or tests; accepted: the same in all")

    def join(each: Sequence[Mapping[str, Mapping[str, Scores]]]) -> dict[str, dict[str, Scores]]:
        return {
            row: {name: _join_scores([part[row][name] for part in each]) for name in by_name}
            for row, by_name in each[0].items()
        }

    common = [test for test in first.panel if all(test in t.panel for t in tables)]
    panel = {test: join([t.panel[test] for t in tables]) for test in common}
    return replace(first, scores=join([t.scores for t in tables]), panel=panel)


def _names(table: Table) -> list[tuple[str, tuple[str, ...]]]:
    return [(row, tuple(by_test)) for row, by_test in table.scores.items()]


def _join_scores(parts: Sequence[Scores]) -> Scores:
    undefined = "; ".join(dict.fromkeys(part.undefined for part in parts if part.undefined))
    return replace(
        parts[0], values=torch.cat([p.values for p in parts]), undefined=undefined, cost=None, notes={}
    )


def _oriented(scores: Scores) -> float:
    """The mean turned so that higher is better, to six digits, so that maps that are equal but for rounding tie; NaN
    where there is no better."""
    if scores.higher_is_better is None:
        return math.nan
    mean = float(f"{scores.mean:.6g}")
    return mean if scores.higher_is_better else -mean


def _best(scores: Mapping[str, Scores]) -> str | None:
    means = {name: _oriented(s) for name, s in scores.items()}
    means = {name: mean for name, mean in means.items() if not math.isnan(mean)}
    return max(means, key=lambda name: means[name]) if means else None


def format_cells(column: Sequence[Scores]) -> list[str]:
    """Means with their intervals, all to the digits that the largest mean of the column asks for."""
    scale = max((abs(scores.mean) for scores in column if scores.n), default=1.0)
    return [_cell(scores, scale) for scores in column]


def _cell(scores: Scores, scale: float) -> str:
    if not scores.n:
        return "not applicable" if scores.refusal else "undefined"
    mean, low, high = (format_number(v, scale) for v in (scores.mean, *scores.interval()))
    return mean if scores.n == 1 else f"{mean} [{low}, {high}]"


def _describe_scores(scores: Scores) -> dict[str, Any]:
    found = {**scores.to_dict(), "mean": scores.mean, "interval": list(scores.interval()), "n": scores.n}
    cleaned: dict[str, Any] = _without_nan(found)
    return cleaned


def _without_nan(tree: Any) -> Any:
    """JSON has no NaN: None."""
    if isinstance(tree, dict):
        return {key: _without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_nan(value) for value in tree]
    return None if isinstance(tree, float) and math.isnan(tree) else tree
