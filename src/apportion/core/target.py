"""Which scalar of a model's output is explained."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.core.numbers import check_dense
from apportion.core.settings import checked
from apportion.core.trees import all_finite
from apportion.errors import InputError, NotFiniteError

Target = int | Sequence[int] | Sequence[tuple[int, ...]] | Tensor | Callable[[Tensor], Tensor] | None
"""None: the predicted class of each sample; an int or one int per sample: that class; a callable maps the
(batch, classes) scores to a (batch,) score, row by row. Where the model returns more axes, (batch, classes, …), a tuple
is the class and its place, as `(3, 10, 12)`; a list of tuples, or a tensor (batch, axes), has one for each sample."""


@dataclass(frozen=True)
@checked
class Contrast:
    """Subtract the score of one class from that of another, as a target: why this *rather than* that?

    Attributes:
        positive (int): The class that the values speak for.
        negative (int): The class that they speak against.

    >>> Contrast(0, 2)(torch.tensor([[5.0, 1.0, 3.0]]))
    tensor([2.])
    """

    positive: int
    negative: int

    def __post_init__(self) -> None:
        if self.positive == self.negative:
            raise InputError(f"positive and negative are both {self.positive}; accepted: two classes")

    def __call__(self, scores: Tensor) -> Tensor:
        for name in ("positive", "negative"):
            _check_class(getattr(self, name), scores.shape[1])
        return scores[:, self.positive] - scores[:, self.negative]


@dataclass(frozen=True)
@checked
class Neuron:
    """Explain one neuron of a layer instead of a score of the model, as a target.

    Attributes:
        layer (str): The module, by its name; `"layer3:input"` for what it is given, `"lstm:1"` for the second tensor
            that it returns.
        index (int or tuple of int): The neuron in the layer's output, without the axis of the samples.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> import apportion as ap
    >>> e = ap.InputXGradient()(model, torch.ones(1, 2), target=Neuron("0", 2))
    >>> torch.allclose(e.values, model[0].weight[2:])
    True
    """

    layer: str
    index: int | tuple[int, ...]

    def of(self, met: Sequence[Tensor], batch: int) -> Tensor:
        """The neuron of each row, (rows, 1), in what the layer returned at each of its calls."""
        if len(met) != 1:
            times = f"{len(met)} times" if met else "not"
            raise InputError(
                f"layer {self.layer!r} was called {times} in the forward pass; accepted as the layer of a neuron: one "
                "that is called once"
            )
        index = self.index if isinstance(self.index, tuple) else (self.index,)
        shape = tuple(met[0].shape)
        fits = len(index) == len(shape) - 1 and all(
            -n <= i < n for i, n in zip(index, shape[1:], strict=True)
        )
        if not fits or shape[0] != batch:
            raise InputError(
                f"index is {self.index!r}, but layer {self.layer!r} has shape {shape} for {batch} samples; accepted: a "
                f"place in {shape[1:]}"
            )
        found = met[0]
        for i in index:
            found = found[:, i]
        return found.unsqueeze(1)

    def __call__(self, scores: Tensor) -> Tensor:
        return scores[:, 0]


@dataclass(frozen=True, eq=False, repr=False)
class Region:
    """Explain the mean score of a class over a part of a dense output, as a target: of a segmentation, or of the
    places of a detector.

    The model returns (batch, classes, …): `output` then has the means of all classes there.

    Attributes:
        index (int): The class.
        box (tuple of (first, end), default None, places of the output): The part as a range of each axis after that of
            the classes, ends not included, such as rows and columns; None: a mask is given.
        mask (Tensor of bool, default None): The part as a mask of the axes after that of the classes; None: a box is
            given.

    >>> import apportion as ap
    >>> segments = torch.nn.Conv2d(3, 2, 1)
    >>> e = ap.InputXGradient()(segments, torch.ones(1, 3, 8, 8), target=Region(1, box=((2, 4), (2, 6))))
    >>> int(e.values[0].sum(0).count_nonzero())
    8
    """

    index: int
    box: tuple[tuple[int, int], ...] | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.box is None) == (self.mask is None):
            raise InputError("Region takes a box or a mask; accepted: one of them")
        if isinstance(self.index, bool) or not isinstance(self.index, Integral):
            raise InputError(f"index is {self.index!r:.60}; accepted: the number of a class")
        if self.box is not None:
            pairs = isinstance(self.box, tuple | list) and all(
                _is_place(pair) and len(pair) == 2 and 0 <= pair[0] < pair[1] for pair in self.box
            )
            if not pairs or not self.box:
                raise InputError(
                    f"box is {self.box!r:.80}; accepted: (first, end) of each axis, as ((10, 20), (30, 50)), with "
                    "first below end"
                )
        elif not isinstance(self.mask, Tensor) or self.mask.dtype != torch.bool or not bool(self.mask.any()):
            raise InputError(
                "mask is no tensor of bool with a place in it; accepted: scores > 0, for example"
            )

    def __repr__(self) -> str:
        if self.mask is None:
            return f"Region({self.index}, box={self.box})"
        return f"Region({self.index}, mask of {int(self.mask.sum())} places of {tuple(self.mask.shape)})"

    def of(self, found: Tensor) -> Tensor:
        """The means over the region, (rows, classes), in what a model returned."""
        space = tuple(found.shape[2:])
        if self.mask is not None:
            fits, what = tuple(self.mask.shape) == space, f"mask has shape {tuple(self.mask.shape)}"
        else:
            box = self.box or ()
            fits = len(box) == len(space) and all(end <= n for (_, end), n in zip(box, space, strict=True))
            what = f"box is {self.box}"
        if not space or not fits:
            raise InputError(
                f"{what}, but the model returned scores of shape {tuple(found.shape)}; accepted: a part of "
                f"{space or '(batch, classes, …), which this model does not return'}"
            )
        if self.mask is not None:
            return found[:, :, self.mask.to(found.device)].mean(2)
        part = found[(slice(None), slice(None), *(slice(first, end) for first, end in self.box or ()))]
        return part.flatten(2).mean(2)

    def __call__(self, scores: Tensor) -> Tensor:
        _check_class(self.index, scores.shape[1])
        return scores[:, self.index]


def places_of(target: Target, batch: int) -> Tensor | None:
    """The (batch, axes) class and place of each sample that a target names for a model that returns more axes than
    classes; None if it names none. A tuple of numbers may also be one class a sample, of a model that does not."""
    if isinstance(target, Tensor):
        whole = not (target.is_floating_point() or target.is_complex() or target.dtype == torch.bool)
        named = whole and target.dim() == 2 and len(target) == batch and target.shape[1] > 1
        return target.detach().cpu().long() if named else None
    if isinstance(target, tuple) and _is_place(target):
        return torch.tensor([int(i) for i in target]).expand(batch, -1)
    if not isinstance(target, list | tuple) or len(target) != batch or not all(map(_is_place, target)):
        return None
    each = [[int(i) for i in one] for one in target]
    return torch.tensor(each) if len({len(one) for one in each}) == 1 else None


def _is_place(given: Any) -> bool:
    """Whether this is a class and where it is."""
    return isinstance(given, tuple | list) and len(given) > 1 and all(isinstance(i, Integral) for i in given)


def classes_of(resolved: Tensor) -> Tensor:
    """The class of each sample, (batch,), in a resolved target that may also name a place."""
    return resolved[:, 0] if resolved.dim() == 2 else resolved


def scores_of(output: Any, batch: int, row: str = "sample", places: Tensor | None = None) -> Tensor:
    """The (batch, classes) scores in what a model returned: a tensor, an object with `.logits`, a mapping
    with "logits", or a tuple that begins with one of these; errors call its rows `row`. Of a model that returns more
    axes they are those at the `places`, (batch, axes): the class, which is of no account here, and where it is."""
    if is_one_number(output):
        if batch > 1:
            raise InputError(
                f"the model returned one number for a batch of {batch}; accepted: one for each sample, ({batch},) or "
                f"({batch}, classes), or one sample at a time, each row of which is then run alone"
            )
        return _checked(one_number(output).reshape(1, 1), row)
    found = tensor_of_scores(output)
    if found.dim() == 1:
        found = found.unsqueeze(1)
    if found.dim() > 2 and found.shape[0] == batch and places is not None:
        found = _at(places, found)
    if found.dim() != 2 or found.shape[0] != batch:
        dense = found.dim() > 2 and found.shape[0] == batch
        names = ", ".join(["class", "row", "column"][: found.dim() - 1]) if found.dim() < 5 else "class, …"
        raise InputError(
            f"the model returned scores of shape {tuple(found.shape)} for a batch of {batch}; accepted: "
            f"({batch}, classes) or ({batch},)"
            + (f", or as the target a class and its place, ({names}){_OF_STEPS}" if dense else "")
        )
    if found.shape[1] == 0:
        raise InputError(f"the model returned scores of shape {tuple(found.shape)}: there are no classes")
    return _checked(found, row)


def _checked(found: Tensor, row: str) -> Tensor:
    check_dense("the scores of the model", found)
    if not found.is_floating_point():
        raise InputError(f"the model returned {found.dtype} scores; accepted: floating point scores")
    if not all_finite(found):
        where = (~torch.isfinite(found).all(1)).nonzero().flatten().tolist()
        raise NotFiniteError(
            f"the model returned NaN or infinite scores for {row} {where[:5]}; nothing to explain"
        )
    return found


_OF_STEPS = (
    "; of scores for each step or place, one is explained at a time: lambda x: model(x)[:, -1] is the last"
)


def tensor_of_scores(output: Any) -> Tensor:
    """The tensor of scores in what a model returned, of whatever shape."""
    found = output
    if isinstance(found, tuple | list) and found and not hasattr(found, "logits"):
        found = found[0]
    if not isinstance(found, Tensor):
        found = found.get("logits") if isinstance(found, Mapping) else getattr(found, "logits", None)
    if not isinstance(found, Tensor):
        hint = _HINT if isinstance(output, tuple | list) else _PAIRS if _has_pairs(output) else ""
        raise InputError(
            f"the model returned {type(output).__name__}; accepted: a (batch, classes) tensor, or an object "
            f"or mapping with `logits`{hint}"
        )
    return found


def _has_pairs(output: Any) -> bool:
    """Whether these are scores of pictures with texts, as CLIP gives them, both ways round."""
    return hasattr(output, "logits_per_image") and hasattr(output, "logits_per_text")


def _at(places: Tensor, found: Tensor) -> Tensor:
    """The scores of all classes at the place of each row: (rows, classes) of (rows, classes, …)."""
    space = tuple(found.shape[2:])
    where = places[:, 1:].to(found.device)
    size = torch.tensor(space, device=found.device)
    if where.shape[1] != len(space) or bool(((where < -size) | (where >= size)).any()):
        raise InputError(
            f"target is {tuple(places[0].tolist())}, but the model returned scores of shape {tuple(found.shape)}; "
            f"accepted: a class and its place in {space}"
        )
    rows = torch.arange(len(found), device=found.device)
    return found[(rows, slice(None), *where.T)]


def is_one_number(output: Any) -> bool:
    """Whether a model returned one number without an axis of samples: of Python or NumPy, or a tensor of it."""
    if isinstance(output, Tensor | np.ndarray):
        return output.ndim == 0
    return isinstance(output, int | float | np.number) and not isinstance(output, bool)


def one_number(output: Any) -> Tensor:
    """That number as a tensor; whole ones of Python as a fraction."""
    if isinstance(output, Tensor):
        return output
    if not is_one_number(output):
        raise InputError(
            f"the model returned one number for one row, and {type(output).__name__} for another"
        )
    return torch.tensor(float(output), dtype=torch.float64)


_PAIRS = (
    "; a model of pictures and texts is told which is explained: lambda pixels: model(pixel_values=pixels, "
    "input_ids=ids).logits_per_image is the picture, and the texts are its classes; for a text the other way round"
)

_HINT = "; a function that returns several is wrapped to return one, as lambda x: model(x)[0]"


def resolve(
    target: Target, scores: Tensor, places: Tensor | None = None
) -> Tensor | Callable[[Tensor], Tensor]:
    """Fix the target: class indices of shape (batch,), or the given callable; (batch, axes) if the scores are those at
    these `places`."""
    batch, classes = scores.shape
    if places is not None:
        for label in places[:, 0].tolist():
            _check_class(label, classes)
        classes_first = (places[:, :1] % classes, places[:, 1:])
        return torch.cat(classes_first, 1).to(scores.device)
    if target is None:
        return scores.detach().argmax(1)
    if isinstance(target, bool):
        raise InputError(f"target is {target}; accepted: a class index, one per sample, a callable, or None")
    if isinstance(target, type):
        raise InputError(f"target is the class {target.__name__}; accepted: a class index, or a callable")
    if callable(target) and not isinstance(target, Tensor):
        return target
    if isinstance(target, int):
        _check_class(target, classes)
        return torch.full((batch,), target % classes, device=scores.device)
    labels = class_indices(target, batch).to(scores.device)
    for label in labels.tolist():
        _check_class(label, classes)
    return (labels % classes).expand(batch)


def is_class_number(text: str) -> bool:
    """Whether a text is the number of a class, in plain digits.

    >>> is_class_number("-2"), is_class_number("²"), is_class_number("--5")
    (True, False, False)
    """
    return re.fullmatch("-?[0-9]+", text) is not None


def class_indices(target: Any, batch: int) -> Tensor:
    """One class index, or `batch` of them, as a tensor of one dimension. InputError for anything else."""
    try:
        labels = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError):
        what = f"{target!r:.60} of type {type(target).__name__}"
        raise InputError(
            f"target is {what}; accepted: a class index, one per sample, a callable, or None"
        ) from None
    if labels.is_floating_point() or labels.dtype == torch.bool or labels.numel() not in (1, batch):
        raise InputError(
            f"target has shape {tuple(labels.shape)} and type {labels.dtype}; accepted: one class index, or "
            f"{batch} of them, one per sample"
        )
    return labels.flatten().long()


def described(target: Any) -> Tensor | str:
    """What an explanation keeps of a resolved target: class indices, or the repr of a callable."""
    return target.clone() if isinstance(target, Tensor) else repr(target)


def pick(target: Tensor | Callable[[Tensor], Tensor], scores: Tensor) -> Tensor:
    """The (batch,) scalars that a resolved target names; class indices are repeated if `scores` has a
    multiple of their number of rows."""
    if isinstance(target, Tensor):
        target = classes_of(target)
        index = target.repeat(scores.shape[0] // target.shape[0])
        return scores.gather(1, index.unsqueeze(1)).squeeze(1)
    try:
        value = target(scores)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the target callable raised {type(error).__name__}: {error} (for scores of shape {tuple(scores.shape)}); "
            "accepted: one that maps (batch, classes) scores to (batch,)"
        ) from error
    if not isinstance(value, Tensor) or value.shape != scores.shape[:1]:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise InputError(
            f"the target callable returned {got} for {scores.shape[0]} samples; accepted: one score each"
        )
    if not all_finite(value):
        raise InputError(
            "the target callable gives NaN or infinite values for scores that are finite; accepted: a finite score for "
            "each sample, also where features are hidden"
        )
    return value


def probabilities(scores: Tensor, each: bool = False) -> Tensor:
    """The (batch, classes) probabilities that scores stand for: their softmax, or the sigmoid of a single score.
    Scores that are probabilities already, none below 0 and each row with the sum 1, stay as they are. With `each`
    every class is a question of its own, whose probability is the sigmoid of its score.

    >>> probabilities(torch.tensor([[0.2, 0.8]])), probabilities(torch.zeros(1, 2))
    (tensor([[0.2000, 0.8000]]), tensor([[0.5000, 0.5000]]))
    """
    return scores if are_probabilities(scores) and not each else squashed(scores, each)


def are_probabilities(scores: Tensor) -> bool:
    """Whether (batch, classes) scores have the form of probabilities: none below 0, and each row with the sum 1."""
    return bool((scores.amin() >= 0) & ((scores.sum(1) - 1).abs().amax() < 1e-3)) and scores.shape[1] > 1


def squashed(scores: Tensor, each: bool = False) -> Tensor:
    """The softmax of (batch, classes) scores, or the sigmoid of a single one (or of `each`)."""
    return scores.sigmoid() if each or scores.shape[1] == 1 else scores.softmax(1)


def unsquashed(chances: Tensor) -> Tensor:
    """Scores whose `squashed` are these probabilities, kept away from 0 and 1 so that they are finite.

    >>> squashed(unsquashed(torch.tensor([[0.25, 0.75]])))
    tensor([[0.2500, 0.7500]])
    """
    least = torch.finfo(chances.dtype).eps
    chances = chances.clamp(least, 1 - least)
    return chances.logit() if chances.shape[1] == 1 else chances.log()


def _check_class(label: int, classes: int) -> None:
    if not -classes <= label < classes:
        raise InputError(f"target is class {label}, but the model has {classes} classes (0 to {classes - 1})")
