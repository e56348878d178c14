"""What is said of one explained sample, the same everywhere: the decision, the sum, the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

from apportion.core.registry import Recorded
from apportion.explanation import Explanation
from apportion.interactions import Interactions
from apportion.target import probabilities

Explained = Explanation | Interactions


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


def decision(explanation: Explained, index: int = 0, k: int = 5) -> Decision:
    """The k best classes of a sample, with their probabilities."""
    scores = explanation.output[index].detach().double().cpu()
    several = len(scores) > 1
    chances = probabilities(scores[None])[0]
    best = scores.argsort(descending=True, stable=True)[:k].tolist()
    ranking = tuple(
        (class_name(explanation, i), float(scores[i]), float(chances[i]) if several else None) for i in best
    )
    return Decision(ranking, len(scores))


def class_name(explanation: Explained, number: int) -> str:
    labels = explanation.labels or ()
    return (
        labels[number]
        if number < len(labels)
        else f"class {number}"
        if explanation.output.shape[1] > 1
        else "score"
    )


def target_name(explanation: Explained, index: int = 0) -> str:
    """The explained class by name, or the repr of a callable target."""
    target = explanation.target
    return target if isinstance(target, str) else class_name(explanation, int(target[index]))


def called(method: Any) -> str:
    """A method as one would write it down: with those of its settings that are not the default.

    >>> import apportion as ap
    >>> called(ap.LRP()), called(ap.LRP("epsilon", ledger=True))
    ('LRP', "LRP(composite='epsilon', ledger=True)")
    """
    if isinstance(method, Recorded):
        return type(method).__name__
    if not is_dataclass(method):
        return f"{method!r:.40}"
    plain = {each.name: each.default for each in fields(method)} | {
        each.name: each.default_factory() for each in fields(method) if each.default_factory is not MISSING
    }
    settings = [
        f"{each.name}={called(value)}"
        for each in fields(method)
        if each.repr and repr(value := getattr(method, each.name)) != repr(plain[each.name])
    ]
    return type(method).__name__ + (f"({', '.join(settings)})" if settings else "")


def balance(explanation: Explained, index: int = 0) -> str:
    """The one line that every explanation owes: total = apportioned + remainder.

    >>> import torch, apportion as ap
    >>> balance(ap.InputXGradient()(lambda x: x + 1, torch.ones(1, 1)))
    'total 2.00 = apportioned 1.00 + remainder 1.00'
    """
    apportioned = float(explanation.apportioned[index])
    if explanation.total is None:
        return f"sum of values {number(apportioned, abs(apportioned))}; this method does not claim to add up"
    return adding_up(float(explanation.total[index]), {"apportioned": apportioned})


def adding_up(total: float, parts: Mapping[str, float]) -> str:
    """A total as its parts and a remainder, which is that of the numbers as they are printed: a reader who adds
    them up gets the total. A remainder too small for these digits is told as it is, and not as what rounding leaves.

    >>> adding_up(1.516, {"apportioned": 1.572}), adding_up(3.0, {"alone": 5.0, "in pairs": -2.0001})
    ('total 1.52 = apportioned 1.57 − remainder 0.05', 'total 3.00 = alone 5.00 − in pairs 2.00 + remainder 0.0001')
    >>> adding_up(0.2434, {"alone": 0.4286, "in pairs": -0.1852})
    'total 0.243 = alone 0.429 − in pairs 0.185 + remainder 0.000'
    """
    scale = max(abs(total), *map(abs, parts.values()))
    printed = [_read(number(value, scale)) for value in (total, *parts.values())]
    left, of_printed = (
        _exact(whole - sum(rest), scale) for whole, *rest in ((total, *parts.values()), printed)
    )
    vanishes = not round(left, _decimals(scale)) or not of_printed
    remainder = number(left if vanishes else of_printed, scale)
    shown = {**{name: number(value, scale) for name, value in parts.items()}, "remainder": remainder}
    terms = [
        f"{'−' if text.startswith('−') else '+'} {name} {text.lstrip('−')}" for name, text in shown.items()
    ]
    first = next(iter(parts))
    terms[0] = f"{first} {shown[first]}"
    return f"total {number(total, scale)} = {' '.join(terms)}"


def _exact(left: float, scale: float) -> float:
    """What is left of numbers of this scale, without what adding floats leaves."""
    return left if abs(left) > 1e-9 * scale else 0.0


def _read(text: str) -> float:
    return float(text.replace("−", "-"))


def number(value: float, scale: float = 1.0) -> str:
    """A number to three digits of `scale` and at least two decimals, with a true minus sign; two digits of
    its own where that would show nothing, and powers of ten where the scale is tiny.

    >>> number(5.2049), number(-0.0526, 0.0642), number(-0.00012, 5.2), number(0.0, 1e-20), number(3.85e-7, 4e-7)
    ('5.20', '−0.0526', '−0.00012', '0.00', '3.85e-07')
    """
    decimals = _decimals(scale)
    text = f"{value:.{decimals}f}" if decimals < 7 else f"{value:.3g}" if value else "0.00"
    if value and not float(text):
        text = f"{value:.2g}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def _decimals(scale: float) -> int:
    return max(2, 2 - math.floor(math.log10(scale))) if scale > 0 else 2


def signed(value: float, scale: float = 1.0) -> str:
    """A number with its sign, + included."""
    return number(value, scale) if value < 0 else f"+{number(value, scale)}"
