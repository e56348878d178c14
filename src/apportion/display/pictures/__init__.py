"""Pictures by matplotlib: `explanations.py`, to be opened first, draws texts, photos and bars.

`interactions.py` draws pairs, `pixels.py` maps as the Bag-of-Words papers do, `panels.py` prototypes.
"""
