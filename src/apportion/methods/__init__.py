"""Every way to explain: one call for all methods in `explain.py`, and a folder for each family.

A method is a frozen dataclass of its settings that is called with a model and inputs; `names.py` lists them.
"""

__all__ = ["explain"]
