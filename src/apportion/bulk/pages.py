"""Clusters of a run, and what its explanations have in common, as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from apportion.bulk._folders import Files, Listing
from apportion.bulk.clustering import Cluster, Clustered
from apportion.bulk.reading import Run, label_of
from apportion.bulk.sources import open_source
from apportion.bulk.summaries import Summary
from apportion.core.classifier import Classifier
from apportion.core.features import ImageFeatures
from apportion.display.html import Pixels
from apportion.display.page import page
from apportion.display.page_data import Article, Chapter, Figure, Group, Layout, Means, Sheet
from apportion.display.pictures.explanations import colour_map, fade_photo
from apportion.display.sheet import figure, sheet_page
from apportion.display.views import HeatView
from apportion.errors import InputError
from apportion.results.words import format_number

EXAMPLES = 5
ANSWERS = 200  # on a page
CLASSES = 20  # of a summary, whose examples are drawn: the largest
SUSPICIOUS = 0.3
SIDE = 160  # pixels of an example


def clusters_page(run: Run, found: Sequence[Clustered], model: Classifier | None = None) -> str:
    """A chapter for each class, the most suspicious first: its clusters with mean map and typical examples.

    Pictures are read again from the run's data with `model`; None: the model of the run, if it is one that ships. Any
    other is loaded only by whoever names it, as it may run code: else the maps stand alone and the page says so.
    """
    photo, note = photos(run, model)
    chapters: list[Chapter] = []
    for one in found:
        maps = sum(len(c.members) for c in one.clusters)
        many = "1 cluster" if len(one.clusters) == 1 else f"{len(one.clusters)} clusters"
        chapters.append(
            Chapter(
                title=one.label,
                about=f"{maps} maps in {many}; agreement of all {format_number(one.agreement)}",
                alike=any(c.excess > SUSPICIOUS for c in one.clusters),
                spectrum=[max(0.0, round(value, 4)) for value in one.eigenvalues],
                articles=[_cluster(run, cluster, photo) for cluster in one.clusters],
            )
        )
    about = (
        f"{_of_what(run)} A group that agrees much more than its class deserves a look: the model may read something "
        "at one place, such as a watermark, a border or a caption. There are about as many "
        "groups as eigenvalues near zero." + note
    )
    return _page("Clusters of explanations", about, "list", chapters, run)


def summary_page(run: Run, found: Summary, top: int = 10) -> str:
    """For each class its mean map with the first pictures that it is the mean of, or the features and the pairs of
    features with the largest |relevance|; of answers of a language model the first of them."""
    if run.of_answers:
        return page([run.explanation(place) for place in range(min(len(run), ANSWERS))])
    articles: list[Article] = []
    first, (photo, note) = _first_places(run, found), photos(run) if found.maps else (None, "")
    for label, many in found.counts.items():
        maps = [_heat(found.maps[label].numpy(), None, "mean map")] if label in found.maps else []
        if maps and photo is not None:
            maps += [_example(run, place, photo) for place in first.get(label, ())]
        means: list[Means] = [
            {"what": what, "rows": [(m.name, m.mean, m.count, m.size) for m in by_label[label][:top]]}
            for what, by_label in (("feature", found.features), ("pair", found.pairs))
            if label in by_label
        ]
        detail = f"{many}\N{NO-BREAK SPACE}input{'' if many == 1 else 's'}"
        groups: list[Group] = [{"figures": maps}] if maps else []
        articles.append({"title": label, "detail": detail, "groups": groups, "means": means})
    layout: Layout = "list" if any(map(first.get, found.maps)) else "small" if found.maps else "cards"
    return _page("Mean explanations", _of_what(run) + note, layout, [{"articles": articles}], run)


def _first_places(run: Run, found: Summary) -> dict[str, list[int]]:
    """The places in the run of the first inputs of each of its largest classes."""
    places: dict[str, list[int]] = {
        label: [] for label in list(found.counts)[:CLASSES] if label in found.maps
    }
    for place, row in enumerate(run.rows()):
        mine = places.get(label_of(row))
        if mine is not None and len(mine) < EXAMPLES:
            mine.append(place)
    return places


def _page(title: str, about: str, layout: Layout, chapters: list[Chapter], run: Run) -> str:
    made = Sheet(kind="sheet", title=title, about=about, key=True, layout=layout, chapters=chapters)
    return sheet_page({**made, "settings": run.manifest.method, "folded": len(chapters) > 1})


def _cluster(run: Run, cluster: Cluster, photo: Callable[[int], Pixels | None]) -> Article:
    figures = [_heat(cluster.mean, None, "mean map")]
    figures += [_example(run, place, photo) for place in cluster.members[:EXAMPLES]]
    alike = cluster.excess > SUSPICIOUS
    others = "" if cluster.others is None else f"; of the others {format_number(cluster.others)}"
    remark = " – much more alike than the class" if alike else ""
    detail = f"agreement {format_number(cluster.agreement)}{others}{remark}"
    title = f"{len(cluster.members)} maps"
    return {"title": title, "detail": detail, "alike": alike, "groups": [{"figures": figures}]}


def _example(run: Run, place: int, photo: Callable[[int], Pixels | None]) -> Figure:
    """One input of the run: its map, beneath its picture where that is there."""
    row = run[place]
    values: Any = row["values"]
    values = (values.sum(0) if values.dim() == 3 else values).double().numpy()
    return _heat(values, photo(row["index"]), str(row["id"]))


def photos(run: Run, model: Classifier | None = None) -> tuple[Callable[[int], Pixels | None], str]:
    """From the number of an input to its picture as the model saw it; and what to say if there are none."""
    named = run.manifest
    try:
        if model is None:
            if not (named.model and named.data):
                return lambda _: None, " The pictures are not shown: model and data were given in memory."
            from apportion.models import SHIPPED, load_classifier

            if named.model not in SHIPPED:
                return lambda _: None, _NOT_LOADED.format(named.model)
            model = load_classifier(named.model)
        source = open_source(named.data, named.domain, named.column, named.id_column)
        listing = run.folder / f"inputs-{named.data_fingerprint[:12]}.txt"
        if isinstance(source, Files) and listing.exists():  # the files as they were then
            source = Files(source.root, Listing(listing))
        elif source.fingerprint != named.data_fingerprint:
            return lambda _: None, " The pictures are not shown: the data changed since."
    except (InputError, OSError) as error:
        return lambda _: None, f" The pictures are not shown: {error}"
    encode, inputs = model.encode, source

    def photo(index: int) -> Pixels | None:
        try:
            features = encode(inputs.read(index))[1]
        except (ValueError, OSError):  # gone or changed since
            return None
        return features.picture.cpu().numpy() if isinstance(features, ImageFeatures) else None

    return photo, ""


# A run may come from somebody else, and a model may run code.
_NOT_LOADED = (
    " The pictures are not shown: the model of this run, {!r:.200}, is not one that ships, and is loaded only where "
    "you name it: apportion cluster … --model …"
)


def _heat(values: npt.NDArray[np.float64], photo: Pixels | None, caption: str) -> Figure:
    """A figure: the map, beneath its picture and on it in grey where there is one."""
    high, wide = (values if photo is None else photo).shape[:2]
    size = (SIDE, max(1, round(SIDE * high / wide)))
    heat = Image.fromarray(colour_map(HeatView(values))).resize(size, Image.Resampling.NEAREST)
    ground = Image.new("RGBA", size, "white")
    if photo is not None:
        ground = Image.fromarray(fade_photo(photo)).convert("RGBA").resize(size)
    drawn = np.asarray(Image.alpha_composite(ground, heat).convert("RGB"))
    shown = (drawn,) if photo is None else (photo, drawn)
    return figure(caption if len(caption) < 80 else f"…{caption[-79:]}", *shown)


def _of_what(run: Run) -> str:
    used = run[0]["method"] if len(run) else run.manifest.method  # of the default, what it chose
    return f"{used.partition('(')[0]} of {len(run)} inputs of {run.manifest.data or 'a dataset'}."
