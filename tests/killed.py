"""Work that can be killed and goes on where it was, small: each writes into a folder and says what came of it."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import apportion as ap
import bulk_models
import squares
from apportion.core.checksummed import seal, stored
from apportion.core.files import write_whole
from apportion.learning.documents import Documents
from apportion.learning.networks import AttentionClassifier
from apportion.learning.training import Training, train
from apportion.study import comparison
from apportion.study.config import read_study
from apportion.study.page import write
from apportion.study.store import Store

# What would else be imported where the work begins, each time.
for module in (
    "pydantic", "safetensors", "sklearn.metrics", "torch._dynamo", "apportion.bulk.run", "apportion.bulk.reading",
    "apportion.bulk.local", "apportion.evaluation.measures.complexity", "apportion.evaluation.measures.fidelity",
    "apportion.methods.gradients.gradient", "apportion.models._loading", "apportion.models.shipped.breast_cancer",
    "apportion.models.prototypes.estimator",
):  # fmt: skip
    import_module(module)

STUDY = """\
models: breast-cancer
data: rows.csv
methods: [saliency, inputxgradient]
tests: [completeness, sparseness]
samples: 2
"""


def bulk(folder: Path) -> None:
    bulk_models.explained(folder)


def study(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    names = [column.name for column in ap.load("breast-cancer").encode.columns]
    values = torch.rand(4, len(names), generator=torch.Generator().manual_seed(0)).tolist()
    lines = [",".join(names), *(",".join(map(str, row)) for row in values)]
    write_whole(folder / "rows.csv", "\n".join(lines).encode())
    write_whole(folder / "study.yaml", STUDY.replace("rows.csv", str(folder / "rows.csv")).encode())
    asked = read_study(folder / "study.yaml")
    write(asked, list(comparison.run(asked, Store(folder / "out"))), folder / "out")


def prototypes(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    last = squares.LastLayer(iterations=20)
    recipe = squares.Paper(
        width=8, epochs=6, warm_epochs=1, push_from=2, push_every=2, batch=20, last=last, pruning=None
    )
    model = ap.ProtoPNet(squares.backbone(), 2, recipe=recipe, tune=True)
    model.fit(*squares.data(), checkpoint=folder / "checkpoint").save(folder / "fitted")


def training(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    ids = tuple(torch.randint(1, 12, (1 + i % 8,), generator=random) for i in range(60))
    texts = Documents(ids, torch.arange(60) % 2)
    model = AttentionClassifier(12, embedding=6, hidden=5, dropout=0.3)
    history = train(model, texts, texts, Training(epochs=6, rate=2e-2, batch=16), folder / "checkpoint")
    seal(folder / "trained", [epoch.training_loss for epoch in history], model.state_dict())


def _files(folder: Path) -> dict[str, Any]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _sealed(path: Path) -> tuple[str, dict[str, Any]]:
    """What is in a sealed file, whose header has its entries in any order."""
    header, tensors = stored(path)
    return header["numbers"], {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def _of_study(folder: Path) -> dict[str, Any]:
    """All but the seconds that it took."""
    found: dict[str, Any] = {"tables": (folder / "out" / "tables.json").read_text()}
    for path in sorted((folder / "out" / "cells").rglob("*.safetensors")):
        numbers, tensors = _sealed(path)
        kept = json.loads(numbers)["numbers"]
        found[path.name] = str(kept).split("'seconds'")[0], tensors
    return found


# What does the work, and what came of it.
WORK: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "bulk": (bulk, _files),
    "study": (study, _of_study),
    "prototypes": (prototypes, lambda folder: _sealed(folder / "fitted")),
    "training": (training, lambda folder: _sealed(folder / "trained")),
}


def work(name: str, folder: str, at: int, told: str = "", sent: int = signal.SIGKILL) -> None:
    """Do it in this process, which is `sent` a signal at that call of a Python function (0: never); `told` is a file
    that gets their number."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    calls = 0

    def count(frame: FrameType, event: str, _: Any) -> None:
        nonlocal calls
        calls += event == "call"
        if calls == at and event == "call":
            os.kill(os.getpid(), sent)

    sys.setprofile(count)
    WORK[name][0](Path(folder))
    sys.setprofile(None)
    if told:
        Path(told).write_text(str(calls))
