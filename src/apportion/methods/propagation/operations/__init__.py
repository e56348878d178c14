"""How relevance passes each function of torch: `table.py` maps its name to its treatment."""

__all__ = ["table"]
