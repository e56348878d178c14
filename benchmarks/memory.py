"""Peak memory, each run in a process of its own: `ru_maxrss` less what the process held before the run.

The allocator gives freed blocks back at once there (`MALLOC_MMAP_THRESHOLD_`), so that what is measured is what a run
holds. As glibc comes it keeps freed blocks in its heap, and the same run differs by a fifth from one time to the next.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
MODELS = ("vgg16", "resnet18", "bert")


def measured(model: str, what: str) -> float:
    """Megabytes that one run adds to the peak of a fresh process."""
    command = [sys.executable, str(Path(__file__)), model, what]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(found.stdout.split()[-1])


def lrp() -> Iterator[tuple[str, str, dict[str, Callable[[], float]], str]]:
    for model in MODELS:
        whats = (
            ("plain gradient", "epsilon", "transformer")
            if model == "bert"
            else ("plain gradient", "epsilon", "epsilon-plus-flat", "placed")
        )
        yield model, "plain gradient", {w: lambda m=model, w=w: measured(m, w) for w in whats}, "MB"


def main(model: str, what: str) -> None:
    sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]
    import torch

    import architectures
    from apportion import LRP
    from gradient import FromEmbeddings, frozen, plain

    torch.set_num_threads(2)
    if model == "bert":
        network, x = frozen(architectures.bert()), architectures.tokens(8)
        rows = network.bert.embeddings.word_embeddings(x["input_ids"]).detach()
        small, gradient = architectures.tokens(1, 8), FromEmbeddings(network, x["attention_mask"])
        small_rows = rows[:1, :8].clone()
        short = FromEmbeddings(network, small["attention_mask"])
    else:
        network = frozen(architectures.trained_like(getattr(architectures, model)()))
        x, small, gradient = architectures.pictures(8), architectures.pictures(1), network
        rows, small_rows, short = x, small, network
    method = None if what == "plain gradient" else LRP(bias="place") if what == "placed" else LRP(what)
    if method is None:
        plain(short, small_rows)
    else:
        method(network, small, target=0)  # what is loaded at the first call is not the method's
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if method is None:
        plain(gradient, rows)
    else:
        method(network, x, target=0)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
