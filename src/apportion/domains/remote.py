"""A function of texts that costs something to ask, such as a model behind an API: asked once, in batches, within a
budget.

Answers are rows of numbers in a database of SQLite under the hash of what was asked: reading them runs no code, and a
batch is in it wholly or not at all.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apportion.core.numbers import is_frame, is_series, tensor_of
from apportion.errors import InputError, check, check_whole, first_line

Row = tuple[float, ...]
_LONGEST_WAIT = 60.0
_ROUNDS = 4  # of all threads between two looks at progress
_LOOK = 900  # keys in one question to the database


@dataclass(frozen=True)
class Remote:
    """Ask a function of texts once for each text, as one does a model behind an API.

    Give it wherever a function of strings can be given, as in `ap.explain(ap.Remote(ask, budget=500), "a text",
    "lime")`: an explanation that needs more than is left of the budget is refused before anything is asked. Answers are
    kept; where there is a `cache`, also for later programs. Ctrl-C waits for what is being answered and keeps it. Two
    programs with one cache ask in turns, so that neither asks what the other has been answered.

    Attributes:
        function (callable): From a list of strings (or of lists of chat messages, where these are explained) to a score
            for each, or a row of scores; with threads it is called from several at once.
        cache (str or path, default None): A file for the answers, made where there is none; None: they are kept as
            long as this object.
        name (str, default ""): What is asked, such as the model's name and the wording of a prompt: answers of another
            name are not taken from the cache.
        budget (int, default None, texts): Most texts that may be answered, cached ones not counted; None: any number.
        batch (int, default 16, texts): Texts in one call at most.
        threads (int, default 1): Calls at the same time.
        retries (int, default 3): How often a call that raised is tried again.
        wait (float, default 1.0, seconds): Before the first such time; twice as long before each later one, up to a
            minute.

    >>> asked = Remote(lambda texts: [float(len(text)) for text in texts], budget=2)
    >>> asked(["one", "three", "one"]).tolist(), asked.left
    ([3.0, 5.0, 3.0], 0)
    """

    function: Callable[[list[Any]], Any]
    cache: str | Path | None = None
    name: str = ""
    budget: int | None = None
    batch: int = 16
    threads: int = 1
    retries: int = 3
    wait: float = 1.0

    def __post_init__(self) -> None:
        fine = callable(self.function) and not isinstance(self.function, type)
        if not fine:
            raise InputError(
                f"function is {type(self.function).__name__}; accepted: a function from a list of strings to scores, "
                "such as the predict_proba of a pipeline"
            )
        check("name", self.name, lambda v: isinstance(v, str), "a text")
        check_whole(1, batch=self.batch, threads=self.threads)
        check_whole(0, retries=self.retries, budget=0 if self.budget is None else self.budget)
        check("wait", self.wait, lambda v: 0 <= v < math.inf, "seconds, zero or more")
        check(
            "cache",
            self.cache,
            lambda v: v is None or isinstance(v, str | os.PathLike),
            "the path of a file, or None",
        )
        object.__setattr__(self, "_kept", _Kept())

    @property
    def left(self) -> int | None:
        """How many texts may still be answered; None: any number."""
        return None if self.budget is None else self.budget - self._answers.many

    @property
    def rows_at_once(self) -> int:
        """How many texts are handed over together by what explains."""
        return self.batch * self.threads * _ROUNDS

    def __call__(self, asked: Sequence[Any]) -> np.ndarray:
        """The scores of each, (texts,) or (texts, classes)."""
        keys = [self._key(one) for one in asked]
        with self._answers.lock:
            found = self._found(keys)
            if len(found) < len(set(keys)):
                with _alone(self.cache):
                    found = self._found(keys)  # what another program was answered in the meantime
                    self._ask({key: one for key, one in zip(keys, asked, strict=True) if key not in found})
                found = self._found(keys)
        rows = [found[key] for key in keys]
        if len({len(row) for row in rows}) > 1:
            few, many = min(map(len, rows)), max(map(len, rows))
            raise InputError(f"the function gave {few} scores for one text and {many} for another")
        scores = np.array(rows, dtype=np.float64)  # (texts, classes); no class: one number a text
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def unanswered(self, asked: Sequence[Any]) -> int:
        """How many of these were never answered, each counted once."""
        keys = [self._key(one) for one in asked]
        with self._answers.lock:
            return len(set(keys)) - len(self._found(keys))

    # ---- what is known ----

    @property
    def _answers(self) -> _Kept:
        kept: _Kept = vars(self)["_kept"]
        return kept

    def _key(self, asked: Any) -> str:
        """The hash of what is asked of whom."""
        return hashlib.sha256(json.dumps([self.name, asked], sort_keys=True).encode()).hexdigest()

    def _found(self, keys: Sequence[str]) -> dict[str, Row]:
        """The answers that are known, by key; those of the cache are remembered."""
        known = self._answers.rows
        if self.cache is not None and Path(self.cache).exists():
            new = [key for key in dict.fromkeys(keys) if key not in known]
            with _database(self.cache) as database:
                for begin in range(0, len(new), _LOOK):
                    some = new[begin : begin + _LOOK]
                    marks = ", ".join("?" * len(some))
                    for key, text in database.execute(
                        f"SELECT key, row FROM answers WHERE key IN ({marks})", some
                    ):
                        known[key] = self._read(text)
        return {key: known[key] for key in keys if key in known}

    def _read(self, text: Any) -> Row:
        try:
            row = tuple(map(float, json.loads(text)))
        except (TypeError, ValueError, RecursionError):
            row = ()
        if not row or not all(map(math.isfinite, row)):
            raise InputError(
                f"cache {self.cache} holds an answer that is no row of finite numbers: {text!r:.60}"
            )
        return row

    def _keep(self, keys: Sequence[str], rows: Sequence[Row]) -> None:
        if self.cache is not None:
            with _database(self.cache) as database, database:
                answers = [(key, json.dumps(row)) for key, row in zip(keys, rows, strict=True)]
                database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", answers)
        new = {key: row for key, row in zip(keys, rows, strict=True) if key not in self._answers.rows}
        self._answers.rows.update(new)
        self._answers.many += len(new)

    # ---- asking ----

    def _ask(self, questions: dict[str, Any]) -> None:
        """Ask for all of these and keep every answer as it comes, also those that still come after an error or
        Ctrl-C."""
        if self.left is not None and len(questions) > self.left:
            raise InputError(
                f"budget is {self.budget} texts, of which {self.left} are left, and {len(questions)} more are asked "
                "for; accepted: a larger budget (what was answered is kept), or a method with fewer samples"
            )
        keys, stop = list(questions), threading.Event()
        pool = ThreadPoolExecutor(self.threads, "apportion-remote")
        running: dict[Future[list[Row]], list[str]] = {}
        try:
            for begin in range(0, len(keys), self.batch):
                some = keys[begin : begin + self.batch]
                texts = [questions[key] for key in some]
                running[pool.submit(copy_context().run, self._answered, texts, stop)] = some
            for future in as_completed(list(running)):
                self._keep(running[future], future.result())
                del running[future]
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            for future, some in running.items():
                if not future.cancelled() and future.exception() is None:
                    self._keep(some, future.result())

    def _answered(self, texts: list[Any], stop: threading.Event) -> list[Row]:
        """What the function answers, tried as often as `retries` says."""
        for failed in range(self.retries + 1):
            try:
                answer = self.function(list(texts))
                break
            except Exception as error:
                last = failed == self.retries
                if last or stop.wait(min(self.wait * 2**failed, _LONGEST_WAIT)):
                    times = f"{failed + 1} times" if failed else "once"
                    raise InputError(
                        f"the function raised {times} for {len(texts)} texts, at last {type(error).__name__}: "
                        f"{first_line(error) or 'without a message'}"[:500]
                    ) from error
        return _rows(answer, texts)


def _rows(answer: Any, texts: Sequence[Any]) -> list[Row]:
    """A row of finite numbers for each text, or an error that says what came."""
    given = is_frame(answer) or is_series(answer) or hasattr(answer, "shape")
    if not (given or isinstance(answer, list | tuple)):
        raise InputError(
            f"the function returned {type(answer).__name__} for {len(texts)} texts; accepted: a score for each, or a "
            "row of scores"
        )
    scores = np.asarray(tensor_of("what the function returned", answer).double())
    if scores.ndim not in (1, 2) or len(scores) != len(texts) or not scores[:1].size:
        raise InputError(
            f"the function returned scores of shape {scores.shape} for {len(texts)} texts; accepted: ({len(texts)},) "
            f"or ({len(texts)}, classes)"
        )
    scores = scores.reshape(len(texts), -1)
    bad = ~np.isfinite(scores).all(1)
    if bad.any():
        place = int(bad.argmax())
        raise InputError(
            f"the function returned {scores[place].tolist()!s:.80} for {texts[place]!r:.80}; accepted: finite numbers"
        )
    return [tuple(row) for row in scores.tolist()]


class _Kept:
    """What was answered to one object; a copy, such as one in another process, begins anew."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.many = 0
        self.lock = threading.RLock()

    def __reduce__(self) -> Any:
        return _Kept, ()


# ---- the file ----


@contextmanager
def _database(path: str | Path) -> Iterator[sqlite3.Connection]:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=60.0)) as database:
            database.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, row TEXT NOT NULL)")
            yield database
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:  # also what it says of itself
        raise InputError(f"cache {path} cannot be used: {error}") from error


@contextmanager
def _alone(path: str | Path | None) -> Iterator[None]:
    """Only one program at a time. The system takes its lock from a program that was killed."""
    if path is None:
        yield
        return
    with _database(path):
        pass  # it can be made and read
    with closing(sqlite3.connect(f"{path}.turn", timeout=0.2, isolation_level=None)) as turn:
        while True:  # in short waits, between which Ctrl-C is heard
            try:
                turn.execute("BEGIN EXCLUSIVE")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise InputError(f"cache {path} cannot be used: {error}") from error
        yield
