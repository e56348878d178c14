"""Clusters of a run, and what its explanations have in common, as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from apportion.bulk._folders import Files, Listing
from apportion.bulk.clustering import Cluster, Clustered
from apportion.bulk.reading import Run
from apportion.bulk.sources import open_source
from apportion.bulk.summaries import Summary
from apportion.core.classifier import Classifier
from apportion.core.features import ImageFeatures
from apportion.display.html import Pixels
from apportion.display.page_data import Article, Chapter, Figure, Group, Layout, Means, Sheet
from apportion.display.pictures.explanations import colour_map, fade_photo
from apportion.display.sheet import figure, sheet_page
from apportion.display.views import HeatView
from apportion.errors import InputError

EXAMPLES = 5
SUSPICIOUS = 0.3
SIDE = 160  # pixels of an example


def clusters_page(run: Run, found: Sequence[Clustered], model: Classifier | None = None) -> str:
    """A chapter for each class, the most suspicious first: its clusters with mean map and typical examples.

    Pictures are read again from the run's data with `model` (default: loaded by its name); where that cannot be
    done, the maps stand alone and the page says so.
    """
    photo, note = photos(run, model)
    chapters: list[Chapter] = []
    for one in found:
        values = " ".join(f"{value:.3f}" for value in one.eigenvalues)
        about = (
            f"{sum(len(c.members) for c in one.clusters)} maps in {len(one.clusters)} clusters; agreement of all "
            f"{one.agreement:.2f}; eigenvalues {values}"
        )
        articles = [_cluster(run, cluster, photo) for cluster in one.clusters]
        chapters.append(Chapter(title=one.label, about=about, articles=articles))
    about = (
        f"{_of_what(run)} Maps that are much more alike than those of the class point at something that the model "
        "reads at one place whatever else the picture shows: a watermark, a border, a caption." + note
    )
    return _page("Clusters of explanations", about, "list", chapters)


def summary_page(run: Run, found: Summary, top: int = 10) -> str:
    """For each class its mean map, or the features and the pairs of features with the largest |relevance|."""
    articles: list[Article] = []
    for label, many in found.counts.items():
        maps = [_heat(found.maps[label].numpy(), None, "mean map")] if label in found.maps else []
        means: list[Means] = [
            {"what": what, "rows": [(m.name, m.mean, m.count) for m in by_label[label][:top]]}
            for what, by_label in (("feature", found.features), ("pair", found.pairs))
            if label in by_label
        ]
        detail = f"{many}\N{NO-BREAK SPACE}input{'' if many == 1 else 's'}"
        groups: list[Group] = [{"figures": maps}] if maps else []
        articles.append({"title": label, "detail": detail, "groups": groups, "means": means})
    layout: Layout = "small" if found.maps else "cards"
    return _page("Mean explanations", _of_what(run), layout, [{"articles": articles}])


def _page(title: str, about: str, layout: Layout, chapters: list[Chapter]) -> str:
    return sheet_page(
        Sheet(kind="sheet", title=title, about=about, key=True, layout=layout, chapters=chapters)
    )


def _cluster(run: Run, cluster: Cluster, photo: Callable[[int], Pixels | None]) -> Article:
    figures = [_heat(cluster.mean, None, "mean map")]
    for place in cluster.members[:EXAMPLES]:
        row = run[place]
        values: Any = row["values"]
        values = (values.sum(0) if values.dim() == 3 else values).double().numpy()
        figures.append(_heat(values, photo(row["index"]), str(row["id"])))
    alike = cluster.excess > SUSPICIOUS
    others = "" if cluster.others is None else f"; of the others {cluster.others:.2f}"
    remark = " – much more alike than the class" if alike else ""
    detail = f"agreement {cluster.agreement:.2f}{others}{remark}"
    title = f"{len(cluster.members)} maps"
    return {"title": title, "detail": detail, "alike": alike, "groups": [{"figures": figures}]}


def photos(run: Run, model: Classifier | None = None) -> tuple[Callable[[int], Pixels | None], str]:
    """From the number of an input to its picture as the model saw it; and what to say if there are none."""
    named = run.manifest
    try:
        if model is None:
            if not (named.model and named.data):
                return lambda _: None, " The pictures are not shown: model and data were given in memory."
            from apportion.models import load_classifier

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
    return f"{run.manifest.method} of {len(run)} inputs of {run.manifest.data or 'a dataset'}."
