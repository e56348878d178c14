"""Bag-of-Words image classifiers, and kernel machines in general, explained down to the input."""
