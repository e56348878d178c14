"""How a result reaches what draws it."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def display() -> ModuleType:
    """The folder that draws. It is above this one and is looked up when something is to be drawn, so that a result can
    be computed, saved and read without it: the one import that goes upward."""
    return import_module("apportion.display")
