"""A clock that is set back or forward changes nothing: what is older or newer is asked nowhere."""

from __future__ import annotations

import ast
import os
import random
from pathlib import Path

import apportion as ap
from bulk_models import contents, explained

SOURCE = Path(ap.__file__).parent
HOURS = {
    "time",
    "time_ns",
    "localtime",
    "gmtime",
    "now",
    "utcnow",
    "today",
    "st_mtime",
    "st_ctime",
    "getmtime",
    "getctime",
}


def test_the_package_asks_nothing_of_the_hour() -> None:
    """Durations are of clocks that are never set back (`monotonic`, `perf_counter`)."""
    asked = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in HOURS:
                owner = ast.unparse(node.value)
                if node.attr.startswith(("st_", "get")) or owner in (
                    "time",
                    "datetime",
                    "date",
                    "datetime.datetime",
                ):
                    asked.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert not asked


def test_a_run_goes_on_whatever_the_hour_of_its_files(tmp_path: Path) -> None:
    whole, draw = contents(explained(tmp_path / "whole")), random.Random(0)
    explained(tmp_path / "run", shard_index=1, num_shards=2)
    for path in [tmp_path / "run", *(tmp_path / "run").rglob("*")]:
        os.utime(path, (hour := draw.choice([0, 10, 4_000_000_000]), hour))
    assert contents(explained(tmp_path / "run")) == whole


def test_answers_are_kept_whatever_the_hour_of_their_cache(tmp_path: Path) -> None:
    asked = []

    def ask(texts: list[str]) -> list[list[float]]:
        asked.extend(texts)
        return [[float(len(text)), 1.0] for text in texts]

    for hour in (0, 4_000_000_000):
        remote = ap.Remote(ask, cache=tmp_path / "answers")
        remote(["a", "bb"])
        os.utime(tmp_path / "answers", (hour, hour))
    assert sorted(asked) == ["a", "bb"]
