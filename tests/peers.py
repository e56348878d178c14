"""Other packages that the tests and benchmarks compare with, imported so that they work beside this torch.

They are listed in `tests/peers.txt` and installed without what they depend on.
"""

from __future__ import annotations

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


def captum() -> Any:
    """captum's `attr` package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("captum.attr")


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
