"""Writes the files of this folder. It ran with the code of commit 85d223a, whose paths its imports have:

    git worktree add before 85d223a
    cp tests/files_of_85d223a/*.py /tmp/made/ && cd /tmp/made && PYTHONPATH=before/src python make.py

What is imported by `before` is where it was then, and stays so. What the files said to that code is in `said.json`,
and what the test does with them now in `tests/test_files_before.py`.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import things
import told
import torch
from PIL import Image
from torch import Tensor, nn

import apportion as ap

HERE = Path.cwd()


def before(place: str) -> Any:
    """A module where it was at that commit."""
    return import_module(f"apportion.{place}")


# ---- explanations and interactions ----


def explanations() -> dict[str, Any]:
    sentiment, digits = ap.load("sentiment"), ap.load("digits")
    rows = things.numbers(2, 6)
    pair = (things.numbers(2, 4), things.numbers(2, 3, start=3))
    training = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    proto = things.prototypes("fast").fit(*things.squares())
    return {
        "text-lrp": ap.explain(sentiment, things.REVIEWS[0], ap.LRP(ledger=True)),
        "text-attention": ap.explain(sentiment, things.REVIEWS[1], "attention", "positive"),
        "image-ig": ap.explain(digits, things.drawing(0), ap.IntegratedGradients(nodes=4)),
        "image-occlusion": ap.explain(
            digits, things.drawing(1), ap.Occlusion(partition=ap.Patches(7), replacement=ap.Mean())
        ),
        "rows": ap.explain(ap.load("breast-cancer"), row(0), "inputxgradient"),
        "background": things.background()(things.network(), rows, 1),
        "tuple": ap.InputXGradient()(things.Sum().eval(), pair, 0),
        "dict": ap.IntegratedGradients(nodes=4)(
            things.Sum().eval(), dict(zip("ab", pair, strict=True)), [0, 1]
        ),
        "callable": ap.Saliency()(things.network(), rows, things.first_minus_last),
        "contrast": ap.LRP("epsilon-plus")(things.network(), rows, ap.Contrast(0, 2)),
        "warned": ap.SmoothGrad(samples=2)(things.weighted(training).train(), rows),
        "kernels": ap.KernelDecomposition()(machine(), things.numbers(3, 2, start=1)),
        "prototypes": proto.explain(things.squares()[0][:2], over="prototypes"),
    }


def machine() -> Any:
    from sklearn.svm import SVC

    return SVC(kernel="rbf").fit(things.numbers(12, 2).numpy(), [0, 1] * 6)


def interactions() -> dict[str, Any]:
    rows = things.numbers(2, 6)
    return {
        "text": ap.explain(ap.load("sentiment"), things.REVIEWS[0], ap.IntegratedHessians()),
        "pairs": ap.IntegratedHessians(pairs=[(0, 1), (2, 3)])(things.network(), rows),
        "hessian": ap.InputHessian()(ap.smooth(things.network(), 3.0), rows).named(list("uvwxyz")),
    }


# ---- runs ----


def row(i: int) -> dict[str, float]:
    columns = ap.load("breast-cancer").encode.columns
    shares = things.numbers(len(columns), start=17 * i).tolist()
    return {c.name: round(c.mean + 3 * (s - 0.5) * c.std, 4) for c, s in zip(columns, shares, strict=True)}


def data() -> None:
    (HERE / "data/pictures").mkdir(parents=True)
    with open("data/rows.csv", "w", newline="") as file:
        table = csv.DictWriter(file, list(row(0)))
        table.writeheader()
        table.writerows(row(i) for i in range(10))
    for i in range(8):
        Image.fromarray(things.drawing(i)).save(f"data/pictures/{i}.png")
    Path("data/pictures/4.png").write_text("not a picture")
    np.save("data/numbers.npy", things.numbers(10, 6).numpy())


def runs() -> dict[str, Any]:
    found = {}
    for name in ("rows", "pictures", "numbers"):
        begin(name, f"runs/{name}")
        found[name] = {"rows": list(ap.open_run(f"runs/{name}").rows())}
        found[name]["errors"] = list(ap.open_run(f"runs/{name}").errors())
    begin("pictures", "begun/pictures", shard_index=1, num_shards=2)  # one of two jobs has run
    begin("numbers", "begun/numbers", shard_index=1, num_shards=2)
    # A killed one leaves what it was writing.
    code = "import make; make.killed('rows', 'begun/rows', 22)"
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    return found


def begin(name: str, out: str, **settings: Any) -> None:
    given = {
        "rows": ("breast-cancer", "data/rows.csv", "lrp"),
        "pictures": ("digits", "data/pictures", ap.IntegratedGradients(nodes=4)),
        "numbers": ("things.py:network", "data/numbers.npy", things.background()),
    }[name]
    own = {
        "rows": {},
        "pictures": {"pool": 14},
        "numbers": {"target": ap.Contrast(0, 2), "precision": "float32"},
    }
    ap.explain_dataset(*given, out, **things.FEW, **own[name], **settings)


def killed(name: str, out: str, step: int) -> None:
    """A run that kills itself at the given step of writing."""
    left = step

    def at_a_step(function: Any) -> Any:
        def instead(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return instead

    for owner, called in ((os, "fsync"), (os, "link"), (Path, "rename"), (Path, "mkdir"), (Path, "replace")):
        setattr(owner, called, at_a_step(getattr(owner, called)))
    begin(name, out)


# ---- studies, models, checkpoints ----


class StoppedError(Exception):
    """Something was ended on purpose."""


def studies() -> dict[str, Any]:
    from typer.testing import CliRunner

    app = before("cli").app
    comparison = before("study.comparison")

    Path("study.yaml").write_text(things.STUDY)
    run = CliRunner().invoke(app, ["study", "run", "study.yaml", "--out", "studies/finished"])
    assert run.exit_code == 0, run.output
    Path("studies/finished/report.html").unlink()  # made from the others, and large
    real, left = comparison._Pair._score, 3

    def dies(self: Any, method: str, test: str) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise StoppedError
        return real(self, method, test)

    comparison._Pair._score = dies
    stopped = CliRunner().invoke(app, ["study", "run", "study.yaml", "--out", "studies/begun"])
    assert isinstance(stopped.exception, StoppedError)
    return {"tables": json.loads(Path("studies/finished/tables.json").read_text())}


def study_of_texts() -> dict[str, Any]:
    from functools import partial

    corpora = before("domains.corpora")
    study = before("study.text_faithfulness")
    Store = before("study.store").Store

    study.AttentionClassifier = partial(study.AttentionClassifier, embedding=8, hidden=6)
    settings = things.of_study(study.Settings)
    corpus = corpora.prepare(
        "sst", corpora.Source(lambda folder: {}, "SST", ("negative", "positive"), 1), things.treebank()
    )
    cells: list[str] = []

    def stop(line: str) -> None:
        cells.append(line)
        if line.startswith("shuffle/sst/Saliency"):
            raise StoppedError

    found = study.run(corpus, settings, Store(HERE / "whole", cells.append))
    shutil.rmtree("whole")
    every = [line for line in cells if line.endswith("…")]
    cells.clear()
    try:
        study.run(corpus, settings, Store(HERE / "studies/begun-of-texts", stop))
    except StoppedError:
        done = [line for line in cells[:-1] if line.endswith("…")]
    return {
        "left": sorted(set(every) - set(done)),
        "scores": {t: {name: s.to_dict()["values"] for name, s in m.items()} for t, m in found.tests.items()},
    }


def prototypes() -> dict[str, Any]:
    Checkpoint = before("models.prototypes.checkpoint").Checkpoint
    Paper = before("models.prototypes.settings").Paper

    x, labels = things.squares()
    fast = things.prototypes("fast").fit(x, labels)
    fast.save("prototypes.safetensors")
    on_digits = ap.ProtoPNet(ap.load("digits"), 1, recipe="fast")
    on_digits.fit([things.drawing(i) for i in range(8)], ["tall", "wide"] * 4)
    on_digits.save("prototypes-on-digits.safetensors")
    recipe = Paper(**things.PAPER)
    whole = things.prototypes(recipe).fit(x, labels, checkpoint="whole")
    Path("whole").unlink()
    real = Checkpoint.write

    def stops(self: Any, net: Any, optimisers: Any, epochs: int, history: Any) -> None:
        real(self, net, optimisers, epochs, history)
        if epochs == 4:
            raise StoppedError

    Checkpoint.write = stops
    try:
        things.prototypes(recipe).fit(x, labels, checkpoint="prototypes-training.safetensors")
    except StoppedError:
        Checkpoint.write = real
    return {
        "fast": told.scores(fast, x),
        "on digits": on_digits.classifier().model(pictured(0)).tolist(),
        "sources": [[p.name, p.label, list(p.box)] for p in fast.sources_],
        "trained": told.scores(whole, x),
        "history": whole.history_,
    }


def pictured(i: int) -> Tensor:
    return ap.load("digits").encode(things.drawing(i))[0]


def bags_of_words() -> dict[str, Any]:
    pictures, labels = [things.coloured(i) for i in range(8)], ["dark", "light"] * 4
    kinds = {
        "bag-of-words": {"words": 8, "features": "grey"},
        "bag-of-words-fisher": {"words": 2, "features": "colour", "mapping": "fisher", "kernel": "rbf"},
        "bag-of-words-kernels": {
            "words": 8, "features": ("grey", "colour"), "kernel": ("linear", "chi2"), "mapping": "soft",
            "pyramid": (1, 2),
        },
    }  # fmt: skip
    found = {}
    for name, settings in kinds.items():
        made = ap.BagOfWords(**settings).fit(pictures, labels)
        made.save(f"{name}.safetensors")
        found[name] = {"params": repr(made), "scores": made.decision_function(pictures).tolist()}
    return found


def text_training() -> dict[str, Any]:
    Documents = before("domains.documents").Documents
    AttentionClassifier = before("models.text").AttentionClassifier
    training = before("models.training")

    def stop(line: str) -> None:
        if line.startswith("epoch 2/"):
            raise StoppedError

    parts = [Documents(*things.texts(60, 0)), Documents(*things.texts(40, 500))]
    history = training.train(
        things.weighted(AttentionClassifier(**things.ATTENTION)), *parts, training.Training(**things.TRAINING)
    )
    try:
        training.train(
            things.weighted(AttentionClassifier(**things.ATTENTION)), *parts, training.Training(**things.TRAINING),
            Path("text-training.safetensors"), stop,
        )  # fmt: skip
    except StoppedError:
        return {"validation": [[epoch.validation_loss, epoch.validation_auc] for epoch in history]}
    raise AssertionError


def retrained() -> dict[str, Any]:
    """The folder of finished trainings of ROAR."""
    x = things.numbers(24, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        explanation = ap.InputXGradient()(things.network(), x)
        found = ap.ROAR(**things.ROAR, folder="trainings")(
            things.network(), x, explanation, labels=torch.arange(24) % 3
        )
    found.save("scores.json")
    return found.to_dict()


# ---- what is public ----


def public() -> dict[str, Any]:
    app = before("cli").app

    return told.public(app)


def prints() -> dict[str, str]:
    prints_of = before("bulk.fingerprints")

    found = {name: prints_of.fingerprint(value) for name, value in things.fingerprinted().items()}
    for name in ("bag-of-words", "bag-of-words-fisher", "bag-of-words-kernels", "prototypes-on-digits"):
        found[name] = prints_of.model_fingerprint(ap.load(f"{name}.safetensors"))
    return found


def write(name: str, value: Any) -> None:
    Path(name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    torch.set_num_threads(1)
    for old in ("data", "runs", "begun", "studies", "trainings", "explanations", "interactions"):
        shutil.rmtree(old, ignore_errors=True)
    for file in HERE.glob("*.safetensors"):
        file.unlink()  # a checkpoint would be resumed
    data()
    all_said: dict[str, Any] = {"explanations": {}, "interactions": {}}
    for kind, made in (("explanations", explanations()), ("interactions", interactions())):
        for name, found in made.items():
            found.save(f"{kind}/{name}.safetensors")
            all_said[kind][name] = told.said(found)
    all_said |= {
        "runs": runs(),
        "studies": studies(),
        "study of texts": study_of_texts(),
        "prototypes": prototypes(),
        "bags of words": bags_of_words(),
        "text training": text_training(),
        "retrained": retrained(),
    }
    write("said.json", all_said)
    write("fingerprints.json", prints())
    write("public.json", public())


if __name__ == "__main__":
    main()
