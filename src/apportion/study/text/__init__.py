"""The study of feature maps on four text corpora.

`faithfulness.py` runs it: open it first. `corpora.py` prepares the data, `report.py` writes the tables.
"""
