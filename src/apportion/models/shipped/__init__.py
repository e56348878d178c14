"""The models that ship, a file each, with their weights beside them; `models.SHIPPED` lists them.

`digits.py` is the shortest.
"""
