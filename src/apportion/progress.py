"""A progress bar for work that turns out to be long."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

Batch = TypeVar("Batch", bound=Sized)


def progress(batches: Iterable[Batch], total: int, what: str, after: float = 1.5) -> Iterator[Batch]:
    """Pass batches on; from `after` seconds on, a bar on a terminal's standard error says how far it is.

    >>> list(progress([(1, 2), (3,)], 3, "numbers"))
    [(1, 2), (3,)]
    """
    begin, done, bar = time.perf_counter(), 0, None
    try:
        for batch in batches:
            yield batch
            done += len(batch)
            if bar is None and done < total and time.perf_counter() - begin > after and sys.stderr.isatty():
                from rich.console import Console
                from rich.progress import Progress

                bar = Progress(console=Console(stderr=True), transient=True)
                bar.start()
                task = bar.add_task(what, total=total)
            if bar is not None:
                bar.update(task, completed=done)
    finally:
        if bar is not None:
            bar.stop()
