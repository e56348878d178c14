"""ProtoPNet (Chen et al. 2019): a classifier that compares patches of an image with patches that it has learnt.

`network` is what is trained, `training` the paper's recipe and `fast` a quick one, `push` makes prototypes real
patches, `explaining` and `matches` say what the network did, `estimator` holds it all together.
"""
