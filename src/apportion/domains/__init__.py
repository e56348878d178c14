"""From what a person has (a sentence, a file, a row) to tensors, and back to names and pictures.

`text.py`, `image.py` and `tabular.py` know nothing of each other; `text.py` is the one to open first.
"""
