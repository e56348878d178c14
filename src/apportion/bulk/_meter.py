"""How far a run is, for whoever watches it; and a Ctrl-C that lets it finish what it is at."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from apportion.bulk._shards import Done

EVERY = 30.0  # seconds between lines where there is no terminal


class Stop:
    """Whether to stop after the shards in the making."""

    asked = False


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Ctrl-C or SIGTERM asks to stop; a second Ctrl-C interrupts as usual."""
    stop, before = Stop(), dict[int, Any]()

    def ask(number: int, frame: Any) -> None:
        stop.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("\nfinishing the shards in the making; once more stops at once", file=sys.stderr, flush=True)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Meter:
    """Counts inputs; shows rate and time left as a bar on a terminal, else as a line now and then."""

    def __init__(self, total: int, finished: int, shown: bool) -> None:
        self.total, self.finished, self.now, self.errors = total, finished, 0, 0
        self.start = self.said = time.monotonic()
        self.shown, self.bar = shown, None
        if shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}")
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.task = self.bar.add_task("explaining", total=total, completed=finished, said="")
            self.bar.start()

    def add(self, done: Done) -> None:
        self.now += done.rows + done.errors
        self.errors += done.errors
        if self.bar is not None:
            self.bar.update(self.task, completed=self.finished + self.now, said=str(self))
        elif self.shown and time.monotonic() - self.said > EVERY:
            self.said = time.monotonic()
            print(f"apportion: {self}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __str__(self) -> str:
        done = self.finished + self.now
        rate = self.now / max(1e-9, time.monotonic() - self.start)
        left = timedelta(seconds=round((self.total - done) / rate)) if rate else "unknown"
        failed = f", {self.errors} failed" if self.errors else ""
        return f"{done} of {self.total} inputs{failed}, {rate:.3g} a second, {left} left"
