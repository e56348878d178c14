"""Clusters of a run, and what its explanations have in common, as one self-contained HTML page without scripts."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from apportion.bulk.clustering import Cluster, Clustered
from apportion.bulk.folders import Files, Listing
from apportion.bulk.reading import Run
from apportion.bulk.sources import open_source
from apportion.bulk.summaries import Mean, Summary
from apportion.core.classifier import Classifier
from apportion.errors import InputError
from apportion.features import ImageFeatures
from apportion.markup import Pixels, figure, looks, still
from apportion.pictures import coloured, quiet
from apportion.results.words import signed
from apportion.views import Heat

EXAMPLES = 5
SUSPICIOUS = 0.3
SIDE = 160  # pixels of an example
FOR, AGAINST = (f'<span class="chip {side}">speaks {side} it</span>' for side in ("for", "against"))
KEY = f'<p class="key">{FOR} {AGAINST}</p>'


def clusters_page(run: Run, found: Sequence[Clustered], model: Classifier | None = None) -> str:
    """A section for each class, the most suspicious first: its clusters with mean map and typical examples.

    Pictures are read again from the run's data with `model` (default: loaded by its name); where that cannot be
    done, the maps stand alone and the page says so.
    """
    photo, note = photos(run, model)
    body = [
        f'<p class="about">{_text(run.manifest.method)} of {len(run)} inputs of {_data(run)}. Maps that are much '
        "more alike than those of the class point at something that the model reads at one place whatever else the "
        f"picture shows: a watermark, a border, a caption.{_text(note)}</p>{KEY}"
    ]
    for clustered in found:
        values = " ".join(f"{value:.3f}" for value in clustered.eigenvalues)
        body.append(
            f'<section><h2>{_text(clustered.label)}</h2><p class="quiet">'
            f"{sum(len(c.members) for c in clustered.clusters)} maps in {len(clustered.clusters)} clusters; agreement "
            f"of all {clustered.agreement:.2f}; eigenvalues {values}</p>"
        )
        body += [_cluster(run, clustered, one, photo) for one in clustered.clusters]
        body.append("</section>")
    return still("Clusters of explanations", body)


def summary_page(run: Run, found: Summary, top: int = 10) -> str:
    """For each class its mean map, or the features and the pairs of features with the largest |relevance|."""
    cards = []
    for label, many in found.counts.items():
        parts = [f"<h2>{_text(label)} <small>{many}&nbsp;input{'' if many == 1 else 's'}</small></h2>"]
        if label in found.maps:
            parts.append(looks([_heat(found.maps[label].numpy(), None, "mean map")]))
        for what, means in (("feature", found.features), ("pair", found.pairs)):
            if means.get(label):
                parts.append(_bars(what, means[label][:top]))
            elif label in means:
                parts.append(f'<p class="quiet">no {what} is in enough inputs to be shown</p>')
        cards.append(f"<article>{''.join(parts)}</article>")
    about = f'<p class="about">{_text(run.manifest.method)} of {len(run)} inputs of {_data(run)}.</p>{KEY}'
    kind = "cards small" if found.maps else "cards"
    return still("Mean explanations", [about, f'<div class="{kind}">', *cards, "</div>"])


def _cluster(run: Run, clustered: Clustered, cluster: Cluster, photo: Callable[[int], Pixels | None]) -> str:
    figures = [_heat(cluster.mean, None, "mean map")]
    for place in cluster.members[:EXAMPLES]:
        row = run[place]
        values: Any = row["values"]
        values = (values.sum(0) if values.dim() == 3 else values).double().numpy()
        figures.append(_heat(values, photo(row["index"]), str(row["id"])))
    opening, remark = ("<article>", "")
    if cluster.suspicion > SUSPICIOUS:
        opening, remark = '<article class="alike">', " – much more alike than the class"
    others = "" if cluster.others is None else f"; of the others {cluster.others:.2f}"
    return (
        f"{opening}<p><b>{len(cluster.members)} maps</b>, agreement {cluster.agreement:.2f}{others}{remark}</p>"
        f"{looks(figures)}</article>"
    )


def _bars(what: str, means: Sequence[Mean]) -> str:
    """Means as bars to both sides of a line."""
    largest = max(abs(mean.mean) for mean in means) or 1.0
    rows = "".join(
        f'<tr><th scope="row">{_text(mean.name)}</th><td class="track"><i class="{_side(mean.mean)}" style="width: '
        f'{50 * abs(mean.mean) / largest:.1f}%"></i></td><td class="n">{signed(mean.mean, largest)}</td>'
        f'<td class="n">{mean.count}</td></tr>'
        for mean in means
    )
    titles = (("", what), ("", ""), (' class="n"', "mean"), (' class="n"', "inputs"))
    head = "".join(f'<th scope="col"{kind}>{title}</th>' for kind, title in titles)
    return f'<table class="bars"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _side(value: float) -> str:
    return "for" if value >= 0 else "against"


def photos(run: Run, model: Classifier | None = None) -> tuple[Callable[[int], Pixels | None], str]:
    """From the number of an input to its picture as the model saw it; and what to say if there are none."""
    named = run.manifest
    try:
        if model is None:
            if not (named.model and named.data):
                return lambda _: None, " The pictures are not shown: model and data were given in memory."
            from apportion.models import load

            model = load(named.model)
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


# ---- pieces of a page ----


def _heat(values: npt.NDArray[np.float64], photo: Pixels | None, caption: str) -> str:
    """A figure: the map, beneath its picture and on it in grey where there is one."""
    high, wide = (values if photo is None else photo).shape[:2]
    size = (SIDE, max(1, round(SIDE * high / wide)))
    heat = Image.fromarray(coloured(Heat(values))).resize(size, Image.Resampling.NEAREST)
    ground = Image.new("RGBA", size, "white")
    if photo is not None:
        ground = Image.fromarray(quiet(photo)).convert("RGBA").resize(size)
    drawn = np.asarray(Image.alpha_composite(ground, heat).convert("RGB"))
    shown = (drawn,) if photo is None else (photo, drawn)
    return figure(caption if len(caption) < 80 else f"…{caption[-79:]}", *shown)


def _data(run: Run) -> str:
    return _text(run.manifest.data or "a dataset")


def _text(text: str) -> str:
    return html.escape(text)
