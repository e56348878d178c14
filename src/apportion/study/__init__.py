"""Studies: models × data × methods × tests, that go on where they were.

`comparison.py` runs one that `config.py` read from a file: open it first. `store.py` keeps finished work, `page.py`
writes the report; `text/` is a study of its own.
"""
