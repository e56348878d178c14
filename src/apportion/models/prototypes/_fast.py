"""The fast recipe: prototypes are chosen among k-medoids of the patches of their class, so that none is pushed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.core.progress import progress
from apportion.models.prototypes._backbone_features import Grids
from apportion.models.prototypes._network import Centre, PrototypeNet
from apportion.models.prototypes._push import Nearest
from apportion.models.prototypes._training import Trained, finish
from apportion.models.prototypes.settings import Fast


def train(grids: Grids, labels: Tensor, classes: int, per_class: int, recipe: Fast, seed: int) -> Trained:
    """Cluster, prune, choose by the last layer: one pass over the kept grids for each."""
    kept = grids.kept
    if kept is None:
        raise ValueError("the fast recipe needs kept grids")
    centre = Centre(kept.mean((0, 2, 3)))
    rows, columns = kept.shape[2:]
    random = torch.Generator().manual_seed(seed)
    chosen, class_of = [], []
    for (label,) in progress([(c,) for c in range(classes)], classes, "k-medoids"):
        members = (labels == label).nonzero().flatten()
        many = len(members) * rows * columns
        picked = torch.randperm(many, generator=random)[: recipe.patches].sort().values.to(kept.device)
        image, place = members[picked // (rows * columns)], picked % (rows * columns)
        patches = kept[image, :, place // columns, place % columns] - centre.mean
        wanted = min(per_class * recipe.candidates, len(patches))
        medoids = k_medoids(patches, wanted, recipe.rounds, random)
        chosen.append((image[medoids], place[medoids]))
        class_of += [label] * wanted
    image, place = (torch.cat(parts) for parts in zip(*chosen, strict=True))
    vectors = kept[image, :, place // columns, place % columns] - centre.mean
    owners = torch.tensor(class_of, device=kept.device)
    net = PrototypeNet(grids.backbone, centre, vectors, owners, classes, "cosine").to(kept.device).eval()
    found = Nearest(image[:, None], place[:, None], torch.ones_like(vectors[:, :1]), vectors)
    return finish(net, grids, labels, found, per_class, recipe, [])


def k_medoids(points: Tensor, k: int, rounds: int, random: torch.Generator) -> Tensor:
    """The numbers of k points such that the cosines of all points to the nearest of them are large.

    Seeded like k-means++ (Arthur & Vassilvitskii 2007), then points go to their nearest medoid and medoids to
    the point with the largest sum of cosines to its cluster, until nothing moves. That sum is the inner product
    with the sum of the cluster's unit vectors, so a round costs no more than one of k-means.

    >>> points = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [0.0, 1.0], [0.1, 1.0], [0.2, 1.0]])
    >>> k_medoids(points, 2, 10, torch.Generator().manual_seed(0)).sort().values.tolist()
    [1, 4]
    """
    unit = F.normalize(points, dim=1)
    medoids = _seeds(unit, k, random)
    for _ in range(rounds):
        cluster = (unit @ unit[medoids].t()).argmax(1)
        cluster[medoids] = torch.arange(k, device=unit.device)  # of two equal points each keeps its own
        sums = torch.zeros(k, unit.shape[1], dtype=unit.dtype, device=unit.device).index_add_(
            0, cluster, unit
        )
        closeness = (unit * sums[cluster]).sum(1)
        order = closeness.argsort(descending=True, stable=True)
        order = order[cluster[order].argsort(stable=True)]  # by cluster, the closest first
        first = torch.cat([order.new_zeros(1), cluster.bincount(minlength=k).cumsum(0)[:-1]])
        moved = order[first]
        if torch.equal(moved, medoids):
            break
        medoids = moved
    return medoids


def _seeds(unit: Tensor, k: int, random: torch.Generator) -> Tensor:
    """k different points, each drawn in proportion to its distance from those before."""
    chosen = [int(torch.randint(len(unit), (1,), generator=random))]
    distance = torch.full((len(unit),), torch.inf, dtype=unit.dtype, device=unit.device)
    for _ in range(k - 1):
        distance = torch.minimum(distance, 1 - unit @ unit[chosen[-1]]).clamp(min=0)
        weight = distance.cpu().double() + 1e-9
        weight[chosen] = 0
        chosen.append(int(torch.multinomial(weight, 1, generator=random)))
    return torch.tensor(chosen, device=unit.device)
