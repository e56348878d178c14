"""What methods and tests return; nothing here knows a model.

`result.py` is the base of `explanation.py` and `interactions.py`: open it first. `scores.py` and `table.py` are what
tests return, `statistics.py` and `agreement.py` what can be said of them.
"""
