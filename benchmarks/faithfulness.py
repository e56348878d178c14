"""Tests of explanations beside Quantus, captum.metrics, pytorch-grad-cam and ferret, on the same maps.

Rows named "model alone" run the model on the inputs that our test gives it: what is above it is overhead. Settings
are such that ours and theirs call the model on as many inputs, if in other batches.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import apportion as ap
import architectures
import peers
from apportion.core.trees import map_tensors
from apportion.domains.text import encode_subwords
from apportion.engines.masking.partitions import Pixels, Tokens
from apportion.engines.masking.replacements import Constant, Delete, NoisyLinear, Replacement
from apportion.evaluation.case import Case

Row = tuple[str, str, dict[str, Callable[[], object]]]


def alone(model: nn.Module, run: Callable[[], object], backward: bool = False) -> Callable[[], object]:
    """The model by itself on the very inputs that it gets in a run, in the same chunks. (Other inputs, such as
    one image many times, would not do: max-pooling branches, and is faster where a processor can guess.)
    `backward` takes the gradient at the single input too."""
    seen: list[Any] = []
    hook = model.register_forward_pre_hook(
        lambda _, args, known: seen.append(map_tensors((args, known), lambda t: t.detach().clone())),
        with_kwargs=True,
    )
    run()
    hook.remove()

    def again() -> None:
        with torch.set_grad_enabled(backward):
            for args, known in seen:
                if backward:
                    x = args[0].detach().requires_grad_()
                    torch.autograd.grad(model(x).amax(1).sum(), x)
                else:
                    model(*args, **known)

    return again


def resnet() -> nn.Module:
    return architectures.resnet18().eval().requires_grad_(False)


def digits() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 10),
    ).eval().requires_grad_(False)  # fmt: skip


def saliency(model: Any, inputs: Any, targets: Any, **_: Any) -> Any:
    """Saliency as Quantus calls it, NumPy in and out."""
    x = torch.as_tensor(inputs, dtype=torch.float32)
    return ap.Saliency()(model, x, target=torch.as_tensor(targets)).values.numpy()


def theirs(metric: Any, model: nn.Module, x: Tensor, values: Tensor, **known: Any) -> Callable[[], object]:
    """A metric of Quantus on these maps."""
    with torch.no_grad():
        y = model(x).argmax(1).numpy()
    return lambda: metric(
        model=model, x_batch=x.numpy(), y_batch=y, a_batch=values.numpy(), device="cpu", **known
    )


def pixel_flipping() -> Iterator[Row]:
    """21 or 28 steps, as Quantus can cut them; it flips single channels, we flip pixels."""
    quantus = peers.quantus()
    for name, model, shape, steps in (
        ("ResNet-18, 1 image", resnet(), (1, 3, 224, 224), 21),
        ("small CNN, 1 image", digits(), (1, 1, 28, 28), 28),
        ("small CNN, 64 images", digits(), (64, 1, 28, 28), 28),
    ):
        x = torch.randn(shape)
        explanation = ap.InputXGradient()(model, x)
        entries = x[0].numel() // steps
        metric = quantus.PixelFlipping(
            features_in_step=entries, perturb_baseline=0.0, disable_warnings=True, normalise=False, abs=False
        )
        test = ap.PixelFlipping(partition=Pixels(), steps=steps)
        ours = partial(test, model, x, explanation)
        yield name, "apportion", {
            "apportion": ours,
            "model alone": alone(model, ours),
            "Quantus": theirs(metric, model, x, explanation.values, batch_size=64),
        }  # fmt: skip


def road() -> Iterator[Row]:
    """A noisy map, nine shares, hiding in both orders."""
    theirs = peers.grad_cam_road()
    model, x = resnet(), torch.randn(1, 3, 224, 224)
    x = torch.nn.functional.avg_pool2d(x, 9, 1, 4) * 4  # smoother, like a photo
    map_ = torch.randn(1, 224, 224)
    label = int(model(x).argmax())
    combined = theirs.ROADCombined()
    ours = partial(ap.ROAD(of="score", replacement=NoisyLinear()), model, x, map_)
    yield "ResNet-18, 1 image", "apportion", {
        "apportion": ours,
        "model alone": alone(model, ours),
        "pytorch-grad-cam": lambda: combined(x, map_.numpy(), [lambda scores: scores[label]], model),
    }  # fmt: skip


def max_sensitivity() -> Iterator[Row]:
    """50 perturbations of each input, explained by saliency."""
    quantus, metrics = peers.quantus(), importlib.import_module("captum.metrics")
    for name, model, shape in (
        ("small CNN, 1 image", digits(), (1, 1, 28, 28)),
        ("small CNN, 16 images", digits(), (16, 1, 28, 28)),
    ):
        x = torch.randn(shape)
        explanation = ap.Saliency()(model, x)
        metric = quantus.MaxSensitivity(nr_samples=50, lower_bound=0.02, disable_warnings=True)

        def explain(inputs: Tensor, target: Tensor, model: nn.Module = model) -> Tensor:
            return ap.Saliency()(model, inputs, target).values

        def captum(x: Tensor = x, explain: Any = explain, target: Tensor = explanation.target) -> object:
            return metrics.sensitivity_max(explain, x, n_perturb_samples=50, target=target)

        ours = partial(ap.MaxSensitivity(samples=50), model, x, explanation)
        yield name, "apportion", {
            "apportion": ours,
            "model alone": alone(model, ours, backward=True),
            "Quantus": theirs(metric, model, x, explanation.values, explain_func=saliency, batch_size=16),
            "captum": captum,
        }  # fmt: skip


def infidelity() -> Iterator[Row]:
    """1000 perturbations of each input by noise."""
    quantus, metrics = peers.quantus(), importlib.import_module("captum.metrics")
    for name, model, shape in (
        ("small CNN, 1 image", digits(), (1, 1, 28, 28)),
        ("small CNN, 16 images", digits(), (16, 1, 28, 28)),
    ):
        x = torch.randn(shape)
        explanation = ap.Saliency()(model, x)

        def noise(inputs: Tensor) -> tuple[Tensor, Tensor]:
            drawn = 0.1 * torch.randn_like(inputs)
            return drawn, inputs - drawn

        def captum(model: nn.Module = model, x: Tensor = x, e: Any = explanation) -> object:
            return metrics.infidelity(
                model, noise, x, e.values, target=e.target, n_perturb_samples=1000, max_examples_per_batch=64
            )

        metric = quantus.Infidelity(n_perturb_samples=1000, perturb_patch_sizes=[7], disable_warnings=True)
        test = ap.Infidelity(samples=1000, perturbation="noise", scaled=False)
        ours = partial(test, model, x, explanation)
        yield name, "apportion", {
            "apportion": ours,
            "apportion, hiding": partial(ap.Infidelity(samples=1000), model, x, explanation),
            "model alone": alone(model, ours),
            "captum": captum,
            "Quantus": theirs(metric, model, x, explanation.values, batch_size=16),
        }  # fmt: skip


class Letters:
    """A tokenizer with a letter for each token, as much of one as ferret asks for."""

    cls_token, sep_token, mask_token_id = "[", "]", 0

    def __call__(self, texts: Any, **_: Any) -> Any:
        from transformers.tokenization_utils_base import BatchEncoding

        rows = [[ord(c) for c in text] for text in ([texts] if isinstance(texts, str) else texts)]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        return BatchEncoding({"input_ids": ids, "attention_mask": mask})

    def decode(self, ids: Any) -> str:
        return "".join(map(chr, ids))


def word_pieces(texts: list[str]) -> Any:
    """A tokenizer as BERT's, its pieces learned from these texts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    special = [*names.values(), "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=800, special_tokens=special, show_progress=False)
    )
    ends = [(name, special.index(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, mask_token="[MASK]", model_max_length=512, **names
    )


def eraser() -> Iterator[Row]:
    """Comprehensiveness and sufficiency at ten shares: a text of 64 tokens, and 16 texts of 10 to 60 words as
    ferret takes them by itself, one by one; tokens replaced by a mask, or deleted (ferret's own choice)."""
    from transformers import BertConfig, BertForSequenceClassification

    measures = peers.ferret_faithfulness()
    explanations = importlib.import_module("ferret.explainers.explanation")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=1000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024
    )
    model = BertForSequenceClassification(config).eval().requires_grad_(False)
    letters = "".join(chr(97 + (7 * i * i + i) % 26) for i in range(64))
    words = re.findall("[a-z]+", (Path(__file__).parent.parent / "docs" / "faithfulness.md").read_text())
    texts = [" ".join(words[30 * i : 30 * i + 10 + 10 * i // 3]) for i in range(16)]
    pieces = word_pieces(texts)
    for name, tokenizer, given, mask in (
        ("64 tokens", Letters(), [letters], Letters.mask_token_id),
        ("16 texts", pieces, texts, pieces.mask_token_id),
    ):
        encoded = dict(tokenizer(given, padding=True, return_tensors="pt"))
        known = None if given == [letters] else [encode_subwords(text, tokenizer)[1] for text in given]
        explanation = ap.InputXGradient()(model, encoded)
        made = []
        for text, values, target, seen in zip(
            given, explanation.values["input_ids"], explanation.target, encoded["attention_mask"], strict=True
        ):
            # The ranks from 1 on, since ferret leaves negative values out.
            ranks = values[seen > 0].argsort().argsort().numpy() + 1.0
            tokens = list(letters) if known is None else tokenizer.tokenize(text, add_special_tokens=True)
            made.append(explanations.Explanation(text, tokens, ranks, "x", int(target)))
        for way, how in (("masked", Constant(mask)), ("deleted", Delete(padding=0))):
            run = partial(erased, model, encoded, explanation, known, how)
            one_by_one = partial(erased_by_ferret, measures, model, tokenizer, made, way == "deleted", known)
            yield f"{name}, {way}", "apportion", {
                "apportion": run,
                "model alone": alone(model, run),
                "ferret": one_by_one,
            }  # fmt: skip


def erased(model: nn.Module, encoded: Any, explanation: Any, features: Any, how: Replacement) -> None:
    settings: Any = {"shares": tuple(k / 10 for k in range(1, 11)), "replacement": how, "partition": Tokens()}
    tests = {"comprehensiveness": ap.Comprehensiveness(**settings), "sufficiency": ap.Sufficiency(**settings)}
    Case(model, encoded, explanation.target, features=features).scores(tests, explanation)


def erased_by_ferret(
    measures: Any, model: nn.Module, tokenizer: Any, made: list[Any], delete: bool, features: Any
) -> None:
    shares = [k / 10 + 1e-9 for k in range(1, 11)]
    way = {"remove_tokens": delete, "based_on": "perc", "thresholds": shares}
    for name in ("Comprehensiveness", "Sufficiency"):
        evaluator = getattr(measures, f"AOPC_{name}_Evaluation")(model, tokenizer)
        for explanation in made:
            evaluator.compute_evaluation(
                explanation, explanation.target, remove_first_last=features is not None, removal_args=way
            )


def overhead() -> Iterator[Row]:
    """Ours over the model alone."""
    for name, model, x, tests in (
        (
            "ResNet-18, 1 image",
            resnet(),
            torch.randn(1, 3, 224, 224),
            (ap.PixelFlipping(), ap.Infidelity(samples=20)),
        ),
        (
            "ResNet-18, 4 images",
            resnet(),
            torch.randn(4, 3, 224, 224),
            (ap.Deletion(), ap.Comprehensiveness()),
        ),
    ):
        yield from over_the_model(name, model, x, tests)
    yield from small()


def small() -> Iterator[Row]:
    for many in (1, 64):
        name = f"small CNN, {many} image{'s' * (many > 1)}"
        tests = (ap.PixelFlipping(partition=Pixels(), steps=28), ap.Deletion())
        yield from over_the_model(name, digits(), torch.randn(many, 1, 28, 28), tests)


def over_the_model(name: str, model: nn.Module, x: Tensor, tests: tuple[Any, ...]) -> Iterator[Row]:
    explanation = ap.InputXGradient()(model, x)
    for test in tests:
        ours = partial(test, model, x, explanation)
        runs = {"model alone": alone(model, ours), "apportion": ours}
        yield f"{type(test).__name__}, {name}", "model alone", runs
