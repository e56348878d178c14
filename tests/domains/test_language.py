"""Language models: what is explained of an answer, by which features, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import apportion as ap
import small_language_models as small
from apportion.domains.answers import Kind, scored

PROMPT, ANSWER = "The capital of France is", " Paris . The"


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def lm(request: Any) -> ap.LanguageModel:
    return ap.LanguageModel(small.causal(request.param), small.tokenizer(), request.param)


@pytest.fixture(scope="module")
def llama() -> ap.LanguageModel:
    return ap.LanguageModel(small.causal(), small.tokenizer(), "llama")


def log_probabilities(lm: ap.LanguageModel, prompt: str, answer: str) -> torch.Tensor:
    """Of each token of an answer, by one plain run for each of them."""
    ids, said = lm.tokenizer(prompt)["input_ids"], lm.tokenizer(answer)["input_ids"]
    found = []
    for i, token in enumerate(said):
        logits = lm.model(input_ids=torch.tensor([[*ids, *said[:i]]])).logits[0, -1]
        found.append(logits.log_softmax(-1)[token])
    return torch.stack(found).detach()


def test_each_token_of_an_answer_has_the_log_probability_of_a_plain_run(lm: ap.LanguageModel) -> None:
    explained = ap.explain(lm, PROMPT, "inputxgradient", answer=ANSWER)
    expected = log_probabilities(lm, PROMPT, ANSWER)
    assert torch.allclose(explained.output, expected.expand(len(expected), -1), atol=1e-12)
    assert torch.equal(explained.target, torch.arange(len(expected)))
    assert "".join(explained.notes["answer"]["pieces"]) == ANSWER


SCORES: dict[str, Any] = {
    "log-probability": lambda logs, logits: logs.sum(),
    "logit": lambda logs, logits: logits.sum(),
    "probability": lambda logs, logits: logs.sum().exp(),
    "logit of probability": lambda logs, logits: logs.sum().exp().logit(),
}


@pytest.mark.parametrize("score", SCORES)
def test_a_span_has_the_score_that_is_asked_for(score: Kind) -> None:
    torch.manual_seed(0)
    logits, tokens = torch.randn(3, 4, 7, dtype=torch.float64), (2, 0, 6, 2)
    found = scored(logits, tokens, score)
    for row, one in zip(logits, found, strict=True):
        logs = torch.stack([row[i].log_softmax(0)[t] for i, t in enumerate(tokens)])
        raw = torch.stack([row[i][t] for i, t in enumerate(tokens)])
        assert torch.allclose(one, SCORES[score](logs, raw), atol=1e-12)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    "target", [ap.Answer(), ap.Answer((1, 3)), ap.Answer(1), ap.Answer(rather_than=" Madrid , all")]
)
def test_every_target_is_complete(target: ap.Answer, score: Kind, lm: ap.LanguageModel) -> None:
    wanted = ap.Answer(target.part, score, target.rather_than)
    for method in (ap.KernelSHAP(), ap.IntegratedGradients(nodes=256)):
        explained = ap.explain(lm, PROMPT, method, wanted, answer=ANSWER)
        assert explained.remainder is not None
        assert float(explained.remainder.abs().max()) < 1e-5 * max(1.0, float(explained.total.abs().max()))


@pytest.mark.parametrize(
    "method",
    [
        ap.LRP(bias="place"),
        ap.InputXGradient(),
        ap.IntegratedGradients(nodes=8),
        ap.DeepLIFT(),
        ap.AttentionWeights(),
        ap.Saliency(),
        ap.Occlusion(),
        ap.LIME(samples=40),
        ap.KernelSHAP(),
        ap.Auto(),
    ],
    ids=lambda method: type(method).__name__,
)
def test_all_tokens_at_once_are_each_alone(method: Any, lm: ap.LanguageModel) -> None:
    together = ap.explain(lm, PROMPT, method, answer=ANSWER)
    for number in range(len(together)):
        alone = ap.explain(lm, PROMPT, method, number, answer=ANSWER)
        assert torch.allclose(together.values[number], alone.values[0], atol=1e-5)
        if together.total is not None:
            assert torch.allclose(together.total[number], alone.total[0], atol=1e-5)


def test_tokens_of_one_answer_are_scored_from_the_same_masked_prompts(llama: ap.LanguageModel) -> None:
    rows: list[int] = []
    taken = llama.model.register_forward_pre_hook(
        lambda _, __, given: rows.append(len(given["input_ids"])), with_kwargs=True
    )
    try:
        ap.explain(llama, PROMPT, ap.KernelSHAP(), answer=ANSWER)
        together = sum(rows)
        rows.clear()
        ap.explain(llama, PROMPT, ap.KernelSHAP(), 0, answer=ANSWER)
    finally:
        taken.remove()
    assert together - sum(rows) <= 4  # the answer's tokens run the prompt itself, and nothing else more often


@pytest.mark.parametrize(
    "method", [ap.InputXGradient(), ap.Occlusion(), ap.KernelSHAP(), ap.IntegratedGradients(nodes=4)]
)
@pytest.mark.parametrize("other", [" Madrid", " Madrid ,"])
def test_a_contrast_is_the_difference_of_two_explanations(
    method: Any, other: str, lm: ap.LanguageModel
) -> None:
    contrast = ap.explain(lm, PROMPT, method, ap.Answer(rather_than=other), answer=" Paris .")
    this = ap.explain(lm, PROMPT, method, ap.Answer(), answer=" Paris .")
    that = ap.explain(lm, PROMPT, method, ap.Answer(), answer=other)
    words = contrast.relevance()[1]
    assert torch.allclose(words, this.relevance()[1] - that.relevance()[1], atol=1e-6)


def test_what_is_linear_in_the_score_is_linear_over_the_answer(lm: ap.LanguageModel) -> None:
    for method in (ap.InputXGradient(), ap.Occlusion(), ap.KernelSHAP()):
        each = ap.explain(lm, PROMPT, method, answer=ANSWER)
        whole = ap.explain(lm, PROMPT, method, ap.Answer(), answer=ANSWER)
        assert torch.allclose(each.values.sum(0), whole.values[0], atol=1e-6)
