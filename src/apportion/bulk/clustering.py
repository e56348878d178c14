"""Spectral relevance analysis: do the maps of a class fall into groups, and is one of them suspiciously alike?

A model that reads a watermark gives all pictures with it the same map, whatever else they show.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from apportion.bulk._shards import on_one_grid, pool_map
from apportion.bulk.reading import Run, label_of
from apportion.errors import InputError

Array = npt.NDArray[np.float64]

MOST_CLUSTERS = 8
FEWEST = 4  # maps of a class
SAME = (
    0.8  # share of the mean cosine within two clusters that their maps have across, from which they are one
)
HALF = 8  # maps at which a cluster has half of the suspicion that as many as there may be would have
MOST_MAPS = 2000  # of a class; the eigenvectors of more take minutes


@dataclass(frozen=True, eq=False)
class Cluster:
    """Maps that are alike. `members` are their places in the run, the most typical first; `mean` is the
    (height, width) mean of the maps, each divided by its norm; `agreement` is the norm of that mean: 1 if all
    maps are the same, about 1/√n if they have nothing in common; `others` is that of all other maps of the
    class (None if there are none)."""

    members: tuple[int, ...]
    mean: Array
    agreement: float
    others: float | None

    @property
    def excess(self) -> float:
        """How much more alike its maps are than all others of the class, in mean cosine."""
        return 0.0 if self.others is None else mean_cosine(self.agreement, len(self.members)) - self.others**2

    @property
    def suspicion(self) -> float:
        """The mean cosine of different maps, times n / (n + 8), since a few maps are soon alike by chance: near 1 for a
        watermark in many pictures that share nothing else, about 0 for maps with nothing in common, whatever n; 0 for
        a class that is one cluster."""
        many = len(self.members)
        return 0.0 if self.others is None else many / (many + HALF) * mean_cosine(self.agreement, many)


@dataclass(frozen=True, eq=False)
class Clustered:
    """The clusters of the maps of one class, the most suspicious first; `eigenvalues` are the smallest of the
    graph's Laplacian (as many near 0 as there are groups apart), `agreement` is that of all its maps."""

    label: str
    clusters: tuple[Cluster, ...]
    eigenvalues: tuple[float, ...]
    agreement: float


def cluster(
    run: Run, *, classes: Sequence[str] = (), clusters: int | None = None, side: int = 16, least: int = 20
) -> list[Clustered]:
    """Cluster the maps of each class of a run: spectral relevance analysis (SpRAy; Lapuschkin et al. 2019).

    As in fig. 3 and methods there: maps are summed to cells (those of pictures of several sizes are put on one grid)
    and divided by their norm; the nearest neighbours of each (as many as the logarithm of their number) make a graph;
    the eigenvectors of its normalised Laplacian are clustered by k-means (Ng et al. 2001). Clusters whose maps are
    about as alike to each other's as among themselves are joined, since the eigengap cuts a group that is not round.
    The class with the most suspicious cluster comes first. Of more than 2000 maps of a class an even choice is taken.

    Raises InputError for a run without maps that have a height and a width, and for `least` below 4, which have no
    neighbours to speak of.

    Args:
        run (Run): The run.
        classes (sequence of str, default ()): Names or numbers of classes; (): all.
        clusters (int, default None): Clusters of each class; None: as many as its largest eigengap says, up to 8, less
            those that are joined.
        side (int, default 16): Cells a side that maps are summed to at most.
        least (int, default 20): Maps below which a class is left out.
    """
    if least < FEWEST:
        raise InputError(f"least is {least}; accepted: at least {FEWEST}")
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(run.rows()):
        label = label_of(row)
        if not classes or label in classes or str(row["target"]) in classes:
            places[label].append(place)
    if classes and not places:
        raise InputError(
            f"no map of {', '.join(classes)} is in {run.folder}; accepted: names or numbers of classes"
        )
    large = {label: found for label, found in places.items() if len(found) >= least}
    if not large:
        most = max(map(len, places.values()), default=0)
        enough = f"least from {FEWEST} to {most}" if most >= FEWEST else f"runs with {FEWEST} maps of a class"
        raise InputError(
            f"no class of {run.folder} has {least} maps: the largest has {most}; accepted: {enough}"
        )
    found = [_cluster_class(run, label, members, clusters, side) for label, members in large.items()]
    return sorted(found, key=lambda clustered: -clustered.clusters[0].suspicion)


def _cluster_class(run: Run, label: str, members: list[int], clusters: int | None, side: int) -> Clustered:
    chosen = np.linspace(0, len(members) - 1, min(len(members), MOST_MAPS)).round().astype(int)
    places = [members[i] for i in chosen]
    maps = torch.stack(on_one_grid([_small(run, place, side) for place in places])).numpy()
    flat = maps.reshape(len(maps), -1)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-30)
    values, vectors = _spectrum(flat)
    many = clusters or int(np.diff(values)[:MOST_CLUSTERS].argmax()) + 1
    rows = vectors[:, :many]
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    labels = import_module("sklearn.cluster").KMeans(many, n_init=10, random_state=0).fit_predict(rows)
    groups = [np.flatnonzero(labels == number) for number in range(many)]
    made = []
    for inside in _joined(flat, groups) if clusters is None else groups:
        mean, outside = flat[inside].mean(0), np.delete(flat, inside, 0)
        others = float(np.linalg.norm(outside.mean(0))) if len(outside) else None
        order = inside[np.argsort(-(flat[inside] @ mean), kind="stable")]
        typical = tuple(places[i] for i in order)
        made.append(Cluster(typical, mean.reshape(maps.shape[1:]), float(np.linalg.norm(mean)), others))
    made.sort(key=lambda found: -found.suspicion)
    overall = float(np.linalg.norm(flat.mean(0)))
    return Clustered(label, tuple(made), tuple(values[: MOST_CLUSTERS + 1].tolist()), overall)


def mean_cosine(agreement: float, many: int) -> float:
    """The mean cosine of each two of `many` maps of norm 1 whose mean has this norm.

    >>> mean_cosine(1.0, 5), abs(mean_cosine(5**-0.5, 5)) < 1e-9
    (1.0, True)
    """
    return (many * agreement**2 - 1) / (many - 1) if many > 1 else 0.0


def _joined(flat: Array, groups: Sequence[npt.NDArray[np.intp]]) -> list[npt.NDArray[np.intp]]:
    """The groups, the two most alike joined as long as their maps are about as alike as those of one."""
    found = list(groups)
    while len(found) > 1:
        means = np.stack([flat[group].mean(0) for group in found])
        own = np.array(
            [mean_cosine(float(np.linalg.norm(m)), len(g)) for m, g in zip(means, found, strict=True)]
        )
        across = means @ means.T  # the mean cosine of a map of one and a map of the other
        across[np.diag_indices(len(found))] = -np.inf
        across[across < SAME * np.add.outer(own, own) / 2] = -np.inf
        one, other = np.unravel_index(across.argmax(), across.shape)
        if across[one, other] == -np.inf:
            break
        joined = np.sort(np.concatenate([found[one], found[other]]))
        found = [group for place, group in enumerate(found) if place not in (one, other)] + [joined]
    return found


def _small(run: Run, place: int, side: int) -> torch.Tensor:
    values = run.map(place)
    if not isinstance(values, torch.Tensor) or values.dim() not in (2, 3):
        raise InputError(f"the maps of {run.folder} have no height and width; accepted: maps of pictures")
    return pool_map(values.sum(0) if values.dim() == 3 else values, side).double()


def _spectrum(flat: Array) -> tuple[Array, Array]:
    """The smallest eigenvalues of the normalised Laplacian of the neighbours' graph, and their vectors."""
    graph: Any = import_module("sklearn.neighbors").kneighbors_graph(
        flat, min(len(flat) - 1, max(2, round(np.log(len(flat)))))
    )
    linked = graph.maximum(graph.T)
    laplacian = import_module("scipy.sparse.csgraph").laplacian(linked, normed=True).toarray()
    keep = min(len(flat), MOST_CLUSTERS + 2) - 1
    values, vectors = import_module("scipy.linalg").eigh(laplacian, subset_by_index=[0, keep])
    return values, vectors
