"""Every architecture that `transformers` classifies texts or pictures with, as small as it can be made.

Which there are is read from the auto-model mappings, and how each is made small follows from the names and
the defaults of its settings: `ways` lists the attempts, and the first with which the plain model runs is
taken. `SPECIAL` holds what no general way can know.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.models.auto import modeling_auto

CLASSES = 3

NAMED = {
    "width": """hidden_size d_model dim n_embd emb_dim embed_dim embedding_size d_embed entity_emb_size
    d_latents neck_hidden_size projection_dim projection_size out_hidden_size cross_attention_hidden_size""",
    "inner": """intermediate_size ffn_dim d_ff d_inner n_inner dff hidden_dim encoder_ffn_dim decoder_ffn_dim
    moe_intermediate_size shared_expert_intermediate_size""",
    "layers": """num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers
    num_decoder_layers depth num_self_attends_per_block""",
    "heads": """num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads
    mamba_n_heads n_mamba_heads num_query_groups num_self_attention_heads num_cross_attention_heads
    linear_num_value_heads linear_num_key_heads""",
}
"""Settings of the same meaning under the names that the architectures have for it."""

SIZES = {
    **dict.fromkeys(NAMED["width"].split(), 32),
    **dict.fromkeys(NAMED["inner"].split(), 48),
    **dict.fromkeys(NAMED["heads"].split(), 4),
    "num_key_value_heads": 2, "vocab_size": 120, "entity_vocab_size": 20, "image_size": 32,
    "patch_size": 8, "head_dim": 8, "d_kv": 8, "d_head": 8, "rotary_dim": 4, "kv_channels": 8,
    "attention_head_dim": 16, "attention_hidden_size": 64, "q_lora_rank": 16, "kv_lora_rank": 16,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "num_experts": 4,
    "n_routed_experts": 4, "num_local_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2,
    "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "expert_layer_period": 2,
    "mamba_d_state": 8, "mamba_headdim": 16, "state_size": 8, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "num_latents": 8, "max_position_embeddings": 64, "attn_layer_period": 2,
    "attn_layer_offset": 1, "n_positions": 64, "max_source_positions": 64, "num_patches": 16,
    "num_hash_buckets": 64, "pronunciation_vocab_size": 20, "shape_vocab_size": 20, "chunk_size": 8,
    "xpath_unit_hidden_size": 8, "max_xpath_tag_unit_embeddings": 20,
    "max_xpath_subs_unit_embeddings": 20,
}  # fmt: skip
"""Sizes by name."""

TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}


@dataclass(frozen=True)
class Architecture:
    """A model class and the class of its configuration; `task` is "text" or "image"."""

    name: str
    task: str
    config: type[Any]
    model: type[Any]


def names() -> list[str]:
    """Of all the model classes, without importing them."""
    mappings = (
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    )
    found = [name for mapping in mappings for name in mapping.values()]
    return sorted({n for name in found for n in ((name,) if isinstance(name, str) else name)}, key=str.lower)


def architectures() -> list[Architecture]:
    found = {}
    for task, mapping in (
        ("text", modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING),
        ("image", modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING),
    ):
        for config, models in mapping.items():
            for model in models if isinstance(models, tuple) else (models,):
                found[model.__name__] = Architecture(model.__name__, task, config, model)
    return sorted(found.values(), key=lambda a: (a.task, a.name.lower()))


# ---- small configurations ----


def ways() -> Iterator[tuple[str, Callable[[type[Any]], Any]]]:
    """Ways of making a small configuration, the smallest first."""
    for layers in (2, 4, 8):
        yield f"sizes by name, {layers} layers", lambda c, n=layers: by_name(c, n)
    yield "sizes by name, no grouped keys", lambda c: by_name(c, 2, num_key_value_heads=4)
    for factor in (16, 8, 4):
        yield f"all sizes divided by {factor}", lambda c, f=factor: by_ratio(c, f)
    yield "few layers", lambda c: rebuilt(c, lambda k, v: _few(k, v, 2))


def by_name(config: type[Any], layers: int, **others: int) -> Any:
    sizes = {**SIZES, **dict.fromkeys(NAMED["layers"].split(), layers), **others}

    def size(name: str, default: Any) -> Any:
        return sizes.get(name, default)

    return rebuilt(config, size)


def by_ratio(config: type[Any], factor: int) -> Any:
    """Widths keep their ratios; heads stay as they are, so that widths divided by them stay whole."""

    def size(name: str, default: Any) -> Any:
        few = _few(name, default, 2)
        if few != default or any(
            word in name for word in ("heads", "window", "stride", "kernel", "group", "token")
        ):
            return few
        return _divided(default, factor)

    return rebuilt(config, size)


def _divided(value: Any, factor: int) -> Any:
    if isinstance(value, list | tuple):
        return [_divided(item, factor) for item in value]
    return max(value // factor, 4) if isinstance(value, int) and value >= 16 else value


def _few(name: str, default: Any, layers: int) -> Any:
    if name in ("vocab_size", "entity_vocab_size", "max_position_embeddings", "n_positions"):
        return SIZES[name]
    if "depth" in name or "block" in name or "repeat" in name:
        if isinstance(default, list | tuple):
            return [min(item, 1) if isinstance(item, int) else item for item in default]
        return min(default, layers) if name == "depth" else default
    if name in NAMED["layers"].split():
        return min(default, layers)
    return default


def rebuilt(config: type[Any], size: Callable[[str, Any], Any]) -> Any:
    """The configuration with other numbers: what is computed from settings is computed again."""
    default = config()
    changed: dict[str, Any] = {}
    for name, value in _settings(default).items():
        if isinstance(value, transformers.PretrainedConfig):
            changed[name] = rebuilt(type(value), size)
        elif name in TOKENS:
            changed[name] = TOKENS[name]
        elif value is None and name in ("vocab_size", "head_dim"):
            changed[name] = SIZES[name]
        elif isinstance(value, int | list | tuple) and not isinstance(value, bool):
            wanted = size(name, value)
            if wanted != value and isinstance(value, int) == isinstance(wanted, int):
                changed[name] = wanted
    changed["use_cache"] = False  # a cache is of no use in one pass, and some are made for longer models
    return config(**{**changed, **SPECIAL.get(config.__name__, {})})


def _settings(config: Any) -> dict[str, Any]:
    skip = {"id2label", "label2id", "layer_types", "out_indices", "out_features", "chunk_size_feed_forward"}
    skip |= {"stage_names", "num_labels", "transformers_version"}
    return {
        name: value for name, value in vars(config).items() if name not in skip and not name.startswith("_")
    }


SWIN = {
    "embed_dim": 16,
    "depths": [2, 1],
    "num_heads": [2, 2],
    "window_size": 4,
    "image_size": 32,
    "patch_size": 2,
}
SPECIAL: dict[str, dict[str, Any]] = {
    "BitConfig": {"num_groups": 4, "embedding_size": 8, "hidden_sizes": [16, 16, 32, 32], "depths": [1, 1,
    1, 1]},
    "CohereCompassTextConfig": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section":
        [2, 1, 1]}},
    },
    "CvtConfig": {"embed_dim": [16, 32, 32], "num_heads": [1, 2, 2], "depth": [1, 2, 3]},
    "DeepseekV2Config": {"num_experts_per_tok": 2},
    "DonutSwinConfig": SWIN,
    "SwinConfig": SWIN,
    "Swinv2Config": SWIN,
    "ConvNextConfig": {"image_size": 64},
    "ConvNextV2Config": {"image_size": 64},
    "EfficientNetConfig": {
        "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320, "image_size": 64,
    },
    "GPTNeoConfig": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "window_size": 4},
    "HGNetV2Config": {
        "stem_channels": [3, 8, 8], "stage_in_channels": [8, 16, 16, 16], "stage_mid_channels": [8, 8, 8, 8],
        "stage_out_channels": [16, 16, 16, 32], "hidden_sizes": [16, 16, 16, 32], "depths": [1, 1, 1, 1],
        "stage_num_blocks": [1, 1, 1, 1], "stage_numb_of_layers": [2, 2, 2, 2], "embedding_size": 8,
    },
    "HieraConfig": {"image_size": [64, 64], "embed_dim": 16, "depths": [1, 1, 1, 1]},
    "LevitConfig": {
        "image_size": 96, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2], "key_dim": [8, 8,
        8],
        "depths": [1, 1, 1],
    },
    "MobileNetV1Config": {"depth_multiplier": 0.25, "image_size": 64},
    "MobileNetV2Config": {"depth_multiplier": 0.25, "image_size": 64},
    "MobileViTV2Config": {"width_multiplier": 0.25, "image_size": 64},
    "PerceiverConfig": {"num_cross_attention_heads": 1, "num_self_attention_heads": 2},
    "PPLCNetConfig": {"scale": 0.25, "class_expand": 32},
    "PvtConfig": {"image_size": 64},
    "ReformerConfig": {
        "attn_layers": ["local", "lsh"], "axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 8],
        "hash_seed": 0,
        "attention_head_size": 8, "feed_forward_size": 48, "num_buckets": 2, "lsh_attn_chunk_length": 4,
        "local_attn_chunk_length": 4, "hidden_size": 32, "num_attention_heads": 4,
    },
    "RegNetConfig": {
        "groups_width": 8, "hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "embedding_size": 8,
    },
    "ShieldGemma2Config": {
        "image_token_index": 111, "boi_token_index": 112, "eoi_token_index": 113, "mm_tokens_per_image": 4,
        "yes_token_index": 10, "no_token_index": 11,
    },
    "Qwen3NextConfig": {"layer_types": ["linear_attention", "full_attention"]},
    "Qwen3_5TextConfig": {"layer_types": ["linear_attention", "full_attention"]},
    "T5Config": {"decoder_start_token_id": 0},
    "NemotronConfig": {"num_key_value_heads": 2},
    "Zamba2Config": {"layers_block_type": ["linear_attention", "hybrid"], "num_hidden_layers": 2},
    "XmodConfig": {"default_language": "en_XX"},
}  # fmt: skip
"""Settings, by the class of the configuration, that no general way can know."""

PIXELS = {"PerceiverForImageClassificationConvProcessing": 224}
"""The side of the pictures where it is not in the configuration."""


# ---- inputs ----


def inputs_for(architecture: Architecture, config: Any, model: Any) -> dict[str, Tensor]:
    """A batch of two. The second text is shorter and padded."""
    takes = inspect.signature(model.forward).parameters
    text, vision = getattr(config, "text_config", config), getattr(config, "vision_config", config)
    if architecture.task == "text":
        return _text(takes, text)
    if "spatial_shapes" in takes:  # pictures cut into patches beforehand
        many, side = vision.num_patches, math.isqrt(vision.num_patches)
        return {
            "pixel_values": torch.randn(2, many, 3 * vision.patch_size**2),
            "pixel_attention_mask": torch.ones(2, many, dtype=torch.long),
            "spatial_shapes": torch.full((2, 2), side),
        }
    if "pixel_values" not in takes and "input_ids" in takes:  # pictures as colour indices
        return {"input_ids": torch.randint(0, text.vocab_size - 1, (2, 16))}
    found = _image(takes, vision, PIXELS.get(architecture.name))
    if "input_ids" in takes:  # a question about a picture, whose place is marked in the text
        found.update(_text({"input_ids": None}, text))
        found["input_ids"][:, :4] = config.image_token_index
    return found


def _text(takes: Any, config: Any) -> dict[str, Tensor]:
    length = 9
    ids = torch.randint(3, min(getattr(config, "vocab_size", 120), 120) - 10, (2, length))
    eos, pad = getattr(config, "eos_token_id", 2), getattr(config, "pad_token_id", 0)
    ids[0, -1] = ids[1, -3] = eos if isinstance(eos, int) else 2
    ids[1, -2:] = pad if isinstance(pad, int) else 0
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    found = {"input_ids" if "input_ids" in takes else "inputs": ids, "attention_mask": mask}
    if "bbox" in takes:
        corner = torch.randint(0, 20, (2, length, 2))
        found["bbox"] = torch.cat([corner, corner + 5], -1)
    return found


def _image(takes: Any, config: Any, side: int | None) -> dict[str, Tensor]:
    size = side or getattr(config, "image_size", None) or 64
    height, width = size if isinstance(size, list | tuple) else (size, size)
    name = "pixel_values" if "pixel_values" in takes else "inputs"
    return {name: torch.randn(2, getattr(config, "num_channels", 3), height, width)}


# ---- models ----


class Scores(torch.nn.Module):
    """A model that returns its scores under another name than `logits`."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.model(**inputs).last_hidden_state  # type: ignore[no-any-return]


@dataclass
class Made:
    model: Any
    inputs: dict[str, Tensor]
    way: str
    logits: Tensor
    note: str = ""

    @property
    def dtype(self) -> torch.dtype:
        return next(p for p in self.model.parameters() if p.is_floating_point()).dtype


class NotBuilt(Exception):  # noqa: N818
    """No way led to a small model that runs; the message says what happened."""


LARGEST = 3_000_000


def small(architecture: Architecture) -> Made:
    """A small model, inputs for it, and what it returns for them; in double precision where it can run in
    that."""
    reasons = []
    for way, make in ways():
        torch.manual_seed(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _attempt(architecture, way, make)
        except ImportError as error:
            raise NotBuilt(str(error).strip().splitlines()[0]) from None
        except Exception as error:  # whatever a wrong size leads to
            reasons.append(f"{way}: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
    raise NotBuilt("; ".join(reasons))


def _attempt(architecture: Architecture, way: str, make: Callable[[type[Any]], Any]) -> Made:
    config = make(architecture.config)
    config.num_labels = CLASSES
    with torch.device("meta"):
        size = sum(p.numel() for p in architecture.model(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{size} parameters")
    model = architecture.model(config).eval()
    inputs = inputs_for(architecture, config, model)
    note = ""
    with torch.no_grad():
        if not hasattr(model(**inputs), "logits"):
            model, note = Scores(model).eval(), "explained through a wrapper that returns `last_hidden_state`"
        enliven(model, inputs)
        single = _logits(model(**inputs))
        double = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
        try:
            logits = _logits(model.double()(**double))
            doubled = bool(torch.isfinite(logits).all())
        except RuntimeError as error:
            if "ouble" not in str(error):
                raise
            doubled = False
        if doubled:
            inputs = double
        else:
            model.float()
            logits, note = single, "single precision: a part of it does not run in double"
    if logits.dim() != 2 or logits.shape[0] != 2 or not bool(torch.isfinite(logits).all()):
        raise ValueError(f"logits of shape {tuple(logits.shape)}, or not finite")
    return Made(model, inputs, way, logits, note)


def _logits(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits  # type: ignore[no-any-return]


def enliven(model: torch.nn.Module, inputs: dict[str, Tensor]) -> None:
    """Random values that leave nothing vacuous: a fresh model's signal dies out within a few layers, and with
    biases of zero and scales of one much could be wrong without being seen."""
    generator = torch.Generator().manual_seed(1)
    inner = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
    wanted = {
        id(m.weight): 1 / math.sqrt(m.weight[0].numel()) for m in model.modules() if isinstance(m, inner)
    }
    wanted |= {id(m.weight): 0.5 for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    scales = {id(norm.weight) for norm in norms}  # some are initialised near zero
    for parameter in model.parameters():
        if parameter.numel() < 2 or not parameter.is_floating_point():
            continue
        spread = float(parameter.std())
        if spread == 0:
            parameter.add_(torch.rand(parameter.shape, generator=generator) * 0.2)
        elif id(parameter) in scales and float(parameter.abs().mean()) < 0.5:
            parameter.add_(1.0)
        elif parameter.dim() > 1:
            scale = wanted.get(id(parameter), 1 / math.sqrt(parameter.shape[-1])) / spread
            parameter.mul_(max(scale, 1.0))
    if norms:
        before = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
            norm.train()
        model(**inputs)
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.eval()


__all__ = ["CLASSES", "Architecture", "Made", "NotBuilt", "architectures", "names", "small"]
