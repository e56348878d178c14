"""Models for the tests of bulk runs, by name (`bulk_models.py:steady`), and what runs in other processes."""

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

import apportion as ap

DATA = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
SETTINGS = {"batch": 4, "shard": 10, "table": "jsonl", "progress": False}


def steady():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


class Slow(nn.Module):
    """10 ms an input."""

    def __init__(self):
        super().__init__()
        self.inner = steady()

    def forward(self, x):
        time.sleep(0.01 * len(x))
        return self.inner(x)


class Held(Slow):
    """Waits as long as there is a file."""

    def forward(self, x):
        while Path(os.environ["BULK_TEST_FLAG"]).exists():
            time.sleep(0.01)
        return super().forward(x)


class Deadly(nn.Module):
    """Kills its process at an input above 90: always, or with `once` the first time only."""

    def __init__(self, once):
        super().__init__()
        self.inner, self.once = steady(), once

    def forward(self, x):
        if bool((x > 90).any()) and not (self.once and self.died()):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner(x)

    def died(self):
        flag = Path(os.environ["BULK_TEST_FLAG"])
        there = flag.exists()
        flag.touch()
        return there


def deadly():
    return Deadly(once=False)


def deadly_once():
    return Deadly(once=True)


def explained(folder, **settings):
    ap.explain_dataset(steady(), DATA, "inputxgradient", folder, **SETTINGS, **settings)
    return folder


def contents(folder):
    """The bytes of all files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def dying(folder, step):
    """A run in a process that kills itself at the given step of writing: before a file or a name is on disk."""
    torch.set_num_threads(1)
    left = step

    def at_a_step(function):
        def instead(*args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return instead

    for owner, name in ((os, "fsync"), (os, "link"), (Path, "rename"), (Path, "mkdir"), (Path, "replace")):
        setattr(owner, name, at_a_step(getattr(owner, name)))
    explained(Path(folder))
