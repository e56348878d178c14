"""Sanity checks: a map of the model must change when the model's weights, or the class asked for, do."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from apportion.errors import InputError, check_whole
from apportion.faithfulness.case import Case, Found, Test, nan_where
from apportion.faithfulness.complexity import entropy
from apportion.faithfulness.maps import Map, in_rows, method_of

Similarity = Literal["spearman", "pearson", "cosine"]
_CONSTANT = "a map is constant, so it is correlated with nothing"


@dataclass(frozen=True)
class ParameterRandomisation(Test):
    """Model parameter randomisation (Adebayo et al. 2018): how like the map stays when the weights are drawn anew.
    Lower is better; a method that scores near 1 does not look at the weights.

    `way="cascading"` randomises one layer after another from the output on (the last that the model lists first),
    `"independent"` each layer by itself;
    the score is the mean over the layers of the similarity to the map of the trained model. `"complexity"` is
    the efficient form (Hedström et al. 2024): all layers at once, and the score is the rise of the map's
    entropy over that of the trained model, relative to it: higher is better.

    A weight is drawn from a normal distribution with its own mean and standard deviation, so that the model stays
    in its range. This happens in a copy; the model given is not touched. `absolute` compares absolute values.
    Undefined where a map is constant. `notes["layers"]` has the mean of each layer. Cost: one explanation a layer.
    """

    way: Literal["cascading", "independent", "complexity"] = "cascading"
    similarity: Similarity = "spearman"
    absolute: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.way not in ("cascading", "independent", "complexity"):
            raise InputError(f"way is {self.way!r}; accepted: 'cascading', 'independent', 'complexity'")
        _check(self.similarity, self.seed)

    @property
    def higher_is_better(self) -> bool:
        return self.way == "complexity"

    def measure(self, case: Case, explanation: Map) -> Found:
        method = method_of(explanation, self)
        target = case.masking().resolved
        inputs = case.masking().inputs
        here = in_rows(explanation, inputs)

        def again(model: nn.Module) -> Tensor:
            return in_rows(case.explain(method, target, model), inputs)

        if self.way == "complexity":
            ((_, randomised),) = randomised_copies(case.model, "all", self.seed)
            before, after = (_entropy(rows) for rows in (here, again(randomised)))
            return nan_where(before == 0, (after - before) / before, "the map is zero but for one entry")
        found = {
            name: similar(here, again(model), self.similarity, self.absolute)
            for name, model in randomised_copies(case.model, self.way, self.seed)
        }
        each = torch.stack(list(found.values()))
        layers = {name: float(v.nanmean()) for name, v in found.items() if not bool(v.isnan().all())}
        return nan_where(each.isnan().all(0), each.nanmean(0), _CONSTANT)._replace(notes={"layers": layers})


@dataclass(frozen=True)
class RandomLogit(Test):
    """Random logit (Sixt et al. 2020): how like the map of the explained class is to that of another class, drawn at
    random. Lower is better; near 1 the method does not ask which class is explained.

    Undefined where a map is constant. Cost: one explanation.
    """

    similarity: Similarity = "spearman"
    absolute: bool = False
    seed: int = 0

    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self.similarity, self.seed)

    def measure(self, case: Case, explanation: Map) -> Found:
        method = method_of(explanation, self)
        masking = case.masking()
        target, classes = masking.resolved, masking.output.shape[1]
        if not isinstance(target, Tensor) or classes < 2:
            raise InputError("RandomLogit needs a class as its target, and a model with at least two of them")
        # One shift for all samples, so that a score does not depend on which others are in the batch.
        shift = int(torch.randint(1, classes, (), generator=torch.Generator().manual_seed(self.seed)))
        made = case.explain(method, (target + shift) % classes)
        here, there = (in_rows(e, masking.inputs) for e in (explanation, made))
        values = similar(here, there, self.similarity, self.absolute)
        return nan_where(values.isnan(), values, _CONSTANT)


def randomised_copies(
    model: Any, way: Literal["cascading", "independent", "all"], seed: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of a model with layers randomised from the output on, with the name of the last of them."""
    if not isinstance(model, nn.Module):
        raise InputError(
            f"the model is {type(model).__name__}; accepted: a torch module, whose weights can be randomised"
        )
    layers = [
        (name, [key for key, _ in module.named_parameters(recurse=False)])
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    if not layers:
        raise InputError("the model has no weights to randomise")
    generator = torch.Generator().manual_seed(seed)
    changed = copy.deepcopy(model)
    for name, keys in reversed(layers):
        if way == "independent":
            changed = copy.deepcopy(model)
        module = changed.get_submodule(name)
        with torch.no_grad():
            for key in keys:
                weight = getattr(module, key)
                drawn = torch.randn(weight.shape, generator=generator).to(weight)
                spread = weight.std() if weight.numel() > 1 else weight.abs().mean()
                weight.copy_(weight.mean() + spread * drawn)
        if way != "all":
            yield name, changed
    if way == "all":
        yield "all", changed


def similar(a: Tensor, b: Tensor, similarity: Similarity = "spearman", absolute: bool = False) -> Tensor:
    """The similarity of (batch, entries) maps row by row, −1 to 1; NaN where one is constant.

    >>> round(similar(torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[10.0, 20.0, 30.0]])).item(), 6)
    1.0
    """
    a, b = a.double(), b.double()
    if absolute:
        a, b = a.abs(), b.abs()
    if similarity == "spearman":
        a, b = _ranks(a), _ranks(b)
    if similarity != "cosine":
        a, b = (t - t.mean(1, keepdim=True) for t in (a, b))
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


def _entropy(rows: Tensor) -> Tensor:
    size = rows.double().abs()
    return entropy(size / size.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny))


def _check(similarity: str, seed: int) -> None:
    check_whole(0, seed=seed)
    if similarity not in ("spearman", "pearson", "cosine"):
        raise InputError(f"similarity is {similarity!r}; accepted: 'spearman', 'pearson', 'cosine'")
