"""To which entries of the input is the score sensitive?

One backward pass answers: the gradient, its moments under noise, its rectified forms; weighted activations and
attention.
"""

__all__ = ["attention", "cam", "gradient", "layer_grids", "noise", "rectified"]
