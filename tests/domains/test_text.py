"""Texts: where tokens stand, padding that is as if it were not there, and the sentiment model that ships."""

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode

from apportion.domains.text import Vocabulary, encode_words, normalise, tokenise
from apportion.errors import InputError
from apportion.learning.networks import AttentionClassifier
from apportion.models.shipped.sentiment import WEIGHTS, load, save, sentiment

PIECES = [
    "don't",
    "CAN’T",
    "cannot",
    "it's",
    "'80s",
    "'",
    "’",
    "n't",
    "<br />",
    "``",
    "--",
    "...",
    "_",
    "-",
    "\n",
]
PIECES += [
    "\u0301",
    "e\u0301",
    "\u200d",
    "👩‍🚀",
    "👍🏽",
    "🇩🇪",
    "U.S.",
    "Mr. ",
    "J. S",
    "1,000.5",
    " ",
    "\x1c",
    "\u3000",
]


def surfaces(text: str) -> list[str]:
    return [token.surface for token in tokenise(text)]


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES) | st.text(max_size=3)).map("".join)))
def test_every_character_that_is_not_space_is_in_one_token(text: str) -> None:
    end = 0
    for surface, start, stop in tokenise(text):
        assert end <= start < stop
        assert text[start:stop] == surface
        assert not text[end:start].strip()
        assert normalise(surface)
        end = stop
    assert not text[end:].strip()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's not bad, is it?", "It 's not bad , is it ?"),
        ("I don’t, can't, won't and cannot.", "I do n’t , ca n't , wo n't and can not ."),
        ("they shouldn't've", "they should n't 've"),
        ("do n't , it 's", "do n't , it 's"),
        ("“Dull” -- 'dull'…", "“ Dull ” -- ' dull ' …"),
        ("Mr. Smith of the U.S. met J. Doe.", "Mr. Smith of the U.S. met J. Doe ."),
        ("a well-made, ten-minute film of the '80s", "a well-made , ten-minute film of the '80s"),
        ("$1,000.50 at 9:30 on 9/11", "$ 1,000.50 at 9:30 on 9/11"),
        ("good.Bad film.<br /><br />Good", "good . Bad film . <br /> <br /> Good"),
        ("_very_ good!!! 10/10", "_ very _ good ! ! ! 10/10"),
        ("naïve cafe\u0301 O'Fallon", "naïve cafe\u0301 O'Fallon"),
        ("👩‍🚀👍🏽 🇩🇪🇫🇷", "👩‍🚀 👍🏽 🇩🇪 🇫🇷"),
        ("line\r\none\ttwo\u3000three", "line one two three"),
        ("μία:ιδέα", "μία : ιδέα"),  # the letter that U+0345, a mark, is in upper case
    ],
)
def test_tokens_are_those_of_the_treebank(text: str, expected: str) -> None:
    replaced = [surface.replace(" ", "") for surface in surfaces(text)]
    assert replaced == expected.replace("<br />", "<br/>").split(" ")


def test_a_long_text_takes_linear_time() -> None:
    for piece in ("a", "a-", "a'", "1.", "n't", ". ", "<a", "\u0301"):
        assert tokenise(piece * 50_000)


def test_encoding_a_sentence() -> None:
    vocabulary = Vocabulary(("<pad>", "<unk>", "do", "n't", "cliche"))
    ids, features = encode_words("DON’T\nkerfuffle Clichés? Cliché", vocabulary)
    assert ids.tolist() == [[2, 3, 1, 1, 1, 4]]
    assert ids.dtype == torch.int64
    assert features.tokens == ("do", "n't", "<unk>", "<unk>", "<unk>", "cliche")
    assert features.names == ("DO", "N’T", "kerfuffle", "Clichés", "?", "Cliché")
    assert features.words == tuple(range(6))


def test_text_that_looks_like_padding_is_an_unknown_word() -> None:
    ids, features = encode_words("<pad> a", Vocabulary(("<pad>", "<unk>", "a")))
    assert ids.tolist() == [[1, 2]]
    assert features.names == ("<pad>", "a")


def test_vocabulary() -> None:
    vocabulary = Vocabulary.of_texts(["a a b", "A c", "a b"], documents=2)
    assert vocabulary.words == ("<pad>", "<unk>", "a", "b")
    assert Vocabulary.of_texts(["a a b", "A c", "a b"], limit=1).words[2:] == ("a",)
    assert eval(repr(vocabulary)) == vocabulary
    with pytest.raises(ValueError, match="starts with '<pad>'"):
        Vocabulary(("a", "b"))
    with pytest.raises(ValueError, match="'a' is there again"):
        Vocabulary(("<pad>", "<unk>", "a", "a"))


@pytest.mark.parametrize("text", ["", " ", "\n\t\u3000"])
def test_a_text_without_words_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"at least one word, received {text!r}")):
        sentiment().encode(text)


@pytest.mark.parametrize("text", [None, 3, b"good", ["good"]])
def test_what_is_not_a_text_is_an_error(text: object) -> None:
    with pytest.raises(InputError, match=f"expected one str, received {type(text).__name__}"):
        sentiment().encode(text)


# The model


def one_by_one(model: AttentionClassifier, texts: list[Tensor]) -> Tensor:
    return torch.cat([model(text[None]) for text in texts])


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=1, max_size=5), st.integers(0, 3)
)
def test_padding_is_as_if_it_were_not_there(rows: list[list[int]], more: int) -> None:
    torch.manual_seed(0)
    model = AttentionClassifier(10, embedding=5, hidden=4).double().eval()
    texts = [torch.tensor(row) for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(
        [*texts, torch.zeros(len(max(rows, key=len)) + more).long()], True
    )
    expected = one_by_one(model, texts)
    torch.testing.assert_close(model(padded)[:-1], expected)
    torch.testing.assert_close(
        model(padded.flip(1))[:-1], one_by_one(model, [text.flip(0) for text in texts])
    )
    torch.testing.assert_close(model(padded)[-1], model.output.bias)  # padding only: nothing but the bias


def test_a_word_replaced_by_padding_is_deleted() -> None:
    model = AttentionClassifier(10, embedding=5, hidden=4).double().eval()
    torch.testing.assert_close(model(torch.tensor([[3, 0, 0, 5, 0, 7]])), model(torch.tensor([[3, 5, 7]])))


def test_states_are_those_of_a_packed_bidirectional_lstm() -> None:
    model = AttentionClassifier(10, embedding=5, hidden=4, attention=3, classes=3).eval()
    reference = torch.nn.LSTM(5, 4, batch_first=True, bidirectional=True)
    weights = model.rightward.state_dict() | {
        f"{name}_reverse": weight for name, weight in model.leftward.state_dict().items()
    }
    reference.load_state_dict(weights)
    ids = torch.tensor([[2, 3, 4, 5], [6, 7, 0, 0], [8, 0, 0, 0]])
    packed = torch.nn.utils.rnn.pack_padded_sequence(model.embedding(ids), [4, 2, 1], batch_first=True)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(reference(packed)[0], batch_first=True)
    states = model.states(ids)
    torch.testing.assert_close(states, expected)
    attention = model.attention(states, ids)
    assert torch.equal(attention == 0, ids == 0)
    torch.testing.assert_close(attention.sum(1), torch.ones(3))
    torch.testing.assert_close(model.decide(states, attention), model(ids))


def test_every_step_is_a_torch_function_that_can_be_replaced() -> None:
    seen = set()

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.add(function)
            return function(*args, **(kwargs or {}))

    model = AttentionClassifier(10, embedding=5, hidden=4)
    with Watch():
        model(torch.tensor([[2, 3, 0]]))
    assert {torch.nn.functional.embedding, torch.lstm, torch.nn.functional.linear, torch.matmul} <= seen
    assert {torch.tanh, torch.Tensor.softmax} <= seen


def test_float16_weights_and_vocabulary_round_trip(tmp_path: Path) -> None:
    model = AttentionClassifier(4, embedding=5, hidden=4, attention=3, classes=3).half().float().eval()
    vocabulary = Vocabulary(("<pad>", "<unk>", "é", '"'))
    save(model, vocabulary, tmp_path / "model.safetensors")
    state = torch.get_rng_state()
    loaded, words = load(tmp_path / "model.safetensors")
    assert torch.equal(torch.get_rng_state(), state)
    assert words == vocabulary
    assert torch.equal(loaded(torch.tensor([[2, 3]])), model(torch.tensor([[2, 3]])))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("A very funny movie.", "positive"),
        ("One of the best films of the year, moving and beautifully acted.", "positive"),
        ("A warm, charming and thoroughly enjoyable comedy!", "positive"),
        ("I loved it!", "positive"),
        ("Dull, predictable and far too long.", "negative"),
        ("I wanted to like it, but it's a mess.", "negative"),
        ("It isn’t funny.", "negative"),
        ("A waste of time and talent.", "negative"),
    ],
)
def test_the_shipped_model_decides_clear_sentences(text: str, label: str) -> None:
    classifier = sentiment()
    ids, features = classifier.encode(text)
    scores = classifier(ids)
    assert scores.shape == (1, 2)
    assert classifier.labels[int(scores.argmax())] == label
    assert len(features.tokens) == ids.shape[1]


def test_shipped_weights_are_small_and_each_call_has_its_own() -> None:
    assert WEIGHTS.stat().st_size <= 8 * 2**20
    first, second = sentiment(), sentiment()
    first.model.output.bias.fill_(7.0)  # type: ignore[attr-defined]
    assert not first.model.training  # type: ignore[attr-defined]
    assert second.model.output.bias.max() < 7  # type: ignore[attr-defined]
    assert first.mask == Vocabulary.UNKNOWN


@pytest.mark.slow
@pytest.mark.skipif("APPORTION_DATA" not in os.environ, reason="APPORTION_DATA names no data folder")
def test_accuracy_on_the_treebank_as_shipped() -> None:
    """Through the same door as a user: the text of each sentence, one by one."""
    folder = Path(os.environ["APPORTION_DATA"])
    trees = gzip.decompress((folder / "text" / "sst_trees_test.txt.gz").read_bytes()).decode().splitlines()
    classifier, right, count = sentiment(), 0, 0
    for tree in trees:
        if tree[1] != "2":
            text = " ".join(re.findall(r"([^() ]+)\)", tree)).replace("\\", "")
            right += int(classifier(classifier.encode(text)[0]).argmax()) == (tree[1] > "2")
            count += 1
    assert count == 1821
    assert right / count >= 0.82


def test_transformers_is_not_imported() -> None:
    code = "import sys, apportion as ap; ap.load('sentiment'); assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("यह फिल्म", ["यह", "फिल्म"]),
        ("ดีมาก", ["ดี", "ม", "า", "ก"]),
        ("看iPhone电影。", ["看", "iPhone", "电", "影", "。"]),
        ("한국어 좋다", ["한국어", "좋다"]),
    ],
)
def test_scripts_without_spaces_and_vowel_signs(text, tokens):
    assert [token.surface for token in tokenise(text)] == tokens
