"""Tests of which passage of a context made a language model say this, against their definitions written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

import apportion as ap
import small_language_models as small
from apportion.evaluation.case import Case
from apportion.evaluation.measures.linear_datamodeling import ablations, first_alike

PROMPT, ANSWER = "The capital of France is", " Paris . The"
PASSAGES = ["Ben lives in Oslo .", "The capital is Paris .", "She sat and he said ."]


@pytest.fixture(scope="module")
def lm() -> ap.LanguageModel:
    return ap.LanguageModel(small.causal(), small.tokenizer(), "llama")


def asked(lm: ap.LanguageModel, target: Any = None) -> Any:
    return lm.question(PROMPT, ANSWER, target or ap.Answer(), context=PASSAGES)


def log_probability(lm: ap.LanguageModel, hidden: set[int], deleted: bool = False) -> float:
    """Of the answer after the passages with those hidden, by one plain run of the model."""
    text = "\n\n".join([*PASSAGES, PROMPT])
    read = lm.tokenizer(text, return_offsets_mapping=True)
    spans = [(text.index(passage), text.index(passage) + len(passage)) for passage in PASSAGES]
    ids = []
    for token, (a, b) in zip(read["input_ids"], read["offset_mapping"], strict=True):
        inside = any(spans[i][0] <= a < spans[i][1] and b > spans[i][0] for i in hidden)
        if not (inside and deleted):
            ids.append(lm.mask if inside else token)
    said = lm.tokenizer(ANSWER)["input_ids"]
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([[*ids, *said]])).logits[0].log_softmax(-1)
    return sum(float(logits[len(ids) + i - 1, token]) for i, token in enumerate(said))


@pytest.mark.parametrize("replacement", [None, ap.Delete()])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_drop_is_the_fall_of_the_log_probability(
    k: int, replacement: Any, lm: ap.LanguageModel
) -> None:
    question = asked(lm)
    explained = ap.explain(lm, question, "kernelshap")
    order = explained.relevance(0)[1].argsort(descending=True).tolist()
    test = ap.TopKDrop(k=k, replacement=replacement)
    found = test(lm, question, explained)
    deleted = replacement is not None
    expected = log_probability(lm, set(), deleted) - log_probability(lm, set(order[:k]), deleted)
    assert float(found.values[0]) == pytest.approx(expected, abs=1e-9)


def test_lds_is_the_rank_correlation_over_random_ablations(lm: ap.LanguageModel) -> None:
    question = asked(lm)
    explained = ap.explain(lm, question, "occlusion")
    values = explained.relevance(0)[1].numpy()
    kept = ablations(3, 32, 5).numpy()
    actual = {tuple(row): log_probability(lm, set(np.flatnonzero(~row))) for row in np.unique(kept, axis=0)}
    expected = spearmanr(kept @ values, [actual[tuple(row)] for row in kept]).statistic
    test = ap.LDS(samples=32, seed=5)
    found = test(lm, question, explained)
    assert float(found.values[0]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("many", [3, 12])
def test_the_exact_map_of_an_additive_function_ranks_all_ablations_and_its_reverse_none(many: int) -> None:
    weights = torch.randn(many, 1, generator=torch.Generator().manual_seed(many))

    def additive(x: Tensor) -> Tensor:
        return x @ weights

    x = torch.ones(2, many)
    table = ap.compare(additive, x, {"exact": weights.T.expand(2, -1)}, ["lds", "top-k-drop"])
    assert table.scores["exact"]["lds"].values.tolist() == pytest.approx([1.0, 1.0])
    assert table.scores["reversed"]["lds"].values.tolist() == pytest.approx([-1.0, -1.0])
    drops = {row: float(found["top-k-drop"].mean) for row, found in table.scores.items()}
    assert drops["exact"] == pytest.approx(float(weights.max()))
    assert drops["reversed"] == pytest.approx(float(weights.min()))
    assert drops["uniform"] < drops["exact"]


def test_ablations_that_no_value_or_no_score_tells_apart_have_no_rank() -> None:
    x = torch.ones(1, 4)
    found = ap.LDS()(lambda x: x.sum(1), x, torch.zeros(1, 4))
    assert found.values.isnan().all()
    assert "the same sum of values" in found.undefined
    assert ap.LDS()(lambda x: 0 * x.sum(1), x, torch.ones(1, 4)).values.isnan().all()


def test_half_of_the_features_are_left_whoever_else_is_there() -> None:
    kept = ablations(40, 400, 0)
    assert float(kept.double().mean()) == pytest.approx(0.5, abs=0.02)
    assert torch.equal(kept[:, :7], ablations(7, 400, 0))
    assert first_alike(kept[:, :2], torch.tensor([2]))[0].unique().numel() == 4


@pytest.mark.parametrize(
    ("score", "reads"),
    [
        ("log-probability", lambda said, given: float(np.exp(said))),
        ("probability", lambda said, given: given),
        ("logit of probability", lambda said, given: float(np.exp(said))),
        ("logit", lambda said, given: given),
    ],
)
def test_the_probability_of_an_answer_is_read_off_whatever_its_score(
    score: Any, reads: Any, lm: ap.LanguageModel
) -> None:
    question = asked(lm, ap.Answer(score=score))
    explained = ap.explain(lm, question, "occlusion")
    first = int(explained.relevance(0)[1].argmax())
    test = ap.TopKDrop(of="probability")
    found = test(lm, question, explained)
    whole = float(explained.output[0, 0])
    alone = whole - float(explained.relevance(0)[1][first])
    expected = reads(log_probability(lm, set()), whole) - reads(log_probability(lm, {first}), alone)
    assert float(found.values[0]) == pytest.approx(expected, rel=1e-6, abs=1e-15)


def test_left_out_passages_may_be_taken_out_and_nothing_else_moves(lm: ap.LanguageModel) -> None:
    for each in (ap.Answer(), None):
        question = lm.question(PROMPT, ANSWER, each, context=PASSAGES)
        explained = ap.explain(lm, question, ap.Occlusion(replacement=ap.Delete()))
        found = explained.values.sum(0) if each is None else explained.values[0]
        effects = [log_probability(lm, set(), True) - log_probability(lm, {i}, True) for i in range(3)]
        assert ap.Explanation(**{**vars(explained), "values": found.expand_as(explained.values)}).relevance(
            0
        )[1].tolist() == pytest.approx(effects, abs=1e-9)


def test_an_answer_that_is_not_at_the_end_is_refused(lm: ap.LanguageModel) -> None:
    with pytest.raises(ap.InputError, match="the answer does not stand after a prompt"):
        ap.explain(lm, asked(lm), ap.Occlusion(replacement=ap.Delete(padding=2)))
    plain = lm.question("The capital", ANSWER, ap.Answer(), unit="turn")
    with pytest.raises(ap.InputError, match="a prompt of at least one token"):
        ap.explain(lm, plain, ap.Occlusion(replacement=ap.Delete()))


def test_methods_are_compared_on_questions_beside_references(lm: ap.LanguageModel) -> None:
    asked_all = [
        asked(lm),
        lm.question("The capital of Spain is", " Madrid .", ap.Answer(), context=PASSAGES),
    ]
    tests = ["top-k-drop", "lds"]
    table = ap.compare(lm, asked_all, ["kernelshap", "inputxgradient"], tests)
    assert list(table.scores) == ["kernelshap", "inputxgradient", "random", "uniform", "reversed"]
    for row, method in (("kernelshap", ap.KernelSHAP()), ("inputxgradient", ap.InputXGradient())):
        for test in (ap.TopKDrop(), ap.LDS()):
            alone = [float(test(lm, one, ap.explain(lm, one, method)).values[0]) for one in asked_all]
            name = "lds" if isinstance(test, ap.LDS) else "top-k-drop"
            assert table.scores[row][name].values.tolist() == pytest.approx(alone, abs=1e-9)
    with pytest.raises(ap.InputError, match="accepted for a language model: what its `question` gives"):
        ap.compare(lm, PROMPT, ["kernelshap"], tests)


@pytest.mark.parametrize("test", [ap.LDS(samples=16), ap.Infidelity(samples=16)])
def test_what_is_the_same_for_every_map_is_run_once(test: Any, lm: ap.LanguageModel) -> None:
    case = Case(lm, asked(lm))
    explained = ap.explain(lm, asked(lm), "occlusion")
    first = case.score(test, explained)
    ran = case.passes
    again = case.score(test, explained)
    assert case.passes == ran
    assert torch.equal(first.values, again.values)
    assert again.cost.forwards == 0 < first.cost.forwards
