"""Time ours beside others, in one process, as ratios: `python benchmarks/run.py [case …] [--repeat N]`.

A case is a function in one of the files beside this one that yields (row, reference, runs): what is timed,
the name of the run that the others are divided by, and a dictionary name → function without arguments. The runs
of a row take turns, so that a machine that slows down slows all of them; the median of the turns after a warm-up
is taken. With a unit as a fourth item the runs are called once and return an amount.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from apportion import keep_freed_memory

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]  # tests/peers.py imports the others

# Case → (the file and the function, what it shows).
CASES = {
    "saliency": ("gradient:saliency", "saliency over a plain input gradient, and Captum"),
    "ig": ("gradient:integrated_gradients", "Integrated Gradients, 32 nodes, beside Captum"),
    "lrp-vgg16": ("lrp:vgg16", "LRP on VGG-16 over a plain input gradient, Captum, zennit"),
    "lrp-resnet18": ("lrp:resnet18", "LRP on ResNet-18, the same"),
    "lrp-efficientnet": (
        "lrp:efficientnet",
        "LRP on a trained EfficientNet-Lite0, the defaults too, and zennit",
    ),
    "lrp-small": ("lrp:small", "LRP of one input of small networks"),
    "lrp-dispatch": ("lrp:dispatch", "what each torch function takes beside its arithmetic"),
    "lrp-bert": ("lrp:bert", "LRP on a BERT of the base size, 128 tokens"),
    "lime-overhead": ("masking:overhead", "LIME over as many forward passes of the model alone"),
    "lime-tables": ("masking:tables", "LIME and Kernel SHAP of rows of a table, the same"),
    "lime-small-models": ("masking:small_models", "LIME on small models beside lime"),
    "lime-errors": ("masking:errors", "model calls for the standard error of 1000 plain ones: minutes"),
    "trees": ("trees:ensembles", "TreeSHAP beside Kernel SHAP of 4 in 1000 rows, and shap: minutes"),
    "cam": ("cam:grad_cam", "Grad-CAM over a plain input gradient, and Captum"),
    "chunks": ("chunks:rows", "a row of the model by how many run at once"),
    "freed-memory": ("chunks:freed_memory", "what it saves that freed memory is kept"),
    "bag-of-words-steps": ("bag_of_words:steps", "dense SIFT and mapping of one picture"),
    "bag-of-words-pixels": ("bag_of_words:decomposition", "decomposition to pixels over the prediction"),
    "bag-of-words-learning": ("bag_of_words:learning", "learning from 1000 pictures: minutes"),
    "test-pixel-flipping": ("faithfulness:pixel_flipping", "pixel flipping beside Quantus"),
    "test-road": ("faithfulness:road", "ROAD on a noisy map beside pytorch-grad-cam"),
    "test-max-sensitivity": ("faithfulness:max_sensitivity", "max-sensitivity beside Quantus and Captum"),
    "test-infidelity": ("faithfulness:infidelity", "infidelity beside Captum and Quantus"),
    "test-eraser": ("faithfulness:eraser", "comprehensiveness and sufficiency of a text beside ferret"),
    "test-overhead": ("faithfulness:overhead", "tests over the model alone"),
    "test-small": ("faithfulness:small", "a curve test of small images over the model alone"),
    "bulk-local": ("bulk:local", "a run on one machine over a bare loop around the method"),
    "bulk-tables": ("bulk:tables", "TreeSHAP of 10 000 rows of Adult beside one call, and shap: a minute"),
    "bulk-writing": ("bulk:writing", "the share of a run that writing takes"),
    "bulk-memory": ("bulk:memory", "resident memory over 100 000 inputs: minutes"),
    "bulk-engines": ("bulk:engines", "processes and Ray, one and two workers, 10 ms an input"),
    "lrp-memory": ("memory:lrp", "peak memory of LRP over that of a plain input gradient"),
    "start": ("start:command_line", "the command line over importing torch"),
    "prototypes-push": ("prototypes:pushing", "ProtoPNet's push over one forward pass over the images"),
    "prototypes-explain": ("prototypes:explaining", "explaining one image over its forward pass"),
}

# Two minutes in all without other packages, whose ratios stand beside those that were kept.
QUICK = ("saliency", "lrp-resnet18", "lime-tables", "cam", "test-small", "start")
KEPT = HERE / "quick.json"


def cpu_time() -> float:
    """Of this process and of those that it waited for, in seconds."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def timed(
    runs: dict[str, Callable[[], object]], repeat: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float | str]:
    """The median seconds of each run, or why it does not run."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    failed: dict[str, float | str] = {}
    for turn in range(repeat + 1):
        for name, run in runs.items():
            if name in failed:
                continue
            start = clock()
            try:
                run()
            except Exception as error:  # whatever another package raises is its result
                failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:60]
                continue
            if turn:  # the first is the warm-up
                seconds[name].append(clock() - start)
    return {name: failed.get(name) or statistics.median(seconds[name]) for name in runs}


def line(
    row: str, name: str, found: float | str, ratio: float | None, unit: str, before: float | None
) -> str:
    if isinstance(found, str):
        return f"{row:<26} {name:<34} {'':>12} does not run: {found}"
    amount = f"{1000 * found:.1f} ms" if unit == "s" else f"{found:.0f} {unit}"
    was = "" if before is None else f"{before:>9.2f} × before"
    return f"{row:<26} {name:<34} {amount:>12} {'?' if ratio is None else f'{ratio:.2f}':>7} ×{was}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="case", help=f"{', '.join(CASES)}; default: all")
    parser.add_argument("--repeat", type=int, default=5, help="turns after the warm-up (default 5)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)}, beside {KEPT.name}")
    parser.add_argument("--keep", action="store_true", help=f"write the ratios into {KEPT.name}")
    parser.add_argument("--cpu", action="store_true", help="CPU time, where other work runs beside")
    parser.add_argument("--kept", action="store_true", help="keep freed memory, as the command line does")
    parser.add_argument("--list", action="store_true", help="say what each case shows")
    given = parser.parse_args()
    if given.list:
        for name, (_, what) in CASES.items():
            print(f"{name:<16} {what}")
        return
    cases = given.cases or (QUICK if given.quick else ("",))
    chosen = [name for name in CASES if any(name.startswith(case) for case in cases)]
    ours_alone = given.quick and not given.cases
    if not chosen:
        parser.error(f"no case {', '.join(given.cases)}; there are {', '.join(CASES)}")
    torch.set_num_threads(given.threads)
    if given.kept:
        keep_freed_memory()
    warnings.simplefilter("ignore")
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    now: dict[str, float] = {}
    clock, of = (cpu_time, " of CPU time") if given.cpu else (time.perf_counter, "")
    print(f"torch {torch.__version__}, {given.threads} threads, median of {given.repeat}{of}")
    for name in chosen:
        place, what = CASES[name]
        file, function = place.split(":")
        print(f"\n{name}: {what}")
        for row, reference_name, runs, *unit in getattr(importlib.import_module(file), function)():
            if ours_alone:
                runs = {n: run for n, run in runs.items() if n == reference_name or n.startswith("apportion")}
            found = timed(runs, given.repeat, clock) if not unit else {n: run() for n, run in runs.items()}
            reference = found[reference_name]
            for run, amount in found.items():
                known = isinstance(amount, float) and isinstance(reference, float)
                ratio = float(amount) / float(reference) if known else None
                key = f"{name}: {row}: {run}"
                print(line(row, run, amount, ratio, unit[0] if unit else "s", kept.get(key)), flush=True)
                if ratio is not None:
                    now[key] = round(ratio, 2)
    if given.keep:
        KEPT.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
