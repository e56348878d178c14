"""Other packages that the tests and benchmarks compare with, imported so that they work beside this torch.

They are listed in `tests/peers.txt` and installed without what they depend on.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@contextmanager
def stand_ins(names: dict[str, dict[str, Any]]) -> Iterator[None]:
    """Modules that can be imported inside `with` only: dotted name → what is in it."""
    before = {name: sys.modules.get(name) for name in names}
    for name, content in names.items():
        module = types.ModuleType(name)
        module.__dict__.update(content, __path__=[])
        sys.modules[name] = module
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class BasicBlock(torch.nn.Module):
    """What zennit looks for in place of torchvision's residual blocks."""


class Bottleneck(torch.nn.Module):
    """The same for the deeper ResNets."""


def zennit() -> Any:
    """zennit with all its submodules; torchvision, which it reads two classes from, need not be there."""
    torchvision = {
        "torchvision": {},
        "torchvision.models": {},
        "torchvision.models.resnet": {"BasicBlock": BasicBlock, "Bottleneck": Bottleneck},
    }
    with stand_ins(torchvision), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for part in ("attribution", "canonizers", "composites", "core", "layer", "rules", "types"):
            importlib.import_module(f"zennit.{part}")
        importlib.import_module("zennit.torchvision")
        return importlib.import_module("zennit")


def concepts() -> Any:
    """zennit-crp's conditional attributions."""
    zennit()
    return importlib.import_module("crp.attribution")


def captum() -> Any:
    """captum's `attr` package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("captum.attr")


def grad_cam() -> Any:
    """pytorch-grad-cam, which reads pictures with torchvision where asked to."""
    torchvision = {
        "torchvision": {},
        "torchvision.transforms": dict.fromkeys(("Compose", "Normalize", "ToTensor")),
        "torchvision.transforms.functional": {"resize": None},
    }
    with stand_ins(torchvision), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("pytorch_grad_cam")


def shap() -> Any:
    """shap, which draws nothing here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("shap")


def lxt_rules() -> Any:
    """LXT's rules for attention (its models are written for other versions of transformers)."""
    spec = importlib.util.find_spec("lxt")
    if spec is None or spec.origin is None:
        raise ImportError("lxt")
    place = Path(spec.origin).parent / "efficient" / "rules.py"
    rules = importlib.util.spec_from_file_location("lxt_rules", place)
    assert rules is not None
    assert rules.loader is not None
    module = importlib.util.module_from_spec(rules)
    rules.loader.exec_module(module)
    return module


def lxt_patches() -> Any:
    """LXT's functions for the layers of language models, likewise without its models."""
    return _module_alone("lxt", "efficient", "patches")


class LXTLayerNorm(nn.Module):
    def __init__(self, norm: nn.LayerNorm, rules: Any) -> None:
        super().__init__()
        self.norm, self.rules = norm, rules

    def forward(self, x: Tensor) -> Tensor:
        deviation = x - x.mean(-1, keepdim=True)
        spread = (deviation.square().mean(-1, keepdim=True) + self.norm.eps).sqrt()
        return deviation / self.rules.stop_gradient(spread) * self.norm.weight + self.norm.bias  # type: ignore[no-any-return]


class LXTActivation(nn.Module):
    def __init__(self, function: Any, rules: Any) -> None:
        super().__init__()
        self.function, self.rules = function, rules

    def forward(self, x: Tensor) -> Tensor:
        # With a stabiliser below rounding; its default of 1e-10 would be the whole difference.
        return self.rules.identity_rule_implicit_fn.apply(self.function, x, 1e-15)  # type: ignore[no-any-return]


def as_lxt(model: nn.Module, rules: Any) -> nn.Module:
    """The model with LXT's rules in the place of its layers: identity for norms and GELU, and shares of the
    relevance of each attention product for its factors."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        parent = model.get_submodule(name.rpartition(".")[0])
        leaf = name.rpartition(".")[2]
        if isinstance(module, nn.LayerNorm):
            setattr(parent, leaf, LXTLayerNorm(module, rules))
        elif type(module).__name__ in ("GELUActivation", "Tanh"):
            function = F.gelu if "GELU" in type(module).__name__ else torch.tanh
            setattr(parent, leaf, LXTActivation(function, rules))
        elif leaf in ("query", "key", "value", "q_proj", "k_proj", "v_proj"):
            factor = 2 if leaf.startswith("v") else 4
            module.register_forward_hook(lambda m, a, out, factor=factor: rules.divide_gradient(out, factor))
    return model


def quantus() -> Any:
    """Quantus; torchvision, which its import of zennit asks for, need not be there."""
    zennit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("quantus")


def grad_cam_road() -> Any:
    """pytorch-grad-cam's ROAD."""
    grad_cam()
    return importlib.import_module("pytorch_grad_cam.metrics.road")


def ferret_faithfulness() -> Any:
    """ferret's measures of faithfulness, without the rest of ferret and all that it imports."""
    _module_alone("ferret", "explainers", "explanation")
    return importlib.import_module("ferret.evaluators.faithfulness_measures")


def interpreto() -> Any:
    """interpreto; what its concepts import, which nothing here compares with, need not be there."""
    concepts = {
        "nnsight": {},
        "nnsight.modeling": {},
        "nnsight.modeling.language": {"LanguageModel": nn.Module},
        "nltk": {},
        "nltk.stem": {"WordNetLemmatizer": object},
        "nltk.tokenize": {"word_tokenize": None},
        "einops": {"rearrange": None},
    }
    with stand_ins(concepts):
        return importlib.import_module("interpreto")


def _module_alone(package: str, part: str, name: str) -> Any:
    """A module of a package whose `__init__` files are not run."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(package)
    folder = Path(spec.origin).parent
    for dotted, place in ((package, folder), (f"{package}.{part}", folder / part)):
        module = sys.modules.setdefault(dotted, types.ModuleType(dotted))
        module.__path__ = [str(place)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"{package}.{part}.{name}")


def path_explainer() -> Any:
    """path_explain's class for PyTorch, from its file alone: the package asks for TensorFlow."""
    return _module_alone("path_explain", "explainers", "path_explainer_torch").PathExplainerTorch
