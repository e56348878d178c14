"""Bag-of-Words image classifiers, and kernel machines in general, explained down to the input.

`classifier.py` holds it all together: open it first. A picture goes through `features.py`, `mapping.py` and
`_pooling.py` to `_machine.py`; `_decomposition.py` goes back, and `kernel_decomposition.py` is the method.
"""
