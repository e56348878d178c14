"""Tests of explanations, and what can be said of their results."""
