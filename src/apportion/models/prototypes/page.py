"""Pictures side by side as one self-contained HTML page without scripts."""

from __future__ import annotations

from html import escape

from apportion.looks import Look, Row, Rows
from apportion.markup import figure, looks, still
from apportion.models.prototypes.pictures import drawn


def page(rows: Rows) -> str:
    """What `to_html` of reasons and of a gallery gives."""
    body = [
        f'<p class="about">{escape(rows.about)}</p>',
        *map(_article, rows.rows),
        f"<p>{escape(rows.end)}</p>",
    ]
    return still(rows.title, body)


def _article(row: Row) -> str:
    parts = []
    for heading, found in row.groups:
        parts += [f'<p class="quiet">{escape(heading)}</p>'] if heading else []
        parts.append(looks(map(_figure, found)))
    said = f"<p>{escape(' '.join(row.words))}</p>" if row.words else ""
    return f"<article><h2>{escape(row.title)}</h2>{''.join(parts)}{said}</article>"


def _figure(look: Look) -> str:
    return figure(" · ".join(filter(None, (look.caption, look.name))), drawn(look))
