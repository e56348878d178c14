"""Prototypes as one self-contained HTML page without scripts: reasons for one image, and the gallery of a class."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape

from PIL import Image

from apportion.models.prototypes.matches import Gallery, Patch, Reasons
from apportion.models.prototypes.pictures import Picture, framed, heated
from apportion.wording import number, signed

LARGEST, SMALLEST = 256, 64  # pixels a side of an embedded picture

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1.5rem; color: #1b1d22;
  background: #f6f5f1 }
h1 { font-size: 1.6rem } h2 { font-size: 1.1rem; margin: 0 } p { margin: .4rem 0 }
article { background: #fff; border: 1px solid #dcdad3; border-radius: 8px; padding: 1rem; margin: .8rem 0 }
.looks { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: .4rem 0; width: 9rem }
img { width: 100%; display: block; border-radius: 4px; image-rendering: pixelated }
figcaption, .quiet { font-size: .82rem; color: #59606c; overflow-wrap: anywhere }
b { font-variant-numeric: tabular-nums }
@media (prefers-color-scheme: dark) { body { background: #14161a; color: #ececee }
  article { background: #1d2026; border-color: #343944 } figcaption, .quiet { color: #a4abb8 } }
"""


def reasons_page(reasons: Reasons) -> str:
    """What `Reasons.to_html` gives."""
    body = [f"<p>Score {number(reasons.score)}, probability {reasons.probability:.1%}</p>"]
    for match in reasons.matches:
        product = f"{number(match.similarity)} × {number(match.connection)} = {signed(match.contribution)}"
        looks = [
            _figure(framed(reasons.picture, match.box), "this"),
            _figure(heated(reasons.picture, match.heat), "similarity map"),
            _figure(framed(match.source.picture, match.source.box), f"looks like that: {match.source.name}"),
        ]
        text = f"<p>similarity × connection: <b>{product}</b></p>"
        body.append(_article(f"Prototype {match.prototype} of {match.label}", _looks(looks) + text))
    body.append(f"<p>All other prototypes: <b>{signed(reasons.others)}</b></p>")
    return _page(f"{reasons.name} looks like {reasons.label}", body)


def gallery_page(gallery: Gallery) -> str:
    """What `Gallery.to_html` gives."""
    body = []
    for row in gallery.rows:
        parts = [_looks([_figure(framed(row.source.picture, row.source.box), row.source.name)])]
        for name, patches in row.nearest.items():
            parts += [f"<p class=quiet>Nearest in {escape(name)}</p>", _looks(map(_patch, patches))]
        title = f"Prototype {row.prototype}, connection {signed(row.connection)}"
        body.append(_article(title, "".join(parts)))
    return _page(f"Prototypes of {gallery.label}", body)


def _patch(patch: Patch) -> str:
    caption = f"{number(patch.similarity)} {patch.label} · {patch.name}"
    return _figure(framed(patch.picture, patch.box), caption)


def _looks(figures: Iterable[str]) -> str:
    return f"<div class=looks>{''.join(figures)}</div>"


def _article(title: str, content: str) -> str:
    return f"<article><h2>{escape(title)}</h2>{content}</article>"


def _figure(pixels: Picture, caption: str) -> str:
    image = Image.fromarray(pixels)
    if max(image.size) > LARGEST:
        image.thumbnail((LARGEST, LARGEST))
    elif max(image.size) < SMALLEST:
        image = image.resize((image.width * 4, image.height * 4), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, "png")
    data = base64.b64encode(buffer.getvalue()).decode()
    text = escape(caption)
    return f'<figure><img src="data:image/png;base64,{data}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def _page(title: str, body: Iterable[str]) -> str:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    content = "\n".join(body)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)} · apportion</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{content}
</body>
</html>
"""
