"""What stands in the place of a hidden feature.

`prepare(x, labels)` is called once for a (batch, …) input; `hide(x, keep, prepared, draw)` for rows of it,
with `keep` in [0, 1] (1 or True: kept) broadcasting to `x`, and `prepared` the same rows of what was
prepared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.core.content import ByContent
from apportion.core.inputs import Inputs, rekeyed
from apportion.core.numbers import tensor_of
from apportion.core.settings import checked
from apportion.engines.masking.padding import attended, up_to_last
from apportion.errors import InputError, check, check_seed, check_whole


class Replacement:
    """Puts `prepared` where a feature is hidden, or mixes it in where a mask is between 0 and 1.

    A replacement of your own says in `prepare` what stands in the place of each entry. The other methods are for those
    that need more: rows of data drawn for each model call, or inputs that become shorter.
    """

    keeps_shape: ClassVar[bool] = True
    """Whether hidden inputs have the shape of the given ones. Otherwise there may be one input only."""

    keeps_whole: ClassVar[bool] = True
    """Whether an input of which nothing is hidden stays as it is."""

    @property
    def draws(self) -> int:
        """How many model calls are averaged for each mask."""
        return 1

    @property
    def random(self) -> bool:
        """Whether two calls with one mask may differ."""
        return False

    def prepare(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return what stands in the place of the entries of `x` (batch, …); `labels` are their features."""
        raise NotImplementedError

    def prepare_seen(self, x: Tensor, labels: Tensor, seen: Tensor) -> Tensor:
        """The same where `seen` says which tokens the model looks at."""
        return self.prepare(x, labels)

    def hide(self, x: Tensor, keep: Tensor, prepared: Tensor, draw: Tensor | None = None) -> Tensor:
        """Hide what `keep` does not keep in rows of the input, of which `prepared` are the same rows."""
        if keep.dtype == torch.bool:
            return torch.where(keep, x, prepared)
        if not x.is_floating_point():
            raise InputError(
                "soft masks (between 0 and 1) were given for integer inputs; accepted: True and False"
            )
        return torch.lerp(prepared, x, keep.to(x.dtype))

    def hide_in(
        self, inputs: Inputs, key: Any, keep: Tensor, prepared: Tensor, draw: Tensor | None = None
    ) -> Inputs:
        """The same in the input of that key, with all that goes along with it."""
        return rekeyed(inputs, lambda k, t: self.hide(t, keep, prepared, draw) if k == key else t)

    def numbers(self) -> Tensor | None:
        """The numbers that it puts in and that do not come from the inputs: these take on a format that holds both."""
        return None

    def rows_of_calls(self, calls: int, random: torch.Generator) -> Tensor | None:
        """Which row of some data each model call draws from, (calls,); None where there are no data."""
        return None

    def batches(
        self, calls: int, chunk: int, lengths: Callable[[], Tensor], width: int | None
    ) -> Iterator[Tensor]:
        """The numbers of the model calls, in chunks that run at once. `lengths` counts what is left of each, (calls,);
        with a `width`, that of the inputs, `chunk` is the number of rows of full width that fit."""
        for begin in range(0, calls, chunk):
            yield torch.arange(begin, min(begin + chunk, calls))


@dataclass(frozen=True)
@checked
class Constant(Replacement):
    """Put the same number everywhere; for token ids, the id of a mask or padding token.

    Attributes:
        value (float, default 0.0, units of the input): The number.

    >>> x, keep = torch.tensor([[1.0, 2.0]]), torch.tensor([[True, False]])
    >>> Constant(9.0).hide(x, keep, Constant(9.0).prepare(x, x)).tolist()
    [[1.0, 9.0]]
    """

    value: float = 0.0

    def __post_init__(self) -> None:
        check("value", self.value, lambda v: float(v) == v or v != v, "a number, or NaN for what is missing")

    def numbers(self) -> Tensor | None:
        whole = isinstance(self.value, Integral)
        return torch.tensor(self.value, dtype=torch.int64 if whole else torch.float64)

    def prepare(self, x: Tensor, labels: Tensor) -> Tensor:
        return torch.full_like(x, self.value)


@dataclass(frozen=True)
@checked
class Mean(Replacement):
    """Put the mean of each channel over the grid; of all entries for inputs of two dimensions."""

    def prepare(self, x: Tensor, labels: Tensor) -> Tensor:
        if x.dim() < 2:
            raise InputError(
                "replacement is Mean, of several numbers a sample, but there is one; accepted: Constant"
            )
        dims = tuple(range(2, x.dim())) if x.dim() > 2 else (1,)
        return _floating(self, x).mean(dims, keepdim=True).expand_as(x)


@dataclass(frozen=True)
@checked
class RegionMean(Replacement):
    """Put the mean of each channel over the feature itself: its texture goes, its colour stays (LIME's own
    choice).

    >>> x, labels = torch.tensor([[1.0, 3.0, 8.0]]), torch.tensor([[0, 0, 1]])
    >>> RegionMean().prepare(x, labels).tolist()
    [[2.0, 2.0, 8.0]]
    """

    def prepare(self, x: Tensor, labels: Tensor) -> Tensor:
        index = (
            (labels + 1).expand_as(x).flatten(2) if x.dim() > 2 else (labels + 1).expand_as(x)
        )  # (batch, …, entries)
        flat, size = precise(_floating(self, x)).reshape(index.shape), int(index.max()) + 1
        sums = flat.new_zeros(*index.shape[:-1], size).scatter_add_(
            -1, index, flat
        )  # (batch, …, features + 1)
        many = torch.zeros_like(sums).scatter_add_(-1, index, torch.ones_like(flat))
        return (sums / many.clamp(min=1)).gather(-1, index).view(x.shape).to(x.dtype)


@dataclass(frozen=True)
@checked
class Blur(Replacement):
    """Blur the input by a Gaussian.

    Attributes:
        sigma (float, default 10.0, places of the grid): Standard deviation of the Gaussian.
    """

    sigma: float = 10.0

    def __post_init__(self) -> None:
        check("sigma", self.sigma, lambda v: 0 < v < float("inf"), "a positive number of places")

    def prepare(self, x: Tensor, labels: Tensor) -> Tensor:
        if _floating(self, x).dim() < 3:
            raise InputError(
                f"replacement is Blur, for a grid (batch, channels, …); the input has {tuple(x.shape)}"
            )
        for axis in range(2, x.dim()):
            reach = min(int(3 * self.sigma + 0.5), x.shape[axis] - 1)
            place = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
            kernel = torch.exp(-0.5 * (place / self.sigma) ** 2)
            rows = x.movedim(axis, -1)
            flat = rows.reshape(1, -1, rows.shape[-1])  # (1, all other axes, places)
            padded = F.pad(flat, (reach, reach), mode="replicate").movedim(1, 0)
            smooth = F.conv1d(padded, (kernel / kernel.sum()).view(1, 1, -1))
            x = smooth.movedim(0, 1).view(rows.shape).movedim(-1, axis)
        return x


@dataclass(frozen=True)
@checked
class NoisyLinear(Replacement):
    """Impute linearly with noise (Rong et al. 2022, ROAD): each hidden pixel is the weighted mean of its eight
    neighbours (1/6 beside, 1/12 across a corner), hidden ones included, plus Gaussian noise.

    All masks of a chunk are solved together by conjugate gradients. The noise is one field for each sample.

    Attributes:
        noise (float, default 0.01, units of the input): Standard deviation of the noise.
        seed (int, default 0): Of the noise.
        accuracy (float, default 1e-5, share of the largest entry of an image): Largest residual at which the solver
            stops.
    """

    noise: float = 0.01
    seed: int = 0
    accuracy: float = 1e-5

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check("noise", self.noise, lambda v: 0 <= v < float("inf"), "zero or a positive number")
        check("accuracy", self.accuracy, lambda v: 0 < v < 1, "a share between 0 and 1")

    def prepare(self, x: Tensor, labels: Tensor) -> Tensor:
        if _floating(self, x).dim() != 4:
            raise InputError(
                f"replacement is NoisyLinear, for pictures (batch, channels, height, width), not {tuple(x.shape)}"
            )
        generator = torch.Generator(x.device).manual_seed(self.seed)
        draw = torch.randn(x.shape[1:], generator=generator, device=x.device, dtype=x.dtype)
        return (self.noise * draw).expand_as(x)

    def hide(self, x: Tensor, keep: Tensor, prepared: Tensor, draw: Tensor | None = None) -> Tensor:
        if keep.dtype != torch.bool:
            raise InputError("NoisyLinear was given a soft mask; accepted: True (kept) or False")
        keep = keep.expand(x.shape)
        return torch.where(keep, x, interpolated(x, keep, self.accuracy) + prepared)


def interpolated(x: Tensor, keep: Tensor, accuracy: float = 1e-5, steps: int = 2000) -> Tensor:
    """The harmonic continuation of the kept pixels of (batch, channels, height, width) images into the
    hidden.

    `Σⱼ wᵢⱼ (zᵢ − zⱼ) = 0` at hidden i is symmetric and positive definite, so conjugate gradients solve every
    image and channel at once; an image whose largest residual is under `accuracy` times its largest entry
    stands still, so that none depends on the others. A channel without kept pixels is zero.
    """
    if precise(x) is not x:
        return interpolated(precise(x), keep, accuracy, steps).to(x.dtype)
    degree = _neighbours(torch.ones_like(x[:1, :1]))  # (1, 1, height, width): less than 1 at the edges
    kept, hidden = keep.to(x.dtype), (~keep).to(x.dtype)

    def dot(a: Tensor, b: Tensor) -> Tensor:
        products: Tensor = torch.linalg.vecdot(a.flatten(2), b.flatten(2))
        return products[..., None, None]  # (batch, channels, 1, 1)

    z = hidden * (dot(x, kept) / kept.sum((2, 3), keepdim=True).clamp(min=1))
    residual = hidden * (_neighbours(kept * x + z) - degree * z)
    limit = accuracy * x.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-30)
    direction, size, tiny = residual, dot(residual, residual), torch.finfo(x.dtype).tiny
    for step in range(steps):
        if step % _STEPS_UNSEEN == 0:
            going = residual.abs().amax((1, 2, 3), keepdim=True) > limit
            if not bool(going.any()):
                break
        image = (degree * direction - _neighbours(direction)).mul_(hidden)
        length = going * size / dot(direction, image).clamp(min=tiny)
        z = torch.addcmul(z, length, direction)
        residual = torch.addcmul(residual, length, image, value=-1)
        size, before = dot(residual, residual), size
        direction = torch.addcmul(residual, size / before.clamp(min=tiny), direction)
    return z


_STEPS_UNSEEN = 4


def _neighbours(z: Tensor) -> Tensor:
    """The weighted sum of the eight neighbours of each pixel: 1/6 beside, 1/12 across a corner."""
    padded = F.pad(z, (1, 1, 1, 1))
    rows = (padded[..., :-2, :] + padded[..., 2:, :]).add_(padded[..., 1:-1, :], alpha=2)
    both = (rows[..., :-2] + rows[..., 2:]).add_(rows[..., 1:-1], alpha=2)
    found: Tensor = both.sub_(z, alpha=4).div_(12)
    return found


_ROWS = "rows of numbers like the inputs: a tensor, an array, a pandas frame of numbers, or a list of rows"


@dataclass(frozen=True, eq=False, repr=False)
@checked
class Background(ByContent, Replacement):
    """Draw hidden features *together* from one row of some data.

    Two backgrounds are equal if their data are, and the repr names the data by their content.

    Attributes:
        data (Tensor): The rows, (rows, …) like the inputs; an array is copied into a tensor.
        many (int, default None): Random rows whose scores are averaged for each mask; None: all rows.
    """

    data: Tensor
    many: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", tensor_of("the background", self.data, _ROWS))
        if self.data.dim() < 2 or not len(self.data):
            raise InputError(
                f"the background has shape {tuple(self.data.shape)}; accepted: (rows, …) like the inputs"
            )
        check_whole(1, many=1 if self.many is None else self.many)

    @property
    def draws(self) -> int:
        return len(self.data) if self.many is None else self.many

    @property
    def random(self) -> bool:
        """Whether two calls with one mask may differ."""
        return self.many is not None

    def numbers(self) -> Tensor | None:
        return self.data

    def rows_of_calls(self, calls: int, random: torch.Generator) -> Tensor | None:
        rows = len(self.data)
        return (
            torch.arange(calls) % rows
            if self.many is None
            else torch.randint(rows, (calls,), generator=random)
        )

    def prepare(self, x: Tensor, labels: Tensor) -> Tensor:
        if self.data.shape[1:] != x.shape[1:]:
            raise InputError(
                f"the background has shape {tuple(self.data.shape)}, but the inputs {tuple(x.shape)}"
            )
        return x

    def hide(self, x: Tensor, keep: Tensor, prepared: Tensor, draw: Tensor | None = None) -> Tensor:
        assert draw is not None
        rows = self.data[draw.to(self.data.device) % len(self.data)].to(x)
        return super().hide(x, keep, rows)


@dataclass(frozen=True)
@checked
class Delete(Replacement):
    """Take hidden tokens out, and run the model on the shorter text.

    Only texts of one length run together, which suits any model. Padding at the end of a text is taken out too.

    Attributes:
        empty (int, default 0): Id of the token that stands for a text of which nothing is left.
        padding (int, default None): Id of a token that the model does not look at (where `attention_mask` is 0, if it
            is among the inputs). Texts of like length then run together, several times faster; None: there is none.
    """

    empty: int = 0
    padding: int | None = None

    def __post_init__(self) -> None:
        check_whole(0, empty=self.empty, padding=0 if self.padding is None else self.padding)

    keeps_shape: ClassVar[bool] = False

    def prepare(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.prepare_seen(x, labels, torch.ones_like(x, dtype=torch.bool))

    def prepare_seen(self, x: Tensor, labels: Tensor, seen: Tensor) -> Tensor:
        """True up to the last token that the model looks at: padding at the end goes with hidden tokens."""
        if x.is_floating_point() or x.dim() != 2:
            raise InputError(
                f"the replacement Delete needs token ids (batch, tokens), not {x.dtype} of shape {tuple(x.shape)}"
            )
        if self.padding is not None:
            seen = seen & ((x != self.padding) | (labels >= 0))
        return up_to_last(seen.expand(x.shape))

    def hide_in(
        self, inputs: Inputs, key: Any, keep: Tensor, prepared: Tensor, draw: Tensor | None = None
    ) -> Inputs:
        """The inputs with hidden tokens taken out, and shorter texts padded. What has one entry a token goes along."""
        ids = inputs if isinstance(inputs, Tensor) else inputs[key]
        # Of a text of which only padding is left, nothing is left.
        keep = keep & prepared
        keep = keep & (keep & attended(inputs, ids)).any(1, keepdim=True)
        lengths, width = keep.sum(1, keepdim=True), ids.shape[1]
        longest = max(1, int(lengths.max()))
        order = (~keep).long().argsort(dim=1, stable=True)[:, :longest]
        beyond = torch.arange(longest, device=ids.device) >= lengths.clamp(min=1)

        def shorten(name: Any, t: Tensor) -> Tensor:
            if t.dim() < 2 or t.shape[1] != width:
                return t
            if name == "position_ids":
                return t[:, :longest]
            taken = t.take_along_dim(order.view(*order.shape, *[1] * (t.dim() - 2)), 1)
            if name == key:
                taken = taken.masked_fill(lengths == 0, self.empty).masked_fill(beyond, self.padding or 0)
            if name == "attention_mask":  # the one token that stands for nothing is looked at
                return taken.masked_fill(beyond, 0).masked_fill(~beyond & (lengths == 0), 1)
            return taken

        return rekeyed(inputs, shorten)

    def batches(
        self, calls: int, chunk: int, lengths: Callable[[], Tensor], width: int | None
    ) -> Iterator[Tensor]:
        """Texts of one length make a batch: a model that cannot pad then gives what it gives to the short text. With
        padding, their lengths may differ by a third of the longest of all. Of short texts more run at once: about as
        many tokens."""
        left = lengths()
        like = left if self.padding is None else 3 * left // int(left.max() + 1)
        for length in torch.unique(like):
            alike = (like == length).nonzero().flatten()
            longest = max(1, int(left[alike].max()))
            many = chunk if width is None else chunk * width // longest
            yield from alike[left[alike].argsort(stable=True)].split(many)


def default_replacement(x: Tensor, mask: int | Tensor | None) -> Replacement:
    """The mask token (id 0 where none is known) for token ids, zero for numbers, or rows of data where these are given
    as the mask."""
    if isinstance(mask, Tensor):
        return Background(mask)
    return Constant(0.0) if x.is_floating_point() or mask is None else Constant(mask)


def precise(x: Tensor) -> Tensor:
    """The same numbers in a format that sums and medians can be computed in."""
    if not x.is_floating_point():
        return x.double()
    return x.float() if x.element_size() < 4 else x


def _floating(replacement: Replacement, x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise InputError(
            f"replacement is {type(replacement).__name__}, for floating point inputs; for token ids: Constant, Delete"
        )
    if bool(x.isnan().any()):
        raise InputError(
            f"replacement is {type(replacement).__name__}, which computes with numbers of the input, some missing "
            "(NaN); accepted here: Constant, or Background with rows of data"
        )
    return x
