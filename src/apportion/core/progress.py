"""Long work says how far it is, and can be stopped: on a terminal by a bar, elsewhere by whoever watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

Batch = TypeVar("Batch", bound=Sized)


@dataclass
class _Watch:
    """`report(done, total, what)` and `check()`, with the calls of a model that were made, and whether batches are
    counted."""

    report: Callable[[int, int | None, str], None]
    check: Callable[[], None]
    calls: int = 0
    counting: bool = False


_watch: ContextVar[_Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(
    report: Callable[[int, int | None, str], None], check: Callable[[], None] | None = None
) -> Iterator[None]:
    """Inside, the work of this thread calls `report(done, total, what)` after every batch, and before every model
    call where no batches are counted (`total` is None then), and shows no bar. `check` is called before every model
    call, counted or not, and after every batch (None: that of who watches outside). What they raise stops the work.

    >>> with watched(lambda done, total, what: print(done, "of", total, what)):
    ...     batches = list(progress([(1, 2), (3,)], 3, "numbers"))
    2 of 3 numbers
    3 of 3 numbers
    """
    outside = _watch.get()
    token = _watch.set(_Watch(report, check or (outside.check if outside else lambda: None)))
    try:
        yield
    finally:
        _watch.reset(token)


def model_called() -> None:
    """A model is about to be called."""
    watch = _watch.get()
    if watch is None:
        return
    watch.check()
    if not watch.counting:
        watch.calls += 1
        watch.report(watch.calls, None, "model calls")


def progress(batches: Iterable[Batch], total: int, what: str, after: float = 1.5) -> Iterator[Batch]:
    """Pass batches on; from `after` seconds on, a bar on a terminal's standard error, or a line in a notebook,
    says how far it is.

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
            watch.check()
            if not inside:
                watch.report(done, total, what)
    finally:
        watch.counting = inside


def _with_bar(batches: Iterable[Batch], total: int, what: str, after: float) -> Iterator[Batch]:
    begin, done = time.perf_counter(), 0
    show: Callable[[int], None] | None = None
    with ExitStack() as shown:
        for batch in batches:
            yield batch
            done += len(batch)
            if show is None and done < total and time.perf_counter() - begin > after:
                if sys.stderr.isatty():
                    show = shown.enter_context(_bar(total, what))
                elif type(sys.stderr).__module__.startswith("ipykernel"):
                    show = shown.enter_context(_line(total, what))
            if show is not None:
                show(done)


@contextmanager
def _bar(total: int, what: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def _line(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A line of a notebook that is written over: it needs no widgets, and is gone at the end."""
    last = 0.0

    def show(done: int) -> None:
        nonlocal last
        if time.perf_counter() - last > 0.2:
            last = time.perf_counter()
            full = round(20 * done / total)
            sys.stderr.write(f"\r{'█' * full}{'░' * (20 - full)} {done} of {total} {what}")
            sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r" + " " * 79 + "\r")
        sys.stderr.flush()
