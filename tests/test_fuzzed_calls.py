"""Calls drawn at random over all public names: method or test × model × inputs × target × settings,
of which at least
one is odd. Each gives finite values, or one line that names an argument,
or the model's own error with its note."""

from __future__ import annotations

import dataclasses
import math
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.core.registry import class_named
from apportion.core.trees import tensors_in
from apportion.errors import InputError
from apportion.names import INTERACTIONS, METHODS, TESTS

SEEDS, CALLS_OF_A_SEED, CALLS_OF_THE_OTHERS = range(10), 300, 100


def seeded(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for layer in layers:
        for child in layer.modules():
            if hasattr(child, "reset_parameters"):
                child.reset_parameters()
    return nn.Sequential(*layers).eval()


ROWS = torch.rand(2, 4, generator=torch.Generator().manual_seed(0))
PICTURES = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(1))
DENSE = seeded(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
CONVOLUTIONAL = seeded(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 3))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm, self.head = (
            nn.Embedding(9, 4),
            nn.LSTM(4, 4, batch_first=True),
            nn.Linear(4, 3),
        )

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(ids))[0][:, -1])


MODELS: dict[str, tuple[Any, Any]] = {
    "rows": (DENSE, ROWS),
    "pictures": (CONVOLUTIONAL, PICTURES),
    "words": (seeded(Words()), torch.tensor([[1, 2, 3], [4, 5, 6]])),
}
nan, inf = math.nan, math.inf
ODD_INPUTS: list[Any] = [
    None, 5, "abc", b"x", [], (), {}, [[1.0, 2.0, 3.0, 4.0]], object(), len, np.array(["a", "b"],
    dtype=object),
    np.ones((2, 4), "float32"), np.full((2, 4), nan), torch.tensor(1.0), torch.ones(0, 4), torch.ones(2, 0),
    torch.full((2, 4), nan), torch.full((2, 4), inf), torch.ones(2, 4, dtype=torch.complex64),
    torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 4, dtype=torch.int8), torch.ones(2, 4,
    dtype=torch.long),
    torch.ones(2, 5), torch.ones(2, 4).half(), torch.ones(2, 4).double(), torch.full((2, 4), 3e38),
    torch.full((2, 4), 1e-45), torch.ones(2, 4, device="meta"), torch.ones(2, 4).to_sparse(),
    torch.ones(2, 1, 1, 1), torch.ones(2, 3, 6, 6), torch.zeros(2, 1, 6, 6), torch.full((2, 3), 99),
    torch.full((2, 3), -1),
    (torch.ones(2, 4), torch.ones(3, 4)), {"a": "b"}, {1: torch.ones(2, 4)}, (torch.ones(2, 4),
    [torch.ones(2, 4)]),
    {"input": torch.ones(2, 4)}, {"x": torch.ones(2, 4)}, torch.ones(2, 4).expand(2, 2, 4), torch.ones(1,
    4).expand(2, 4),
]  # fmt: skip
ODD_TARGETS: list[Any] = [
    99, -99, "cat", "", 1.5, nan, True, [], [0, 1, 2], [9, 9], [0.5, 0.5], ["a", "b"], {}, {0: 1},
    object(), 2**70, b"x",
    torch.tensor([0.0, 1.0]), torch.zeros(2, 2, dtype=torch.long), torch.tensor(1), torch.tensor([]),
    np.array([0, 1]),
    np.array([0.5]), (0, 1), (0, 1, 2), [(0,), (1,)], [None, None], lambda s: None, lambda s: s,
    lambda s: s[:, 0] * nan,
    lambda s: 1 / 0, lambda s: s.argmax(1), lambda s: torch.zeros(2), lambda s: s[:1, 0], lambda s: "x",
    lambda: None, int, len, ap.Contrast(0, 77), ap.Contrast(0, 2), ap.Neuron("0", 99), ap.Neuron("nope", 0),
    ap.Neuron("0", (0, 0)), ap.Region(1, box=((0, 2),)), ap.Region(9, mask=torch.ones(3, 3,
    dtype=torch.bool)),
]  # fmt: skip
ODD_MODELS: list[Any] = [
    None, "sentiment", 5, [], {}, object(), nn.Linear, torch.ones(3), DENSE.state_dict(),
    nn.ModuleList([DENSE]),
    lambda x: None, lambda x: [1, 2], lambda x: "a", lambda x: {}, lambda x: (), lambda: None, lambda x, y: x,
    lambda x: DENSE(x) * nan, lambda x: DENSE(x) / 0, lambda x: DENSE(x)[:, 0], lambda x: DENSE(x)[:1],
    lambda x: DENSE(x)[:, :0], lambda x: DENSE(x)[:, :, None].expand(-1, -1, 2), lambda x: DENSE(x).long(),
    lambda x: DENSE(x) + 0j, lambda x: 1 / 0, lambda x: DENSE(x).detach(), lambda x: DENSE(x) > 0,
    lambda x: DENSE(torch.as_tensor(x)).detach().numpy(), lambda x: torch.ones(len(x), 3),
    lambda x: torch.ones(()),
    lambda x: DENSE(x).to_sparse(), lambda x: DENSE(x).half(), lambda x: x, lambda x: 0.5,
    lambda x: DENSE(x.detach()),
    lambda x: DENSE(x).to("meta"), lambda x: {"logits": DENSE(x)}, lambda x: (DENSE(x), None),
    lambda x: {"logits": "x"},
    lambda x: DENSE(x) * torch.rand(()), lambda x: iter(DENSE(x)), torch.relu, torch.jit.trace(DENSE,
    ROWS), ap.LRP(), ap.LRP,
]  # fmt: skip
ODD_MAPS: list[Any] = [
    None, "x", 5, [], {}, object(), torch.zeros(2, 4), torch.full((2, 4), nan), torch.full((2, 4), inf),
    torch.ones(2, 5),
    torch.ones(3, 4), torch.ones(4), torch.ones(()), torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 4,
    dtype=torch.long),
    torch.ones(2, 4) + 0j, [[1, 2, 3, 4]] * 2, np.ones((2, 4)), {"a": torch.ones(2, 4)}, (torch.ones(2, 4),),
    torch.full((2, 4), 3e38), torch.ones(2, 4).to_sparse(), torch.ones(2, 4, device="meta"), torch.ones(0,
    4), ap.LRP(),
    ap.InputXGradient()(CONVOLUTIONAL, PICTURES, 1), torch.ones(2, 4, requires_grad=True) * 2,
]  # fmt: skip
ODD_LABELS: list[Any] = [
    None, "ab", 5, [], {}, torch.tensor([0]), torch.tensor([99, 99]), torch.tensor([-1, -1]),
    torch.tensor([0.5, 0.5]),
    torch.zeros(2, 2, dtype=torch.long), ["a", "b"], [None, 0], object(), nan, torch.tensor([True, False]),
    np.array([0, 1]),
]  # fmt: skip
ODD_MARKS: list[Any] = [
    None, "a", 5, [], {}, torch.zeros(2, 4), torch.full((2, 4), nan), torch.ones(2, 5), -torch.ones(2, 4),
    torch.ones(4),
    [[True, False, True, False]] * 2, [{"a": 1}] * 2, torch.ones(2, 4) + 0j, torch.full((2, 4), 0.5),
    object(), np.ones((2, 4)),
]  # fmt: skip
ODD_SETTINGS: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 0.5, 1.5, -0.5, nan, inf, 1e-300, 1e300, 2**70, 10**9, "x", "",
    "zero", b"x", [], {}, (),
    [[]], [0], [0, 1], (0, 1), (nan,), (-1, 2), {"a": 1}, {0: 1}, object(), int, len, lambda *a: None,
    lambda *a: a,
    torch.tensor(nan), torch.ones(2, 3), torch.ones(2, 4), torch.zeros(4, dtype=torch.long), np.ones(4),
    ap.LRP(), ap.LRP,
    ap.Pixels(), ap.Patches(2), ap.Patches(99), ap.Columns(), ap.Tokens(), ap.Mean(), ap.Constant(0.5),
    ap.Blur(), ap.Delete(),
    ap.RegionMean(), ap.NoisyLinear(), ap.Background(torch.rand(5, 4)), ap.Quartiles(torch.rand(9, 4)),
    ap.Saliency(), ap.Epsilon(), ap.Composite(),
    "0", "2", "lrp", ["0", "2"], [torch.ones(2, 4)], torch.zeros(1, 4),
]  # fmt: skip
PLAUSIBILITY = ("AUPRC", "IoU", "PointingGame", "RelevanceMass", "RelevanceRank", "TokenF1")
ODD = {
    "inputs": ODD_INPUTS, "model": ODD_MODELS, "target": ODD_TARGETS, "map": ODD_MAPS, "labels": ODD_LABELS,
    "marks": ODD_MARKS,
}  # fmt: skip
QUICK: dict[str, dict[str, Any]] = {
    "SmoothGrad": {"samples": 2}, "VarGrad": {"samples": 2}, "IntegratedGradients": {"nodes": 3},
    "LIME": {"samples": 16},
    "KernelSHAP": {"samples": 16}, "RISE": {"samples": 16}, "Taylor": {"steps": 10, "tolerance": 0.5},
    "IntegratedHessians": {"nodes": 2}, "ShapleyInteractions": {"budget": 32}, "ROAR": {"shares": (0.5,),
    "epochs": 1},
    "KAR": {"shares": (0.5,), "epochs": 1}, "FFidelity": {"epochs": 1}, "Infidelity": {"samples": 4},
    "MaxSensitivity": {"samples": 2},
    "LocalLipschitz": {"samples": 2}, "SoftComprehensiveness": {"samples": 2},
    "SoftSufficiency": {"samples": 2},
    "ShuffleTVD": {"permutations": 2}, "LDS": {"samples": 4},
}  # fmt: skip


@dataclasses.dataclass
class Call:
    """What is called, with which arguments, and in which words they may be named."""

    said: str
    made: Callable[[], Any]
    names: tuple[str, ...]


def drawn(rng: random.Random) -> Call:
    kind = rng.choice(["method", "method", "test", "test", "plausibility"])
    if kind == "method":
        name = rng.choice([*METHODS, *INTERACTIONS])
        made = class_named(name)
    elif kind == "test":
        made = class_named(rng.choice([*TESTS]), "test")
    else:
        made = getattr(ap, rng.choice(PLAUSIBILITY))
    settings = dict(QUICK.get(made.__name__, {}))
    fields = (
        [each.name for each in dataclasses.fields(made) if each.init]
        if dataclasses.is_dataclass(made)
        else []
    )
    which = rng.choice(list(MODELS))
    (model, inputs), target, labels = MODELS[which], rng.choice([None, 1]), torch.tensor([0, 1])
    values = ap.InputXGradient()(model, inputs, 1)
    marks: Any = torch.tensor([1.0, 0, 1, 0]).expand(2, -1)
    odd = ["settings"] * (2 * bool(fields)) + {
        "method": ["inputs", "model", "target"],
        "test": ["inputs", "model", "target", "map", "labels"],
        "plausibility": ["map", "marks"],
    }[kind]
    said = [f"{made.__name__} on {which}"]
    names: tuple[str, ...] = ("model", "input", "target", "score", "index is", made.__name__)
    for what in rng.sample(odd, min(len(odd), rng.choice([1, 1, 1, 2]))):
        if what == "settings":
            setting, value = rng.choice(fields), rng.choice(ODD_SETTINGS)
            settings[setting] = value
            said.append(f"{setting}={_short(value)}")
            names += (setting, setting.replace("_", " "))
            continue
        number = rng.randrange(len(ODD[what]))
        value = ODD[what][number]
        said.append(f"{what}[{number}]={_short(value)}")
        if what == "inputs":
            inputs = value
        elif what == "model":
            model = value
        elif what == "target":
            target = value
        elif what == "map":
            values = value
        elif what == "labels":
            labels = value
        else:
            marks = value
    if kind == "plausibility":
        return Call(
            ", ".join(said), lambda: made(**settings)(values, marks), (*names, "map", "truth", "explanation")
        )
    if kind == "test":

        def run() -> Any:
            return made(**settings)(model, inputs, values, target=target, labels=labels)

        return Call(", ".join(said), run, (*names, "map", "label", "explanation", "method"))
    return Call(", ".join(said), lambda: made(**settings)(model, inputs, target), names)


def _short(value: Any) -> str:
    return " ".join(repr(value).split())[:80]


def trouble(call: Call) -> str | None:
    """What is wrong with how a call ended; None if nothing is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = call.made()
    except InputError as error:
        line = str(error)
        if "\n" in line:
            return f"several lines: {line}"
        return (
            None if any(name.lower() in line.lower() for name in call.names) else f"names no argument: {line}"
        )
    except Exception as error:
        notes = " ".join(getattr(error, "__notes__", ()))
        return None if "was called with" in notes else f"raw {type(error).__name__}: {error}"
    values = getattr(found, "values", None)
    if not hasattr(found, "test") and not all(
        bool(t.isfinite().all()) for t in tensors_in(values) if t.device.type == "cpu"
    ):
        return "values that are not finite"
    return None


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_any_call_is_answered_or_refused_by_the_name_of_an_argument(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # what is kept in a folder of a drawn name
    rng = random.Random(seed)
    lost = []
    for number in range(CALLS_OF_A_SEED):
        call = drawn(rng)
        if (wrong := trouble(call)) is not None:
            lost.append(f"seed {seed}, call {number}: {call.said}: {wrong}")
    assert not lost, f"{len(lost)} of {CALLS_OF_A_SEED}:\n" + "\n".join(lost)


# ---- every other public function, one or two of whose arguments are odd ----

ODD_ANYTHING = [
    *ODD_INPUTS, *ODD_TARGETS, *ODD_MAPS, *ODD_SETTINGS, *ODD_LABELS, "a slow film", "a\0b", "\ud800",
    "lrp(", "LRP(x=1)", "(" * 500,
    "LRP({[]: 1})", "__import__('os')", "LRP(**{})", "a" * 10_000, "²", "--5", "os:system",
    "builtins:exit", "json:dumps", ":",
    "a.py:", "no.pt2", "no.onnx", "no.joblib", "hf:", "sentiment:", "/dev/null", "/nonexistent/x",
    Path("/etc"), ["a", "b"], {"a": "b"},
    [{"role": "user", "content": "a"}], [{"role": 5}], np.ones((28, 28)), np.full((28, 28), nan),
    lambda texts: [0.5] * len(texts),
]  # fmt: skip


# How else a message may name the arguments of some of them.
WORDS = {
    "explain": ("input", "score"), "explain text": ("input", "text"), "explain shipped": ("row", "column",
    "class"), "compare": ("input",),
    "forecast": ("text", "class"), "explain_dataset": ("input",), "ColumnGroups": ("group",),
    "Region": ("Region",),
    "Background": ("background",), "Quartiles": ("background",), "summary": ("column",),
}  # fmt: skip


def texts(several: list[str]) -> list[float]:
    return [len(text) / 9 for text in several]


def good_calls(folder: Path) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    explained = ap.InputXGradient()(DENSE, ROWS, 1)
    many = torch.rand(6, 4, generator=torch.Generator().manual_seed(3))
    return {
        "explain": (ap.explain, {"model": DENSE, "inputs": ROWS, "method": "saliency", "target": 1,
        "warn_from": 0.2, "feature_names": None}),
        "explain text": (ap.explain, {"model": texts, "inputs": "a slow film", "method": "occlusion",
        "target": None}),
        "explain shipped": (ap.explain, {"model": ap.load("breast-cancer"), "inputs": [0.1] * 30,
        "method": "saliency", "target": "benign"}),
        "forecast": (ap.forecast, {"model": texts, "inputs": "a slow film", "method": "occlusion",
        "target": None}),
        "compare": (ap.compare, {"model": DENSE, "inputs": ROWS, "methods": ["saliency"],
        "tests": ["deletion-rate"], "target": None,
                                 "labels": None, "features": None, "mask": None, "chunk": None,
                                 "replacements": None, "seed": 0}),
        "explain_dataset": (ap.explain_dataset, {"model": DENSE, "data": many, "method": "saliency",
        "out": folder / "run", "target": None,
                            "precision": "float16", "pool": None, "channels": False, "column": None,
                            "id_column": None, "fingerprint": None,
                            "batch": 2, "shard": 3, "table": "jsonl", "strict": False, "engine": "local",
                            "workers": None, "address": None,
                            "device": None, "shard_index": 0, "num_shards": 1, "progress": False}),
        "open_run": (ap.open_run, {"folder": folder / "none"}),
        "load": (ap.load, {"name": "breast-cancer", "background": None, "trust_code": False}),
        "Explanation.load": (ap.Explanation.load, {"path": folder / "none"}),
        "Interactions.load": (ap.Interactions.load, {"path": folder / "none"}),
        "save": (explained.save, {"path": folder / "kept.safetensors"}),
        "held": (ap.held, {"tensor": ROWS}),
        "references": (ap.references, {"explanation": explained, "seed": 0}),
        "sentences": (ap.sentences, {"text": "One. Two."}),
        "smooth": (ap.smooth, {"model": DENSE, "beta": 10.0}),
        "summary": (ap.summary, {"explanations": explained, "target": None, "by": None, "truth": None}),
        "Tabular": (ap.Tabular, {"model": texts, "background": np.ones((3, 4)), "rows": 100,
        "labels": None, "name": None}),
        "RawText": (ap.RawText, {"split": None, "hidden": ""}),
        "Remote": (ap.Remote, {"function": texts, "cache": None, "name": "", "budget": None, "batch": 16,
        "threads": 1, "retries": 3, "wait": 0.0}),
        "Answer": (ap.Answer, {"part": None, "score": "log-probability", "rather_than": None, "each": False}),
        "Region": (ap.Region, {"index": 1, "box": ((0, 2), (0, 2)), "mask": None}),
        "WeakLearner": (ap.WeakLearner, {"embedding": 4, "hidden": 4, "seeds": (0,), "norm": 1}),
        "BagOfWords": (ap.BagOfWords, {"kernel": "intersection", "words": 4, "features": "sift",
        "mapping": "rank", "pooling": "sum",
                       "pyramid": (1,), "C": 1.0, "class_weight": "balanced", "kernel_weights": None,
                       "samples": 9, "random_state": 0}),
        "ProtoPNet": (ap.ProtoPNet, {"backbone": CONVOLUTIONAL, "prototypes_per_class": 2,
        "recipe": "paper", "tune": False, "layer": "1",
                      "preparation": None, "seed": 0}),
        "ColumnGroups": (ap.ColumnGroups, {"groups": {"a": ["b"]}}),
        "Background": (ap.Background, {"data": many, "many": None}),
        "Quartiles": (ap.Quartiles, {"data": many, "many": 1, "bins": 4, "seed": 0}),
        "Scores": (ap.Scores, {"values": torch.ones(2), "test": "x", "higher_is_better": True}),
        "KAR": (ap.KAR, {"shares": (0.5,), "epochs": 1}),
        "KernelDecomposition": (ap.KernelDecomposition, {"by": "auto", "nodes": 8, "tolerance": 0.001}),
        "TreeSHAP": (ap.TreeSHAP, {"partition": None, "replacement": None, "seed": 0, "chunk": None,
        "mask": None}),
        "TreeInteractions": (ap.TreeInteractions, {"partition": None, "replacement": None}),
        "Superpixels": (ap.Superpixels, {"segments": 4, "method": "slic", "compactness": 10.0,
        "scale": 100.0}),
    }  # fmt: skip


def drawn_of_the_others(rng: random.Random, folder: Path) -> Call:
    known = good_calls(folder)
    name = rng.choice(list(known))
    call, settings = known[name]
    said = [name]
    for setting in rng.sample(list(settings), min(len(settings), rng.choice([1, 1, 2]))):
        settings[setting] = rng.choice(ODD_ANYTHING)
        said.append(f"{setting}={_short(settings[setting])}")
    if name == "explain_dataset" and isinstance(settings["out"], str):
        settings["out"] = str(folder / "run")  # a folder of that name is made, wherever the test runs
    names = {
        word
        for setting, value in settings.items()
        for word in (setting, setting.replace("_", " "), str(value)[:40])
    }
    return Call(", ".join(said), lambda: call(**settings), (*names - {""}, *WORDS.get(name, ())))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_any_call_of_the_others_is_answered_or_refused_by_the_name_of_an_argument(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = random.Random(seed)
    lost = []
    for number in range(CALLS_OF_THE_OTHERS):
        call = drawn_of_the_others(rng, tmp_path / str(number))
        if (wrong := trouble(call)) is not None:
            lost.append(f"seed {seed}, call {number}: {call.said}: {wrong}")
    assert not lost, f"{len(lost)} of {CALLS_OF_THE_OTHERS}:\n" + "\n".join(lost)


# ---- the kinds that were found so ----

META, SPARSE = torch.ones(2, 4, device="meta"), torch.ones(2, 4).to_sparse()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda _: ap.Saliency()(DENSE, META), "inputs: a tensor on the device 'meta' has no numbers"),
        (lambda _: ap.Saliency()(DENSE, SPARSE), "inputs: this is a sparse tensor"),
        (lambda _: ap.Saliency()(lambda x: DENSE(x).to("meta"), ROWS), "the scores of the model: a tensor on"),
        (lambda _: ap.Deletion()(DENSE, ROWS, SPARSE), "the map: this is a sparse tensor"),
        (lambda _: ap.held(SPARSE), "held: this is a sparse tensor"),
        (lambda _: ap.IoU()(ROWS, {}), "truth is dict; accepted: a tensor of True and False"),
        (lambda _: ap.Occlusion(partition=len)(DENSE, ROWS), "partition <built-in function len> raised TypeError"),
        (lambda _: ap.Saliency()(nn.Linear, ROWS), "model is the class Linear; accepted: a model"),
        (lambda _: ap.Saliency()(DENSE, ROWS, int), "target is the class int; accepted: a class index"),
        (lambda _: ap.Deletion()(DENSE, ROWS, ROWS, lambda s: torch.zeros(2)), "returned .2,. for"),
        (lambda _: ap.explain(DENSE, ROWS, lambda x: x), "method is <function"),
        (lambda _: ap.explain(DENSE, ROWS, lambda *_: None), "the method returned NoneType; accepted: an Expl"),
        (lambda _: ap.compare(DENSE, ROWS, ["saliency"], ["deletion"], replacements=5), "replacements is 5"),
        (lambda _: ap.explain_dataset(DENSE, ROWS, out=""), "out is ''; accepted: a path"),
        (lambda _: ap.explain_dataset(DENSE, ROWS, column=[]), r"column is \[\]; accepted: the name of a column"),
        (lambda _: ap.Explanation.load(5), "path is 5; accepted: a path"),
        (lambda _: ap.load("a" * 10_000), "name is 'aaa.*accepted: a path"),
        (lambda _: ap.summary([None, None]), "explanations is NoneType; accepted: an Explanation"),
        (lambda _: ap.references(ROWS, seed=2**70), "seed is 11805.*accepted: a whole number"),
        (lambda _: ap.sentences(5), "text is 5; accepted: a text"),
        (lambda _: ap.MaxSensitivity(radius=2**70), "radius is 11805"),
        (lambda _: ap.FFidelity(rate=1e300), "rate is 1e.300; accepted: a positive number, at most a million"),
        (lambda _: ap.ROAR(seeds=(nan,)), r"seeds\[0\] is nan; accepted: a whole number"),
        (lambda folder: ap.explain(ap.load("breast-cancer"), str(folder / "no")), "no such file"),
    ],
)  # fmt: skip
def test_a_kind_that_was_found_is_refused_by_its_argument(call: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    assert str(InputError("of is\n  [1,\n   2]")) == "of is [1, 2]"


def test_bounds_beyond_the_number_format_are_none() -> None:
    found = [ap.Taylor(high=high, steps=5, tolerance=0.5)(DENSE, ROWS, 1).values for high in (None, 1e300)]
    assert torch.equal(*found)
