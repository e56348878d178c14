"""Models of the user's own: a factory in Python, an exported program, or a Hugging Face folder.

Loading a factory runs the user's code: only where the user names it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from apportion.core.classifier import Classifier
from apportion.domains.image import IMAGENET_MEAN, IMAGENET_STD, GuessedPreparation, from_processor
from apportion.domains.language import LanguageModel
from apportion.domains.text import encode_subwords
from apportion.errors import InputError, check, did_you_mean, first_line, shown
from apportion.models._estimators import SUFFIXES, from_estimator_file
from apportion.models._exported import checked_archive
from apportion.models._onnx import OnnxFunction, fixed_sides

HUB = "hf:"
WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
FACTORY = re.compile(r"(?P<place>.+\.py|[A-Za-z_][\w.]*):(?P<factory>[A-Za-z_][\w.]*)")


def load_own(
    name: str, shipped: Sequence[str], background: Any = None, trust_code: bool = False
) -> Classifier | LanguageModel:
    """What `name` says: see `apportion.models.load`."""
    path = Path(name)
    if name.startswith(HUB):
        return from_hugging_face(name.removeprefix(HUB), network=True)
    if (found := FACTORY.fullmatch(name)) is not None:
        return from_factory(found["place"], found["factory"])
    if path.suffix == ".pt2":
        return from_export(path)
    if path.suffix in SUFFIXES:
        return from_estimator_file(path, background, trust_code)
    if path.suffix == ".onnx":
        return from_onnx(path)
    if path.is_dir():
        return from_hugging_face(name, network=False)
    if path.suffix == ".py":
        raise InputError(f"model {name!r} does not say which factory; accepted: {name}:FACTORY")
    if path.suffix in WEIGHTS and not path.is_file():
        raise InputError(f"model {name!r}: no such file")
    if path.suffix == ".safetensors":
        return from_saved(path)
    if path.suffix in WEIGHTS:
        raise InputError(
            f"model {name!r} holds weights only, not the model; accepted: a factory that builds it "
            "(file.py:factory), or a .pt2 file from torch.export.save"
        )
    raise InputError(
        f"unknown model {name!r}; {did_you_mean(name, shipped)}accepted: {', '.join(shipped)}, "
        "pkg.module:factory, file.py:factory, a .pt2 or .onnx file, a saved ProtoPNet or BagOfWords, a .skops file, a "
        "Hugging Face folder, or hf:owner/name"
    )


# ---- a factory ----


def from_factory(place: str, factory: str) -> Classifier | LanguageModel:
    """Call a factory in a module (found from the working directory too) or in a file (beside its siblings).

    A module that it returns is put into eval mode and takes pictures as `wrap_bare_model` says.
    """
    name = f"{place}:{factory}"
    file = Path(place) if place.endswith(".py") else None
    if file is not None and not file.is_file():
        raise InputError(f"model {name!r}: no such file {place}")
    with _importing_from(file.parent if file else Path.cwd()):
        with _one_line(f"model {name!r}"):
            module = _import_file(file) if file else importlib.import_module(place)
        made: Any = module
        for part in factory.split("."):
            if not hasattr(made, part):
                known = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
                hint = did_you_mean(part, known) or f"it has {', '.join(known[:5]) or 'none'}"
                raise InputError(f"model {name!r}: {place} has no factory {factory!r}; {hint}")
            made = getattr(made, part)
        if (found := _classifier(made, name)) is not None:
            return found
        if not callable(made):
            raise InputError(
                f"model {name!r} is {type(made).__name__}; accepted: a factory that returns a Classifier"
            )
        with _one_line(f"model {name!r}"):
            made = made()
    if (found := _classifier(made, name)) is None:
        raise InputError(
            f"model {name!r} returned {type(made).__name__}; accepted: a Classifier, a torch module, or a fitted "
            "ProtoPNet or BagOfWords"
        )
    return found


def _classifier(made: Any, name: str) -> Classifier | LanguageModel | None:
    if isinstance(made, Classifier | LanguageModel):
        return made
    if isinstance(made, nn.Module):
        return wrap_bare_model(made.eval(), name)
    if not isinstance(made, type) and callable(getattr(made, "classifier", None)):  # an estimator of ours
        with _one_line(f"model {name!r}"):
            found: Classifier = made.classifier(name)
            return found
    return None


def wrap_bare_model(
    model: Callable[..., Any], name: str, sides: tuple[int, int, int] | None = None
) -> Classifier:
    """A model that came without preprocessing or class names: pictures are prepared as for most ImageNet models, and
    explanations say that this was guessed; tensors are taken as they are. `sides` are the (channels, height, width)
    that the model takes alone; None: 3 × 224 × 224."""
    channels, height, width = sides or (3, 224, 224)
    usual = (height, width) == (224, 224)
    resize = 256 if usual else round(max(height, width) / 0.875)
    crop = 224 if usual else (height, width)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.0,), (1.0,))
    encode = GuessedPreparation(resize, crop, mean, std)
    return Classifier(model=model, encode=encode, labels=(), domain="image", name=name)


def _import_file(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look their module up; a name of its own shadows nothing that is imported already.
    sys.modules.setdefault(file.stem, module)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


# ---- an exported program ----


def from_export(path: Path) -> Classifier:
    """A `torch.export.save`d program, once it is known to compute and do nothing else. It stays in the mode that it was
    exported in."""
    if not path.is_file():
        raise InputError(f"model {str(path)!r}: no such file")
    archive = checked_archive(path)
    with _one_line(
        f"model {str(path)!r} is not an exported program that this torch ({torch.__version__}) reads"
    ):
        with _weights_only():
            program = torch.export.load(archive)
        return wrap_bare_model(program.module(), path.name, _sides_of(program))


def _sides_of(program: torch.export.ExportedProgram) -> tuple[int, int, int] | None:
    """(channels, height, width) of the pictures of a program of one picture that takes one size; None of others."""
    names = program.graph_signature.user_inputs
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    shape = tuple(getattr(nodes[0].meta.get("val"), "shape", ())) if len(nodes) == 1 else ()
    return fixed_sides(shape)


def from_onnx(path: Path) -> Classifier:
    """An ONNX file as a function that `onnxruntime` runs, which knows its own operators only: no library is loaded, and
    no other file is read."""
    if not path.is_file():
        raise InputError(f"model {str(path)!r}: no such file")
    with _one_line(f"model {str(path)!r} is not an ONNX file that onnxruntime runs by itself"):
        function = OnnxFunction(path)
    sides = fixed_sides(function.inputs[0].shape) if len(function.inputs) == 1 else None
    return wrap_bare_model(function, path.name, sides)


@contextmanager
def _weights_only() -> Iterator[None]:
    """torch.export.load says weights_only=False for some tensors; the environment overrules it."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def from_saved(path: Path) -> Classifier:
    """What `BagOfWords.save` wrote, or `ProtoPNet.save` on a backbone that ships."""
    with _one_line(f"model {str(path)!r}"), safe_open(path, "pt") as file:
        bag_of_words = "bag_of_words" in (file.metadata() or {})
    place = "bag_of_words.classifier:BagOfWords" if bag_of_words else "prototypes.estimator:ProtoPNet"
    module, name = place.split(":")
    try:
        estimator: Any = getattr(importlib.import_module(f"apportion.models.{module}"), name)
        found: Classifier = estimator.load(path).classifier(path.name)
        return found
    except InputError as error:
        raise InputError(
            f"model {str(path)!r}: {error}. Weights alone are no model: accepted is what ProtoPNet.save or "
            "BagOfWords.save wrote, or a factory that builds the model (file.py:factory)"
        ) from None


# ---- Hugging Face ----


def from_hugging_face(name: str, network: bool) -> Classifier | LanguageModel:
    """A text or image classifier with its tokenizer or image processor, or a language model with its tokenizer, from a
    folder (or, with `network`, by its name on the hub). Code that comes with a model is never run."""
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError:
        raise InputError(f"model {name!r} needs transformers: pip install 'apportion[text]'") from None
    what = f"model {name!r}"
    options: dict[str, Any] = {"local_files_only": not network, "trust_remote_code": False}
    if not network and not (Path(name) / "config.json").is_file():
        raise InputError(f"{what} is a folder without a config.json; accepted: what save_pretrained wrote")
    with _one_line(what):
        config = transformers.AutoConfig.from_pretrained(name, **options)
    named = getattr(config, "architectures", None) or []
    if not isinstance(named, list) or not all(isinstance(head, str) for head in named):
        raise InputError(
            f"{what}: architectures is {shown(named)} in its config.json; accepted: a list of names"
        )
    heads = " ".join(named)
    if any(head in heads for head in _WRITERS):
        return _language_model(transformers, config, name, options)
    _refuse_other_heads(what, heads)
    text, image = (
        type(config) in kind._model_mapping
        for kind in (
            transformers.AutoModelForSequenceClassification,
            transformers.AutoModelForImageClassification,
        )
    )
    if text and not (image and "ImageClassification" in heads):
        domain, kind = "text", transformers.AutoModelForSequenceClassification
    elif image:
        domain, kind = "image", transformers.AutoModelForImageClassification
    else:
        raise InputError(f"{what} is a {config.model_type}; accepted: classifiers of texts or of images")
    with _one_line(what), _no_progress_bars(transformers.utils.logging):
        model, report = kind.from_pretrained(name, config=config, output_loading_info=True, **options)
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise InputError(
            f"{what} has no trained weights for {missing}; accepted: a model trained to classify"
        )
    labels = tuple(config.id2label[i] for i in sorted(config.id2label))
    return _with_preparation(model.eval(), domain, labels, name, options)


# Heads of models that write texts.
_WRITERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForSeq2SeqLM")

_OTHER_HEADS = {
    "ForTokenClassification": "a class for each token",
    "ForMaskedLM": "a language model, which predicts masked tokens",
    "ForQuestionAnswering": "a model that marks answers in a text",
    "ForMultipleChoice": "a model that chooses among texts",
}


def _language_model(transformers: Any, config: Any, name: str, options: dict[str, Any]) -> LanguageModel:
    """A causal or an encoder-decoder model of texts with its tokenizer."""
    what = f"model {name!r}"
    kinds = (transformers.AutoModelForCausalLM, transformers.AutoModelForSeq2SeqLM)
    decodes = bool(getattr(config, "is_encoder_decoder", False))
    if type(config) not in kinds[decodes]._model_mapping:
        raise InputError(f"{what} is a {config.model_type}; accepted: models that write a text from a text")
    with _one_line(what), _no_progress_bars(transformers.utils.logging):
        model, report = kinds[decodes].from_pretrained(
            name, config=config, output_loading_info=True, **options
        )
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise InputError(f"{what} has no trained weights for {missing}; accepted: a trained language model")
    return LanguageModel(model.eval(), _tokenizer(transformers, name, options), name)


def _tokenizer(transformers: Any, name: str, options: dict[str, Any]) -> Any:
    with _one_line(what := f"the tokenizer of {name!r}"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **options)
    check(
        f"model_max_length of {what}", tokenizer.model_max_length, lambda most: most > 0, "a number above 0"
    )
    return tokenizer


def _refuse_other_heads(what: str, heads: str) -> None:
    """InputError if the folder says that it holds another head than a classifier's: the weights of some fit."""
    if "Classification" in heads and "ForTokenClassification" not in heads:
        return
    for head, holds in _OTHER_HEADS.items():
        if head in heads:
            raise InputError(f"{what} holds {heads}, {holds}; accepted: classifiers of texts or of images")


def _with_preparation(
    model: nn.Module, domain: str, labels: tuple[str, ...], name: str, options: dict[str, Any]
) -> Classifier:
    """The model with what turns a text or a picture into its input."""
    transformers: Any = importlib.import_module("transformers")
    if domain == "image":
        with _one_line(f"the image processor of {name!r}"):
            # Its settings are read, it never runs: the variant that needs no torchvision is enough.
            newer = int(transformers.__version__.split(".")[0]) >= 5
            options |= {"backend": "pil"} if newer else {"use_fast": False}
            processor = transformers.AutoImageProcessor.from_pretrained(name, **options)
            return Classifier(model, from_processor(processor), labels, "image", name)
    tokenizer = _tokenizer(transformers, name, options)
    masks = (tokenizer.mask_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id)
    mask = next((token for token in masks if token is not None), None)
    return Classifier(model, partial(encode_subwords, tokenizer=tokenizer), labels, "text", name, mask)


@contextmanager
def _no_progress_bars(logging: Any) -> Iterator[None]:
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Any failure inside as an InputError: what failed, why in one line, and where in the user's code."""
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a script that ends itself
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
        place = ""
        if frames and Path(frames[-1].filename).is_file() and Path(frames[-1].filename) != Path(__file__):
            place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
        raise InputError(f"{what}: {type(error).__name__}: {first_line(error):.300}{place}") from error
