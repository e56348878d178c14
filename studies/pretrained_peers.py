"""Other packages' maps for `pretrained.py`: Captum, zennit, autoLRP, LXT and interpreto, each where it is installed.

A map is a function of a case that gives the values and what they are to add up to, if anything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from apportion.evaluation.case import Case

Peer = Callable[[Case], tuple[Tensor, Tensor | None]]


def installed(package: str, rows: Callable[[], Mapping[str, Peer]]) -> Mapping[str, Peer]:
    """The rows of a package, or none, with a word."""
    if find_spec(package) is None:
        print(f"the rows of {package} are left out: it is not installed")
        return {}
    return rows()


def score(case: Case, inputs: Tensor) -> Tensor:
    """Of the explained class, (batch,)."""
    with torch.no_grad():
        found: Tensor = case.model(inputs)[:, case.target]  # type: ignore[operator, index]
    return found.reshape(-1)


def language_model(case: Case) -> Any:
    """The model inside a `NextToken`."""
    return case.model.model  # type: ignore[union-attr]


def captum(*kinds: str) -> Mapping[str, Peer]:
    """Of tensors, from zero; LRP from no reference."""
    import peers

    attr = peers.captum()

    def run(kind: str) -> Peer:
        more = {"n_steps": 16} if kind == "IntegratedGradients" else {}

        def explained(case: Case) -> tuple[Tensor, Tensor]:
            made = getattr(attr, kind)(case.model)
            values = made.attribute(case.inputs, target=int(case.target), **more)
            start = 0 if kind == "LRP" else score(case, torch.zeros_like(case.inputs))
            return values, score(case, case.inputs) - start

        return explained

    return {f"captum {kind}": run(kind) for kind in kinds}


def zennit() -> Mapping[str, Peer]:
    """zennit's two composites for photos, through EfficientNet-Lite0 with its norms merged."""
    import peers

    package = peers.zennit()
    canonizers, composites = package.canonizers, package.composites
    Gradient = package.attribution.Gradient

    def run(composite: Any) -> Peer:
        def explained(case: Case) -> tuple[Tensor, Tensor]:
            model: Any = case.model
            one_hot = nn.functional.one_hot(torch.as_tensor(case.target), 1000).float()
            with composite.context(model) as hooked:
                values = Gradient(model=hooked)(case.inputs, one_hot)[1]
            return values, torch.ones(1)  # what the class was given

        return explained

    merge = [canonizers.SequentialMergeBatchNorm()]
    low, high = torch.full((1, 3, 224, 224), -127 / 128), torch.full((1, 3, 224, 224), 1.0)
    return {
        "zennit epsilon-plus-flat": run(composites.EpsilonPlusFlat(canonizers=merge)),
        "zennit epsilon-gamma-box": run(composites.EpsilonGammaBox(low=low, high=high, canonizers=merge)),
    }


def autolrp_of_pixels() -> Mapping[str, Peer]:
    import autolrp

    def run(config: Any) -> Peer:
        def explained(case: Case) -> tuple[Tensor, Tensor]:
            x = autolrp.tensor(case.inputs.clone())
            found = case.model(x)[0, int(case.target)]
            found.lrp(config=config) if config else found.lrp()
            return x.relevance, torch.ones(1)  # what the class is given

        return explained

    return {"autolrp base": run(None), "autolrp composite": run(autolrp.LRPConfig.composite())}


def autolrp_of_embeddings() -> Mapping[str, Peer]:
    """Of a `NextToken`: the relevance of each token's embedding."""
    import autolrp

    def run(rules: Mapping[str, Any]) -> Peer:
        def explained(case: Case) -> tuple[Tensor, Tensor]:
            inner = language_model(case)
            x = autolrp.tensor(inner.get_input_embeddings()(case.inputs).detach().clone())
            found = inner(inputs_embeds=x, use_cache=False, logits_to_keep=1).logits[0, -1, int(case.target)]
            found.lrp(config=autolrp.LRPConfig(rule={**autolrp.BASE, **rules}))
            return x.relevance.sum(-1), torch.ones(1)

        return explained

    return {
        "autolrp AttnLRP": run(autolrp.ATTNLRP),
        "autolrp constant attention": run(autolrp.CPLRP),
    }


def lxt() -> Mapping[str, Peer]:
    """LXT's efficient AttnLRP of a `NextToken`, gradient × input of its embeddings: with LXT's functions, put in place
    here, since what puts them there asks for another version of transformers."""
    from transformers.models.llama import modeling_llama as llama

    import peers

    patches = peers.lxt_patches()
    functions = llama.ALL_ATTENTION_FUNCTIONS

    def explained(case: Case) -> tuple[Tensor, Tensor]:
        inner = language_model(case)
        x = inner.get_input_embeddings()(case.inputs).detach().requires_grad_()
        with (
            patch.object(llama.LlamaMLP, "forward", patches.gated_mlp_forward),
            patch.object(llama.LlamaRMSNorm, "forward", patches.rms_norm_forward),
            patch.dict(functions._local_mapping, sdpa=patches.wrap_attention_forward(functions["sdpa"])),
        ):
            found = inner(inputs_embeds=x, use_cache=False, logits_to_keep=1).logits
            found = found[0, -1, int(case.target)]
            (gradient,) = torch.autograd.grad(found, x)
        return (x * gradient).sum(-1).detach(), found.detach().reshape(1)

    return {"lxt AttnLRP": explained}


def interpreto() -> Mapping[str, Peer]:
    """Of a `NextToken`, with the padding for hidden tokens: without a mask token it adds one to the model."""
    from transformers import AutoTokenizer

    import peers

    package = peers.interpreto()

    def run(name: str, adds_up: bool, **how: Any) -> Peer:
        def explained(case: Case) -> tuple[Tensor, Tensor | None]:
            inner = language_model(case)
            tokenizer = AutoTokenizer.from_pretrained(inner.name_or_path)
            tokenizer.mask_token = tokenizer.pad_token or tokenizer.eos_token
            text, token = tokenizer.decode(case.inputs[0]), int(case.target)
            made = getattr(package, name)(inner, tokenizer, granularity=package.Granularity.TOKEN, **how)
            (found,) = made.explain(text, targets=tokenizer.decode(token))
            if found.targets.tolist() != [token]:  # it puts a space before an answer that begins without one
                raise ValueError(f"it explains {tokenizer.decode(found.targets)!r}")
            hidden = torch.full_like(case.inputs, tokenizer.mask_token_id)
            total = score(case, case.inputs) - score(case, hidden) if adds_up else None
            return found.attributions[:, : case.inputs.shape[1]], total

        return explained

    return {
        "interpreto KernelShap (128 masks)": run("KernelShap", True, n_perturbations=128),
        "interpreto Lime (128 masks)": run("Lime", False, n_perturbations=128),
        "interpreto IntegratedGradients (32 nodes)": run("IntegratedGradients", False, n_perturbations=32),
    }


def of_photos() -> Mapping[str, Peer]:
    return {
        **installed("zennit", zennit),
        **installed("captum", lambda: captum("DeepLift", "LRP")),
        **installed("autolrp", autolrp_of_pixels),
    }


def of_squeezenet() -> Mapping[str, Peer]:
    return {
        **installed("captum", lambda: captum("DeepLift", "LRP")),
        **installed("autolrp", autolrp_of_pixels),
    }


def of_rows() -> Mapping[str, Peer]:
    return {
        **installed("captum", lambda: captum("DeepLift", "LRP", "IntegratedGradients")),
        **installed("autolrp", autolrp_of_pixels),
    }


def of_language_models() -> Mapping[str, Peer]:
    return {
        **installed("autolrp", autolrp_of_embeddings),
        **installed("lxt", lxt),
        **installed("interpreto", interpreto),
    }


sys.path.append(str(Path(__file__).parent.parent / "tests"))
