"""Tests that run the model as it is, a file for each family; `names.py` lists them.

`flipping.py` is the one to open first. Each is a frozen dataclass with `measure(case, explanation)`.
"""
