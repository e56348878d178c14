"""Tests of explanations: does a map say what the model does?

`case.py` has what a test is run on and the bases of tests: open it first, then `measures/flipping.py`, the oldest
test. `curves.py` hides features in the order of a map; `compare.py` puts methods side by side.
"""
