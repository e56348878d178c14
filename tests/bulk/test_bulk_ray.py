"""The Ray engine on real clusters, which the tests start on this machine."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

import apportion as ap
import bulk_models
from bulk_models import DATA, contents

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

MODELS = Path(bulk_models.__file__)
RAY = shutil.which("ray", path=str(Path(sys.executable).parent)) or "ray"

SCRIPT = """
import json, sys
import apportion as ap
if __name__ == "__main__":
    folder, settings = sys.argv[1], json.loads(sys.argv[2])
    run = ap.explain_dataset(settings.pop("model"), f"{folder}/data.npy", "inputxgradient", f"{folder}/run",
                             batch=4, shard=10, table="jsonl", engine="ray", **settings)
    assert run.complete
"""


def started(folder, environment=None, data=DATA, **settings):
    """The run in a process of its own, so that no test leaves a connection to a cluster behind."""
    np.save(folder / "data.npy", data.numpy())
    (folder / "script.py").write_text(SCRIPT)
    settings["model"] = f"{MODELS}:{settings['model']}"
    command = [sys.executable, folder / "script.py", folder, json.dumps(settings)]
    return subprocess.Popen(
        command, env={**os.environ, **(environment or {})}, stderr=subprocess.PIPE, text=True
    )


def finished(process):
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said


def check(folder, many=60):
    run = ap.open_run(folder / "run")
    assert [row["id"] for row in run.rows()] == [str(i) for i in range(many)]
    assert not run.check()


def check_same_as_here(tmp_path, model, flag):
    """The run has the files of one without Ray."""
    os.environ["BULK_TEST_FLAG"] = str(flag)
    ap.explain_dataset(
        f"{MODELS}:{model}", tmp_path / "data.npy", "inputxgradient", tmp_path / "local",
        batch=4, shard=10, table="jsonl", progress=False,
    )  # fmt: skip
    assert contents(tmp_path / "run") == contents(tmp_path / "local")


def test_the_same_as_on_one_machine_with_a_worker_killed_in_the_middle(tmp_path):
    data = DATA.clone()
    data[33] = 99.0
    flag = tmp_path / "flag"
    finished(started(tmp_path, {"BULK_TEST_FLAG": str(flag)}, data, model="deadly_once", workers=2))
    assert flag.exists()
    check(tmp_path)
    check_same_as_here(tmp_path, "deadly_once", flag)


def test_ctrl_c_finishes_the_shards_in_the_making(tmp_path):
    data = DATA.repeat(10, 1)
    process = started(tmp_path, data=data, model="Slow", workers=2)
    wait_for_shards(tmp_path, 3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=600)
    assert "the same call goes on from there" in said
    run = ap.open_run(tmp_path / "run")
    assert 3 <= len(run.shards) < run.manifest.shards
    assert not list((tmp_path / "run").glob(".stop*"))
    finished(started(tmp_path, data=data, model="Slow", workers=2))
    check(tmp_path, len(data))


def wait_for_shards(folder, many):
    deadline = time.monotonic() + 600
    while finished_shards(folder) < many:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def short():
    """A folder whose name leaves room for the sockets in it, of which Unix allows 107 characters."""
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def two_nodes(short):
    """A head and a second node on this machine: (address, environment, the nodes' processes, what begins one more)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-token-for-this-test",
        "RAY_TMPDIR": str(short),
        "BULK_TEST_FLAG": str(short / "flag"),
    }
    shared = ["--num-cpus=2", "--object-store-memory=100000000", "--block", "--disable-usage-stats"]
    address = f"127.0.0.1:{port}"
    head = [f"--port={port}", "--head", "--include-dashboard=false", "--node-ip-address=127.0.0.1"]
    nodes = []
    try:

        def begin(kind=(f"--address={address}", "--node-ip-address=127.0.0.1")):
            log = (short / f"{len(nodes)}.log").open("w")
            command = [RAY, "start", *kind, *shared]
            nodes.append(
                subprocess.Popen(
                    command, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
                )
            )
            deadline = time.monotonic() + 600
            while "Ray runtime started" not in Path(log.name).read_text():
                assert time.monotonic() < deadline, Path(log.name).read_text()
                assert nodes[-1].poll() is None, Path(log.name).read_text()
                time.sleep(0.2)

        begin(head)
        begin()
        yield address, environment, nodes, begin
    finally:
        for node in nodes:
            end(node)


def end(node):
    """Kill a node with all that it started."""
    for pid, _ in members(node):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.wait()


def test_two_nodes_of_which_one_dies(tmp_path, two_nodes):
    address, environment, (_, second), _ = two_nodes
    data = DATA.repeat(10, 1)
    process = started(tmp_path, environment, data, model="Slow", workers=3, address=address)
    wait_for_shards(tmp_path, 6)
    end(second)
    finished(process)
    check(tmp_path, len(data))


KILLS = 25


def test_workers_and_nodes_killed_at_random_moments(tmp_path, two_nodes):
    """A kill comes after a random number of further shards, or at a random moment of what begins after the last one;
    the model holds its work up in between, so that a machine that is busy has as many kills as any."""
    address, environment, nodes, begin = two_nodes
    data, draw, kills, held = DATA.repeat(20, 1), random.Random(0), 0, Path(environment["BULK_TEST_FLAG"])
    held.touch()
    process = started(tmp_path, environment, data, model="Held", workers=3, address=address)
    while kills < KILLS and process.poll() is None:
        if draw.random() < 0.5:
            time.sleep(draw.random())
        else:
            there, more = finished_shards(tmp_path), draw.randrange(3)
            deadline = time.monotonic() + 60
            held.unlink()
            while finished_shards(tmp_path) < there + more and time.monotonic() < deadline:
                time.sleep(0.01)
        if kills % 10 == 5:
            end(nodes[-1])
            kills += 1
            held.touch()
            begin()
        elif actors := actors_of(nodes):
            with contextlib.suppress(ProcessLookupError):
                os.kill(draw.choice(actors), signal.SIGKILL)
                kills += 1
        held.touch()
    held.unlink()
    finished(process)
    assert kills == KILLS
    check(tmp_path, len(data))
    check_same_as_here(tmp_path, "Held", held)


def finished_shards(folder):
    return len(list((folder / "run/shards").glob("[0-9]*")))


def actors_of(nodes):
    """The processes of these nodes that hold a model."""
    return [pid for node in nodes for pid, name in members(node) if name.startswith(b"ray::MapWorker")]


def members(node):
    """(number, command) of what a node started, from Linux' /proc; its workers have process groups of their own."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            session = (process / "stat").read_text().rsplit(")", 1)[1].split()[3]
            if session == str(node.pid):
                found.append((int(process.name), (process / "cmdline").read_bytes()))
    return sorted(found)


def test_a_cluster_that_is_not_there_is_one_line(tmp_path):
    process = started(tmp_path, model="steady", workers=1, address="127.0.0.1:1")
    _, said = process.communicate(timeout=600)
    assert "InputError: cannot reach a Ray cluster at 127.0.0.1:1" in said
