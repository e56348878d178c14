"""The tensors of an input cut into features: which entries a mask keeps, and what a feature's effect is
shared by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from apportion.core.features import Features
from apportion.core.inputs import Inputs, Values, is_side, placed, rekeyed
from apportion.core.numbers import common_format, holds
from apportion.core.per_input import PerInput
from apportion.core.trees import keyed
from apportion.engines.masking.padding import attended
from apportion.engines.masking.partitions import (
    Channels,
    LabelMap,
    Partition,
    Patches,
    Pixels,
    Superpixels,
    default_partition,
    fitted_labels,
    renumbered,
)
from apportion.engines.masking.replacements import Replacement, default_replacement
from apportion.errors import InputError, check, shown


@dataclass(frozen=True, eq=False)
class Ordered:
    """Masks that hide the first features of an order, or all others, made where they are needed.

    `rank` (batch, orders, features) is the place of each feature in the orders of its sample, `order` (rows, masks) the
    one of these, `first` (rows, masks) how many are the first of it, and `kept` (rows, masks) whether these are kept,
    and not hidden; stands for (rows, masks, features) masks.
    """

    rank: Tensor
    order: Tensor
    first: Tensor
    kept: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.first.shape, self.rank.shape[2])

    def chosen(self, calls: Tensor, masks_at: Tensor, where: Tensor) -> Tensor:
        """What each call keeps, (calls, features)."""
        device = self.rank.device
        at = calls.to(device), masks_at.to(device)
        first, kept = self.first[at].to(self.rank)[:, None], self.kept[at][:, None]
        ranks = self.rank.flatten(0, 1).index_select(
            0, where.to(device) * self.rank.shape[1] + self.order[at].to(device)
        )
        return (ranks >= first).logical_xor_(kept)


@dataclass(frozen=True, eq=False)
class Part:
    """One tensor of the inputs: its entries, the feature of each (-1: none) and what made it one, and what replaces
    them."""

    key: Any
    x: Tensor
    labels: Tensor
    way: Partition
    replacement: Replacement
    prepared: Tensor
    fixed: bool
    each: bool  # every place is a feature of its own, in order

    def keep(self, masks: Tensor | Ordered, calls: Tensor, masks_at: Tensor, where: Tensor) -> Tensor:
        """For each call, which entries stay: (calls, …) that broadcasts to the inputs.

        Call i runs sample `where[i]`, which is row `calls[i]` of (rows, masks, features) `masks`, under mask
        `masks_at[i]`; (masks, features) `masks` are shared by all samples.
        """
        if isinstance(masks, Ordered):
            chosen = masks.chosen(calls, masks_at, where)
        else:
            at = masks_at if masks.dim() == 2 else calls * masks.shape[1] + masks_at
            chosen = masks.flatten(0, -2).index_select(0, at.to(masks.device))
        chosen = chosen.to(self.x.device)
        if self.each:
            return chosen.view(-1, *self.labels.shape[1:])
        labels = self.labels
        if self.fixed:
            labels = torch.where(labels < 0, chosen.shape[1], labels)
            chosen = torch.cat([chosen, chosen.new_ones(len(chosen), 1)], 1)
        flat, device = _rows(labels), self.x.device
        # `index_select` along the second axis takes several times as long for booleans.
        at = flat.expand(len(chosen), -1) if len(flat) == 1 else flat.index_select(0, where.to(device))
        return chosen.gather(1, at).view(-1, *labels.shape[1:])

    def hidden(
        self,
        inputs: Inputs,
        masks: Tensor | Ordered,
        calls: Tensor,
        masks_at: Tensor,
        where: Tensor,
        draw: Tensor | None,
    ) -> Inputs:
        """The inputs of each call with this tensor's features hidden; `draw` is the row of data for each call."""
        keep, prepared = self.keep(masks, calls, masks_at, where), self.prepared_for(where)
        return self.replacement.hide_in(inputs, self.key, keep, prepared, draw)

    def left(self, masks: Tensor | Ordered, calls: Tensor, masks_at: Tensor, where: Tensor) -> Tensor:
        """For each call how many tokens are left where hidden ones are deleted, (calls,): padding at the end goes with
        them."""
        return (self.keep(masks, calls, masks_at, where) & self.prepared_for(where)).sum(1)

    def prepared_for(self, where: Tensor) -> Tensor:
        return self.prepared.index_select(0, where.to(self.x.device))


def cut(
    inputs: Inputs,
    partition: Partition | None,
    replacement: Replacement | PerInput | None,
    features: Sequence[Features] | None,
    mask: int | Tensor | None,
) -> list[Part]:
    """Each input tensor that can be explained, cut into features; those of several are numbered one after
    the other."""
    # One integer a sample is the length of a text, or its place among others; one number a sample is a feature.
    chosen = [
        (key, x) for key, x in keyed(inputs) if not is_side(key, x) and (x.dim() > 1 or x.is_floating_point())
    ]
    if not chosen:
        raise InputError(
            "there is no input whose features could be hidden, only masks (booleans, which are held constant) or one "
            "integer a sample; accepted: numbers, such as x.float()"
        )
    keys = [key for key, _ in keyed(inputs)]
    explained = [key for key, _ in chosen]
    for name, setting in (("partition", partition), ("replacement", replacement)):
        if isinstance(setting, PerInput):
            setting.check(name, keys, explained)
    if len(chosen) > 1 and partition is not None and not isinstance(partition, PerInput):
        names = ", ".join(map(repr, explained))
        raise InputError(
            f"one partition was given for the inputs {names}; accepted: none, a single input, or one for each, as a "
            "tuple or a dict"
        )
    begun = [
        _begin_part(inputs, key, x, partition, features if len(chosen) == 1 else None) for key, x in chosen
    ]
    # What two maps of the user's call by one number is one feature, which spans both inputs.
    maps = [i for i, (way, _, _) in enumerate(begun) if isinstance(way, LabelMap)]
    joint = _renumber_together([begun[i][1] for i in maps])
    labelled = dict(zip(maps, joint, strict=True))
    begin = torch.zeros(1, dtype=torch.long, device=chosen[0][1].device)  # in each sample
    for labels in joint:
        begin = torch.maximum(begin, _rows(labels).amax(1) + 1)
    parts = []
    for i, ((key, x), (way, raw, seen)) in enumerate(zip(chosen, begun, strict=True)):
        labels = labelled.get(i, raw)
        if i not in labelled:
            labels = labels if bool(seen.all()) else torch.stack([renumbered(row) for row in labels])
            if len(chosen) > 1:
                labels = torch.where(labels >= 0, labels + begin.view(-1, *[1] * (labels.dim() - 1)), labels)
                begin = torch.maximum(begin, _rows(labels).amax(1) + 1)
        how = _replacement_of(key, replacement) or default_replacement(x, mask)
        if len(chosen) > 1 and not how.keeps_shape:
            name = type(how).__name__
            raise InputError(f"{name} needs one input of token ids, but several inputs are explained")
        each = len(chosen) == 1 and torch.equal(
            labels.flatten(), torch.arange(labels.numel(), device=labels.device)
        )
        fixed = bool((labels < 0).any())
        prepared = how.prepare_seen(x, labels, seen)
        parts.append(Part(key, x, labels, way, how, prepared, fixed, each))
    return parts


def _begin_part(
    inputs: Inputs, key: Any, x: Tensor, partition: Partition | None, known: Sequence[Features] | None
) -> tuple[Partition, Tensor, Tensor]:
    """How one input is cut, its labels as the partition gives them (-1 where the model does not look), and where it
    looks."""
    if not x.numel():
        raise InputError(f"an input has shape {tuple(x.shape)}, so there is nothing to hide (an empty text?)")
    given = partition.of(key) if isinstance(partition, PerInput) else partition
    way = default_partition(x, known) if given is None else given
    seen = attended(inputs, x)
    if given is None and seen.dim() > 2:
        way = Channels()  # one for each token
    labels = fitted_labels(way.labels, x) if isinstance(way, LabelMap) else _labels_by(way, x, known)
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        raise InputError(
            f"partition {way!r:.100} returned {type(labels).__name__}; accepted: a tensor of whole numbers"
        )
    if not bool(seen.all()):
        labels = labels.expand(torch.broadcast_shapes(labels.shape, seen.shape)).masked_fill(~seen, -1)
    return way, labels, seen


def _labels_by(way: Partition, x: Tensor, known: Sequence[Features] | None) -> Tensor:
    try:
        return way(x, known)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the partition {shown(way):.100} raised {type(error).__name__}: {error} (for an input of shape "
            f"{tuple(x.shape)}); accepted: one that maps (inputs, features) to labels"
        ) from error


def _renumber_together(maps: Sequence[Tensor]) -> list[Tensor]:
    """The same maps with the labels of each sample 0, 1, …, the same ones in all maps."""
    if not maps:
        return []
    many = max(len(labels) for labels in maps)
    rows = [_rows(labels).expand(many, -1) for labels in maps]
    whole = torch.stack([renumbered(row) for row in torch.cat(rows, 1)])
    parts = whole.split([row.shape[1] for row in rows], 1)
    return [part.reshape(many, *labels.shape[1:]) for part, labels in zip(parts, maps, strict=True)]


def _replacement_of(key: Any, replacement: Replacement | PerInput | None) -> Replacement | None:
    found = replacement.of(key) if isinstance(replacement, PerInput) else replacement
    check(
        "replacement",
        found,
        lambda v: v is None or isinstance(v, Replacement),
        "a replacement such as Constant(0.5) or Blur()",
    )
    return found


def fit_formats(
    inputs: Inputs, replacement: Replacement | PerInput | None, columns: bool
) -> tuple[Inputs, list[str]]:
    """The inputs in a number format that also holds what stands for hidden features, and warnings of what it rounds.

    Only `columns`, numbers for a function of arrays, change their format; token ids and what goes into a module of
    torch have the one that they need. InputError for numbers that would be cut or wrapped around.
    """
    told = []

    def fit(key: Any, x: Tensor) -> Tensor:
        how = replacement.of(key) if isinstance(replacement, PerInput) else replacement
        given = how.numbers() if isinstance(how, Replacement) else None
        if given is None:
            return x
        exactly = columns and given.dim() > 0  # a number of Python has no format of its own
        explained = not is_side(key, x) and (x.dim() > 1 or x.is_floating_point())
        if not explained or holds(x.dtype, given, exactly):
            return x
        wide = common_format(x.dtype, given.dtype)
        if columns and holds(wide, x, True) and holds(wide, given, True):
            return x.to(wide)
        what = f"{type(how).__name__} has numbers that the inputs' {x.dtype} does not hold"
        if x.is_floating_point() and bool(
            given.to(x.dtype).isinf().logical_not().logical_or(given.isinf()).all()
        ):
            told.append(
                f"{what}: they are rounded, such as dates or ids to others; take them off or scale them first"
            )
            return x
        raise InputError(f"{what}; accepted: numbers that fit, or inputs of a wider format, such as float64")

    return rekeyed(inputs, fit), told


def misread(parts: Sequence[Part], module: bool) -> list[str]:
    """A warning for each picture whose shape says something else to the model, as it seems, than it does here; a
    `module` of torch has its channels first."""
    grids = [part.x.shape for part in parts if isinstance(part.way, Pixels | Patches | Superpixels)]
    last = [shape for shape in grids if len(shape) == 4 and shape[3] in (1, 3, 4) and min(shape[1:3]) > 4]
    flat = [shape for shape in grids if len(shape) == 3 and min(shape[1:]) > 4]
    none = [shape for shape in flat if shape[1] == shape[2] or min(shape[1:]) > max(8, max(shape[1:]) / 2)]
    one = [shape for shape in grids if len(shape) == 3 and shape[2] in (1, 3, 4) and min(shape[:2]) > 4]
    return [
        *(
            f"inputs of shape {tuple(shape)} are read as (batch, channels, height, width); if the channels are last, "
            "explain x.movedim(-1, 1) with a function that moves them back for the model"
            for shape in last
            if not module
        ),
        *(
            f"inputs of shape {tuple(shape)} are read as (batch, channels, length); if they are pictures without "
            "channels, explain x[:, None] with a function that takes them out for the model; one picture is x[None]"
            for shape in none
        ),
        *(
            f"inputs of shape {tuple(shape)} are read as {shape[0]} samples (channels, length); if it is one picture "
            "with channels last, explain x.movedim(-1, 0)[None]"
            for shape in one
        ),
    ]


def counts(parts: Sequence[Part], batch: int) -> Tensor:
    """How many features each sample has, (batch,)."""
    highest = [_rows(part.labels).amax(1).expand(batch) for part in parts]
    return torch.stack(highest).amax(0).cpu() + 1


def spread(effects: Tensor, parts: Sequence[Part], inputs: Inputs) -> Values:
    """(batch, features) effects in the shape of the inputs, shared equally by the entries of each feature."""
    batch, many = effects.shape
    if (one := parts[0]).each:
        shares = (effects / (one.x[0].numel() // many)).view(batch, *one.labels.shape[1:])
        return placed({one.key: shares.expand(one.x.shape).contiguous()}, inputs)
    entries = torch.zeros(batch, many + 1, dtype=torch.long, device=effects.device)
    places = []
    for part in parts:
        flat = _rows((part.labels + 1).to(effects.device).expand(batch, *part.labels.shape[1:]))
        places.append(flat)
        entries.scatter_add_(1, flat, torch.full_like(flat, part.x[0].numel() // flat.shape[1]))
    shares = effects / entries[:, 1:].clamp(min=1)
    shares = torch.cat([torch.zeros_like(shares[:, :1]), shares], 1)
    found: dict[Any, Tensor] = {}
    for part, flat in zip(parts, places, strict=True):
        spread_out = shares.gather(1, flat).view(batch, *part.labels.shape[1:])
        found[part.key] = spread_out.expand(part.x.shape).contiguous()
    return placed(found, inputs)


def _rows(t: Tensor) -> Tensor:
    return t.reshape(len(t), -1)


def gathered(values: Sequence[Tensor], parts: Sequence[Part]) -> Tensor:
    """The sum of the entries of each feature, (batch, features), from one tensor of values for each part that
    has its shape; the inverse of `spread`. Features that a sample does not have get zero."""
    batch = parts[0].x.shape[0]
    many = max(int(part.labels.max()) for part in parts) + 1
    sums = torch.zeros(batch, many + 1, dtype=values[0].dtype, device=values[0].device)
    for part, value in zip(parts, values, strict=True):
        labels = (part.labels + 1).to(sums.device).expand(batch, *part.labels.shape[1:])
        # What shares a label along an axis of length 1 is added up first, which is most of the work.
        axes = [a for a in range(1, value.dim()) if labels.shape[a] == 1 and value.shape[a] > 1]
        value = value.sum(axes, keepdim=True) if axes else value
        sums.scatter_add_(1, _rows(labels), _rows(value.to(sums)))
    return sums[:, 1:]
