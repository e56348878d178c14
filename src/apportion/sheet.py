"""Pictures side by side as data for the one page: prototypes, clusters, mean maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from apportion.looks import Box, Look, Row, Rows, shares
from apportion.markup import SMALL, Pixels, data_uri, shell, versions
from apportion.models.prototypes.pictures import heated
from apportion.page_data import Article, Chapter, Figure, Group, Means, Picture, Sheet
from apportion.results.words import signed

Layout = Literal["list", "cards", "small"]


def page(
    title: str,
    chapters: Sequence[Chapter],
    about: str = "",
    end: str = "",
    key: bool = False,
    layout: Layout = "list",
) -> str:
    """One self-contained HTML page. With `key` it says that colours speak for and against; `layout` says whether
    articles stand below one another or side by side, as cards or small ones."""
    made = Sheet(
        kind="sheet",
        title=title,
        about=about,
        key=key,
        layout=layout,
        chapters=list(chapters),
        end=end,
        versions=versions(),
    )
    return shell(made, title, list(_plain(made)))


def rows_page(rows: Rows) -> str:
    """The page of rows of pictures."""
    return page(rows.title, [chapter(list(map(_row, rows.rows)))], rows.about, rows.end)


def chapter(articles: Sequence[Article], title: str = "", about: str = "") -> Chapter:
    return {"title": title, "about": about, "articles": list(articles)}


def article(
    title: str,
    groups: Sequence[Group] = (),
    detail: str = "",
    words: str = "",
    means: Sequence[Means] = (),
    alike: bool = False,
) -> Article:
    return {
        "title": title,
        "detail": detail,
        "alike": alike,
        "groups": list(groups),
        "words": words,
        "means": list(means),
    }


def group(figures: Sequence[Figure], heading: str = "") -> Group:
    return {"heading": heading, "figures": list(figures)}


def figure(caption: str, *pictures: Pixels, box: Box | None = None) -> Figure:
    """Pictures above one another, the last with a box on it; the caption is what a reader without eyes gets of
    them too."""
    shown = [_picture(pixels, box if pixels is pictures[-1] else None) for pixels in pictures]
    return {"caption": caption, "pictures": shown}


def _picture(pixels: Pixels, box: Box | None) -> Picture:
    return {
        "src": data_uri(pixels),
        "squares": max(pixels.shape[:2]) <= SMALL,
        "box": None if box is None else shares(box, pixels),
    }


def _row(row: Row) -> Article:
    groups = [group(list(map(_look, looks)), heading) for heading, looks in row.groups]
    return article(row.title, groups, words=" ".join(row.words))


def _look(look: Look) -> Figure:
    shown = look.picture if look.heat is None else heated(look.picture, look.heat)
    return figure(": ".join(filter(None, (look.caption, look.name))), shown, box=look.box)


def _plain(sheet: Sheet) -> Iterator[str]:
    """What a reader without scripts gets."""
    yield from (sheet["title"], sheet["about"])
    for part in sheet["chapters"]:
        yield from ("", part["title"], part["about"])
        for one in part["articles"]:
            yield " ".join(filter(None, (one["title"], one["detail"], one["words"])))
            for found in one["means"]:
                yield from (f"  {name}: {signed(mean)} in {count}" for name, mean, count in found["rows"])
    yield sheet["end"]
