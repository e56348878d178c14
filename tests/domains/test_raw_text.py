"""Functions of strings: they are given the text itself, and the text with pieces cut out of it."""

import itertools
import math
import re
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

import apportion as ap
from apportion import InputError

DULL = ["A dull film.", "slow and dull", "a boring story", "NOT funny"]
WARM = ["a warm film", "Funny and warm", "a good  story", "a funny film!"]
TEXT = "It's  a SLOW but funny film,\n isn’t it? "
WAYS = {
    "words": TfidfVectorizer(),
    "pairs of words, by case": TfidfVectorizer(ngram_range=(1, 2), lowercase=False),
    "characters": TfidfVectorizer(analyzer="char", ngram_range=(1, 3)),
}


def pipeline(vectorizer=None):
    steps = TfidfVectorizer() if vectorizer is None else vectorizer, LogisticRegression(C=10)
    return make_pipeline(*steps).fit(DULL + WARM, ["dull"] * 4 + ["warm"] * 4)


def shapley(many, value):
    """The definition, over all subsets; `value` is of a set of places."""
    found = np.zeros(many)
    for size in range(many):
        weight = math.factorial(size) * math.factorial(many - size - 1) / math.factorial(many)
        for place in range(many):
            for others in itertools.combinations([i for i in range(many) if i != place], size):
                found[place] += weight * (value({*others, place}) - value(set(others)))
    return found


@pytest.mark.parametrize("vectorizer", WAYS.values(), ids=WAYS)
def test_the_score_is_that_of_the_pipeline_and_the_values_are_shapleys(vectorizer):
    fitted = pipeline(vectorizer)
    pieces = ["A", " SLOW", "  but", " funny", " film", "!"]
    text = "".join(pieces)
    explained = ap.explain(fitted, text, "kernelshap", target="warm")
    assert explained.labels == ("dull", "warm")
    np.testing.assert_array_equal(explained.output[0].numpy(), fitted.predict_proba([text])[0])
    names, values = explained.relevance()
    assert names == tuple(map(str.strip, pieces))

    def value(kept):
        return fitted.predict_proba(["".join(piece for i, piece in enumerate(pieces) if i in kept)])[0, 1]

    np.testing.assert_allclose(values, shapley(len(pieces), value), atol=1e-9)


@given(st.text(st.characters(), min_size=1).filter(lambda text: not text.isspace()))
def test_the_intact_text_is_the_string_itself_and_every_piece_can_be_hidden(text):
    for encode in (ap.RawText(), ap.RawText(hidden="#")):
        ids, features = encode(text)
        assert encode.texts(ids) == [text]
        assert features.text == text
        assert len(features.tokens) == ids.shape[1] == len(features.groups)
        hidden = torch.where(torch.tensor([features.groups]) >= 0, 0, ids)
        left = encode.texts(hidden)[0]
        assert left.replace("#", "").strip() == ""
        if encode.hidden and "#" not in text:
            assert left.count("#") == len(features.names)


def test_a_function_sees_the_text_first_and_then_pieces_taken_out():
    seen = []
    ap.explain(lambda texts: seen.extend(texts) or [float(len(t)) for t in texts], TEXT, "occlusion")
    assert seen[0] == TEXT
    assert seen[1:4] == [
        "'s  a SLOW but funny film,\n isn’t it? ",
        "It  a SLOW but funny film,\n isn’t it? ",
        "It's SLOW but funny film,\n isn’t it? ",
    ]


def test_hidden_pieces_may_be_a_word_and_pieces_what_a_person_says():
    def texts_of(encode, text):
        seen = []
        classifier = encode.classifier(lambda texts: seen.extend(texts) or np.ones(len(texts)))
        ap.explain(classifier, text, "occlusion")
        return seen[1:]

    assert texts_of(ap.RawText(split=r"\w+", hidden="[MASK]"), "so-so, fine") == [
        "[MASK]-so, fine", "so-[MASK], fine", "so-so, [MASK]",
    ]  # fmt: skip
    assert texts_of(ap.RawText(hidden="?"), "fine.") == ["?.", "fine?"]
    assert texts_of(ap.RawText(split=lambda text: ["电影", "好看"]), "电影很好看!") == ["很好看!", "电影很!"]
    with pytest.raises(InputError, match="split gave the piece 'Film', which does not stand in the rest"):
        ap.RawText(split=str.title and (lambda text: text.title().split()))("Dull film")
    with pytest.raises(InputError, match="no regular expression"):
        ap.RawText(split="(")


def test_scripts_without_spaces_are_cut_into_characters_and_marks_stay_with_their_letters():
    explained = ap.explain(lambda texts: [float(len(t)) for t in texts], "电影 好看 यह 👍🏽", "kernelshap")
    names, values = explained.relevance()
    assert names == ("电", "影", "好", "看", "यह", "👍🏽")
    assert values.tolist() == pytest.approx([1, 1, 2, 1, 3, 3])  # with the white space before


def test_the_answers_of_an_estimator_that_has_no_probabilities():
    labels = ["dull"] * 4 + ["warm"] * 4
    machine = make_pipeline(TfidfVectorizer(), LinearSVC()).fit(DULL + WARM, labels)
    explained = ap.explain(machine, TEXT, "lime")
    assert float(explained.output) == pytest.approx(machine.decision_function([TEXT])[0])
    line = make_pipeline(TfidfVectorizer(), Ridge()).fit(DULL + WARM, [0.0] * 4 + [7.0] * 4)
    assert float(ap.explain(line, TEXT, "occlusion").output) == pytest.approx(line.predict([TEXT])[0])
    with pytest.raises(InputError, match="which predicts classes; accepted for a text: its predict_proba"):
        ap.explain(pipeline().predict, TEXT, "occlusion")
    with pytest.raises(
        InputError, match="model is dict; accepted for a text: a Classifier, a function from a list"
    ):
        ap.explain({}, TEXT, "occlusion")


def test_tests_take_the_text_and_a_data_set_is_explained_as_each_text_alone(tmp_path):
    fitted = pipeline()
    explained = ap.explain(fitted, TEXT, "kernelshap")
    names, values = explained.relevance()
    first = names[int(values.argmax())]
    turned = TEXT.replace(f" {first}", "")
    labels = [fitted.predict_proba([text])[0].argmax() for text in (TEXT, turned)]
    assert labels == [1, 0]  # one word turns it, the most relevant
    rate = float(ap.DeletionRate(block=1)(fitted, TEXT, explained).mean)
    assert rate == pytest.approx(1 / len(names))
    found = ap.compare(ap.RawText().classifier(fitted), DULL, ["occlusion"], ["pixel-flipping"])
    assert found.scores["occlusion"]["pixel-flipping"].values.shape == (4,)
    run = ap.explain_dataset(
        ap.RawText().classifier(fitted), DULL + WARM, "kernelshap", tmp_path, progress=False
    )
    for row, text in zip(run.rows(), DULL + WARM, strict=True):
        names, values = ap.explain(fitted, text, "kernelshap").relevance()
        assert tuple(row["features"]) == names
        assert row["relevance"] == pytest.approx(values.tolist(), abs=1e-3)


def test_methods_with_a_gradient_say_what_to_take_instead():
    with pytest.raises(InputError, match="methods that hide features, such as Occlusion, LIME or KernelSHAP"):
        ap.explain(pipeline(), TEXT, "ig")
    with pytest.raises(InputError, match=r"a text for a function of texts goes to apportion\.explain"):
        ap.KernelSHAP()(pipeline().predict_proba, [TEXT])


MESSAGES = [{"role": "system", "content": "Be  kind."}, {"role": "user", "content": "Is it good?"}]
OF_MANY_SCRIPTS = [
    "今日は雨です。明日は晴れ！",
    "วันนี้ฝนตก ที่นี่",
    "هذا فِيلْمٌ جيّد، نعم؟",
    "یک فیلم می\u200cخواهم",
    "👩‍👩‍👧‍👦 and 🏳️‍🌈 👍🏽 e\u0301te\u0301",
    "यह फ़िल्म अच्छी है।",
]
SPLITS = {"words": None, "each character": r"(?s:.)", "runs": r"\w+", "sentences": ap.sentences, "list": list}


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
@given(
    st.one_of(
        st.sampled_from(OF_MANY_SCRIPTS),
        st.text(st.sampled_from("".join(OF_MANY_SCRIPTS) + ". \n"), min_size=1),
    )
)
def test_pieces_are_of_the_text_in_order_and_none_begins_with_a_mark_or_within_a_sign(split, text):
    if not re.search(r"\w", text):
        return
    encode = ap.RawText(split=split)
    ids, features = encode(text)
    assert encode.texts(ids) == [text]
    assert "".join(features.tokens) == text
    place = 0
    for name in features.names:
        place = text.index(name, place)
        assert place == 0 or text[place - 1].isspace() or unicodedata.category(name[0])[0] != "M"
        assert place == 0 or text[place - 1] not in "\u200c\u200d" or name[0].isspace()
        place += len(name)
        after = text[place : place + 1]
        assert name[-1].isspace() or after not in list("\u200c\u200d\ufe0f🏽")
    assert re.sub(r"\s", "", "".join(features.names)) == re.sub(r"\s", "", text) or split == r"\w+"


def test_a_sign_of_several_characters_is_one_piece():
    def pieces(text, split):
        return ap.RawText(split=split)(text)[1].names

    assert pieces("👩‍👩‍👧‍👦 e\u0301te\u0301", r"(?s:\S)") == ("👩‍👩‍👧‍👦", "e\u0301", "t", "e\u0301")
    assert pieces("یک می\u200cخواهم", None) == ("یک", "می\u200cخواهم")
    assert pieces("अच्छी", list) == ("अ", "च्", "छी")
    assert pieces("a\u0301b", "\u0301|b") == ("a\u0301", "b")


def test_sentences_end_where_their_signs_say():
    assert ap.sentences("Dr. Who, J. Smith, e.g. 3.5 m! He left... did he? No.") == [
        "Dr. Who, J. Smith, e.g. 3.5 m!", "He left... did he?", "No.",
    ]  # fmt: skip
    assert ap.sentences("今日は雨。「本当！」そう？はい") == ["今日は雨。", "「本当！」", "そう？", "はい"]
    assert ap.sentences("यह है। वह है। هل؟ نعم") == ["यह है।", "वह है।", "هل؟", "نعم"]
    assert ap.sentences("a heading\n\nwrapped\nlines ") == ["a heading", "wrapped\nlines"]
    text = "Dull.  Slow, but warm! 良い。"
    names, values = ap.explain(
        ap.RawText(split=ap.sentences).classifier(lambda texts: [float(len(t)) for t in texts]),
        text,
        "kernelshap",
    ).relevance()
    assert names == ("Dull.", "Slow, but warm!", "良い。")
    assert values.tolist() == pytest.approx([5, 17, 4])


def test_a_function_of_chat_messages_is_given_them_with_their_roles():
    asked = []

    def letters(many):
        asked.extend(many)
        return [float(sum(len(turn["content"]) for turn in turns)) for turns in many]

    explained = ap.explain(letters, MESSAGES, "kernelshap")
    names, values = explained.relevance()
    assert names == ("Be", "kind", ".", "Is", "it", "good", "?")
    assert values.tolist() == pytest.approx([2, 6, 1, 2, 3, 5, 1])
    assert asked[0] == MESSAGES
    assert all([turn["role"] for turn in turns] == ["system", "user"] for turns in asked)
    assert explained.features[0].text == "system: Be  kind.\n\nuser: Is it good?"
    for bad in (
        [{"role": "user"}],
        [{"role": "user", "content": 3}],
        [{"role": "u", "content": "a", "name": "b"}],
    ):
        with pytest.raises(InputError, match=r"message 0 is .*; accepted: a list of chat messages"):
            ap.explain(letters, bad, "occlusion")
    with pytest.raises(InputError, match="the messages hold no piece that may be hidden"):
        ap.explain(letters, [{"role": "user", "content": " "}], "occlusion")
