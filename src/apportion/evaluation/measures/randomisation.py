"""Sanity checks: a map of the model must change when the model's weights, or the class asked for, do."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from apportion.core.settings import checked
from apportion.core.target import classes_of
from apportion.engines.masking.engine import Masking
from apportion.errors import InputError, check_seed, check_whole
from apportion.evaluation.case import Case, Measured, Test, nan_where
from apportion.evaluation.measures.complexity import entropy
from apportion.evaluation.reference_maps import Map, method_of, values_of

Similarity = Literal["spearman", "pearson", "cosine"]
_CONSTANT = "a map is constant, so it is correlated with nothing"


@dataclass(frozen=True)
@checked
class ParameterRandomisation(Test):
    """Model parameter randomisation (Adebayo et al. 2018): how like the map stays when the weights are drawn anew.

    Lower is better; a method that scores near 1 does not look at the weights. A weight is drawn from a normal
    distribution with its own mean and standard deviation, so that the model stays in its range. This happens in a
    copy; the model given is not touched. A layer whose weights are all equal stays as it is and does not count.
    Undefined where a map is constant. `notes["layers"]` has the mean of each layer. Cost: one explanation a layer.

    Attributes:
        way (str, default "cascading"): "cascading" randomises one layer after another from the output on (the last
            that the model lists first), "independent" each layer by itself; the score is the mean over the layers of
            the similarity to the map of the trained model. "complexity" is the efficient form (Hedström et al. 2024):
            all layers at once, and the score is the rise of the map's complexity (the entropy of a histogram of its
            values) over that of the trained model, relative to it: higher is better.
        similarity (str, default "spearman"): "spearman", "pearson" or "cosine".
        absolute (bool, default False): Compare absolute values.
        seed (int, default 0): Seed of the weights.
        bins (int, default 100): Even bins of the histogram of "complexity".
    """

    way: Literal["cascading", "independent", "complexity"] = "cascading"
    similarity: Similarity = "spearman"
    absolute: bool = False
    seed: int = 0
    bins: int = 100

    def __post_init__(self) -> None:
        check_whole(2, bins=self.bins)
        if self.way not in ("cascading", "independent", "complexity"):
            raise InputError(f"way is {self.way!r}; accepted: 'cascading', 'independent', 'complexity'")
        _check(self.similarity, self.seed)

    @property
    def higher_is_better(self) -> bool:
        return self.way == "complexity"

    def measure(self, case: Case, explanation: Map) -> Measured:
        method, masking = method_of(explanation, self), case.masking()
        here, inside = entries_in_rows(explanation, masking)

        def again(model: nn.Module) -> Tensor:
            return entries_in_rows(case.explain(method, masking.resolved, model), masking)[0]

        if self.way == "complexity":
            ((_, randomised),) = randomised_copies(case.model, "all", self.seed)
            before, after = (histogram_entropy(rows, self.bins, inside) for rows in (here, again(randomised)))
            return nan_where(before == 0, (after - before) / before, _CONSTANT)
        found = {
            name: similarity_in_rows(here, again(model), self.similarity, self.absolute, inside)
            for name, model in randomised_copies(case.model, self.way, self.seed)
        }
        each = torch.stack(list(found.values()))
        layers = {name: float(v.nanmean()) for name, v in found.items() if not bool(v.isnan().all())}
        return nan_where(each.isnan().all(0), each.nanmean(0), _CONSTANT)._replace(notes={"layers": layers})


@dataclass(frozen=True)
@checked
class RandomLogit(Test):
    """Random logit (Sixt et al. 2020): how like the map of the explained class is to that of a random other class.

    Lower is better; near 1 the method does not ask which class is explained. Undefined where a map is constant. Cost:
    one explanation.

    Attributes:
        similarity (str, default "spearman"): "spearman", "pearson" or "cosine".
        absolute (bool, default False): Compare absolute values.
        seed (int, default 0): Seed of the choice of the other class.
    """

    similarity: Similarity = "spearman"
    absolute: bool = False
    seed: int = 0

    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self.similarity, self.seed)

    def measure(self, case: Case, explanation: Map) -> Measured:
        method = method_of(explanation, self)
        masking = case.masking()
        target, classes = masking.resolved, masking.output.shape[1]
        if not isinstance(target, Tensor) or classes < 2:
            raise InputError("RandomLogit needs a class as its target, and a model with at least two of them")
        # One shift for all samples, so that a score does not depend on which others are in the batch.
        shift = int(torch.randint(1, classes, (), generator=torch.Generator().manual_seed(self.seed)))
        made = case.explain(method, _shifted(target, shift, classes))
        (here, inside), (there, _) = (entries_in_rows(e, masking) for e in (explanation, made))
        values = similarity_in_rows(here, there, self.similarity, self.absolute, inside)
        return nan_where(values.isnan(), values, _CONSTANT)


def _shifted(target: Tensor, shift: int, classes: int) -> Tensor:
    """Other classes, at the same places where a target has one."""
    other = (classes_of(target) + shift) % classes
    return other if target.dim() == 1 else torch.cat([other[:, None], target[:, 1:]], 1)


def randomised_copies(
    model: Any, way: Literal["cascading", "independent", "all"], seed: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Copy a model with layers randomised from the output on; each copy comes with the name of the last of them."""
    if not isinstance(model, nn.Module):
        raise InputError(
            f"the model is {type(model).__name__}; accepted: a torch module, whose weights can be randomised"
        )
    layers: dict[str, list[str]] = {}  # a parametrised weight belongs to the layer that has it
    for key, _ in model.named_parameters():
        layers.setdefault(re.sub(r"(^|\.)parametrizations\..*", "", key.rpartition(".")[0]), []).append(key)
    if not layers:
        raise InputError("the model has no weights to randomise")
    generator = torch.Generator().manual_seed(seed)
    changed = copy.deepcopy(model)
    any_drawn = False
    for name, keys in reversed(layers.items()):
        if way == "independent":
            changed = copy.deepcopy(model)
        drawn_anew = False
        with torch.no_grad():
            for key in keys:
                weight = dict(changed.named_parameters())[key]  # also of scripted children
                drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float32).to(weight)
                spread = weight.std() if weight.numel() > 1 else weight.abs().mean()
                drawn_anew = drawn_anew or bool(spread != 0)
                weight.copy_(weight.mean() + spread * drawn)
        any_drawn = any_drawn or drawn_anew
        if way != "all" and drawn_anew:  # constant weights, as of a fresh batch norm, stay what they are
            yield name, changed
    if not any_drawn:
        raise InputError("all weights of each layer are equal, so none would change by being drawn anew")
    if way == "all":
        yield "all", changed


def entries_in_rows(explanation: Map, masking: Masking) -> tuple[Tensor, Tensor]:
    """All values of each sample in one row, (batch, entries), and which of them count: not those of padding or special
    tokens, which would be alike in all maps."""
    values = values_of(explanation, masking.inputs)
    labels = {part.key: part.labels for part in masking.parts}
    inside = [(labels[key] >= 0).expand(found.shape) for key, found in values.items()]
    rows, counted = (torch.cat([t.flatten(1) for t in each], 1) for each in (values.values(), inside))
    return rows, counted.to(rows.device)


def similarity_in_rows(
    a: Tensor,
    b: Tensor,
    similarity: Similarity = "spearman",
    absolute: bool = False,
    inside: Tensor | None = None,
) -> Tensor:
    """The similarity of (batch, entries) maps row by row, −1 to 1, in the entries that are `inside` (default: all);
    NaN where one is constant.

    >>> round(similarity_in_rows(torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[10.0, 20.0, 30.0]])).item(), 6)
    1.0
    """
    a, b = a.double(), b.double()
    inside = torch.ones_like(a, dtype=torch.bool) if inside is None else inside
    if absolute:
        a, b = a.abs(), b.abs()
    if similarity == "spearman":
        a, b = (_ranks(t.masked_fill(~inside, torch.inf)) for t in (a, b))
    a, b = (t * inside for t in (a, b))
    if similarity != "cosine":
        a, b = ((t - t.sum(1, keepdim=True) / inside.sum(1, keepdim=True)) * inside for t in (a, b))
    # Divided by the largest first, so that tiny values do not vanish in the squares.
    a, b = (t / t.abs().amax(1, keepdim=True) for t in (a, b))
    cosine: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return cosine.clamp(-1, 1)


def _ranks(values: Tensor) -> Tensor:
    """The rank of each entry in its row; equal ones share the mean of theirs."""
    ordered = values.sort(1).values
    low = torch.searchsorted(ordered, values.contiguous())
    high = torch.searchsorted(ordered, values.contiguous(), right=True)
    return (low + high).double()


def histogram_entropy(rows: Tensor, bins: int, inside: Tensor | None = None) -> Tensor:
    """The entropy in nats of a histogram of each row of (batch, entries) values, from its lowest to its highest, of the
    entries that are `inside` (default: all).

    >>> histogram_entropy(torch.tensor([[0.0, 1.0, 2.0, 9.0]]), 3)  # 3, 0 and 1 values
    tensor([0.5623], dtype=torch.float64)
    """
    rows = rows.double()
    inside = torch.ones_like(rows, dtype=torch.bool) if inside is None else inside
    low = rows.masked_fill(~inside, torch.inf).amin(1, keepdim=True)
    high = rows.masked_fill(~inside, -torch.inf).amax(1, keepdim=True)
    width = torch.where(high > low, (high - low) / bins, 1.0)
    place = ((rows - low) / width).long().clamp(0, bins - 1)  # (batch, entries)
    counts = rows.new_zeros(len(rows), bins).scatter_add_(1, place, inside.to(rows))  # (batch, bins)
    return entropy(counts / counts.sum(1, keepdim=True))


def _check(similarity: str, seed: int) -> None:
    check_seed(seed)
    if similarity not in ("spearman", "pearson", "cosine"):
        raise InputError(f"similarity is {similarity!r}; accepted: 'spearman', 'pearson', 'cosine'")
