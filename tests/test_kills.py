"""Work that is killed at random moments, or done by two processes at once, comes to the bits of work that is not."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from killed import WORK, work

HERE = str(Path(__file__).parent)
KILLS, AT_MOST_IN_A_ROW = 25, 6
PAIRS = 12

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="kills processes")]

Started = Callable[..., Any]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """Begins work in a process of its own, as `work` takes it."""
    # The server of processes finds what it is to import first by this, and not by the path of this process.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")])))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed"])

    def start(name: str, folder: Path, at: int = 0, told: str = "", sent: int = signal.SIGKILL) -> Any:
        process = context.Process(target=work, args=(name, str(folder), at, told, sent))
        process.start()
        begun.append(process)
        return process

    begun: list[Any] = []
    yield start
    for process in begun:  # one that stands still would be waited for
        process.kill()


def ended(process: Any) -> int | None:
    process.join()
    code: int | None = process.exitcode
    return code


def undisturbed(name: str, folder: Path, started: Started) -> tuple[Any, int]:
    """What the work comes to alone, and its calls: at the same path, which a run keeps in its files."""
    told = folder.with_name("calls")
    assert ended(started(name, folder, told=str(told))) == 0
    return WORK[name][1](folder), int(told.read_text())


@pytest.mark.parametrize("name", WORK)
def test_work_that_is_killed_at_random_moments_comes_to_the_same_bits(
    name: str, tmp_path: Path, started: Started
) -> None:
    result, folder = WORK[name][1], tmp_path / "work"
    whole, calls = undisturbed(name, folder, started)
    rng, kills = random.Random(0), 0
    while kills < KILLS:
        shutil.rmtree(folder)
        for _ in range(AT_MOST_IN_A_ROW):
            code = ended(started(name, folder, rng.randrange(1, calls)))
            assert code in (0, -signal.SIGKILL)
            kills += code == -signal.SIGKILL
            if code == 0:
                break
        assert ended(started(name, folder)) == 0
        assert result(folder) == whole, f"after {kills} kills"


@pytest.mark.parametrize("name", WORK)
def test_two_processes_in_one_folder_both_come_to_the_same_bits(
    name: str, tmp_path: Path, started: Started
) -> None:
    """One stands still at a random moment while the other does all of the work, or is killed in it."""
    result, folder = WORK[name][1], tmp_path / "work"
    whole, calls = undisturbed(name, folder, started)
    rng = random.Random(1)
    for pair in range(PAIRS):
        shutil.rmtree(folder)
        first = started(name, folder, rng.randrange(1, calls), sent=signal.SIGSTOP)
        while not stands_still(first.pid):
            time.sleep(0.01)
        other = ended(started(name, folder, rng.randrange(1, calls) if pair % 3 == 2 else 0))
        if pair % 3 != 2:
            assert other == 0, f"pair {pair}"
            assert result(folder) == whole, f"pair {pair}"
        os.kill(first.pid, signal.SIGCONT)
        assert ended(first) == 0, f"pair {pair}"
        assert result(folder) == whole, f"pair {pair}"


def stands_still(pid: int) -> bool:
    return "T" in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
