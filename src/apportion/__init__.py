"""Explanations that add up: what a model decided, why, and what the explanation leaves out.

The public names are in `__init__.pyi`; each is imported when it is first used.
"""

import lazy_loader as _lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
