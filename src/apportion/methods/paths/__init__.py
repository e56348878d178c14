"""How do the entries of the input share what the score changes between a reference point and the input?

The gradient is read along the way, or at a root of the score, and the values add up to that change.
"""

__all__ = ["integrated_gradients", "paths", "quadrature", "taylor"]
