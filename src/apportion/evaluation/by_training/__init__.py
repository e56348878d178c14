"""Tests that train models: ROAR and KAR, F-Fidelity, the weak learner.

Open `retraining.py` first.
"""
