"""What a result took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What an explanation took: forward and backward passes of the whole batch, and seconds."""

    forwards: int
    backwards: int
    seconds: float

    def __str__(self) -> str:
        passes = "pass" if self.backwards == 1 else "passes"
        return f"{self.forwards} forward and {self.backwards} backward {passes}, {self.seconds:.2f} s"
