"""Concept relevance: the part of LRP that passes some channels of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from apportion.core.calling import Model, with_gradients
from apportion.core.inputs import Given
from apportion.core.private_torch import Convolution
from apportion.core.settings import checked
from apportion.core.target import Target
from apportion.engines.substitution import Gradients
from apportion.errors import InputError, check, check_whole
from apportion.methods.propagation.composites import Composite, find_composite
from apportion.methods.propagation.lrp import LRP, relevance, warn_of_gaps
from apportion.results.explanation import Explanation


@dataclass(frozen=True)
@checked
class ConceptRelevance:
    """Propagate the relevance of some channels of a layer alone (concept relevance propagation, Achtibat et al. 2023).

    LRP, but of what arrives at the outputs of `layer` only the relevance of `channels` goes on, and none goes past the
    layer: the map says where in the input the concept is that these channels stand for, as far as it speaks for the
    target. `total` is the relevance of the channels at the layer, so that the remainder is what was absorbed below. The
    maps of all channels add up to the map of LRP where all that it propagates passes the layer. `LRP(at=layer)` says
    which channels matter. Cost: one forward pass and two backward, of which one ends at the layer.

    Attributes:
        layer (str, default ""): Module whose output has the channels; to be given.
        channels (int or list of int, default None): Channels whose relevance goes on; None: the most relevant one of
            each sample, as the notes say.
        axis (int, default 1): Axis of the channels in the output; -1: the last, as in transformers.
        composite (str or Composite, default None): Which rule a layer gets, as `LRP` has it; None: by what the model is
            made of.

    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    >>> x = torch.ones(1, 4)
    >>> maps = [ConceptRelevance("1", channel)(model, x, target=0).values for channel in range(3)]
    >>> torch.allclose(sum(maps), LRP()(model, x, target=0).values, atol=1e-6)
    True
    """

    layer: str = ""
    channels: int | Sequence[int] | None = None
    axis: int = 1
    composite: str | Composite | None = None

    def __post_init__(self) -> None:
        given = self._channels
        check(
            "channels", given, lambda v: v is None or len(set(v)) == len(v) > 0, "one, or several, each once"
        )
        for place, channel in enumerate(given or ()):
            check_whole(0, **{f"channels[{place}]": channel})
        if find_composite(self.composite, None)[1].bias == "place":
            raise InputError(
                "composite places what biases take past the layer; accepted: another bias than 'place'"
            )

    @property
    def _channels(self) -> list[int] | None:
        if self.channels is None or isinstance(self.channels, int):
            return None if self.channels is None else [self.channels]
        return list(self.channels)

    @with_gradients()
    def __call__(self, model: Model, inputs: Given, target: Target = None) -> Explanation[Given, Tensor]:
        if not self.layer:
            parts = model.named_modules() if isinstance(model, nn.Module) else ()
            known = [repr(name) for name, part in parts if isinstance(part, Convolution | nn.Linear)]
            raise InputError(
                "layer is ''; accepted: the name of a module, such as "
                + ", ".join(known[-3:] or ["'layer4'"])
            )
        subject = Gradients(model, inputs, target, via=self.layer)
        notes, state, score = LRP(self.composite).forward(subject)
        if len(score.passed) != 1:
            often = (
                f"called {len(score.passed)} times"
                if score.passed
                else "not called on the way from the input"
            )
            raise InputError(f"layer {self.layer!r} is {often}; accepted: a layer that is called once")
        (reached,), (gradient,) = score.passed, score.gradients_on_the_way()
        many = reached.shape[self.axis] if -reached.dim() < self.axis < reached.dim() and self.axis else 0
        if max(self._channels or [0]) >= many:
            raise InputError(
                f"channels is {self.channels} of axis {self.axis}; layer {self.layer!r} returns {tuple(reached.shape)}"
            )
        # What arrives at each channel, (batch, channels). That of the chosen ones is explained in a second pass, which
        # begins here, so that what leads past the layer takes no part in it.
        arrived = (reached * gradient).movedim(self.axis, -1).reshape(subject.batch, -1, many).sum(1)
        chosen = arrived.argmax(1)[:, None] if self._channels is None else torch.tensor([self._channels])
        below = replace(
            score, value=arrived.gather(1, chosen.to(arrived.device).expand(len(arrived), -1)).sum(1)
        )
        values = relevance(below, 0)
        which = {"channels": chosen.flatten().tolist()} if self._channels is None else {}
        return subject.explanation(
            self, score, values, below.value.detach(), warnings=warn_of_gaps(state), notes=notes | which
        )
