"""Pairs of words and attention rollout of a language model's answer, against the formulas written out slowly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import apportion as ap
import small_language_models as small
from apportion.core.features import ELSEWHERE

MESSAGES = [{"role": "user", "content": "The capitals of"}]
ANSWER = " Paris ."


@pytest.fixture(scope="module")
def lm() -> ap.LanguageModel:
    return ap.LanguageModel(small.causal(), small.tokenizer(), "llama")


def written_out() -> Any:
    """The same model with its attention in plain functions, which have second derivatives and tell their weights."""
    made = small.causal()
    made.set_attn_implementation("eager")
    return made


def units_of(question: Any) -> list[list[int]]:
    """The places of the tokens of each word."""
    groups = question.features[0].groups
    return [[i for i, own in enumerate(groups) if own == unit] for unit in range(max(groups) + 1)]


def hessians(lm: ap.LanguageModel, question: Any, token: int, nodes: int = 24) -> tuple[Tensor, Tensor]:
    """Γ of Janizek et al. 2020, eq. 5 and 6, as the double integral that they write, over the words of the prompt: the
    steps of a word are one variable. And what the score changes by."""
    ids, plain = question.inputs[0], written_out()
    table = lm.model.get_input_embeddings().weight.detach()
    units, x = units_of(question), table[ids]
    hidden = ids.clone()
    hidden[[i for unit in units for i in unit]] = lm.mask
    steps = torch.zeros(len(units), *x.shape, dtype=x.dtype)
    for number, unit in enumerate(units):
        steps[number, unit] = (x - table[hidden])[unit]
    prompt = question.notes["answer"]["prompt"]
    said = lm.tokenizer(ANSWER)["input_ids"][token]

    def scores(shares: Tensor) -> Tensor:  # (rows, units)
        embedded = table[hidden] + torch.einsum("ru,utd->rtd", shares, steps)
        logits = plain(inputs_embeds=embedded).logits[:, prompt - 1 + token]
        found: Tensor = logits.log_softmax(-1)[:, said]
        return found

    places, weights = np.polynomial.legendre.leggauss(nodes)
    at = torch.tensor((places + 1) / 2)
    weight = torch.outer(torch.tensor(weights / 2), torch.tensor(weights / 2)).flatten()
    along = torch.outer(at, at).flatten()  # αβ of each pair of nodes
    shares = along[:, None].repeat(1, len(units)).requires_grad_()
    (first,) = torch.autograd.grad(scores(shares).sum(), shares, create_graph=True)
    rows = [torch.autograd.grad(column.sum(), shares, retain_graph=True)[0] for column in first.T]
    total = torch.einsum("r,r,iru->iu", weight, along, torch.stack(rows))
    total += torch.diag((weight[:, None] * first).sum(0))
    ends = scores(torch.tensor([[1.0], [0.0]], dtype=x.dtype).expand(-1, len(units)))
    return total.detach(), (ends[0] - ends[1]).detach()


@pytest.mark.parametrize("token", [0, 1])
def test_integrated_hessians_between_words_are_the_double_integral(lm: ap.LanguageModel, token: int) -> None:
    question = lm.question(MESSAGES, ANSWER, token)
    found: Any = ap.explain(lm, question, ap.IntegratedHessians(nodes=64))
    expected, change = hessians(lm, question, token)
    assert found.names_of(0) == ("The", "capitals", "of", ELSEWHERE)
    assert torch.allclose(found.values[0, :3, :3], expected, atol=1e-4 * float(expected.abs().max()))
    assert not found.values[0, 3].any()  # what is never hidden does not move
    assert float(found.total[0]) == pytest.approx(float(change), abs=1e-6)  # norms run in float32


def test_words_of_several_tokens_are_one_feature_of_a_pair(lm: ap.LanguageModel) -> None:
    words: Any = ap.explain(lm, "capitals of", ap.IntegratedHessians(nodes=16), 0, answer=ANSWER)
    tokens: Any = ap.explain(
        lm, "capitals of", ap.IntegratedHessians(nodes=16), 0, answer=ANSWER, unit="token"
    )
    own = lm.question("capitals of", ANSWER, 0).features[0].groups
    assert len(set(own)) < len(own)
    spread = torch.zeros(tokens.values.shape[1], words.values.shape[1], dtype=torch.float64)
    spread[range(len(own)), own] = 1.0
    assert torch.allclose(spread.T @ tokens.values[0] @ spread, words.values[0], atol=1e-9)


@pytest.mark.parametrize("prompt", [MESSAGES, "The capitals of France"], ids=["messages", "text"])
def test_rollout_is_the_product_of_the_layers_attention(lm: ap.LanguageModel, prompt: Any) -> None:
    plain = written_out()
    question = lm.question(prompt, ANSWER)
    found = ap.explain(lm, question, ap.AttentionWeights(rollout=True))
    ids = question.inputs[:1]
    many = ids.shape[1]
    rolled = torch.eye(many, dtype=torch.float64)
    for weights in plain(input_ids=ids, output_attentions=True).attentions:
        rolled = (weights[0].mean(0) + torch.eye(many)) / 2 @ rolled
    first = question.notes["answer"]["prompt"] - 1
    for row in range(len(found)):
        assert torch.allclose(found.values[row], rolled[first + row], atol=1e-10)
        assert not found.values[row, first + row + 1 :].any()  # nothing is read that comes later
