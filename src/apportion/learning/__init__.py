"""Small text classifiers that are trained here, for the shipped model, the weak learner and the study.

`training.py` has the loop: open it first. `networks.py` has the models, `documents.py` their data.
"""
