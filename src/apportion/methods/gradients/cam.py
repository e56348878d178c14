"""Class activation maps: the channels of a late layer, weighted by what the score's gradient says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from apportion.core.calling import Model, with_gradients
from apportion.core.inputs import Given, Inputs, is_side
from apportion.core.settings import checked
from apportion.core.target import Target
from apportion.core.trees import tensors_in
from apportion.engines.substitution import Gradients
from apportion.engines.substitution.leaves import Slot
from apportion.errors import InputError, check
from apportion.methods.gradients.layer_grids import at_layer, enlarge, last_layer
from apportion.methods.gradients.rectified import GuidedBackprop
from apportion.results.explanation import Explanation


@dataclass(frozen=True)
@checked
class GradCAM:
    """Weight the channels of a layer by their mean gradient (Grad-CAM, Selvaraju et al. 2017, eq. 1-2):
    `ReLU(Σₖ wₖ Aᵏ)`, `wₖ` the mean gradient over channel k.

    The map is enlarged bilinearly to the size of the input; the channels of a pixel share its value equally. It
    does not claim to add up. `notes` names the layer. Cost: one forward pass and a backward pass down to the
    layer; to find it one more backward pass for a vision transformer, and one more of both where it comes before
    the last convolution.

    Attributes:
        layer (str, default None): Dotted name of a module, taken at its last call that depends on the picture;
            None: the last whose output depends on the picture and keeps a grid that the score depends on, its
            channels first or last (of a vision transformer the grid of its patch tokens).
        relu (bool, default True): Hide what speaks against the class; False keeps it.
        guided (bool, default False): Multiply by `GuidedBackprop` (section 3.2 of the paper).

    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(32, 3))
    >>> e = GradCAM()(model, torch.ones(1, 1, 6, 6))
    >>> e.values.shape, e.notes["layer"]
    (torch.Size([1, 1, 6, 6]), '0')
    """

    layer: str | None = None
    relu: bool = True
    guided: bool = False

    def __post_init__(self) -> None:
        check("layer", self.layer, lambda v: v is None or isinstance(v, str), "the name of a module, or None")

    @with_gradients()
    def __call__(self, model: Model, inputs: Given, target: Target = None) -> Explanation[Given, None]:
        subject = Gradients(model, inputs, target, self.layer)
        key, image = _find_image(subject.inputs, type(self).__name__)
        space = image.shape[2:]
        if self.layer is None:
            found = last_layer(subject, key, space)
        else:
            found = at_layer(subject, self.layer, key, space)
        coarse = self.weigh(found.grid.of(found.activation), found.grid.of(found.gradient))
        fine = enlarge(coarse.clamp(min=0) if self.relu else coarse, space)[:, None].to(image.dtype)
        values = (fine / image.shape[1]).expand_as(image).contiguous()
        if self.guided:
            guide = GuidedBackprop()(subject.model, inputs, subject.resolved)
            subject.include(guide.cost)
            subject.compare(found.score.output, guide.output, guide.output)
            values = fine * next(tensors_in(guide.values))
        notes = {"layer": found.layer, "grid": list(found.grid.sides)}
        score = replace(found.score, slots=[Slot(key)])
        warnings = (*found.warnings, *_warn_of_empty(values, found.layer, self.relu))
        return subject.explanation(self, score, [values], total=None, warnings=warnings, notes=notes)

    @staticmethod
    def weigh(activation: Tensor, gradient: Tensor) -> Tensor:
        """(batch, …grid) from (batch, channels, …grid) activations and gradients."""
        weights = gradient.flatten(2).mean(2)
        return torch.einsum("bk,bk...->b...", weights, activation)


@dataclass(frozen=True)
@checked
class GradCAMPlusPlus(GradCAM):
    """Count several objects although each is small (Grad-CAM++, Chattopadhyay et al. 2018, eq. 10-11, 19):
    `wₖ = Σ αₖ ReLU(gₖ)` over the grid, with `αₖ = gₖ² / (2 gₖ² + gₖ³ Σ Aᵏ)`.

    Settings and all else: those of [GradCAM][apportion.methods.gradients.cam.GradCAM].
    """

    @staticmethod
    def weigh(activation: Tensor, gradient: Tensor) -> Tensor:
        whole = activation.flatten(2).sum(2).view(*activation.shape[:2], *[1] * (activation.dim() - 2))
        # Divided by g², which may be too small for its cube: α = 1 / (2 + g Σ A).
        below = 2 + gradient * whole
        alpha = torch.where((gradient != 0) & (below != 0), 1 / below, 0.0)
        weights = (alpha * gradient.clamp(min=0)).flatten(2).sum(2)
        return torch.einsum("bk,bk...->b...", weights, activation)


@dataclass(frozen=True)
@checked
class LayerCAM(GradCAM):
    """Weight each place of the grid, so that earlier layers give finer maps (LayerCAM, Jiang et al. 2021, eq. 5-6):
    `ReLU(Σₖ ReLU(gₖ) Aᵏ)`.

    Settings and all else: those of [GradCAM][apportion.methods.gradients.cam.GradCAM].
    """

    @staticmethod
    def weigh(activation: Tensor, gradient: Tensor) -> Tensor:
        return (gradient.clamp(min=0) * activation).sum(1)


def _warn_of_empty(values: Tensor, layer: str, relu: bool) -> tuple[str, ...]:
    empty = [i for i, value in enumerate(values) if not bool(value.any())]
    if not empty:
        return ()
    some = f"{empty[:8]} and {len(empty) - 8} more" if len(empty) > 8 else str(empty)
    hint = "; relu=False shows what speaks against the class" if relu else ""
    return (
        f"the map of samples {some} is zero everywhere: nothing at layer {layer!r} speaks for the score{hint}",
    )


def _find_image(inputs: Inputs, name: str) -> tuple[Any, Tensor]:
    """The one floating point input with a grid, and its place among the inputs."""
    if isinstance(inputs, Tensor):
        items: list[tuple[Any, Tensor]] = [(None, inputs)]
    else:
        items = list(inputs.items()) if isinstance(inputs, Mapping) else list(enumerate(inputs))
    found = [(k, x) for k, x in items if x.is_floating_point() and 3 <= x.dim() <= 5 and not is_side(k, x)]
    if len(found) != 1:
        came = ", ".join(f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}" for _, x in items)
        raise InputError(
            f"{name} explains pictures: it needs one picture-like input, (batch, channels, …) of floating point "
            f"numbers; it got {came}"
            + ("; of several, ap.held(x) marks those that are not explained" if len(found) > 1 else "")
        )
    return found[0]
