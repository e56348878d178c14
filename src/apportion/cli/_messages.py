"""What the person at the terminal can mend, said in one line; a bug keeps its traceback."""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from apportion.core.extras import EXTRAS, missing
from apportion.core.visible import visible, visible_json
from apportion.errors import InputError, first_line

if TYPE_CHECKING:
    from rich.console import Console

    from apportion.results.result import Result


@contextmanager
def one_line_errors(quiet: bool = False) -> Iterator[None]:
    """What the user can mend is one line on stderr and exit status 2; a bug keeps its traceback. Warnings are
    one line each, once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            yield
        except InputError as error:
            say("error", str(error))
            raise typer.Exit(2) from None
        except ImportError as error:
            if (error.name or "").split(".")[0] not in EXTRAS:
                raise
            say("error", missing(error))
            raise typer.Exit(2) from None
        except KeyboardInterrupt as interrupt:
            say("interrupted", str(interrupt) or "nothing more was written")
            raise typer.Exit(130) from None
        finally:
            if not quiet:
                for line in dict.fromkeys(
                    first_line(str(warning.message)) for warning in caught if _relevant(warning)
                ):
                    say("warning", line)


def warn_of_left_out(why: Mapping[str, str]) -> None:
    """One warning for each method that cannot explain what was given, with its reason."""
    for name, reason in why.items():
        warnings.warn(f"left out: {name}: {reason}", stacklevel=2)


def amounts(whose: str, result: Result) -> Iterator[tuple[str, float, float]]:
    """What `hold_to` asks for, of each sample of a result that claims to add up."""
    if result.total is not None and result.remainder is not None:
        for left, total in zip(result.remainder.tolist(), result.total.tolist(), strict=True):
            yield whose, left, total


def hold_to(most: float | None, remainders: Iterable[tuple[str, float, float]]) -> None:
    """Exit with status 3 if more than the share `most` of a total is left over; of each result there is whose it is,
    the remainder and the total."""
    if most is None:
        return
    shares = [
        (abs(left / total) if total else math.inf if left else 0.0, whose)
        for whose, left, total in remainders
    ]
    over = [found for found in shares if found[0] > most]
    if over:
        from apportion.results.words import write_share

        share, whose = max(over)
        say(
            "error",
            f"{len(over)} of {len(shares)} explanations leave more than --max-remainder {most:g} over; "
            f"{write_share(share)} of {whose}",
        )
        raise typer.Exit(3)


def _relevant(warning: warnings.WarningMessage) -> bool:
    """What a developer of some library should know is not for the person at the terminal."""
    return not issubclass(
        warning.category, DeprecationWarning | PendingDeprecationWarning | FutureWarning | ImportWarning
    )


def say(kind: str, text: str) -> None:
    """One line on stderr, control characters left out."""
    line = " ".join(text.split())
    print(f"apportion: {kind}: {''.join(c for c in line if c.isprintable())}", file=sys.stderr)


def make_console(stderr: bool = False) -> Console:
    """The terminal, for a result; or standard error, for what must be in no pipe. What names and texts would tell a
    terminal is left out."""
    from rich.console import Console
    from rich.segment import Segment

    class Visible(Console):
        def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(visible(segment.text), segment.style)

    return Visible(stderr=stderr, highlight=False)


def echo(text: str) -> None:
    """A line of a result, control characters left out."""
    typer.echo(visible(text))


def echo_json(found: Any) -> None:
    """A result as JSON, control characters by their numbers."""
    typer.echo(visible_json(json.dumps(found, indent=2, ensure_ascii=False)))


def name_files(console: Console, paths: Iterable[Path]) -> None:
    """Say which files were written."""
    for path in paths:
        console.print(f"wrote {path}", style="dim", markup=False, soft_wrap=True)
