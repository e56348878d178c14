"""Functions of strings: they are given the text itself, and the text with pieces cut out of it."""

import itertools
import math

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
    with pytest.raises(InputError, match="is no table of numbers"):
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
