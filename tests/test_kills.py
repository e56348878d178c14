"""Work that is killed at random moments again and again comes to the same bits as work that is not."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from killed import WORK, work

HERE = str(Path(__file__).parent)
KILLS, AT_MOST_IN_A_ROW = 25, 6

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="kills processes")]


@pytest.mark.parametrize("name", WORK)
def test_work_that_is_killed_at_random_moments_comes_to_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server of processes finds what it is to import first by this, and not by the path of this process.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")])))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed"])

    def run(folder: Path, kill_at: int, told: str = "") -> int | None:
        process = context.Process(target=work, args=(name, str(folder), kill_at, told))
        process.start()
        process.join()
        return process.exitcode

    result, told = WORK[name][1], tmp_path / "calls"
    # At the same path, which a run keeps in its files.
    folder = tmp_path / "work"
    assert run(folder, 0, str(told)) == 0
    whole, calls = result(folder), int(told.read_text())
    rng, kills = random.Random(0), 0
    while kills < KILLS:
        shutil.rmtree(folder)
        for _ in range(AT_MOST_IN_A_ROW):
            ended = run(folder, rng.randrange(1, calls))
            assert ended in (0, -signal.SIGKILL)
            kills += ended == -signal.SIGKILL
            if ended == 0:
                break
        assert run(folder, 0) == 0
        assert result(folder) == whole, f"after {kills} kills"
