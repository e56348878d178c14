"""What every HTML page here is made of: one shell around data, one stylesheet, pictures as data; and the small
tables that a notebook shows. No request leaves a page."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import platform
from collections.abc import Collection, Sequence
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

import apportion
from apportion.display.page_data import Page

Pixels = npt.NDArray[np.uint8]

NOTHING = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
PHOTO = 512  # the most pixels a side of an explained photo
SMALL = 64  # pixels a side up to which a picture keeps every one of them, drawn as squares


def shell(data: Page, title: str, plain: Sequence[str] = (), connect: str = "'none'") -> str:
    """The page around its data: the bundle of `frontend/`, which draws it. `plain` lines are what a reader without
    scripts gets; `connect` says to whom the page may talk.

    >>> shell({"kind": "workbench"}, "a < b").startswith("<!doctype html>")
    True
    """
    code = read_static("page.js")
    assert "</script" not in code.lower()
    assert "<!--" not in code
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    # Nothing in a JSON string ends the script element once "<" is written as an escape.
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    lines = "\n".join(map(html.escape, plain))
    allowed = html.escape(f"{NOTHING}; script-src 'sha256-{digest}'; connect-src {connect}")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{allowed}">
<title>{html.escape(title[:120])} · apportion</title>
<style>{read_static("page.css")}</style>
</head>
<body>
<noscript><pre>{lines}</pre></noscript>
<script id="data" type="application/json">{text}</script>
<script id="code">{code}</script>
</body>
</html>
"""


def versions() -> dict[str, str]:
    """With what a page was made."""
    return {
        "apportion": apportion.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


# ---- in a notebook ----


def paragraph(text: str) -> str:
    """Text that is not markup, whatever is in it."""
    return f"<p>{html.escape(text)}</p>"


def table(
    rows: Sequence[Sequence[str]],
    notes: Sequence[str] = (),
    bold: Collection[tuple[int, int]] = (),
    faint: Collection[int] = (),
) -> str:
    """A small table with notes under it. The first row and the first column are headings; some (row, column)
    places are bold, and some rows set apart.

    >>> table([["", "score"], ["<a>", "1"]], bold=[(1, 1)])
    '<table><tr><th></th><th>score</th></tr><tr><th>&lt;a&gt;</th><td style="font-weight: bold">1</td></tr></table>'
    """

    def cell(i: int, j: int, text: str) -> str:
        kind = "td" if i and j else "th"
        style = ' style="font-weight: bold"' if (i, j) in bold else ""
        return f"<{kind}{style}>{html.escape(text)}</{kind}>"

    lines = ["".join(cell(i, j, text) for j, text in enumerate(row)) for i, row in enumerate(rows)]
    faded = (' style="opacity: .65"' if i in faint else "" for i in range(len(rows)))
    body = "".join(f"<tr{style}>{line}</tr>" for style, line in zip(faded, lines, strict=True))
    return f"<table>{body}</table>{''.join(map(paragraph, notes))}"


def frame_page(page: str, title: str) -> str:
    """A whole page as an element of another, kept apart from it: what a notebook shows."""
    style = "width: 100%; height: 46rem; border: 0; resize: vertical; overflow: auto"
    return (
        f'<iframe title="{html.escape(title)}" srcdoc="{html.escape(page)}" '
        f'sandbox="allow-scripts allow-downloads" style="{style}"></iframe>'
    )


# ---- pictures ----


def data_uri(pixels: Pixels, most: int = 256) -> str:
    """A (height, width, 3) picture of at most `most` pixels a side; a small one without any loss."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    lossless = max(image.size) <= SMALL
    image.thumbnail((most, most))
    image.save(buffer, "webp", quality=90, lossless=lossless)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def read_data_uri(uri: str) -> Pixels:
    """The (height, width, 3) picture in what `data_uri` made."""
    data = base64.b64decode(uri.partition(",")[2])
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


@cache
def read_static(name: str) -> str:
    """A file that `make page` built."""
    return (files("apportion") / "display" / "static" / name).read_text(encoding="utf-8")
