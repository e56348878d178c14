"""Draw the workbench for the documentation, in a real browser: `python docs/make_pictures_workbench.py`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser  # noqa: E402

READY = "document.querySelector('[type=submit]') && !document.querySelector('[type=submit]').disabled"
IDLE = "document.querySelector('button.chip') && !document.querySelector('.actions [type=button]')"


def main() -> None:
    command = [sys.executable, "-m", "apportion", "serve", "--port", "0", "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().removeprefix("workbench: ").strip()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(Path(folder), 1280, 900)
        try:
            browser.open(address)
            browser.wait(READY)
            for name in ("method-ih", "tests"):
                browser.click(f"[name={name}]")
            browser.click("[type=submit]")
            browser.wait(IDLE)
            browser.click("button.chip:nth-of-type(10)")
            browser.size(1280, browser.run("document.documentElement.scrollHeight"))
            browser.screenshot(ROOT / "docs" / "images" / "workbench.png")
        finally:
            browser.close()
            server.terminate()


if __name__ == "__main__":
    main()
