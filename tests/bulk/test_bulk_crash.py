"""Exactly once: runs that are killed at any moment, on a full disk, with dead workers, or interrupted."""

import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import apportion as ap
import bulk_models
from apportion import InputError
from apportion.bulk import _shards as shards
from bulk_models import DATA, SETTINGS, contents, dying, explained

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes")

MODELS = Path(bulk_models.__file__)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an uninterrupted run writes."""
    return contents(explained(tmp_path_factory.mktemp("whole")))


def check_rows(folder):
    run = ap.open_run(folder)
    assert [row["id"] for row in run.rows()] == [str(i) for i in range(len(DATA))]
    assert not run.check()


@pytest.fixture(scope="module")
def forks():
    """Processes that begin with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bulk_models", "apportion.bulk.run", "apportion.bulk.reading"])
    return context


def test_killed_at_every_step_of_writing(tmp_path, whole, forks):
    for step in range(20):  # beyond the manifest and the first two shards
        folder = tmp_path / str(step)
        process = forks.Process(target=dying, args=(str(folder), step))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert contents(explained(folder)) == whole


def test_killed_at_random_moments_again_and_again(tmp_path, whole, forks):
    random.seed(0)
    deaths = 0
    while not (tmp_path / "run").exists() or not ap.open_run(tmp_path / "run").complete:
        process = forks.Process(target=explained, args=(tmp_path / "run",))
        process.start()
        # From moments in which no machine has finished to long enough for any.
        deadline = time.monotonic() + random.uniform(0.001, 0.003) * 1.4**deaths
        while process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.001)
        process.kill()
        process.join()
        deaths += process.exitcode == -signal.SIGKILL
        if not (tmp_path / "run/manifest.json").exists():
            (tmp_path / "run").mkdir(exist_ok=True)
            explained(tmp_path / "run", shard_index=5, num_shards=6)
    explained(tmp_path / "run")
    assert deaths > 1
    assert contents(tmp_path / "run") == whole


def test_a_full_disk_leaves_nothing_half_written(tmp_path, whole, monkeypatch):
    write, left = shards._write_through, 2000

    def full(path, data):
        nonlocal left
        if len(data) > left:
            write(path, data[:left])
            raise OSError(errno.ENOSPC, "No space left on device")
        left -= len(data)
        write(path, data)

    monkeypatch.setattr(shards, "_write_through", full)
    with pytest.raises(InputError, match="the disk is full; what is finished stays"):
        explained(tmp_path)
    assert not list((tmp_path / "shards").glob(".*"))
    monkeypatch.undo()
    assert contents(explained(tmp_path)) == whole


def test_two_processes_may_make_the_same_shards(tmp_path, whole, forks):
    processes = [forks.Process(target=explained, args=(tmp_path / "run",)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert contents(tmp_path / "run") == whole


def by_name(folder, model, data, **settings):
    np.save(folder / "data.npy", data.numpy())
    return ap.explain_dataset(
        f"{MODELS}:{model}", folder / "data.npy", "inputxgradient", folder / "run", **SETTINGS, **settings
    )


@pytest.mark.slow
def test_a_pool_whose_worker_dies_is_built_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("BULK_TEST_FLAG", str(tmp_path / "flag"))
    data = DATA.clone()
    data[33] = 99.0
    run = by_name(tmp_path, "deadly_once", data, workers=2)
    assert (tmp_path / "flag").exists()
    assert run.complete
    check_rows(tmp_path / "run")


@pytest.mark.slow
def test_an_input_that_kills_every_worker_is_named_and_the_others_finished(tmp_path):
    data = DATA.clone()
    data[33] = 99.0
    with pytest.raises(InputError, match="died 3 times over the inputs numbered 30 to 39"):
        by_name(tmp_path, "deadly", data, workers=2)
    run = ap.open_run(tmp_path / "run")
    assert len(run.shards) == run.manifest.shards - 1


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import apportion as ap
if __name__ == "__main__":
    ap.explain_dataset({model!r}, {data!r}, "inputxgradient", {out!r}, batch=4, shard=10, table="jsonl",
                       workers={workers})
"""


def started(folder, model, workers):
    np.save(folder / "data.npy", DATA.numpy())
    script = folder / "script.py"
    script.write_text(
        SCRIPT.format(
            tests=str(MODELS.parent),
            model=f"{MODELS}:{model}",
            data=str(folder / "data.npy"),
            out=str(folder / "run"),
            workers=workers,
        )
    )
    return subprocess.Popen(
        [sys.executable, script], stderr=subprocess.PIPE, start_new_session=True, text=True
    )


def wait_for_shards(folder, many):
    deadline = time.monotonic() + 600
    while len(list((folder / "run/shards").glob("[0-9]*"))) < many:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_finishes_the_shards_in_the_making(tmp_path, workers):
    process = started(tmp_path, "Slow", workers)
    wait_for_shards(tmp_path, 2)
    process.send_signal(signal.SIGINT) if workers == 1 else os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=600)
    assert "finishing the shards in the making" in said
    assert "the same call goes on from there" in said
    there = ap.open_run(tmp_path / "run")
    assert 2 <= len(there.shards) < there.manifest.shards
    assert not list((tmp_path / "run/shards").glob(".*"))
    assert started(tmp_path, "Slow", workers).wait(600) == 0
    check_rows(tmp_path / "run")


@pytest.mark.slow
def test_workers_die_with_a_killed_parent(tmp_path):
    process = started(tmp_path, "Slow", 2)
    wait_for_shards(tmp_path, 2)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 600
    while members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not members(process.pid)
    assert started(tmp_path, "Slow", 2).wait(600) == 0
    check_rows(tmp_path / "run")


def members(session):
    """The processes of a session that still run, from Linux' /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, *_, group = stat.read_text().rsplit(")", 1)[1].split()[:4]
        except OSError:
            continue
        if group == str(session) and state != "Z":
            found.append(stat)
    return found
