"""ProtoPNet (Chen et al. 2019): a classifier that compares patches of an image with patches that it has learnt.

`estimator.py` holds it all together: open it first. `_network.py` is what is trained, `_training.py` the paper's recipe
and `_fast.py` a quick one, `_push.py` makes prototypes real patches, `methods.py` and `_reasons.py` explain.
"""
