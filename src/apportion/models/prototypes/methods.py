"""What the network's scores are made of, as Explanations: over its prototypes, and over the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from apportion.core.calling import Model
from apportion.core.inputs import Given, Inputs
from apportion.core.settings import checked
from apportion.core.target import Target, pick, resolve, scores_of
from apportion.engines.subject import Subject
from apportion.errors import InputError
from apportion.methods.propagation.composites import Composite
from apportion.methods.propagation.lrp import LRP
from apportion.models.prototypes._network import LinearInPatches, PrototypeNet
from apportion.results.explanation import Explanation


@dataclass(frozen=True)
@checked
class Prototypes:
    """The share of each prototype in a score: `w_cj sⱼ`, connection times similarity (Chen et al. 2019, section 2.1).

    `values` is (batch, prototypes), and adds up to the score of a class: it *is* the computation, so the
    remainder is rounding. Takes a `PrototypeNet`, or what holds one as `model`. Cost: one forward pass.

    >>> net = PrototypeNet(torch.nn.Identity(), torch.nn.Identity(), torch.eye(2), torch.tensor([0, 1]), 2)
    >>> e = Prototypes()(net, torch.eye(2)[:, :, None, None], target=0)
    >>> e.values.shape, bool(e.remainder.abs().max() < 1e-5)
    (torch.Size([2, 2]), True)
    """

    def __call__(self, model: Model, inputs: Inputs, target: Target = None) -> Explanation[Tensor, Tensor]:
        found, named = _Forward(model, inputs, target), net_of(model).named
        explanation = found.explanation(self, found.shares(None))
        return explanation if named is None else explanation.with_features([named] * len(explanation))


@dataclass(frozen=True)
@checked
class Upsampled:
    """Draw the maps of ProtoPNet as shares of a score (Chen et al. 2019, figure 3).

    Each prototype's `w_cj sⱼ` is spread over the pixels in proportion to its similarity map, less its minimum,
    enlarged bicubically. Adds up to the score. Beware: the pixels under a place of the grid need not be what its
    features come from. Cost: one forward pass.

    Attributes:
        prototype (int, default None): Prototype whose similarity is spread instead; None: the score of the class.
    """

    prototype: int | None = None

    def __call__(self, model: Model, inputs: Inputs, target: Target = None) -> Explanation[Tensor, Tensor]:
        found = _Forward(model, inputs, target)
        space = found.x.shape[2:]
        maps = found.maps - found.maps.amin((2, 3), keepdim=True)
        maps = torch.where(maps.amax((2, 3), keepdim=True) > 0, maps, 1.0)
        weight = _pixels_of_a_place(maps, space)
        maps = maps / (maps * weight).sum((2, 3), keepdim=True)  # each sums to 1 when it is enlarged
        fine = enlarge(torch.einsum("bm,bmhw->bhw", found.shares(self.prototype), maps)[:, None], space)
        channels = found.x.shape[1]
        values = (fine / channels).expand(-1, channels, -1, -1).contiguous()
        return found.explanation(self, values, self.prototype)


@dataclass(frozen=True)
@checked
class PrototypeLRP:
    """Propagate relevance layer by layer through prototypes and backbone to the pixels.

    A patch's similarity is passed to its channels in proportion to their part in the inner product with the prototype
    (see `LinearInPatches`), and from there by the composite, as in `LRP`. Gautam et al. 2023 (Prototypical Relevance
    Propagation) propose other shares, `∝ 1 / (z_k − p_k)⁴`. What biases absorb is the remainder. Cost: one forward
    and one backward pass.

    Attributes:
        composite (str or Composite, default None): The rules of the backbone; None: as in `LRP`.
        ledger (bool, default False): Keep which operation absorbed what, in the ledger.
        prototype (int, default None): Prototype whose similarity is explained; None: the score of the class.
    """

    composite: str | Composite | None = None
    ledger: bool = False
    prototype: int | None = None

    def __call__(self, model: Model, inputs: Given, target: Target = None) -> Explanation[Given, Tensor]:
        net = net_of(model)
        alone = self.prototype is not None
        if alone:
            _check(self.prototype, len(net.prototypes))
        view = LinearInPatches(net, similarities=alone).eval()
        explanation = LRP(self.composite, self.ledger)(view, inputs, self.prototype if alone else target)
        return replace(explanation, method=self)


OVER: dict[str, Any] = {"prototypes": Prototypes(), "upsampled": Upsampled(), "lrp": PrototypeLRP()}
"""The explanations that `ProtoPNet.explain` knows by name."""


class _Forward(Subject):
    """One forward pass with the similarity maps in it; `x` are the inputs, `slope` is ∂score/∂similarity."""

    def __init__(self, model: Model, inputs: Inputs, target: Target) -> None:
        self.net = net_of(model)
        super().__init__(self.net, inputs, target)
        x = self.inputs
        if not isinstance(x, Tensor) or x.dim() != 4:
            raise InputError("prototypes are explained for one tensor (batch, channels, height, width)")
        self.x = x
        with torch.no_grad():
            self.maps = self.net.similarities(self.net.features(x))
        with torch.inference_mode(False), torch.enable_grad():
            similar = self.maps.amax((2, 3)).clone().requires_grad_()
            output = scores_of(self.net.last(similar), len(x))
            self.resolved = resolve(target, output)
            value = pick(self.resolved, output)
            # Of the last layer alone, which is no backward pass of the network.
            (self.slope,) = torch.autograd.grad(value.sum(), similar)
        self.ran(len(x))
        self.output, self.value = output.detach(), value.detach()

    def shares(self, prototype: int | None) -> Tensor:
        """(batch, prototypes) shares in the score, or in the similarity of one prototype."""
        similar = self.maps.amax((2, 3))
        if prototype is None:
            return self.slope * similar
        _check(prototype, similar.shape[1])
        return F.one_hot(torch.as_tensor(prototype, device=similar.device), similar.shape[1]) * similar

    def explanation(
        self, method: Any, values: Tensor, prototype: int | None = None
    ) -> Explanation[Tensor, Tensor]:
        if prototype is None:
            return self.result(Explanation, method, values, self.value, self.output)
        similar = self.maps.amax((2, 3))
        self.resolved = torch.full((len(similar),), prototype, device=similar.device)
        return self.result(Explanation, method, values, similar[:, prototype], similar)


def net_of(model: Any) -> PrototypeNet:
    """The network of prototypes in a model or in what holds one."""
    for found in (model, getattr(model, "model", None), getattr(model, "net_", None)):
        if isinstance(found, PrototypeNet):
            return found
    raise InputError(
        f"model is {type(model).__name__}, which has no prototypes; accepted: a fitted ProtoPNet or its net_"
    )


def _check(prototype: int | None, many: int) -> None:
    if isinstance(prototype, bool) or not isinstance(prototype, int) or not 0 <= prototype < many:
        raise InputError(f"prototype is {prototype!r}; accepted: 0 to {many - 1}")


def enlarge(maps: Tensor, space: Sequence[int]) -> Tensor:
    """(batch, channels, rows, columns) maps in the size of the input, bicubically as the authors do."""
    return F.interpolate(maps, size=tuple(space), mode="bicubic", align_corners=False)


def _pixels_of_a_place(maps: Tensor, space: Sequence[int]) -> Tensor:
    """(rows, columns): what a one at each place of the grid sums to when it is enlarged."""
    with torch.inference_mode(False), torch.enable_grad():
        grid = torch.zeros(1, 1, *maps.shape[2:], dtype=maps.dtype, device=maps.device, requires_grad=True)
        (weight,) = torch.autograd.grad(enlarge(grid, space).sum(), grid)
    return weight[0, 0]
