"""Long work says how far it is, and can be stopped: on a terminal by a bar, elsewhere by whoever watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

Batch = TypeVar("Batch", bound=Sized)


@dataclass
class _Watch:
    """`report(done, total, what)`, with the calls of a model that were made, and whether batches are counted."""

    report: Callable[[int, int | None, str], None]
    calls: int = 0
    counting: bool = False


_watch: ContextVar[_Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(report: Callable[[int, int | None, str], None]) -> Iterator[None]:
    """Inside, the work of this thread calls `report(done, total, what)` after every batch, and before every model
    call where no batches are counted (`total` is None then), and shows no bar. What `report` raises stops it.

    >>> with watched(lambda done, total, what: print(done, "of", total, what)):
    ...     batches = list(progress([(1, 2), (3,)], 3, "numbers"))
    2 of 3 numbers
    3 of 3 numbers
    """
    token = _watch.set(_Watch(report))
    try:
        yield
    finally:
        _watch.reset(token)


def model_called() -> None:
    """A model is about to be called."""
    watch = _watch.get()
    if watch is not None and not watch.counting:
        watch.calls += 1
        watch.report(watch.calls, None, "model calls")


def progress(batches: Iterable[Batch], total: int, what: str, after: float = 1.5) -> Iterator[Batch]:
    """Pass batches on; from `after` seconds on, a bar on a terminal's standard error says how far it is.

    >>> list(progress([(1, 2), (3,)], 3, "numbers"))
    [(1, 2), (3,)]
    """
    watch = _watch.get()
    if watch is None:
        yield from _with_bar(batches, total, what, after)
        return
    # Only the outermost batches are counted: theirs is the whole work.
    inside, watch.counting = watch.counting, True
    done = 0
    try:
        for batch in batches:
            yield batch
            done += len(batch)
            if not inside:
                watch.report(done, total, what)
    finally:
        watch.counting = inside


def _with_bar(batches: Iterable[Batch], total: int, what: str, after: float) -> Iterator[Batch]:
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
