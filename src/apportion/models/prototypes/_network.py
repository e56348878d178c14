"""The network: a grid of features, add-on layers, the similarity of each patch to each prototype, a linear layer."""

from __future__ import annotations

import threading
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from apportion.core.calling import module_named
from apportion.core.features import TabularFeatures
from apportion.errors import InputError, first_line
from apportion.methods.gradients.layer_grids import grid_of

Similarity = Literal["log", "cosine"]

EPSILON = 1e-4  # Chen et al. 2019, section 2.1: log((d + 1) / (d + ε))


class Backbone(nn.Module):
    """The (batch, channels, rows, columns) grid in the output of any module, or of one of its layers.

    The tokens of a vision transformer are laid out as the grid that they come from. Without `layer` the output
    of the module is taken, or of its last layer that has a grid (`found` says which).

    >>> Backbone(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), torch.zeros(1, 1, 8, 8)).layer
    '0'
    """

    def __init__(self, module: nn.Module, example: Tensor, layer: str | None = None) -> None:
        super().__init__()
        self.module, self.layer = module, layer
        self.shape: tuple[int, ...] | None = None
        if layer is not None:
            module_named(module, layer)
        with torch.no_grad():
            if layer is None and not _has_grid(self._output(example), example):
                self.layer = _last_grid(module, example)
            sides = tuple(self(example).shape[2:])
        if max(sides) == 1:
            raise InputError(
                f"the backbone gives a grid of 1 × 1 for images of {' × '.join(map(str, example.shape[2:]))}, so "
                "that a prototype would be a whole image; accepted: larger images, or layer= an earlier layer"
            )
        self.shape = tuple(example.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        output = self._output(x)
        if isinstance(output, Tensor) and output.dim() == 4 and output.is_floating_point():
            return output
        grid = grid_of(output, len(x), x.shape[2:])
        if grid is None:
            what = (
                f"{tuple(output.shape)} {output.dtype}"
                if isinstance(output, Tensor)
                else type(output).__name__
            )
            place = "the backbone" if self.layer is None else f"layer {self.layer!r} of the backbone"
            raise InputError(
                f"{place} gives {what} for images {tuple(x.shape)}; accepted: a grid (batch, channels, rows, "
                "columns) of floats, or the tokens of one"
            )
        return grid.of(output)

    def _output(self, x: Tensor) -> Any:
        """What the module gives; what it raises for images of another shape than the first is told in one line."""
        try:
            return _tensor(self.module(x)) if self.layer is None else self._at_layer(x, self.layer)
        except (InputError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if self.shape == x.shape[1:]:
                raise
            known = "" if self.shape is None else f"; accepted: such as {self.shape}, of which it is known"
            raise InputError(
                f"the backbone does not run on images of shape {tuple(x.shape[1:])}: {type(error).__name__}: "
                f"{first_line(error):.200}{known}"
            ) from error

    def _at_layer(self, x: Tensor, layer: str) -> Any:
        thread, seen = threading.get_ident(), []

        def keep(_: Any, __: Any, output: Any) -> None:
            if threading.get_ident() == thread:
                seen.append(_tensor(output))

        handle = module_named(self.module, layer).register_forward_hook(keep)
        try:
            self.module(x)
        finally:
            handle.remove()
        if not seen:
            raise InputError(f"layer {layer!r} of the backbone was not called")
        return seen[-1]


def _tensor(output: Any) -> Any:
    """The tensor in a module's output: itself, the first of a tuple, or what `transformers` models call it."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list) and output:
        return output[0]
    return getattr(output, "last_hidden_state", getattr(output, "logits", output))


def _has_grid(output: Any, example: Tensor) -> bool:
    whole = isinstance(output, Tensor) and output.dim() == 4  # perhaps of one place, which is told apart
    return whole or grid_of(output, len(example), example.shape[2:]) is not None


def _last_grid(module: nn.Module, example: Tensor) -> str:
    found: list[str] = []
    handles = []
    for name, part in module.named_modules():
        # A linear map of tokens (the keys of an attention) is a part of a layer, not its output.
        if not name or isinstance(part, nn.Linear | nn.Dropout | nn.Identity):
            continue

        def look(_: Any, __: Any, output: Any, name: str = name) -> None:
            if grid_of(_tensor(output), len(example), example.shape[2:]) is not None:
                found.append(name)

        handles.append(part.register_forward_hook(look))
    try:
        output = _tensor(module(example))
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(
            f"no layer of the backbone gives a grid of features for images {tuple(example.shape)}; its output is "
            f"{shape}. A grid is (batch, channels, rows, columns) with more than one place, or the tokens of one"
        )
    return found[-1]


def add_on_layers(channels: int, width: int) -> nn.Sequential:
    """1 × 1 convolution, ReLU, 1 × 1 convolution, sigmoid (section 2.1), initialised as by the authors."""
    layers = nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.Sigmoid())
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layers


@torch.no_grad()
def standardise(layers: nn.Sequential, mean: Tensor, deviation: Tensor) -> None:
    """Let add-on layers do to channels what they did, after these are brought to mean 0 and deviation 1, with
    the first layer's weights such that its outputs are of deviation √2 (those of a dead channel become 0)."""
    first = layers[0]
    assert isinstance(first, nn.Conv2d)
    assert first.bias is not None
    width, channels = first.weight.shape[:2]
    dead = deviation <= 1e-5 * deviation.max()
    scale = ((width / channels) ** 0.5 / deviation).masked_fill(dead, 0).to(first.weight)
    first.weight.mul_(scale[:, None, None])
    first.bias.sub_(first.weight[:, :, 0, 0] @ mean.to(first.weight))


class Centre(nn.Module):
    """Patches less the mean patch: the add-on layer of the fast recipe."""

    mean: Tensor

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, x: Tensor) -> Tensor:
        return x - self.mean[:, None, None]


class PrototypeNet(nn.Module):
    """(batch, channels, height, width) images to (batch, classes) scores by similarity to prototypes.

    `prototypes` is (prototypes, channels) and `class_of` the class of each. The score of class c is `Σⱼ w_cj sⱼ`
    with `sⱼ` the largest similarity of prototype j to a patch, `log((d + 1) / (d + 1e-4))` of the squared
    distance d (Chen et al. 2019, eq. 1) or the cosine. The last layer has no bias and starts at +1 for a
    prototype's own class and −0.5 for the others.

    >>> net = PrototypeNet(nn.Identity(), nn.Identity(), torch.eye(2), torch.tensor([0, 1]), 2)
    >>> [round(score, 2) for score in net(torch.eye(2)[:, :, None, None])[0].tolist()]
    [9.01, -4.2]
    """

    prototypes: Tensor
    class_of: Tensor
    named: TabularFeatures | None = None
    """What a person calls the prototypes, where that is known."""

    def __init__(
        self,
        backbone: nn.Module,
        add_on: nn.Module,
        prototypes: Tensor,
        class_of: Tensor,
        classes: int,
        similarity: Similarity = "log",
    ) -> None:
        super().__init__()
        self.backbone, self.add_on, self.similarity = backbone, add_on, similarity
        self.prototypes = nn.Parameter(prototypes.clone())
        self.register_buffer("class_of", class_of)
        self.last = _linear(torch.where(_own(class_of, classes), 1.0, -0.5))

    @property
    def classes(self) -> int:
        return self.last.out_features

    def own_class(self) -> Tensor:
        """(classes, prototypes): whether the prototype belongs to the class."""
        return _own(self.class_of, self.classes)

    def features(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, columns) patches, as they are compared with prototypes."""
        return self.add_on(self.backbone(x))  # type: ignore[no-any-return]

    def similarities(self, patches: Tensor) -> Tensor:
        """(batch, prototypes, rows, columns)."""
        if self.similarity == "cosine":
            return _inner_products(F.normalize(patches, dim=1), F.normalize(self.prototypes, dim=1))
        return log_similarity(self.distances(patches))

    def distances(self, patches: Tensor) -> Tensor:
        """(batch, prototypes, rows, columns) squared distances."""
        lengths = self.prototypes.square().sum(1)[:, None, None]
        return (
            patches.square().sum(1, keepdim=True) - 2 * _inner_products(patches, self.prototypes) + lengths
        ).clamp(min=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.similarities(self.features(x)).amax((2, 3)))  # type: ignore[no-any-return]

    def keep(self, kept: Tensor) -> None:
        """Drop all prototypes but those of these numbers, with their weights in the last layer."""
        self.prototypes = nn.Parameter(self.prototypes.detach()[kept].clone())
        self.class_of = self.class_of[kept]
        self.last = _linear(self.last.weight.detach()[:, kept])


def _own(class_of: Tensor, classes: int) -> Tensor:
    return torch.arange(classes, device=class_of.device)[:, None] == class_of


def _linear(weight: Tensor) -> nn.Linear:
    """A layer with this weight and no bias, made without a draw from the global random state."""
    made: nn.Linear = skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=False, device=weight.device)
    made.weight = nn.Parameter(weight.clone())
    return made


def log_similarity(distance: Tensor) -> Tensor:
    """`log((d + 1) / (d + ε))` of a squared distance (section 2.1)."""
    return torch.log((distance + 1) / (distance + EPSILON))


def _inner_products(patches: Tensor, vectors: Tensor) -> Tensor:
    """The inner product of every patch with every vector."""
    return F.conv2d(patches, vectors[:, :, None, None])


class LinearInPatches(nn.Module):
    """The same scores, or the similarities, as a linear function of each prototype's most similar patch.

    A distance hands relevance to the channels that *differ*; what makes a patch similar is its inner product
    with the prototype. So the similarity is written as `sⱼ = z · (pⱼ sⱼ / z · pⱼ)` with the bracket held
    constant, and layer-wise relevance propagation gives channel k of the patch z the share `z_k p_jk / z · pⱼ`
    of `sⱼ`, for both kinds of similarity.
    """

    def __init__(self, net: PrototypeNet, similarities: bool = False) -> None:
        super().__init__()
        self.net, self.only = net, similarities

    def forward(self, x: Tensor) -> Tensor:
        patches = self.net.features(x)  # (batch, channels, rows, columns)
        found = self.net.similarities(patches.detach()).flatten(2).max(2)  # (batch, prototypes): value, place
        place = found.indices[:, None].expand(-1, patches.shape[1], -1)
        best = patches.flatten(2).gather(2, place)  # (batch, channels, prototypes)
        vectors = self.net.prototypes.detach().t()  # (channels, prototypes)
        inner = (best.detach() * vectors).sum(1)  # (batch, prototypes)
        # Where nothing is shared there is nothing to pass on: the similarity then stays in the remainder.
        ratio = torch.where(inner == 0, torch.zeros_like(inner), found.values / inner)
        linear = (best * (vectors * ratio[:, None])).sum(1)  # (batch, prototypes)
        similar = linear + (found.values - linear).detach()
        return similar if self.only else self.net.last(similar)
