"""Explanations of whole data sets: in shards that are written once, on one machine or on a Ray cluster.

`run.py` plans and starts: open it first. `_shard_work.py` makes one shard, `_shards.py` writes it, `local.py` and
`_ray.py` say where, `reading.py` opens what was written; `clustering.py`, `summaries.py` and `drift.py` use it.
"""
