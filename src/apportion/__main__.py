"""The command line: `apportion`, or `python -m apportion`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run a command. Ctrl-C ends it with status 130, also while what it needs is still being imported."""
    try:
        from apportion.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
