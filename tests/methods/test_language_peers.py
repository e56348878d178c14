"""Each token of an answer by other packages, where what they compute is the same: to rounding."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from torch import Tensor

import apportion as ap
import peers
import small_language_models as small

PROMPT, ANSWER = "The capital of France is", " Paris . The"
NODES = 16


@pytest.fixture(scope="module")
def lm() -> ap.LanguageModel:
    return ap.LanguageModel(small.causal().float(), small.tokenizer(), "llama")


def agree(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs.to(ours)).abs().max()) < 1e-4 * float(ours.abs().max())


def of_words(lm: ap.LanguageModel, method: Any, score: Any, answer: str) -> Tensor:
    """Our values of the prompt's tokens for each token of the answer."""
    many = len(lm.tokenizer(PROMPT)["input_ids"])
    target = ap.Answer(score=score, each=True)
    return ap.explain(lm, PROMPT, method, target, answer=answer, unit="token").values[:, :many]


# Both move the answer so far to the baseline too, which here stays: an answer of one token has none.
@pytest.mark.parametrize(
    ("ours", "name", "how", "answer"),
    [
        (ap.InputXGradient(), "input_x_gradient", {}, ANSWER),
        (ap.IntegratedGradients(nodes=NODES), "integrated_gradients", {"n_steps": NODES}, " Paris"),
    ],
)
def test_gradients_are_those_of_inseq(
    lm: ap.LanguageModel, ours: Any, name: str, how: Any, answer: str
) -> None:
    inseq = pytest.importorskip("inseq")
    found = of_words(lm, ours, "logit", answer)
    theirs = inseq.load_model(lm.model, name, tokenizer=lm.tokenizer).attribute(
        PROMPT, generated_texts=PROMPT + answer, attributed_fn="logit", show_progress=False, **how
    )
    each = theirs[0].target_attributions[: found.shape[1]].sum(-1).T  # of all tokens, the prompt's too
    agree(found, each[-len(found) :])


@pytest.mark.parametrize(
    ("ours", "name", "how", "answer"),
    [
        (ap.InputXGradient(), "LayerGradientXActivation", {}, ANSWER),
        (ap.IntegratedGradients(nodes=NODES), "LayerIntegratedGradients", {"n_steps": NODES}, " Paris"),
    ],
)
def test_gradients_are_those_of_captum(
    lm: ap.LanguageModel, ours: Any, name: str, how: Any, answer: str
) -> None:
    captum = peers.captum()
    layer = getattr(captum, name)(lm.model, lm.model.get_input_embeddings())
    given = captum.TextTokenInput(PROMPT, lm.tokenizer, baselines=lm.mask, skip_tokens=[])
    theirs = captum.LLMGradientAttribution(layer, lm.tokenizer).attribute(given, target=answer, **how)
    agree(of_words(lm, ours, "log-probability", answer), theirs.token_attr)


def test_what_hiding_each_token_does_is_as_captum_says(lm: ap.LanguageModel) -> None:
    captum = peers.captum()
    given = captum.TextTokenInput(PROMPT, lm.tokenizer, baselines=lm.mask, skip_tokens=[])
    theirs = captum.LLMAttribution(captum.FeatureAblation(lm.model), lm.tokenizer).attribute(
        given,
        target=ANSWER,
        use_cached_outputs=False,  # its kept keys and values grow from call to call
    )
    agree(of_words(lm, ap.Occlusion(), "log-probability", ANSWER), theirs.token_attr)


def test_what_hiding_each_token_does_is_as_interpreto_says(lm: ap.LanguageModel) -> None:
    pytest.importorskip("jaxtyping")
    pytest.importorskip("beartype")
    interpreto = peers.interpreto()
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.mask_token = tokenizer.convert_ids_to_tokens(lm.mask)  # or it adds one to tokenizer and model
    theirs = interpreto.Occlusion(lm.model, tokenizer, granularity=interpreto.Granularity.TOKEN)
    (found,) = theirs.explain(PROMPT, targets=ANSWER)
    ours = of_words(lm, ap.Occlusion(), "logit", ANSWER)
    agree(ours, found.attributions[:, : ours.shape[1]])
