"""Cost against work: seconds and peak memory as inputs, tokens, features or classes grow, and the slope of each curve.

    python benchmarks/scale.py [inputs tokens features classes] [--threads 1]

A slope of 1 is a cost in proportion to the work; attention over t tokens costs t + t². The slope is that of the last
two points, where what a call costs anyway no longer counts. Memory is the peak of the process above that of the first
point of the curve.
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import apportion as ap  # noqa: E402
from gradient import frozen  # noqa: E402
from subjects import perceptron  # noqa: E402

Curve = tuple[str, dict[int, Callable[[], object]]]
GRADIENTS: dict[str, Any] = {
    "input × gradient": ap.InputXGradient(),
    "lrp": ap.LRP(),
    "deeplift": ap.DeepLIFT(),
}
HIDING: dict[str, Any] = {
    "lime, 1000 masks": ap.LIME(samples=1000),
    "kernel shap, 1000 masks": ap.KernelSHAP(samples=1000),
    "occlusion": ap.Occlusion(),
}


def inputs() -> Iterator[Curve]:
    """Rows of a table."""
    model = perceptron()
    for methods, rows in ((GRADIENTS, (100, 1000, 10_000, 100_000)), (HIDING, (1, 10, 100))):
        for name, method in methods.items():
            yield name, {n: partial(method, model, torch.randn(n, 30), target=0) for n in rows}


def tokens() -> Iterator[Curve]:
    """Tokens of a text, for a transformer of two layers."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
    config = BertConfig(num_hidden_layers=2, max_position_embeddings=2048, **sizes)
    model = frozen(BertForSequenceClassification(config).eval())

    @torch.no_grad()
    def forward(ids: torch.Tensor) -> object:
        return model(ids)

    ids = {n: torch.randint(5, 1000, (1, n)) for n in (16, 64, 256, 1024, 2048)}
    yield "the model alone", {n: partial(forward, each) for n, each in ids.items()}
    for name, method in GRADIENTS.items():
        yield name, {n: partial(method, model, each, target=0) for n, each in ids.items()}


def features() -> Iterator[Curve]:
    """Columns of a row."""
    for name, method in {**GRADIENTS, **HIDING}.items():
        curve = {}
        for n in (10, 100, 1000, 10_000):
            torch.manual_seed(0)
            model = frozen(nn.Sequential(nn.Linear(n, 32), nn.Softplus(), nn.Linear(32, 2)))
            curve[n] = partial(method, model, torch.randn(1, n), target=0)
        yield name, curve


def classes() -> Iterator[Curve]:
    """Classes of a model, one of which is explained."""
    for name, method in {**GRADIENTS, **HIDING}.items():
        curve = {}
        for n in (2, 10, 100, 1000):
            torch.manual_seed(0)
            model = frozen(nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, n)))
            curve[n] = partial(method, model, torch.randn(8, 30), target=0)
        yield name, curve


def seconds(call: Callable[[], object]) -> float:
    """The least of three runs after a first one, or that of one run that takes over a second."""
    found = []
    for _ in range(4):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
        if found[-1] > 1:
            return found[-1]
    return min(found[1:])


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    curves = {f.__name__: f for f in (inputs, tokens, features, classes)}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("over", nargs="*", choices=[*curves, []], default=[])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    for over in given.over or curves:
        print(f"\n| over {over} | work: ms (MB) | slope |\n|---|---|---:|")
        for name, curve in curves[over]():
            before, points = 0.0, []
            for work, call in curve.items():
                took = seconds(call)
                before = before or peak()
                points.append((work, took, peak() - before))
            (a, first, _), (b, last, _) = points[-2:]
            told = ", ".join(f"{work}: {1000 * took:.1f} ({more:.0f})" for work, took, more in points)
            print(f"| {name} | {told} | {math.log(last / first) / math.log(b / a):.2f} |", flush=True)


if __name__ == "__main__":
    main()
