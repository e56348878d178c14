"""What does the model say where features are hidden?

Only its scores are used, so any callable can be explained; all methods extend `Hiding` in `base.py`.
"""

__all__ = ["base", "kernelshap", "lime", "occlusion", "rise"]
