"""LRP on every architecture that `transformers` classifies texts or pictures with.

`python tests/lrp_sweep.py > docs/lrp-architectures.md` writes the table of the documentation;
`test_lrp_sweep.py` asserts what it says.
"""

from __future__ import annotations

import functools
import sys
import time
import warnings
from dataclasses import dataclass, field

import torch
import transformers
from torch import Tensor

import apportion as ap
import small
from apportion.results.ledger import Ledger
from small_transformers import Architecture, Made, NotBuilt, architectures
from small_transformers import small as small_model

NEEDS_PACKAGE = {
    "DinatForImageClassification": "its attention is in the package natten",
    "LayoutLMv2ForSequenceClassification": "its picture backbone is in the package detectron2",
    "TimmWrapperForImageClassification": "it wraps models of the package timm",
}
"""Architectures that cannot be built here."""

HIDDEN = "is a custom autograd function, which cannot be seen (the warning says how much relevance arrived)"
EXCEPTIONS: dict[str, str] = {
    "BloomForSequenceClassification": f"its GELU {HIDDEN}",
    "YosoForSequenceClassification": f"its attention {HIDDEN}",
    "ReformerForSequenceClassification": "the model itself refuses a gradient outside training mode",
}
"""Architectures with an operation that has no rule: what happens, and why. LRP warns of each with the
amount."""

WITH_CONSTANTS = frozenset(
    "add cat linear conv1d conv2d batch_norm layer_norm group_norm softmax exp sigmoid softplus".split()
) | {"tokens of the model's own"}
"""Operations that may absorb relevance: they have biases, shifts or constant operands, are expanded to first
order, or are not zero at zero; and tokens such as a decoder's first, which are constants. If another did, it would be
taken for something that it is not."""


@dataclass
class Swept:
    """What happened with one architecture."""

    name: str
    task: str
    made: Made | None = None
    not_built: str = ""
    not_differentiable: str = ""
    crash: str = ""
    composite: str = ""
    parameters: int = 0
    ledger: Ledger | None = None
    warnings: tuple[str, ...] = ()
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ran(self) -> bool:
        """It was explained with no operation lacking a rule."""
        return self.made is not None and not self.crash and not self.warnings

    @property
    def residual(self) -> float:
        """What the ledger misses of the remainder, relative to all that it accounts for."""
        if self.ledger is None:
            return float("nan")
        book = self.ledger
        absorbed = sum(abs(row.bias) + abs(row.stabiliser) + abs(row.unruled) for row in book)
        return abs(book.residual) / max(abs(book.total), abs(book.apportioned), absorbed)


@functools.cache
def all_architectures() -> dict[str, Architecture]:
    return {architecture.name: architecture for architecture in architectures()}


@functools.cache
def swept(name: str) -> Swept:
    architecture = all_architectures()[name]
    result, start = Swept(name, architecture.task), time.perf_counter()
    try:
        result.made = small_model(architecture)
    except NotBuilt as reason:
        result.not_built = str(reason)
        return result
    made = result.made
    result.parameters = sum(p.numel() for p in made.model.parameters())
    before = small.fingerprint(made.model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _explain(result, made)
    except Exception as error:
        result.crash = f"{type(error).__name__}: {error}"
        result.not_differentiable = _refusal(made)
    if small.fingerprint(made.model) != before:
        result.wrong.append("the model was changed")
    result.seconds = time.perf_counter() - start
    return result


def _explain(result: Swept, made: Made) -> None:
    exact = made.dtype == torch.float64
    rtol = 1e-6 if exact else 1e-3
    wanted = input_times_gradient(made)
    e = ap.LRP(ledger=True)(made.model, made.inputs, target=1)
    result.ledger, result.composite = e.ledger, str(e.notes["composite"])
    result.warnings = tuple(told for told in e.warnings if not told.startswith("left over: "))
    quick = ap.LRP()(made.model, made.inputs, target=1)
    if not _close(e.output, made.logits, rtol):
        result.wrong.append(f"the model's output changed by {_distance(e.output, made.logits):.1e}")
    for key, value in _named(e.values).items():
        if not bool(torch.isfinite(value).all()):
            result.wrong.append(f"values of {key} are not finite")
        if not _close(value, other := _named(quick.values)[key], rtol):
            result.wrong.append(f"values of {key} differ by {_distance(value, other):.1e} without a ledger")
    gradient = _named(ap.InputXGradient()(made.model, made.inputs, target=1).values)
    for key, plain in wanted.items():
        if not _close(gradient[key], plain, rtol):
            result.wrong.append(f"the gradient at {key} is off by {_distance(gradient[key], plain):.1e}")
    for row in e.ledger or ():
        scale = max(abs(row.arrived), abs(row.passed_on), abs(float(e.total.sum())))
        if row.operation not in WITH_CONSTANTS and abs(row.bias) > 10 * rtol * scale:
            result.wrong.append(
                f"{row.operation} in {row.module} absorbs {row.bias:.1e} of {row.arrived:.1e}"
            )
    if result.residual > rtol:
        result.wrong.append(f"the ledger misses {result.residual:.1e} of what it accounts for")


def _refusal(made: Made) -> str:
    """What the model says when asked for a plain gradient of its own parameters."""
    try:
        output = made.model(**made.inputs)
        parameters = [p for p in made.model.parameters() if p.requires_grad]
        torch.autograd.grad(output.logits.sum(), parameters, allow_unused=True)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _named(values: object) -> dict[str, Tensor]:
    assert isinstance(values, dict)
    return values


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))


def _close(a: Tensor, b: Tensor, rtol: float) -> bool:
    return a.shape == b.shape and _distance(a, b) <= rtol


def input_times_gradient(made: Made) -> dict[str, Tensor]:
    """By plain autograd: of pictures directly, of token ids at the outputs of the embeddings that they go
    into."""
    inputs, handles = dict(made.inputs), []
    wrapped = []  # whether the first of the shifted ids is one of the text's: which one, is not known here
    looked_up: list[tuple[Tensor, int]] = []  # an embedding, and how many positions further its ids are
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].clone().requires_grad_()
    elif "input_ids" in inputs:
        ids = inputs["input_ids"]

        def embedded(module: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            of_ids = args and isinstance(args[0], Tensor) and args[0].shape == ids.shape
            if not of_ids or "Position" in type(module).__name__:  # some of those are handed the ids as well
                return None
            shift = 0 if torch.equal(args[0], ids) else 1
            if shift and not torch.equal(args[0][:, 1:], ids[:, :-1]):
                return None
            wrapped.append(bool(shift) and bool((ids == args[0][:, :1]).any()))
            looked_up.append((output.detach().clone().requires_grad_(), shift))
            return looked_up[-1][0].clone()

        embeddings = [m for m in made.model.modules() if isinstance(m, torch.nn.Embedding)]
        handles = [module.register_forward_hook(embedded) for module in embeddings]
    try:
        output = made.model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    score = (output if isinstance(output, Tensor) else output.logits)[:, 1].sum()
    if "pixel_values" in inputs:
        return {
            "pixel_values": made.inputs["pixel_values"]
            * torch.autograd.grad(score, inputs["pixel_values"])[0]
        }
    if not looked_up or any(wrapped):
        return {}
    values = torch.zeros(ids.shape, dtype=score.dtype)
    found = torch.autograd.grad(score, [rows for rows, _ in looked_up])
    for (rows, shift), gradient in zip(looked_up, found, strict=True):
        token = (rows.detach() * gradient).sum(-1)
        values[:, : ids.shape[1] - shift] += token[:, shift:]
    return {"input_ids": values}


HEAD = """# LRP on the architectures of transformers

Every sequence- and image-classification architecture in the auto-model mappings of `transformers` {version},
made small from its configuration with random weights, and explained by `LRP(ledger=True)`. Written by
`python tests/lrp_sweep.py > docs/lrp-architectures.md`; `pytest -m slow -k lrp_sweep` asserts it.

Of {all} architectures {built} can be built here, and {ran} of these ({share:.1%}) run with a rule for every
operation. None crashes, but for one that itself refuses a gradient. In all of them the model's output is
unchanged and the ledger's rows add up to the remainder.

*Bias*, *stabiliser* and *no rule* are what the ledger says was absorbed by biases and other constants, by the
stabiliser, and for lack of a rule, as shares of the explained score. The scores of random weights are small
beside what flows through them, so these say nothing of trained models. *Missed* is what the rows leave out of
the remainder, relative to all that they account for: rounding, in double precision unless a note says single
(parts of some models compute in single all the same).

| architecture | composite | ran | bias | stabiliser | no rule | missed | note |
|---|---|---|---:|---:|---:|---:|---|"""

# Measured by `studies/pretrained.py`, not here.
TRAINED = """## Trained models

What is left over of the score on pretrained and trained networks, median and 95th percentile, plain and with
biases placed (`LRP()`, `LRP(bias="place")`), by `python studies/pretrained.py DATA OUT` as in
[On trained models](pretrained.md), which has the faithfulness beside it.

| model | samples | `LRP()`: median | 95th percentile | placed: median | 95th percentile |
|---|---:|---:|---:|---:|---:|
| EfficientNet-Lite0 (`imagenet`) | 100 | 99.96 % | 99.99 % | 0.00 % | 0.00 % |
| SqueezeNet 1.0 | 12 | 0.31 % | 0.51 % | 0.00 % | 0.00 % |
| BiLSTM (`sentiment`) | 200 | 32.65 % | 366.50 % | 0.92 % | 5.31 % |
| MiniLM (`sentiment-transformer`) | 16 | 60.05 % | 78.18 % | 0.00 % | 0.00 % |
| SmolLM2-135M-Instruct | 16 | 63.04 % | 74.01 % | 0.00 % | 0.00 % |
| network for 30 columns (`breast-cancer`) | 114 | 87.61 % | 119.95 % | 0.00 % | 0.00 % |
| network trained on Adult | 200 | 4.72 % | 197.69 % | 0.00 % | 0.00 % |
"""


def table() -> str:
    results = [swept(name) for name in all_architectures()]
    built = [result for result in results if result.made]
    ran = sum(result.ran for result in built)
    head = HEAD.format(
        version=transformers.__version__, all=len(results), built=len(built), ran=ran, share=ran / len(built)
    )
    return "\n".join([head, *map(_row, results), "", TRAINED.rstrip()])


def _row(result: Swept) -> str:
    name = result.name
    note = NEEDS_PACKAGE.get(name) or EXCEPTIONS.get(name) or (result.made.note if result.made else "")
    outcome = "yes" if result.ran else "no" if result.made else "not built"
    amounts = ["", "", "", ""]
    if result.ledger is not None:
        absorbed, total = result.ledger.absorbed, abs(result.ledger.total)
        amounts = [f"{absorbed[cause] / total:.1%}" for cause in ("bias", "stabiliser", "unruled")]
        amounts.append(f"{result.residual:.0e}")
    return f"| {' | '.join([name, result.composite, outcome, *amounts, note])} |"


if __name__ == "__main__":
    torch.set_num_threads(1)  # models this small only lose by more
    transformers.logging.set_verbosity_error()
    print(table())
    wrong = [f"{name}: {found}" for name in all_architectures() for found in swept(name).wrong]
    print("\n".join(wrong), file=sys.stderr)
