"""What `apportion explain` shows without an input: a sentence and a photo, each by three methods."""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apportion.core.files import write_whole
from apportion.core.registry import from_repr
from apportion.display import terminal
from apportion.display.page import page
from apportion.pipeline.given import Given
from apportion.pipeline.prepared import explain_given
from apportion.results.result import Result

if TYPE_CHECKING:
    from rich.console import Console

SENTENCE = "The plot is thin, but the acting is superb."
METHODS = {"text": ("auto", "occlusion", "inputxgradient"), "image": ("auto", "gradcam", "inputxgradient")}


def run(console: Console, path: Path) -> None:
    """Explain both in the terminal by the first method, by all in a table and on a page at `path`."""
    found: list[Result] = []
    inputs = [Given("text", SENTENCE, SENTENCE)]
    with tempfile.TemporaryDirectory() as folder:
        if (photo := _photo(Path(folder))) is None:
            console.print("for the photo of a cat as well: pip install 'apportion[image]'", markup=False)
        else:
            inputs.append(Given("image", photo, "cat.png"))
        for what in inputs:
            ready, explanations = explain_given(
                what, methods=[from_repr(name) for name in METHODS[what.kind]]
            )
            found += explanations
            console.rule(what.name, style="dim", align="left")
            terminal.show(explanations[0], console, ready.classifier.name)
            console.print()
            console.print(terminal.comparison(explanations))
            console.print()
    write_whole(path, page(found).encode())
    console.print(f"side by side: {path.resolve()}", markup=False, soft_wrap=True)


def _photo(folder: Path) -> Path | None:
    """The cat of scikit-image as a file; None without scikit-image."""
    try:
        data: Any = import_module("skimage.data")
    except ImportError:
        return None
    from PIL import Image

    path = folder / "cat.png"
    Image.fromarray(data.chelsea()).save(path)
    return path
