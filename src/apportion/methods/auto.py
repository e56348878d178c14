"""The default: the method that was found to be faithful and to add up on models of this kind."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import numpy as np
from torch import Tensor, nn

from apportion.core.calling import Model
from apportion.core.features import Features, TextFeatures
from apportion.core.inputs import Given
from apportion.core.modules_behind import is_language_model, modules_behind
from apportion.core.settings import Told, checked, later
from apportion.core.target import Target
from apportion.core.trees import tensors_in
from apportion.domains.estimators import answering
from apportion.errors import InputError, check_seed
from apportion.methods.hiding.kernelshap import KernelSHAP
from apportion.methods.propagation.deeplift import DeepLIFT
from apportion.methods.propagation.lrp import LRP
from apportion.results.explanation import Explanation

_SHORT = 64  # words of a text for which some hundred passes are a moment


@dataclass(frozen=True)
@checked
class Auto(Told):
    """Choose the method by the kind of model: one that adds up, and was faithful in tests on trained models.

    Convolutional networks of pictures are explained by LRP whose biases are placed, which adds up to the score in
    two forward and two backward passes; transformers that read token ids likewise, but a text of at most 64 words
    by Kernel SHAP over these, from 512 masked texts; other networks, transformers of pictures among them, by
    DeepLIFT, which adds up to the score minus that of its reference in three forward passes and one backward; sums
    of decision trees by TreeSHAP, exactly;
    language models and what else leaves PyTorch by Kernel SHAP, which adds up to the score minus that of the input
    with all features hidden. Of boosted trees it is the log-odds that is explained where the estimator was given
    (or a `Tabular` of it), as the score before a softmax is of a network; where its `predict_proba` was given, the
    probability is, by Kernel SHAP. Where the first choice cannot be had, the next is taken. `method` of the
    explanation is the method that was used, and its notes say why (`chosen`). Cost: that of the method; a choice
    that could not be had may have run the model once or twice.

    Attributes:
        at (str or list of str, default None): Modules to explain instead of the inputs, by DeepLIFT; None: the inputs.
        seed (int, default 0): Seed of a method that draws.

    >>> import torch
    >>> Auto()(torch.nn.Linear(3, 2), torch.ones(1, 3), target=0).method
    DeepLIFT(baseline=0.0, at=None)
    """

    at: str | Sequence[str] | None = None
    seed: int = later(0)

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def __call__(
        self,
        model: Model,
        inputs: Given,
        target: Target = None,
        *,
        features: Sequence[Features] | None = None,
        mask: int | Tensor | None = None,
    ) -> Explanation[Given, Tensor]:
        known = {name: it for name, it in (("features", features), ("mask", mask)) if it is not None}
        refused: list[InputError] = []
        given, model = model, answering(model)
        for method, why in _candidates(model, inputs, self, features, mask):
            asked = signature(method).parameters
            try:
                made = method(
                    model, inputs, target, **{name: it for name, it in known.items() if name in asked}
                )
            except InputError as error:
                refused.append(error)
                continue
            if "scores" in made.notes and not (given is not model or getattr(model, "of_estimator", False)):
                refused.append(InputError(f"treeshap explains the {made.notes['scores']}"))
                continue
            before = "".join(
                f"; not the first choice: {re.split(' [(]|;', str(error))[0]}" for error in refused
            )  # the reason alone
            of_what = f"; explained is the {made.notes['scores']}" if "scores" in made.notes else ""
            explained: Explanation[Given, Tensor] = replace(
                made, notes={**made.notes, "chosen": why + of_what + before}
            )
            return explained
        # What is wrong with the model or the inputs is told by every method alike.
        raise refused[0]


def _candidates(
    model: Model,
    inputs: Any,
    asked: Auto,
    features: Sequence[Features] | None,
    mask: int | Tensor | None,
) -> Iterator[tuple[Any, str]]:
    """Methods in the order of the bench, and what speaks for each."""
    if asked.at is not None:
        yield DeepLIFT(at=asked.at), "it explains layers, and it adds up"
        return
    if is_language_model(model):
        yield (
            KernelSHAP(samples=256, exact=8, seed=asked.seed),
            "the most faithful on language models, and it adds up",
        )
    modules = [module for one in modules_behind(model) for module in one.modules()]
    if not modules:
        from apportion.methods.trees._sums import is_of_trees
        from apportion.methods.trees.treeshap import TreeSHAP

        if is_of_trees(model):
            yield TreeSHAP(), "exact for sums of trees, and it adds up"
    attends = _attend(modules)
    if attends and not any(t.is_floating_point() for t in tensors_in(inputs)):
        words = max((len(each.names) for each in features or () if isinstance(each, TextFeatures)), default=0)
        if isinstance(mask, int) and 0 < words <= _SHORT:
            yield (
                KernelSHAP(samples=512, exact=8, seed=asked.seed),
                "the most faithful on transformers of texts, and it adds up",
            )
        yield LRP(bias="place"), "faithful on transformers, and it adds up"
    # A transformer of pictures begins with a convolution, too; what its own tokens say is no share of any pixel.
    photos = isinstance(inputs, Tensor) and inputs.dim() == 4 and not attends
    if photos and any(isinstance(m, nn.Conv2d) for m in modules):
        yield LRP(bias="place"), "faithful on convolutional networks, clear, and it adds up"
    # Of a frame, numbers are but codes.
    if not isinstance(inputs, np.ndarray) and not isinstance(mask, Tensor):
        yield DeepLIFT(), "faithful on networks, and it adds up"
    yield KernelSHAP(seed=asked.seed), "its values add up, and it needs no gradient"


def _attend(modules: Sequence[nn.Module]) -> bool:
    """True for transformers, by the names of their parts; recurrent networks with attention are none."""
    return any("attention" in type(m).__name__.lower() for m in modules) and not any(
        isinstance(m, nn.RNNBase) for m in modules
    )
