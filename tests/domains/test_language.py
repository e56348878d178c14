"""Language models: what is explained of an answer, by which features, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import apportion as ap
import small_language_models as small
from apportion.domains import answers
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


def test_masked_prompts_that_share_a_beginning_run_it_once_and_score_the_same(
    lm: ap.LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = "He said she sat . He said she was Paris . The capital of France is"
    method = ap.Occlusion(chunk=2)
    tokens: list[int] = []
    taken = lm.model.register_forward_pre_hook(
        lambda _, __, given: tokens.append(given["input_ids"].numel()), with_kwargs=True
    )
    try:
        cached = ap.explain(lm, prompt, method, answer=ANSWER)
        few = sum(tokens)
        tokens.clear()
        monkeypatch.setattr(answers, "LEAST_SHARED", 10**6)
        plain = ap.explain(lm, prompt, method, answer=ANSWER)
    finally:
        taken.remove()
    assert few < 0.8 * sum(tokens)
    assert torch.allclose(cached.values, plain.values, atol=1e-10)


# ---- features ----

MESSAGES = [
    {"role": "system", "content": "He said. She sat!"},
    {"role": "user", "content": "The capital of France is"},
]


def test_messages_are_features_and_the_template_is_never_hidden(llama: ap.LanguageModel) -> None:
    explained = ap.explain(llama, MESSAGES, ap.Occlusion(), answer=" Paris", unit="turn")
    assert explained.relevance()[0] == ("He said. She sat!", "The capital of France is")
    features = explained.features[0]
    assert features.text.startswith("<|system|>\nHe said. She sat!</s>\n<|user|>\n")
    hidden = [token for token, word in zip(features.tokens, features.words, strict=True) if word is None]
    assert "</s>" in hidden
    assert any("assistant" in token or token == "<" for token in hidden)
    told = [(role, features.text[begin:stop]) for role, begin, stop in explained.notes["answer"]["parts"]]
    assert told == [(message["role"], message["content"]) for message in MESSAGES]


@pytest.mark.parametrize(
    ("unit", "prompt", "names"),
    [
        ("word", "He said she", ("He", "said", "she")),
        ("sentence", "He said. She sat! Was it", ("He said.", "She sat!", "Was it")),
        ("sentence", "彼は言った。彼女は座った！終わり", ("彼は言った。", "彼女は座った！", "終わり")),
        ("passage", "He said.\nShe sat.\n\nThat was all.", ("He said.\nShe sat.", "That was all.")),
    ],
)
def test_a_prompt_is_cut_into_units(unit: Any, prompt: str, names: Any, llama: ap.LanguageModel) -> None:
    explained = ap.explain(llama, prompt, ap.Occlusion(), answer=" all", unit=unit)
    assert explained.relevance()[0] == names


def test_the_units_of_a_gradient_method_are_sums_of_its_tokens(llama: ap.LanguageModel) -> None:
    tokens = ap.explain(llama, "He said. She sat", "inputxgradient", answer=" all", unit="token")
    sentences = ap.explain(llama, "He said. She sat", "inputxgradient", answer=" all", unit="sentence")
    assert torch.equal(tokens.values, sentences.values)
    assert torch.allclose(tokens.relevance()[1].sum(), sentences.relevance()[1].sum())


# ---- other models, files, folders ----


def test_an_encoder_decoder_is_explained_by_its_prompt() -> None:
    t5 = ap.LanguageModel(small.encoder_decoder(), small.tokenizer(), "t5")
    ids, said = t5.tokenizer(PROMPT)["input_ids"], t5.tokenizer(" Paris .")["input_ids"]
    logits = t5.model(
        input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([[0, *said[:-1]]])
    ).logits[0]
    expected = logits.log_softmax(-1)[torch.arange(len(said)), said].detach()
    for method in (ap.KernelSHAP(), ap.DeepLIFT(), ap.InputXGradient()):
        explained = ap.explain(t5, PROMPT, method, answer=" Paris .")
        assert torch.allclose(explained.output[0], expected, atol=1e-12)
    assert explained.relevance()[0] == ("The", "capital", "of", "France", "is")


def test_a_causal_folder_is_a_language_model_and_never_a_classifier(tmp_path: Path) -> None:
    found = ap.load(small.saved(small.causal().float(), tmp_path / "lm"))
    assert isinstance(found, ap.LanguageModel)
    from apportion.models import load_classifier

    with pytest.raises(ap.InputError, match="is a language model, which has no classes"):
        load_classifier(tmp_path / "lm")


def test_an_explanation_of_an_answer_is_the_same_from_a_file(tmp_path: Path, llama: ap.LanguageModel) -> None:
    explained = ap.explain(llama, PROMPT, "deeplift", answer=ANSWER)
    again = ap.Explanation.load(explained.save(tmp_path / "e.safetensors"))
    assert again == explained
    assert again[1].label() == explained.label(1)


@pytest.mark.parametrize("how", [{"do_sample": True}, {"temperature": 0.7}, {"top_p": 0.9, "num_beams": 2}])
def test_settings_of_drawing_ask_for_a_seed(llama: ap.LanguageModel, how: dict[str, Any]) -> None:
    with pytest.raises(
        ap.InputError, match=rf"^{next(iter(how))} is of tokens that are drawn; accepted with it: seed=,"
    ):
        llama.generated(PROMPT, 4, **how)
    assert llama.generated(PROMPT, 4, seed=1, **how) == llama.generated(PROMPT, 4, seed=1, **how)
    assert llama.generated(PROMPT, 4, do_sample=False) == llama.generated(PROMPT, 4)


def test_answers_are_written_by_the_likeliest_token_or_by_a_seed(llama: ap.LanguageModel) -> None:
    ids = llama.generated(PROMPT, 4)
    row = llama.tokenizer(PROMPT)["input_ids"]
    for token in ids:
        assert int(llama.model(input_ids=torch.tensor([row])).logits[0, -1].argmax()) == token
        row = [*row, token]
    drawn = {llama.generated(PROMPT, 4, seed=seed) for seed in range(4)}
    assert len(drawn) > 1
    assert llama.generated(PROMPT, 4, seed=3) == llama.generated(PROMPT, 4, seed=3)


# ---- refused ----


def test_a_message_that_says_what_the_template_says_stands_where_it_is(llama: ap.LanguageModel) -> None:
    said = ["user", "assistant", " user "]
    messages = [
        {"role": role, "content": text}
        for role, text in zip(("user", "assistant", "user"), said, strict=True)
    ]
    question = llama.question(messages, " Paris", ap.Answer(), unit="turn")
    text = question.features[0].text
    for (role, begin, end), content in zip(question.notes["answer"]["parts"], said, strict=True):
        assert text[begin:end] == content.strip()
        assert text[:begin].endswith(f"<|{role}|>\n" + content[: len(content) - len(content.lstrip())])
    hidden = [word is None for word in question.features[0].words]
    names = question.features[0].names
    assert [name.strip() for name in names] == [content.strip() for content in said]
    assert any(hidden)


def test_a_template_that_changes_messages_is_refused(llama: ap.LanguageModel) -> None:
    tokenizer = small.tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
    lm = ap.LanguageModel(llama.model, tokenizer, "loud")
    with pytest.raises(ap.InputError, match="the chat template of loud changes the message 'He said'"):
        lm.question([{"role": "user", "content": "He said"}], " Paris")


@pytest.mark.parametrize(
    ("prompt", "how", "says"),
    [
        ("", {"answer": " Paris"}, "prompt: expected a text with at least one word"),
        (
            [{"role": "user", "content": " "}],
            {"answer": " Paris"},
            r"prompt\[0\]: expected a text with at least one",
        ),
        ("so \ud800", {"answer": " Paris"}, "has half of a sign"),
        (PROMPT, {"answer": " \ud800"}, "answer has half of a sign"),
        (PROMPT, {"answer": [True]}, r"answer is \[True\]; accepted"),
        (PROMPT, {"stop": 3}, "stop is 3; accepted: a text, or a list of texts"),
        (PROMPT, {"temprature": 2.0}, "generate of llama does not take these settings: .*temprature"),
        ("He said " * 80, {}, "accepted by llama: at most 64, its context window"),
        (PROMPT, {"answer": ""}, "answer is empty"),
        (PROMPT, {"answer": [3, 4000]}, r"answer is \[3, 4000\]; accepted: a text, or ids"),
        (PROMPT, {"answer": []}, r"answer is \[\]; accepted"),
        ("He said " * 80, {"answer": " Paris"}, "tokens; accepted by llama: at most 64, its context window"),
        (PROMPT, {"answer": " Paris", "unit": "line"}, "unit is 'line'; accepted: token, word"),
        (PROMPT, {"answer": " Paris", "target": "London"}, "part is 'London', which is not in the answer"),
        (PROMPT, {"answer": " Paris", "target": 7}, "part is 7, but the answer has"),
        (PROMPT, {"answer": " Paris", "target": 1.5}, "target is 1.5; accepted for a language model"),
        (
            PROMPT,
            {"answer": " Paris", "target": ap.Answer(rather_than=" Paris")},
            "rather_than is ' Paris', which is what the answer says there",
        ),
        (PROMPT, {"answer": " Paris", "seed": 1}, "seed is of an answer that is generated"),
        ([], {"answer": " Paris"}, r"prompt is \[\]; accepted: a text, or messages"),
        ([{"role": "user"}], {"answer": " Paris"}, "accepted: a text, or messages"),
        (7, {"answer": " Paris"}, "prompt is 7; accepted"),
        (
            [7],
            {"answer": " Paris", "context": ["She sat"]},
            r"prompt is \[7\]; accepted: a text, or messages",
        ),
        (
            [{"role": "user", "content": ["She"]}],
            {"answer": " Paris", "context": ["She sat"]},
            r"prompt\[0\]: expected one str",
        ),
        (PROMPT, {"streamer": 3}, "generate of llama does not take these settings"),
        (PROMPT, {"answer": " Paris", "feature_names": ["a"]}, "feature_names are for tensors and arrays"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    prompt: Any, how: Any, says: str, llama: ap.LanguageModel
) -> None:
    with pytest.raises(ap.InputError, match=says) as error:
        ap.explain(llama, prompt, "inputxgradient", **how)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"answer": " Madrid"}, "answer is of a prompt; the question says it already"),
        ({"target": 1}, "target is of a prompt"),
        ({"unit": "token", "target": 0}, "unit, target is of a prompt"),
    ],
)
def test_what_a_question_says_already_is_refused(how: Any, says: str, llama: ap.LanguageModel) -> None:
    with pytest.raises(ap.InputError, match=says):
        ap.explain(llama, llama.question(PROMPT, ANSWER), "inputxgradient", **how)


def test_a_question_is_one_to_its_model(llama: ap.LanguageModel) -> None:
    other = ap.LanguageModel(small.causal(seed=1), llama.tokenizer, "another")
    question = llama.question(PROMPT, ANSWER, ap.Answer())
    for ask in (
        lambda: ap.explain(other, question, "inputxgradient"),
        lambda: ap.compare(other, question, ["inputxgradient"], ["lds"]),
    ):
        with pytest.raises(ap.InputError, match="the question is one to llama, and not to another"):
            ask()


def test_what_is_no_model_or_no_tokenizer_is_refused(llama: ap.LanguageModel) -> None:
    for model, tokenizer, says in (
        (5, llama.tokenizer, "model is 5; accepted: a module"),
        (llama.model, None, "tokenizer is None; accepted: a tokenizer of transformers"),
        (llama.model, llama.model, "accepted: a tokenizer of transformers"),
    ):
        with pytest.raises(ap.InputError, match=says):
            ap.LanguageModel(model, tokenizer)


@pytest.mark.parametrize("make", [small.causal, small.encoder_decoder])
def test_a_model_that_writes_nothing_for_its_scores_are_nan_is_told(make: Any) -> None:
    model = make()
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(torch.nan)
    with pytest.raises(ap.InputError, match="broken returned NaN or infinite scores for this prompt"):
        ap.LanguageModel(model, small.tokenizer(), "broken").generate(PROMPT, 3)


def test_an_answer_written_with_more_beside_it_is_the_answer(llama: ap.LanguageModel) -> None:
    more = llama.generated(PROMPT, 3, return_dict_in_generate=True, output_scores=True)
    assert more == llama.generated(PROMPT, 3)


def test_a_token_of_white_space_has_a_name_that_is_seen(llama: ap.LanguageModel) -> None:
    found = ap.explain(llama, PROMPT, "inputxgradient", answer="  \n")
    assert all(found.label(i).strip() for i in range(len(found)))


def test_an_answer_of_which_the_tokenizer_knows_nothing_is_refused() -> None:
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<unk>": 0, "the": 1, "capital": 2, "is": 3, "Paris": 4}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")
    lm = ap.LanguageModel(small.causal(), tokenizer, "few words")
    assert (
        len(ap.explain(lm, "the capital of", "occlusion", answer="is Paris")) == 2
    )  # a prompt may be unknown
    for how in (
        {"answer": "Rome"},
        {"answer": " "},
        {"answer": "Paris", "target": ap.Answer(rather_than="Rome")},
    ):
        with pytest.raises(ap.InputError, match="for which the tokenizer of few words has no tokens"):
            ap.explain(lm, "the capital of", "occlusion", **how)
    with pytest.raises(ap.InputError, match="from 0 to 4"):  # the model has rows for more
        ap.explain(lm, "the capital", "occlusion", answer=[7])


def test_an_answer_ends_where_the_context_window_does(llama: ap.LanguageModel) -> None:
    prompt = "He said " * 29
    many = len(llama.tokenizer(prompt)["input_ids"])
    assert len(llama.generated(prompt, 50)) <= 64 - many
    assert len(ap.explain(llama, prompt, "inputxgradient", max_new_tokens=50)) <= 64 - many


def test_what_differs_in_white_space_only_is_told_apart(llama: ap.LanguageModel) -> None:
    found = ap.explain(llama, PROMPT, "inputxgradient", ap.Answer(rather_than="Paris"), answer=" Paris")
    assert found.label() == "Paris rather than 'Paris'"


def test_messages_need_a_template() -> None:
    lm = ap.LanguageModel(small.causal(), small.tokenizer(template=False), "plain")
    with pytest.raises(ap.InputError, match="the tokenizer of plain has no chat template"):
        ap.explain(lm, MESSAGES, "occlusion", answer=" Paris")


def test_scores_that_are_no_numbers_are_refused(llama: ap.LanguageModel) -> None:
    broken = small.causal()
    torch.nn.init.constant_(broken.lm_head.weight, float("nan"))
    lm = ap.LanguageModel(broken, llama.tokenizer, "broken")
    for method in ("inputxgradient", "occlusion"):
        with pytest.raises(ap.InputError, match="NaN or infinite scores"):
            ap.explain(lm, PROMPT, method, answer=" Paris")


def test_what_is_of_a_language_model_is_refused_for_others() -> None:
    with pytest.raises(ap.InputError, match="answer is for a LanguageModel; the model is Linear"):
        ap.explain(torch.nn.Linear(2, 2), torch.ones(1, 2), answer="x")
    with pytest.raises(ap.InputError, match="which is of a LanguageModel"):
        ap.explain(torch.nn.Linear(2, 2), torch.ones(1, 2), "saliency", ap.Answer())


PASSAGES = ["Ben lives in Oslo .", "The capital is Paris ."]


def under(lm: ap.LanguageModel, kept: list[int]) -> float:
    """The log-probability of the answer with the tokens of the other passages at the mask, by one plain run."""
    text = "\n\n".join([*PASSAGES, PROMPT])
    read = lm.tokenizer(text, return_offsets_mapping=True)
    ids, ends = list(read["input_ids"]), []
    for passage in PASSAGES:
        ends.append((text.index(passage), text.index(passage) + len(passage)))
    for i, (begin, stop) in enumerate(ends):
        if i not in kept:
            inside = [begin <= a < stop and b > begin for a, b in read["offset_mapping"]]
            ids = [lm.mask if hidden else token for token, hidden in zip(ids, inside, strict=True)]
    said = lm.tokenizer(ANSWER)["input_ids"]
    logits = lm.model(input_ids=torch.tensor([[*ids, *said]])).logits[0].log_softmax(-1).detach()
    return sum(float(logits[len(ids) + i - 1, token]) for i, token in enumerate(said))


def test_passages_of_a_context_have_their_shapley_values(lm: ap.LanguageModel) -> None:
    explained = ap.explain(lm, PROMPT, "kernelshap", ap.Answer(), answer=ANSWER, context=PASSAGES)
    names, values = explained.relevance(0)
    assert list(names) == PASSAGES
    none, first, second, both = (under(lm, kept) for kept in ([], [0], [1], [0, 1]))
    right = [(first - none + both - second) / 2, (second - none + both - first) / 2]
    assert values.tolist() == pytest.approx(right, abs=1e-5)
    left_out = ap.explain(lm, PROMPT, "occlusion", ap.Answer(), answer=ANSWER, context=PASSAGES)
    assert left_out.relevance(0)[1].tolist() == pytest.approx([both - second, both - first], abs=1e-5)


def test_a_context_may_be_read_word_by_word_and_in_a_chat(llama: ap.LanguageModel) -> None:
    words = ap.explain(llama, PROMPT, "occlusion", ap.Answer(), answer=ANSWER, context=PASSAGES, unit="word")
    assert list(words.relevance(0)[0]) == " ".join(PASSAGES).split()
    messages = [{"role": "user", "content": PROMPT}]
    chat = ap.explain(llama, messages, "occlusion", ap.Answer(), answer=ANSWER, context=PASSAGES)
    assert list(chat.relevance(0)[0]) == PASSAGES


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ([], r"context is \[\]; accepted: a list of texts"),
        ("Ben", "context is 'Ben'; accepted: a list of texts"),
        (["Ben", "  "], r"context\[1\] is '  '; accepted: a text with words"),
        (["Ben", 3], r"context\[1\] is 3"),
        (["Ben", "Oslo", "Ben "], r"context\[0\] and context\[2\] are the same passage"),
    ],
)
def test_a_context_that_is_none_is_refused_in_one_line(
    llama: ap.LanguageModel, context: Any, message: str
) -> None:
    with pytest.raises(ap.InputError, match=message):
        ap.explain(llama, PROMPT, "occlusion", ap.Answer(), answer=ANSWER, context=context)


def test_masked_contexts_run_from_where_they_differ_from_the_one_before(
    lm: ap.LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokens that are run are those of the tree of masked prompts, and the scores those of plain runs."""
    monkeypatch.setattr(answers, "_LEAST_RUN", 1)
    passages = ["He said .", "She sat .", "That was all .", "It is Paris .", "Spain is it ."]
    method = ap.LIME(samples=20, chunk=2)
    rows: list[torch.Tensor] = []
    taken = lm.model.register_forward_pre_hook(
        lambda _, __, given: rows.append(given["input_ids"]), with_kwargs=True
    )
    try:
        shared = ap.explain(lm, PROMPT, method, ap.Answer(), answer=ANSWER, context=passages)
        few = sum(ids.numel() for ids in rows)
        rows.clear()
        monkeypatch.setattr(answers, "_LEAST_RUN", 10**6)
        monkeypatch.setattr(answers, "LEAST_SHARED", 10**6)
        plain = ap.explain(lm, PROMPT, method, ap.Answer(), answer=ANSWER, context=passages)
    finally:
        taken.remove()
    whole = [tuple(row.tolist()) for ids in rows for row in ids]
    nodes = {row[:end] for row in whole for end in range(1, len(row) + 1)}
    last = len(whole[0]) - len(lm.tokenizer(ANSWER)["input_ids"]) + 1  # the places whose logits are wanted
    again = len(whole) * (len(whole[0]) - last + 1)
    assert few <= len(nodes) + again + 2 * len(whole[0])
    assert few < 0.75 * sum(ids.numel() for ids in rows)
    assert torch.allclose(shared.values, plain.values, atol=1e-10)
