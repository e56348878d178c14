"""Composites: which rule where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, Literal, get_args

import torch

from apportion.core.modules_behind import modules_behind
from apportion.core.settings import Told, checked, later
from apportion.errors import InputError, check
from apportion.methods.contracts import Rule
from apportion.methods.propagation.rules import AlphaBeta, Box, Epsilon, Flat, Gamma

Bias = Literal["absorb", "spread", "ignore", "place"]
_ACCEPTED: dict[str, tuple[str, ...]] = {
    "softmax": ("taylor", "constant", "difference"),
    "pooling": ("winner", "proportional"),
    "bias": get_args(Bias),
}


@dataclass(frozen=True)
@checked
class Composite(Told):
    """Choose the rule of each layer: by the name of its module, then by the module's type, then by its depth, then
    by its kind.

    Attributes:
        convolution (Rule, default Epsilon): Rule of convolutions.
        linear (Rule, default Epsilon): Rule of dense layers.
        matmul (Rule, default Epsilon): Rule of other products with constant matrices.
        first (Rule, default None): Rule of layers that read the input itself, whatever was moved or rescaled
            before; None: as others.
        last (Rule, default None): Rule of the layer that nothing is after; None: as others.
        names (tuple of pairs, default empty): Patterns of module names (`"layer3.*"`), each with a rule.
        types (tuple of pairs, default empty): Patterns of module types (`"Conv*"`), each with a rule.
        softmax (str, default "taylor"): Propagate through attention weights as AttnLRP does (Achtibat et al. 2024):
            half of what arrives goes to the scores by the gradient, and softmax absorbs most of it. "constant" lets
            the values take all, which adds up. "difference" goes by what the weights differ from equal ones, exactly
            (DeepLIFT's softmax from equal scores): the values take what equal weights would give and half of the
            difference, the scores the other half, which adds up, too.
        pooling (str, default "winner"): Give a max pool's relevance to its maximum; "proportional" shares it out.
        bias (str, default "absorb"): What becomes of the relevance that biases take. "absorb": it is missing from the
            values, and in the remainder. "spread": it is shared evenly over the inputs of the neuron that are not zero
            (eq. 21 of the paper) and travels on. "ignore": denominators leave the bias out, so that it is shared as
            the inputs contribute (zennit's `zero_params="bias"`). "place": it is carried straight down, in a second
            pass, to where the neuron looks: over the receptive field of a convolution, at its token, over all inputs
            of a dense layer, in proportion to `|xᵢ wᵢⱼ|` layer by layer (the bias maps of full gradients, Srinivas &
            Fleuret 2019, shared out over what is below), so that the values add up and nothing is absorbed twice; the
            shifts of norms and constants that are added (positions) are placed likewise, and what softmax absorbs
            ("taylor") at the query's own token.

    >>> Composite(first=Flat(), names=(("head*", Epsilon(0.1)),)).first
    Flat(eps=1e-06)
    """

    convolution: Rule = Epsilon()
    linear: Rule = Epsilon()
    matmul: Rule = Epsilon()
    first: Rule | None = None
    last: Rule | None = None
    names: tuple[tuple[str, Rule], ...] = ()
    types: tuple[tuple[str, Rule], ...] = ()
    softmax: Literal["taylor", "constant", "difference"] = "taylor"
    pooling: Literal["winner", "proportional"] = "winner"
    bias: Bias = later("absorb")

    def __post_init__(self) -> None:
        for name, accepted in _ACCEPTED.items():
            check(name, getattr(self, name), accepted.__contains__, ", ".join(map(repr, accepted)))

    def rule(self, kind: str, module: str, module_type: str, first: bool, last: bool) -> Rule:
        """The rule of one layer; `kind` is "convolution", "linear" or "matmul"."""
        for patterns, found in ((self.names, module), (self.types, module_type)):
            for pattern, rule in patterns:
                if fnmatch(found, pattern):
                    return rule
        if first and self.first is not None:
            return self.first
        if last and self.last is not None:
            return self.last
        of_kind: Rule = getattr(self, kind)
        return of_kind


COMPOSITES: dict[str, Composite] = {
    "epsilon": Composite(),
    "epsilon-plus": Composite(convolution=AlphaBeta(1, 0)),
    "epsilon-plus-flat": Composite(convolution=AlphaBeta(1, 0), first=Flat()),
    "epsilon-alpha2beta1": Composite(convolution=AlphaBeta(2, 1)),
    "epsilon-alpha2beta1-flat": Composite(convolution=AlphaBeta(2, 1), first=Flat()),
    "epsilon-gamma-box": Composite(convolution=Gamma(0.25), first=Box()),
    "transformer": Composite(),
    "recurrent": Composite(linear=Epsilon(1e-3), softmax="constant"),
}
"""The ready composites. "transformer" is AttnLRP; "recurrent" follows Arras et al. 2017, whose attention weights
and gates are constants."""


def find_composite(name: str | Composite | None, model: Any) -> tuple[dict[str, str], Composite]:
    """A composite by name, and the notes of it; None picks by what the model is made of, and notes why."""
    if isinstance(name, Composite):
        return {"composite": repr(name)}, name
    notes = {}
    if name is None:
        name, why = _choose_by_parts(model)
        notes = {"because": why}
    if name not in COMPOSITES:
        raise InputError(f"unknown composite {name!r}; accepted: {', '.join(COMPOSITES)}, or a Composite")
    return {"composite": name, **notes}, COMPOSITES[name]


def _choose_by_parts(model: Any) -> tuple[str, str]:
    """The composite, and why it was chosen."""
    held = modules_behind(model)
    if not held:
        return "epsilon", "no module was found behind the function"
    modules = [module for one in held for module in one.modules()]
    parts = [type(module).__name__.lower() for module in modules]
    for one in held:
        if isinstance(one, torch.fx.GraphModule):
            parts += [str(node.target).lower() for node in one.graph.nodes]
    name, what = _choose(modules, parts)
    whose = ", ".join(dict.fromkeys(type(one).__name__ for one in held))
    return name, what if held[0] is model else f"{what} in {whose}, found behind the function"


def _choose(modules: Sequence[torch.nn.Module], parts: Sequence[str]) -> tuple[str, str]:
    if any(isinstance(module, torch.nn.RNNBase) for module in modules):
        return "recurrent", "recurrent layers"
    if any(word in part for part in parts for word in ("attention", "mixer", "transformer")):
        return "transformer", "attention"
    if any(word in part for part in parts for word in (".gru", ".lstm")):
        return "recurrent", "recurrent layers"
    if not any("conv" in part for part in parts):
        return "epsilon", "no convolutions, attention or recurrent layers"
    if any("embedding" in part for part in parts):
        return "epsilon", "convolutions of embeddings"
    return "epsilon-plus-flat", "convolutions"
