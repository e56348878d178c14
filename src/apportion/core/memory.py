"""What memory there is, and a switch of the process that a program may turn, and a library must not."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from functools import cache
from pathlib import Path


@cache
def keep_freed_memory() -> None:
    """Let glibc keep up to 64 MB of freed memory for this process instead of handing it back at once.

    The command line calls this when it begins. A library leaves the process alone: call it yourself if your program
    explains on a CPU and nothing speaks against 31 MB of address space.

    Each pass would fault in again the pages that the last one gave back: up to a third of the time of
    EfficientNet-Lite0 and of small networks on a CPU (`benchmarks/run.py freed-memory`). The threshold follows
    the largest block that was ever freed, up to 32 MB (mallopt(3), M_MMAP_THRESHOLD); this one is never written to.
    Elsewhere than on Linux with glibc it does nothing.

    >>> keep_freed_memory()
    """
    # By calloc, so that no page is touched; and without NumPy, which `--help` does not wait for.
    bytes(31 << 20)


def room() -> float:
    """The bytes of memory that are free, as far as the system says; infinity where it does not."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return math.inf


def held() -> int:
    """The bytes of memory that this process holds; 0 where the system does not say."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
