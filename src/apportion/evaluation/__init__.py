"""Tests of explanations, a file each: `names.py` lists them."""
