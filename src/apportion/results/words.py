"""Numbers, sums and methods in words, the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from torch import Tensor

from apportion.core.registry import Recorded


def describe_method(method: Any) -> str:
    """A method as one would write it down: with those of its settings that are not the default.

    >>> import torch, apportion as ap
    >>> describe_method(ap.LRP()), describe_method(ap.LRP("epsilon", ledger=True))
    ('LRP', "LRP(composite='epsilon', ledger=True)")
    >>> describe_method(ap.Background(torch.zeros(5, 3)))
    'Background(5×3 numbers)'
    """
    if isinstance(method, Recorded):
        return type(method).__name__
    if isinstance(method, Tensor):
        return f"{'×'.join(map(str, method.shape)) or 'one'} numbers"
    if not is_dataclass(method):
        return f"{method!r:.40}"
    plain = {each.name: each.default for each in fields(method)} | {
        each.name: each.default_factory() for each in fields(method) if each.default_factory is not MISSING
    }
    settings = [
        ("" if plain[each.name] is MISSING else f"{each.name}=")
        + describe_method(value)  # what must be given
        for each in fields(method)
        if each.repr and repr(value := getattr(method, each.name)) != repr(plain[each.name])
    ]
    return type(method).__name__ + (f"({', '.join(settings)})" if settings else "")


def write_balance(total: float, parts: Mapping[str, float], share: float | None = None) -> str:
    """How much of a total the parts explain, and what they leave or have too much: the difference of the numbers as
    they are printed, so that a reader who subtracts gets it. One too small for these digits is told as it is. The
    `share` of the total that is left over is told behind it, unless it is none.

    >>> write_balance(1.516, {"explained": 1.572})
    'explained 1.57 of 1.52: 0.05 too much'
    >>> write_balance(-0.6, {"explained": -0.45})
    'explained −0.450 of −0.600: −0.150 left over'
    >>> write_balance(3.0, {"alone": 5.0, "in pairs": -2.0})
    'explained 3.00 of 3.00 (alone 5.00, in pairs −2.00): nothing left over'
    >>> write_balance(0.2434, {"alone": 0.4286, "in pairs": -0.1852})
    'explained 0.243 of 0.243 (alone 0.429, in pairs −0.186): nothing left over'
    >>> write_balance(0.5831, {"explained": 0.5831001})
    'explained 0.583 of 0.583: ≈ 0 left over'
    """
    explained = sum(parts.values())
    scale = max(abs(total), abs(explained), *map(abs, parts.values()))
    whole, found = format_number(total, scale), format_number(explained, scale)
    told = f"explained {found} of {whole}"
    if len(parts) > 1:
        *first, last = parts
        texts = [format_number(parts[name], scale) for name in first]
        # The last is what the printed others leave, so that they add up on paper as well.
        texts.append(format_number(_read(found) - sum(map(_read, texts)), scale))
        told += f" ({', '.join(f'{name} {text}' for name, text in zip((*first, last), texts, strict=True))})"
    left = total - explained
    if abs(left) <= NOTHING * scale:
        if len(parts) == 1:  # one number, whose rounding may differ
            told = f"explained {whole} of {whole}"
        return f"{told}: {'≈ 0' if _exact(left, scale) else 'nothing'} left over"
    of_printed = _read(whole) - _read(found)
    # A number much smaller than the others is printed to digits of its own, and so is what it leaves.
    digits = max((len(text.partition(".")[2]) for text in (whole, found) if "e" not in text), default=0)
    if not round(left, _decimals(scale)) or not _exact(of_printed, scale):
        amount = format_number(abs(left), scale)
    elif digits > _decimals(scale):
        amount = f"{abs(of_printed):.{digits}f}"
    else:
        amount = format_number(abs(of_printed), scale)
    too_much = left * total < 0
    told = f"{told}: {'−' if left < 0 and not too_much else ''}{amount} {'too much' if too_much else 'left over'}"
    if share is None or math.isnan(share):
        return told
    return f"{told} ({write_share(share)}, {name_share(share)})"


def write_start(score: float, total: float) -> str:
    """A score as where it starts from and a total; the start is that of the numbers as they are printed.

    >>> write_start(0.603, 0.7064), write_start(5.2, -0.0118)
    ('score 0.603 = start −0.103 + 0.706', 'score 5.2000 = start 5.2118 − 0.0118')
    """
    # To as many digits as the total has beside its parts, so that it is the same number there.
    scale = max(abs(total), 1e-4 * abs(score))
    whole, part = format_number(score, scale), format_number(total, scale)
    start = format_number(_exact(_read(whole) - _read(part), scale), scale)
    sign = "−" if part.startswith("−") else "+"
    return f"score {whole} = start {start} {sign} {part.lstrip('−')}"


def write_share(share: float) -> str:
    """A share in percent, to two digits below ten percent.

    >>> write_share(0.0), write_share(0.00031), write_share(0.024), write_share(1.254)
    ('0 %', '0.031 %', '2.4 %', '125 %')
    """
    percent = 100 * share
    if percent and percent < 0.01:
        return "less than 0.01 %"
    if percent >= 1e4:
        return "more than 10000 %"
    return f"{percent:.2g} %" if percent < 10 else f"{percent:.0f} %"


NOTHING = 1e-4  # share of the largest number up to which what is left over is told as none
ADDS_UP = 0.01  # share of |total| up to which an explanation is said to add up
NEARLY = 0.05  # share up to which it is said to do so nearly
WARN_FROM = 0.2  # share of |total| from which a remainder is told in a warning


def describe_left_over(share: float) -> str:
    """The share of a total that is left over, as a number and as a word.

    >>> describe_left_over(0.0), describe_left_over(0.5)
    ('0 % left over: adds up', '50 % left over: does not add up')
    """
    return f"{write_share(share)} left over: {name_share(share)}"


def name_share(share: float) -> str:
    """A share that is left over as a word."""
    return "adds up" if share <= ADDS_UP else "nearly adds up" if share <= NEARLY else "does not add up"


def _exact(left: float, scale: float) -> float:
    """What is left of numbers of this scale, without what adding floats leaves."""
    return left if abs(left) > 1e-9 * scale else 0.0


def _read(text: str) -> float:
    return float(text.replace("−", "-"))


def format_number(value: float, scale: float = 1.0) -> str:
    """A number to three digits of `scale` and at least two decimals, with a true minus sign; two digits of
    its own where that would show nothing, and powers of ten where the scale is tiny.

    >>> format_number(5.2049), format_number(-0.0526, 0.0642), format_number(-0.00012, 5.2)
    ('5.20', '−0.0526', '−0.00012')
    >>> format_number(0.0, 1e-20), format_number(3.85e-7, 4e-7)
    ('0.00', '3.85e-07')
    """
    decimals = _decimals(scale)
    text = f"{value:.{decimals}f}" if decimals < 7 else f"{value:.3g}" if value else "0.00"
    if value and not float(text):
        text = f"{value:.2g}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def _decimals(scale: float) -> int:
    return max(2, 2 - math.floor(math.log10(scale))) if scale > 0 else 2


def format_signed(value: float, scale: float = 1.0) -> str:
    """A number with its sign, + included."""
    return format_number(value, scale) if value < 0 else f"+{format_number(value, scale)}"
