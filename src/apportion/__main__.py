"""The command line: `apportion`, or `python -m apportion`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any


def main() -> None:
    """Run a command. Ctrl-C ends it with status 130, also while what it needs is still being imported."""
    sys.unraisablehook = _once_more
    try:
        from apportion.cli.app import main as run
        from apportion.core.memory import keep_freed_memory

        keep_freed_memory()
        run()
    except KeyboardInterrupt:
        sys.exit(130)


def _once_more(lost: Any) -> None:
    """Python drops an interrupt that meets it in the callback of a weak reference, as each import has one: it is
    sent again when that callback is over."""
    if lost.exc_type is KeyboardInterrupt:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)


if __name__ == "__main__":
    main()
