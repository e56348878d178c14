"""From what a person names to explanations of it: what command line, workbench and whole data sets share.

`given.py` recognises an input, `prepared.py` encodes and explains it: open that first. `quick_tests.py` adds tests.
"""
