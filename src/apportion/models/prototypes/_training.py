"""The paper's recipe: warm-up, joint training, push, a convex last layer; resumed from a checkpoint after a kill."""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.core.progress import progress
from apportion.errors import InputError
from apportion.models.prototypes import _last_layer as last_layer
from apportion.models.prototypes._backbone_features import CHUNK, Grids
from apportion.models.prototypes._checkpoint import Checkpoint
from apportion.models.prototypes._network import PrototypeNet, add_on_layers, log_similarity, standardise
from apportion.models.prototypes._push import (
    Nearest,
    duplicates,
    find_nearest,
    merge_duplicates,
    own_neighbours,
    push,
    worth_keeping,
)
from apportion.models.prototypes.settings import LastLayer, Paper, Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A network whose prototypes are the patches `place` of the training images `image`, and what happened."""

    net: PrototypeNet
    image: Tensor
    place: Tensor
    history: list[dict[str, Any]]


def train(
    grids: Grids,
    labels: Tensor,
    classes: int,
    per_class: int,
    recipe: Paper,
    tune: bool,
    seed: int,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train by the paper's recipe; `checkpoint` is written after every epoch and resumed if it is there."""
    net = _fresh(grids, classes, per_class, recipe, seed)
    warm, joint = _optimisers(net, recipe, tune)
    history: list[dict[str, Any]] = []
    found: Nearest | None = None
    begin = 0
    if checkpoint is not None and (resumed := checkpoint.read(net, (warm, joint))) is not None:
        begin, history = resumed
    for epoch in range(begin, recipe.epochs):
        warming = epoch < recipe.warm_epochs
        for group in joint.param_groups:
            group["lr"] = group["initial_lr"] * recipe.decay ** (
                (epoch - recipe.warm_epochs) // recipe.decay_every
            )
        row = {
            "epoch": epoch + 1,
            **_epoch(net, grids, labels, warm if warming else joint, recipe, tune, seed + epoch),
        }
        net.eval()
        if not math.isfinite(row["loss"]):
            raise InputError(
                f"the loss is {row['loss']} in epoch {epoch + 1}: the training diverged; accepted: a smaller rate (now "
                f"{recipe.rate}, of the backbone {recipe.backbone_rate})"
            )
        if recipe.pushes_after(epoch + 1):
            found = push(net, grids.patches(net, "push"), labels)
            row |= _solve_anew(net, grids, labels, recipe.last, "after_push")
            row["duplicates"] = _many_duplicates(net, found)
        history.append(row)
        log.info("%s", row)
        if checkpoint is not None:
            checkpoint.write(net, (warm, joint), epoch + 1, history)
    net.eval()
    if found is None:  # a finished run that was resumed: the prototypes are patches already
        found = find_nearest(net, grids.patches(net, "push"), 1, labels)
    return finish(net, grids, labels, found, per_class, recipe, history)


def _fresh(grids: Grids, classes: int, per_class: int, recipe: Paper, seed: int) -> PrototypeNet:
    with torch.no_grad():
        example = grids.of(torch.zeros(1, dtype=torch.long))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        add_on = add_on_layers(example.shape[1], recipe.width).to(example)
        if recipe.standardise:
            standardise(add_on, *_moments(grids))
        prototypes = torch.rand(classes * per_class, recipe.width, dtype=torch.float32)
    class_of = torch.arange(classes).repeat_interleave(per_class)
    return PrototypeNet(grids.backbone, add_on, prototypes, class_of, classes).to(example)


@torch.no_grad()
def _moments(grids: Grids) -> tuple[Tensor, Tensor]:
    """(channels,) mean and deviation of the backbone's patches, in one pass."""
    near = grids.of(torch.zeros(1, dtype=torch.long)).mean((0, 2, 3))  # squares of what is left are small
    many, first, second = 0, torch.zeros_like(near), torch.zeros_like(near)
    for rows in progress(torch.arange(len(grids.images)).split(CHUNK), len(grids.images), "deviations"):
        rest = grids.of(rows) - near[:, None, None]
        many += rest[:, 0].numel()
        first += rest.sum((0, 2, 3))
        second += rest.square().sum((0, 2, 3))
    mean = first / many
    return near + mean, (second / many - mean.square()).clamp(min=0).sqrt()


def _optimisers(net: PrototypeNet, recipe: Paper, tune: bool) -> tuple[torch.optim.Adam, torch.optim.Adam]:
    add_on: dict[str, Any] = {"params": list(net.add_on.parameters()), "weight_decay": recipe.weight_decay}
    prototypes: dict[str, Any] = {"params": [net.prototypes]}
    net.last.requires_grad_(False)
    groups = [{**add_on}, {**prototypes}]
    if tune:
        every = list(net.backbone.parameters())
        backbone = [p for p in every if p.requires_grad] or every
        for parameter in backbone:
            parameter.requires_grad_()
        groups.append({"params": backbone, "weight_decay": recipe.weight_decay, "lr": recipe.backbone_rate})
    warm = torch.optim.Adam([add_on, prototypes], recipe.rate)
    joint = torch.optim.Adam(groups, recipe.rate)
    for group in joint.param_groups:
        group["initial_lr"] = group["lr"]
    return warm, joint


def _epoch(
    net: PrototypeNet,
    grids: Grids,
    labels: Tensor,
    optimiser: torch.optim.Adam,
    recipe: Paper,
    tune: bool,
    seed: int,
) -> dict[str, float]:
    """One pass over the images in an order that depends on the seed only; means over them."""
    net.train()
    net.backbone.train(tune)
    learns = any(p.requires_grad for p in net.backbone.parameters())
    sums = torch.zeros(5, device=labels.device)
    many = len(labels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # dropout in a backbone draws from it
        order = torch.cat([torch.randperm(many) for _ in range(recipe.passes)]).split(recipe.batch)
        for rows in progress(order, many * recipe.passes, "training"):
            with torch.set_grad_enabled(learns and len(optimiser.param_groups) > 2):
                grid = grids.of(rows)
            if recipe.hidden:
                grid = some_places(grid, recipe.hidden)
            costs, scores = _costs(net, net.add_on(grid), labels[rows], recipe)
            optimiser.zero_grad(set_to_none=True)
            costs[0].backward()
            optimiser.step()
            right = (scores.argmax(1) == labels[rows]).float().mean()
            sums += torch.stack([*costs, right]).detach() * len(rows)
    names = ("loss", "cross_entropy", "cluster", "separation", "accuracy")
    return dict(zip(names, (sums / (many * recipe.passes)).tolist(), strict=True))


def some_places(grid: Tensor, hidden: float) -> Tensor:
    """(batch, channels, places, 1): a share `hidden` of the places of each grid left out at random, one stays."""
    flat = grid.flatten(2)
    left = max(1, round(flat.shape[2] * (1 - hidden)))
    chosen = torch.rand(len(flat), flat.shape[2], dtype=torch.float32).argsort(1)[:, :left].to(flat.device)
    return flat.gather(2, chosen[:, None].expand(-1, flat.shape[1], -1))[..., None]


def _costs(
    net: PrototypeNet, patches: Tensor, labels: Tensor, recipe: Paper
) -> tuple[tuple[Tensor, ...], Tensor]:
    """The loss with its terms (eq. 1 and 2, the L1 term aside, which only the last layer feels), and scores."""
    distance = net.distances(patches).flatten(2).amin(2)  # (batch, prototypes)
    scores = net.last(log_similarity(distance))
    own = net.own_class()[labels]
    cluster = distance.masked_fill(~own, torch.inf).amin(1).mean()
    separation = distance.masked_fill(own, torch.inf).amin(1).mean()
    entropy = F.cross_entropy(scores, labels)
    loss = entropy + recipe.cluster * cluster - recipe.separation * separation
    return (loss, entropy, cluster, separation), scores


def _solve_anew(
    net: PrototypeNet, grids: Grids, labels: Tensor, settings: LastLayer, before: str
) -> dict[str, float]:
    """Solve the last layer on the largest similarities of all images; accuracies before and after."""
    table = similarity_table(net, grids)
    return {before: _accuracy(net, table, labels), **solve_last(net, table, labels, settings)}


def similarity_table(net: PrototypeNet, grids: Grids) -> Tensor:
    """(images, prototypes): the largest similarity of each image to each prototype."""
    table = net.prototypes.new_empty(len(grids.images), len(net.prototypes)).detach()
    for numbers, patches in grids.patches(net, "similarities"):
        with torch.no_grad():
            table[numbers] = net.similarities(patches).amax((2, 3))
    return table


def solve_last(net: PrototypeNet, table: Tensor, labels: Tensor, settings: LastLayer) -> dict[str, float]:
    weight, iterations = last_layer.solve(table, labels, net.own_class(), net.last.weight.detach(), settings)
    with torch.no_grad():
        net.last.weight.copy_(weight)
    return {"after_last_layer": _accuracy(net, table, labels), "iterations": iterations}


def _accuracy(net: PrototypeNet, table: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((net.last(table).argmax(1) == labels).double().mean())


def _many_duplicates(net: PrototypeNet, found: Nearest) -> int:
    first = duplicates(net.class_of, found.image[:, 0], found.place[:, 0])
    return len(first) - len(first.unique())


def finish(
    net: PrototypeNet,
    grids: Grids,
    labels: Tensor,
    found: Nearest,
    per_class: int,
    recipe: Recipe,
    history: list[dict[str, Any]],
) -> Trained:
    """Drop duplicates and what pruning drops, and solve the last layer for the rest; of more than `per_class`
    prototypes of a class those with the largest weights to it stay."""
    pruning, image, place = recipe.pruning, found.image[:, 0], found.place[:, 0]
    many = len(image)
    kept = merge_duplicates(net, duplicates(net.class_of, image, place))
    net.keep(kept)
    image, place = image[kept], place[kept]
    row: dict[str, Any] = {"prototypes": many, "duplicates": many - len(kept)}
    table = net.prototypes.new_empty(len(labels), len(kept)).detach()
    neighbours = find_nearest(
        net, grids.patches(net, "nearest patches"), pruning.nearest if pruning else 1, similarities=table
    )
    if pruning is not None:
        kept = worth_keeping(net.class_of, own_neighbours(net, neighbours, labels), pruning)
        row["pruned"] = len(image) - len(kept)
        net.keep(kept)
        image, place, table = image[kept], place[kept], table[:, kept]
    row |= solve_last(net, table, labels, recipe.last)
    kept = heaviest(net, per_class)
    if len(kept) < len(image):
        row["left_out"] = len(image) - len(kept)
        net.keep(kept)
        image, place, table = image[kept], place[kept], table[:, kept]
        row |= solve_last(net, table, labels, recipe.last)
    _warn(net, per_class)
    return Trained(net.eval().requires_grad_(False), image, place, [*history, row])


def heaviest(net: PrototypeNet, per_class: int) -> Tensor:
    """The numbers of the `per_class` prototypes of each class with the largest weights to it, in their order."""
    weight = net.last.weight.detach().masked_fill(~net.own_class(), -torch.inf)  # (classes, prototypes)
    ranked = weight.argsort(dim=1, descending=True, stable=True)[:, :per_class]
    return ranked[weight.gather(1, ranked) > -torch.inf].sort().values


def _warn(net: PrototypeNet, per_class: int) -> None:
    left = net.class_of.bincount(minlength=net.classes)
    poor = (left * 2 < per_class).nonzero().flatten().tolist()
    if poor:
        some = ", ".join(f"class {c}: {int(left[c])}" for c in poor[:10])
        warnings.warn(
            f"of {per_class} prototypes a class few are left after duplicates and pruning ({some}): the others were "
            "the same patch, or nearer to images of other classes",
            stacklevel=5,
        )
