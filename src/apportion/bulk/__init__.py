"""Explanations of whole data sets: in shards that are written once, on one machine or on a Ray cluster.

`run` plans and starts, `work` makes one shard, `shards` writes it, `local` and `ray` say where, `reading`
opens what was written; `clustering`, `summaries` and `drift` are what people do with it.
"""
