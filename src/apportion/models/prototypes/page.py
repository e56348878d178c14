"""Prototypes as one self-contained HTML page without scripts: reasons for one image, and the gallery of a class."""

from __future__ import annotations

from html import escape

from apportion.markup import figure, looks, still
from apportion.models.prototypes.gallery import Gallery
from apportion.models.prototypes.matches import Patch, Reasons
from apportion.models.prototypes.pictures import framed, heated
from apportion.results.words import number, signed


def reasons_page(reasons: Reasons) -> str:
    """What `Reasons.to_html` gives."""
    body = [f'<p class="about">Score {number(reasons.score)}, probability {reasons.probability:.1%}</p>']
    for match in reasons.matches:
        product = f"{number(match.similarity)} × {number(match.connection)} = {signed(match.contribution)}"
        figures = [
            figure("this", framed(reasons.picture, match.box)),
            figure("similarity map", heated(reasons.picture, match.heat)),
            figure(f"looks like that: {match.source.name}", framed(match.source.picture, match.source.box)),
        ]
        text = f"<p>similarity × connection: <b>{product}</b></p>"
        body.append(_article(f"Prototype {match.prototype} of {match.label}", looks(figures) + text))
    body.append(f"<p>All other prototypes: <b>{signed(reasons.others)}</b></p>")
    return still(f"{reasons.name} looks like {reasons.label}", body)


def gallery_page(gallery: Gallery) -> str:
    """What `Gallery.to_html` gives."""
    body = []
    for row in gallery.rows:
        parts = [looks([figure(row.source.name, framed(row.source.picture, row.source.box))])]
        for name, patches in row.nearest.items():
            parts += [f'<p class="quiet">Nearest in {escape(name)}</p>', looks(map(_patch, patches))]
        title = f"Prototype {row.prototype}, connection {signed(row.connection)}"
        body.append(_article(title, "".join(parts)))
    return still(f"Prototypes of {gallery.label}", body)


def _patch(patch: Patch) -> str:
    caption = f"{number(patch.similarity)} {patch.label} · {patch.name}"
    return figure(caption, framed(patch.picture, patch.box))


def _article(title: str, content: str) -> str:
    return f"<article><h2>{escape(title)}</h2>{content}</article>"
