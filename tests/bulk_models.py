"""Models for the tests of bulk runs, by name: `bulk_models.py:steady` and others."""

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn


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
