"""Every way to explain, a file each: `names.py` lists them."""
