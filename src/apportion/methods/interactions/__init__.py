"""Which pairs of features act together?

The values are a matrix for each sample, from second derivatives of a model made smooth, or from sampled
coalitions.
"""

__all__ = ["input_hessian", "integrated_hessians", "shapley", "smoothing"]
