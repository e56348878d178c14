"""Clusters and mean maps as one self-contained HTML page without scripts: no request leaves it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from apportion.bulk.clustering import Cluster, Clustered
from apportion.bulk.reading import Run
from apportion.bulk.sources import Files, Listing, open_source
from apportion.domains import Classifier
from apportion.errors import InputError
from apportion.features import ImageFeatures
from apportion.pictures import coloured, quiet
from apportion.views import Heat

EXAMPLES = 5
SUSPICIOUS = 0.3
SIDE = 160  # pixels of an example
Pixels = npt.NDArray[np.uint8]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 76rem; padding: 1.5rem; color: #1b1d22;
  background: #f6f5f1 }
section { margin: 2.5rem 0 } h1 { font-size: 1.6rem } h2 { font-size: 1.25rem; margin: 0 } p { margin: .3rem 0 }
.quiet { color: #59606c; font-size: .88rem } .n { font-variant-numeric: tabular-nums }
article { background: #fff; border: 1px solid #dcdad3; border-radius: 8px; padding: 1rem; margin: .8rem 0;
  display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start }
article > div { min-width: 10rem; max-width: 14rem } figure { margin: 0; width: 8.5rem }
figure img { width: 100%; display: block; border-radius: 4px; image-rendering: pixelated; background: #fff }
figcaption { font-size: .72rem; color: #59606c; overflow-wrap: anywhere } .mean { width: 8.5rem }
.alike { border-color: #d55e00; box-shadow: inset 4px 0 #d55e00 }
@media (prefers-color-scheme: dark) { body { background: #14161a; color: #ececee }
  article { background: #1d2026; border-color: #343944 } .quiet, figcaption { color: #a4abb8 }
  .alike { border-color: #ff9a4d } }
"""


def clusters_page(run: Run, found: Sequence[Clustered], model: Classifier | None = None) -> str:
    """A section for each class, the most suspicious first: its clusters with mean map and typical examples.

    Pictures are read again from the run's data with `model` (default: loaded by its name); where that cannot be
    done, the maps stand alone and the page says so.
    """
    photo, note = photos(run, model)
    body = [
        f"<h1>Clusters of explanations</h1><p class=quiet>{_text(run.manifest.method)} of {len(run)} inputs of "
        f"{_text(run.manifest.data or 'a dataset')}. Maps that are much more alike than those of the class point at "
        "something that the model reads at one place whatever else the picture shows: a watermark, a border, a "
        f"caption. Orange speaks for the class, blue against it.{_text(note)}</p>"
    ]
    for clustered in found:
        values = " ".join(f"{value:.3f}" for value in clustered.eigenvalues)
        body.append(
            f"<section><h2>{_text(clustered.label)}</h2><p class='quiet n'>"
            f"{sum(len(c.members) for c in clustered.clusters)} maps in {len(clustered.clusters)} clusters; agreement "
            f"of all {clustered.agreement:.2f}; eigenvalues {values}</p>"
        )
        body += [_cluster(run, clustered, one, photo) for one in clustered.clusters]
        body.append("</section>")
    return _page("Clusters of explanations", body)


def maps_page(run: Run, maps: dict[str, Any], counts: dict[str, int]) -> str:
    """The mean map of each class."""
    body = ["<h1>Mean explanations</h1>"]
    for label, values in maps.items():
        picture = _heat(values.numpy(), None, label)
        body.append(
            f"<article>{picture}<div><h2>{_text(label)}</h2><p>{counts[label]} maps</p></div></article>"
        )
    return _page(f"Mean explanations of {run.manifest.data}", body)


def _cluster(run: Run, clustered: Clustered, cluster: Cluster, photo: Callable[[int], Pixels | None]) -> str:
    mean = _heat(cluster.mean, None, "mean map")
    examples = []
    for place in cluster.members[:EXAMPLES]:
        row = run[place]
        values: Any = row["values"]
        values = (values.sum(0) if values.dim() == 3 else values).double().numpy()
        examples.append(_heat(values, photo(row["index"]), str(row["id"])))
    alike = cluster.suspicion > SUSPICIOUS
    others = "" if cluster.others is None else f"<br>of the others {cluster.others:.2f}"
    return (
        f"<article{' class=alike' if alike else ''}><div><p><b class=n>{len(cluster.members)} maps</b></p>"
        f"<p class=n>agreement {cluster.agreement:.2f}{others}</p></div>{mean}{''.join(examples)}</article>"
    )


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
    """A figure: the map, on its picture in grey where there is one."""
    shown = Heat(values)
    heat = Image.fromarray(coloured(shown)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    ground = Image.new("RGBA", (SIDE, SIDE), "white")
    if photo is not None:
        ground = Image.fromarray(quiet(photo)).convert("RGBA").resize((SIDE, SIDE))
    figure = Image.alpha_composite(ground, heat).convert("RGB")
    plain = "" if photo is None else _image(Image.fromarray(photo).resize((SIDE, SIDE)), "")
    text = _text(caption if len(caption) < 80 else f"…{caption[-79:]}")
    return f"<figure>{plain}{_image(figure, text)}<figcaption>{text}</figcaption></figure>"


def _image(picture: Image.Image, description: str) -> str:
    data = io.BytesIO()
    picture.save(data, "webp", quality=80)
    return (
        f'<img alt="{description}" src="data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}">'
    )


def _page(title: str, body: Sequence[str]) -> str:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{_text(title)} · apportion</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _text(text: str) -> str:
    return html.escape(text)
