"""A switch of the process that a program may turn, and a library must not."""

from __future__ import annotations

from functools import cache


@cache
def keep_freed_memory() -> None:
    """Let glibc keep up to 64 MB of freed memory for this process instead of handing it back at once.

    The command line calls this when it begins. A library leaves the process alone: call it yourself if your program
    explains on a CPU and nothing speaks against 31 MB of address space.

    Each pass would fault in again the pages that the last one gave back: up to a third of the time of
    EfficientNet-Lite0 and of small networks on a CPU (`benchmarks/run.py freed-memory`). The threshold follows
    the largest block that was ever freed, up to 32 MB (mallopt(3), M_MMAP_THRESHOLD); this one is never written to.
    """
    bytes(
        31 << 20
    )  # by calloc, so that no page is touched; and without NumPy, which `--help` does not wait for
