"""Exact Shapley values of sums of decision trees."""
