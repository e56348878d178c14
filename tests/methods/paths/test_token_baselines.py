"""Where the path to token ids begins if nobody says where."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import apportion as ap
from apportion.core.features import TextFeatures
from apportion.engines.substitution.leaves import Beside

IDS = torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]])
PATHS = (ap.IntegratedGradients(tolerance=1e-4), ap.IntegratedHessians(tolerance=1e-4), ap.DeepLIFT())


class Reader(nn.Module):
    """Ids 1 and 2 begin and end a text."""

    def __init__(self, padding=None, config=None):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(9, 4, padding_idx=padding)
        with torch.no_grad():
            self.embedding.weight.normal_()
        self.rest = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        if config is not None:
            self.config = config

    def forward(self, ids):
        return self.rest(self.embedding(ids).sum(1))

    def score_from(self, start):
        """f(x) − f(x′) of class 1, where x′ has these embeddings."""
        with torch.no_grad():
            return (self(IDS) - self.rest(start.sum(1)))[:, 1]


def features():
    return tuple(TextFeatures("a b", "[b] a b [e]".split(), ((0, 0),) * 4, words) for words in WORDS)


WORDS = ((None, 0, 1, None), (None, 0, None, None))


def replaced(model, row, kept):
    return torch.where(kept[..., None], model.embedding.weight[IDS], row).detach()


@pytest.mark.parametrize("method", PATHS, ids=lambda m: type(m).__name__)
def test_the_default_is_the_first_that_the_model_is_known_to_know(method):
    """By the way the score goes: with the mask of the call, padding by the embedding or the configuration, the end
    of a text, and the mean."""
    nothing = torch.zeros(IDS.shape, dtype=torch.bool)
    ends = SimpleNamespace(bos_token_id=1, eos_token_id=2)
    cases = [
        (Reader(padding=3), {"mask": 8, "features": features()}, "mask", 8, IDS < 3),
        (Reader(padding=3), {"mask": 8}, "mask", 8, nothing),
        (Reader(padding=3), {}, "pad", 3, nothing),
        (Reader(config=SimpleNamespace(pad_token_id=4)), {}, "pad", 4, nothing),
        (Reader(config=ends), {}, "end", 2, (IDS == 1) | (IDS == 2)),
        (Reader(), {}, "mean", None, nothing),
    ]
    for model, given, name, token, kept in cases:
        table = model.embedding.weight
        start = replaced(model, table.mean(0) if token is None else table[token], kept)
        found = method(model, IDS, 1, **given)
        assert found.notes["baseline"] == name
        assert found.method == (replace(method, baseline="mask") if name == "mask" else method)
        torch.testing.assert_close(found.total.float(), model.score_from(start), atol=1e-5, rtol=1e-5)
        assert found.remainder.abs().max() < 1e-3 * found.total.abs().max() + 1e-4
        again = found.method(model, IDS, 1, **given)
        torch.testing.assert_close(again.values, found.values)


@pytest.mark.parametrize("method", PATHS, ids=lambda m: type(m).__name__)
def test_zero_by_choice_and_numbers_as_they_are(method):
    model = Reader(padding=3)
    by_name = method(model, IDS, 1, baseline="zero")
    torch.testing.assert_close(
        by_name.total.float(), model.score_from(torch.zeros(2, 4, 4)), atol=1e-5, rtol=1e-5
    )
    half = method(model, IDS, 1, baseline=0.5)
    torch.testing.assert_close(
        half.total.float(), model.score_from(torch.full((2, 4, 4), 0.5)), atol=1e-5, rtol=1e-5
    )
    numbers = method(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), torch.ones(2, 3), 1)
    assert "baseline" not in numbers.notes


def test_a_classifier_gives_its_mask_and_its_special_tokens():
    model = Reader(padding=3)
    text = features()[0]
    classifier = ap.Classifier(model, lambda text: (IDS[:1], features()[0]), ("a", "b"), "text", "reader", 8)
    found = ap.explain(classifier, "a b", method=ap.IntegratedGradients(), target=1)
    start = replaced(model, model.embedding.weight[8], IDS < 3)
    torch.testing.assert_close(found.total.float(), model.score_from(start)[:1])
    assert found.features == (text,)
    assert found.values[0, [0, 3]].abs().max() == 0
    assert "baseline='mask'" in repr(found.method)


@pytest.mark.parametrize("method", [ap.IntegratedGradients, ap.IntegratedHessians, ap.DeepLIFT])
def test_a_token_that_the_model_does_not_have_is_refused(method):
    table = torch.randn(9, 4)

    def scores(ids):  # nothing says where it has its embeddings
        return nn.functional.embedding(ids, table).sum(1)

    with pytest.raises(
        ap.InputError, match="baseline is 'mean', but the table of the model's embeddings was not found"
    ):
        method()(scores, IDS, 1)
    method(baseline="zero")(scores, IDS, 1)
    with pytest.raises(
        ap.InputError, match=r"baseline is 'mask', but no such token of the model is known; a Classifier"
    ):
        method(baseline="mask")(Reader(), IDS, 1)
    with pytest.raises(ap.InputError, match="baseline is 'end', but no such token"):
        method(baseline="end")(Reader(), IDS, 1)
    with pytest.raises(ap.InputError, match="baseline is 'mask', token 9, but the model has 9 embeddings"):
        method()(Reader(), IDS, 1, mask=9)
    with pytest.raises(ap.InputError, match="baseline is 'padding'; did you mean 'pad'"):
        method(baseline="padding")(Reader(), IDS, 1)
    with pytest.raises(ap.InputError, match=r"baseline is 'mean'; accepted: a finite number, or tensors"):
        method(baseline="mean")(nn.Linear(3, 2), torch.ones(1, 3), 1)


@pytest.mark.parametrize("method", PATHS, ids=lambda m: type(m).__name__)
def test_what_is_explained_beside_the_input_begins_at_the_same_token(method):
    model = Reader(padding=3)
    beside = Beside(model, lambda rows, positions, number: torch.full_like(rows, 1e-3))
    found = method(beside, IDS, 1)
    start = replaced(model, model.embedding.weight[3], torch.zeros(IDS.shape, dtype=torch.bool))
    assert found.notes["baseline"] == "pad"
    torch.testing.assert_close(found.total.float(), model.score_from(start), atol=0.1, rtol=0)
    assert (found.total.float() - model.score_from(start)).abs().max() > 1e-5


class ReaderForCausalLM(Reader):
    """One that says the next token, by its name."""


def test_the_default_of_deeplift_in_language_models_is_the_embedding_of_zeros():
    """From padding it is no better than chance there (docs/pretrained.md); a mask of the call does not change that, a
    baseline by choice does, and the paths' own default is what it was."""
    model = ReaderForCausalLM(padding=3)
    found = ap.DeepLIFT()(model, IDS, 1, mask=8, features=features())
    assert found.notes["baseline"] == "zero"
    assert found.method == ap.DeepLIFT()
    kept = replaced(model, torch.zeros(4), IDS < 3)  # special tokens stay
    torch.testing.assert_close(found.total, model.score_from(kept), atol=1e-5, rtol=1e-5)
    assert found.remainder.abs().max() < 1e-5
    padded = ap.DeepLIFT("pad")(model, IDS, 1)
    torch.testing.assert_close(padded.total, model.score_from(model.embedding.weight[3].expand(2, 4, 4)))
    assert ap.IntegratedGradients()(model, IDS, 1).notes["baseline"] == "pad"


def test_a_path_of_tokens_that_leaves_more_than_the_total_is_said_to_apportion_nothing():
    """f = sin(40 a) oscillates from a = 0 to a = 2, so that one node says nothing: the node in the
    middle says 80 cos 40 of sin 80."""

    class Wild(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding.from_pretrained(torch.tensor([[0.0], [2.0]]))

        def forward(self, ids):
            return (40 * self.embedding(ids).sum((1, 2))).sin()[:, None]

    told = "more than the total is left over, so the values are no shares of the score; KernelSHAP()"
    coarse = ap.IntegratedGradients("zero", nodes=1)(Wild(), torch.tensor([[1]]), 0)
    x = torch.tensor(80.0, dtype=torch.float64)
    torch.testing.assert_close(float(coarse.apportioned), float(80 * (x / 2).cos()), rtol=1e-4, atol=1e-4)
    assert [w for w in coarse.warnings if told in w] == [
        w for w in coarse.warnings if w.startswith("samples [0]: ")
    ]
    assert any(told in w for w in coarse.warnings)
    fine = ap.IntegratedGradients("zero")(Wild(), torch.tensor([[1]]), 0)
    assert not any(told in w for w in fine.warnings)
    assert float(fine.left_over) < 0.01
