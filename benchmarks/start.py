"""Starting: what the command line takes beyond importing torch, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator


def command_line() -> Iterator[tuple[str, str, dict[str, Callable[[], object]]]]:
    folder = tempfile.mkdtemp()
    # Compiled modules are kept, as an installation keeps them, also where this environment would not.
    kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": os.path.join(folder, "compiled")}

    def run(*command: str) -> Callable[[], object]:
        call = [sys.executable, *command]
        return lambda: subprocess.run(
            call, check=True, capture_output=True, cwd=folder, env={**os.environ, **kept}
        )

    yield (
        "in a new process",
        "import torch",
        {
            "import torch": run("-c", "import torch"),
            "torch, then apportion": run("-c", "import torch, apportion"),
            "apportion --help": run("-m", "apportion", "--help"),
            "apportion explain, a sentence": run("-m", "apportion", "explain", "A dull film."),
        },
    )
