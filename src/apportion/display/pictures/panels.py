"""Pictures side by side as a matplotlib figure: prototypes with what looks like them, and the gallery of a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from apportion.display.html import Pixels, read_data_uri
from apportion.display.page_data import Article, Box, Panel, Picture, Sheet
from apportion.display.page_data import Figure as FigureData
from apportion.display.sheet import Corners, product_in_words
from apportion.display.views import FOR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE, BESIDE = 1.5, 1.6  # inches: a picture, and the words beside a row
ROWS = 10


def draw_frame(picture: Pixels, box: Corners) -> Pixels:
    """The picture with the box drawn around its patch, a 64th of the picture wide; where there is room a
    thin white line is around it, so that it is seen on its own colour too."""
    shown = picture.copy()
    wide = max(1, min(shown.shape[:2]) // 64)
    line = wide // 2
    patch = _inside(shown, box, line + wide).copy()
    _inside(shown, box, 0)[:] = 255
    _inside(shown, box, line)[:] = FOR
    _inside(shown, box, line + wide)[:] = patch
    return shown


def _inside(picture: Pixels, box: Corners, by: int) -> Pixels:
    """What of the picture is in the box and at least `by` pixels from its edge."""
    top, bottom, left, right = box
    return picture[top + by : max(0, bottom - by), left + by : max(0, right - by)]


def draw(sheet: Sheet) -> Figure:
    """A row of pictures for each article, beside its words; above the first picture of a group is its heading."""
    articles = [article for chapter in sheet["chapters"] for article in chapter["articles"]]
    many = max((sum(len(g["figures"]) for g in article["groups"]) for article in articles), default=1)
    beside = BESIDE if any("words" in article for article in articles) else 0.0
    figure, axes = _table(max(1, len(articles)), many, beside)
    for ax in axes.flat:
        ax.axis("off")
    for line, article in zip(axes, articles, strict=False):
        above = article["title"]
        places = iter(line)
        for group in article["groups"]:
            above = group.get("heading", above)
            for shown in group["figures"]:
                _show(last := next(places), shown, above)
                above = ""
        if "words" in article:
            _write_beside(last, [*article["words"], "", shown.get("name", "")])
    said = " · ".join(filter(None, (sheet.get("about"), sheet.get("end"))))
    figure.suptitle(_escape_math(f"{sheet['title']}\n{said}".rstrip()), fontsize=10)
    return figure


def draw_panels(found: Mapping[str, Any]) -> Figure:
    """Reasons without maps, from what a page is given: the `picture`, and `rows` as `panels` makes them."""
    articles = [_panel(row, found["picture"]) for row in found["rows"][:ROWS]]
    return draw({"kind": "sheet", "title": "", "layout": "list", "chapters": [{"articles": articles}]})


def _panel(row: Panel, picture: str) -> Article:
    source = row["source"]
    theirs = Picture(src=source["picture"], box=source["box"])
    figures: list[FigureData] = [
        {"caption": "this", "pictures": [{"src": picture, "box": row["box"]}]},
        {"caption": "looks like that", "name": source["name"], "pictures": [theirs]},
    ]
    words = product_in_words(row["similarity"], row["weight"], row["contribution"])
    return {"title": row["name"], "groups": [{"figures": figures}], "words": words}


def _corners(box: Box, picture: Pixels) -> Corners:
    height, width = picture.shape[:2]
    top, bottom, left, right = (
        round(s * n) for s, n in zip(box, (height, height, width, width), strict=True)
    )
    return top, bottom, left, right


def _table(rows: int, columns: int, beside: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    size = (columns * SIDE * 1.1 + beside, rows * SIDE * 1.3 + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _show(ax: Any, figure: FigureData, above: str) -> None:
    picture = figure["pictures"][-1]
    pixels = read_data_uri(picture["src"])
    shown = draw_frame(pixels, _corners(picture["box"], pixels)) if "box" in picture else pixels
    ax.imshow(shown, interpolation="nearest" if pixels.shape[0] < 64 else None)
    ax.set_title(_escape_math(f"{above}\n{figure['caption']}".strip()), fontsize=7, loc="left")


def _write_beside(ax: Any, lines: Sequence[str]) -> None:
    text = _escape_math("\n".join(lines))
    ax.annotate(text, (1.05, 0.5), xycoords="axes fraction", fontsize=8, va="center")


def _escape_math(text: str) -> str:
    """Names of files and classes may hold what matplotlib takes for mathematics."""
    return text.replace("$", r"\$")
