"""Bulk runs: what they add to a bare loop around the method, what writing takes, memory, and Ray beside local."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import apportion as ap
from apportion.bulk import _shards as shards
from apportion.bulk._shard_work import run_shard

HERE = Path(__file__).parent
Row = tuple[Any, ...]


def explained(folder: Path, model: Any, data: Any, method: str, **settings: Any) -> Any:
    """A run into an empty folder below `folder`."""
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    return ap.explain_dataset(model, data, method, out, progress=False, **settings)


def local() -> Iterator[Row]:
    """One process beside a loop that explains the same tensors in the best batch and keeps nothing."""
    folder = Path(tempfile.mkdtemp())
    cases = {"digits, lrp": ("digits", (1, 28, 28), 4096), "imagenet, lrp": ("imagenet", (3, 224, 224), 64)}
    for row, (name, shape, many) in cases.items():
        classifier, data = ap.load(name), torch.randn(many, *shape)
        batch = explained(folder, classifier, data, "lrp").manifest.batch or 1

        def loop(batch: int = batch, data: Any = data, model: Any = classifier.model) -> None:
            for part in data.split(batch):
                ap.LRP()(model, part)

        def bulk(classifier: Any = classifier, data: Any = data, batch: int = batch) -> None:
            explained(folder, classifier, data, "lrp", batch=batch)

        yield f"{row}, batch {batch}", "bare loop", {"bare loop": loop, "explain_dataset": bulk}
    shutil.rmtree(folder)


def tables() -> Iterator[Row]:
    """10 000 rows of Adult by TreeSHAP: LightGBM with 100 trees, 100 rows of data. Processor time, since other
    programs move those of the clock; the folder with adult.csv.gz is named by APPORTION_TABLES. The tree explainer of
    shap takes no categories, so that both also explain the codes of the columns."""
    import pandas
    from lightgbm import LGBMClassifier

    folder = Path(tempfile.mkdtemp())
    frame = pandas.read_csv(
        Path(os.environ["APPORTION_TABLES"]) / "adult.csv.gz", header=None, na_values=" ?"
    )
    truth = frame.pop(14).str.contains(">50K").astype(int)
    frame = frame.set_axis([f"column_{name}" for name in frame], axis=1)
    words = [name for name in frame if frame[name].dtype.kind not in "if"]
    named, coded = frame.astype(dict.fromkeys(words, "category")), frame.copy()
    for name in words:
        coded[name] = named[name].cat.codes
    for row, table in {"categories": named, "codes": coded.astype(float)}.items():
        fitted = LGBMClassifier(n_estimators=100, verbose=-1, n_jobs=1).fit(table[:8000], truth[:8000])
        model, rows = ap.Tabular(fitted, background=table[:100]), table[8000:18000]
        ap.explain(model, rows[:100], "treeshap")  # reads the trees

        def others(fitted: Any = fitted, table: Any = table, rows: Any = rows) -> object:
            import shap

            explainer = shap.TreeExplainer(fitted, table[:100], feature_perturbation="interventional")
            return explainer.shap_values(rows, check_additivity=False)

        made: dict[str, Callable[[], object]] = {
            "explain, all at once": lambda model=model, rows=rows: ap.explain(model, rows, "treeshap"),
            "explain_dataset": lambda model=model, rows=rows: explained(folder, model, rows, "treeshap"),
        }
        if row == "codes":
            made["shap.TreeExplainer"] = others
        runs = {name: (lambda run=run: _processor_time(run)) for name, run in made.items()}
        yield f"Adult, {row}, 10 000 rows", "explain_dataset", runs, "ms of processor time"
    shutil.rmtree(folder)


def _processor_time(run: Callable[[], object]) -> float:
    begin = time.process_time()
    run()
    return 1000 * (time.process_time() - begin)


def writing() -> Iterator[Row]:
    """The share of the time of a run that `shards.write` takes, for whole maps of 224 x 224."""
    folder = Path(tempfile.mkdtemp())
    classifier, data = ap.load("imagenet"), torch.randn(32, 3, 224, 224)
    spent = 0.0
    write = shards.write

    def timed(*args: Any) -> Any:
        nonlocal spent
        begin = time.perf_counter()
        done = write(*args)
        spent += time.perf_counter() - begin
        return done

    def share() -> float:
        nonlocal spent
        spent = 0.0
        shards.write = timed  # type: ignore[assignment]
        begin = time.perf_counter()
        explained(folder, classifier, data, "lrp", batch=2, shard=32)
        shards.write = write
        return 100 * spent / (time.perf_counter() - begin)

    yield "imagenet, lrp, 224 x 224", "writing", {"writing": share}, "% of the time"
    shutil.rmtree(folder)


def memory() -> Iterator[Row]:
    """The resident memory after every tenth of 100 000 inputs of a tiny model."""
    folder = Path(tempfile.mkdtemp())
    np.save(folder / "data.npy", np.random.default_rng(0).normal(size=(100_000, 16)).astype(np.float32))
    seen: list[float] = []
    page = os.sysconf("SC_PAGE_SIZE") / 2**20

    def watched(*args: Any) -> Any:
        seen.append(int(Path("/proc/self/statm").read_text().split()[1]) * page)
        return run_shard(*args)

    from apportion.bulk import local as engine

    engine.run_shard = watched
    explained(folder, torch.nn.Linear(16, 4), folder / "data.npy", "inputxgradient", batch=512, shard=1024)
    engine.run_shard = run_shard
    tenths = {f"after {tenth * 10} %": seen[tenth * (len(seen) - 1) // 10] for tenth in range(1, 11)}
    runs: dict[str, Callable[[], float]] = {
        name: (lambda found=found: found) for name, found in tenths.items()
    }
    yield "100 000 rows, tiny model", "after 10 %", runs, "MiB"
    shutil.rmtree(folder)


def engines() -> Iterator[Row]:
    """One and two workers that take 10 ms an input, on processes and on Ray: seconds an input once they work."""
    folder = Path(tempfile.mkdtemp())
    np.save(folder / "data.npy", np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32))
    model = f"{HERE / 'bulk.py'}:spinning"

    def rate(workers: int, engine: str) -> float:
        """Milliseconds an input from the end of the first shard to the end of the last."""
        settings = {"batch": 10, "shard": 50, "engine": engine, "workers": workers}
        run = explained(folder, model, folder / "data.npy", "inputxgradient", **settings)
        ends = sorted(path.stat().st_mtime for path in (run.folder / "shards").iterdir())
        return 1000 * (ends[-1] - ends[workers - 1]) / (50 * (len(ends) - workers))

    kinds = itertools.product((1, 2), ("local", "ray"))
    runs = {f"{workers} x {engine}": (lambda w=workers, e=engine: rate(w, e)) for workers, engine in kinds}
    yield "10 ms an input", "1 x local", runs, "ms"
    shutil.rmtree(folder)


class Spinning(torch.nn.Module):
    """10 ms of one core for every input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        end = time.thread_time() + 0.01 * len(x)
        while time.thread_time() < end:
            pass
        return self.linear(x)


def spinning() -> torch.nn.Module:
    return Spinning()
