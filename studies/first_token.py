"""The first token of SmolLM2: does it matter to the model, or to the rule only?

    python studies/first_token.py DATA [--many 8]

DATA as for `pretrained.py`. The logit of the predicted token falls by so much if the first word gives way to the
padding, to other words, or is left out; beside it what the other words do. Then what share each method gives the first
token, as it is and where a token that says nothing (the end of a text) stands before the prompt.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

import apportion as ap

sys.path.append(str(Path(__file__).parent))
import pretrained

METHODS = {
    "lrp, attention constant": ap.LRP(ap.Composite(softmax="constant")),
    "lrp": ap.LRP(),
    "lrp, biases placed": ap.LRP(bias="place"),
    "kernel shap (32 masks)": ap.KernelSHAP(samples=32),
}
OTHERS = ["The", "In", "Some", "When", "His", "Every", "Yes", "My"]


def fall(model: torch.nn.Module, ids: Tensor, target: int, place: int, tokens: list[int]) -> float:
    """Of the logit, in the mean over what stands at a place instead."""
    rows = ids.repeat(len(tokens) + 1, 1)
    rows[1:, place] = torch.tensor(tokens)
    with torch.no_grad():
        found = model(rows)[:, target]
    return float(found[0] - found[1:].mean())


def share(values: Tensor) -> list[float]:
    """Of each token in the sum of absolute values."""
    return [float(v) for v in values.abs() / values.abs().sum()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--many", type=int, default=8)
    given = parser.parse_args()
    bench = pretrained.smollm2(given.data)
    model, pad = bench.classifier.model, bench.classifier.mask
    assert isinstance(model, torch.nn.Module)
    assert pad is not None
    lead = pad  # the end of a text
    words = [int(bench.classifier.encode(word)[0][0, 0]) for word in OTHERS]  # type: ignore[misc]
    falls: dict[str, list[tuple[float, float]]] = {}
    shares: dict[str, list[tuple[float, ...]]] = {}
    for _, text in islice(bench.samples, given.many):
        print(text, file=sys.stderr, flush=True)
        ids, _ = bench.classifier.encode(text)  # type: ignore[misc]
        longer = torch.cat([torch.tensor([[lead]]), ids], 1)
        with torch.no_grad():
            scores, after = model(ids)[0], model(longer)[0]
            target = int(scores.argmax())
            shorter = float(model(ids[:, 1:])[0, target])
        many = ids.shape[1]
        for name, tokens in (("gives way to padding", [pad]), ("gives way to other words", words)):
            first = fall(model, ids, target, 0, tokens)
            rest = [fall(model, ids, target, place, tokens) for place in range(1, many - 1)]
            falls.setdefault(name, []).append((first, sum(rest) / len(rest)) if rest else (first, first))
        removed = [
            float(model(torch.cat([ids[:, :i], ids[:, i + 1 :]], 1))[0, target]) for i in range(1, many - 1)
        ]
        here = float(scores[target])
        falls.setdefault("is left out", []).append(
            (here - shorter, here - (sum(removed) / len(removed) if removed else shorter))
        )
        falls.setdefault("has a padding before it", []).append((here - float(after[target]), float("nan")))
        for name, method in METHODS.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                alone = share(method(model, ids, target, **asked(method, pad)).values[0])
                led = share(method(model, longer, target, **asked(method, pad)).values[0])
            shares.setdefault(name, []).append((alone[0], led[0], led[1], 1 / many))
    print("| the first word | the logit falls by | another word, not the last |\n|---|---:|---:|")
    for name, found in falls.items():
        first, rest = torch.tensor(found).mean(0).tolist()
        print(f"| {name} | {first:.2f} | {'–' if rest != rest else f'{rest:.2f}'} |")
    print("\n| method | first token | padding before: the padding | the first token |\n|---|---:|---:|---:|")
    for name, each in shares.items():
        alone, led, then, even = (100 * torch.tensor(each).mean(0)).tolist()
        print(f"| {name} | {alone:.0f} % | {led:.0f} % | {then:.0f} % |")
    print(f"\n{given.many} prompts; an even share is {even:.0f} %")


def asked(method: object, pad: int) -> dict[str, int]:
    return {"mask": pad} if isinstance(method, ap.KernelSHAP) else {}


if __name__ == "__main__":
    main()
