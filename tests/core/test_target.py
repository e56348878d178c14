"""Which scalar is explained, and what is said about targets and outputs that cannot be."""

from types import SimpleNamespace

import pytest
import torch

from apportion.core.target import Contrast, pick, probabilities, resolve, scores_of
from apportion.errors import InputError

SCORES = torch.tensor([[1.0, 5.0, 2.0], [7.0, 3.0, 4.0]])


@pytest.mark.parametrize(
    ("target", "classes", "values"),
    [
        (None, [1, 0], [5.0, 7.0]),
        (2, [2, 2], [2.0, 4.0]),
        (-1, [2, 2], [2.0, 4.0]),
        ([0, 1], [0, 1], [1.0, 3.0]),
        ((0, -1), [0, 2], [1.0, 4.0]),
        (torch.tensor(1), [1, 1], [5.0, 3.0]),
        (torch.tensor([2]), [2, 2], [2.0, 4.0]),
        (torch.tensor([[0], [1]]), [0, 1], [1.0, 3.0]),
        (torch.tensor([0, 1], dtype=torch.uint8), [0, 1], [1.0, 3.0]),
    ],
)
def test_classes(target, classes, values):
    resolved = resolve(target, SCORES)
    assert resolved.tolist() == classes
    assert pick(resolved, SCORES).tolist() == values


def test_classes_are_repeated_for_a_multiple_of_the_batch():
    assert pick(resolve([0, 1], SCORES), SCORES.repeat(2, 1)).tolist() == [1.0, 3.0, 1.0, 3.0]


def test_callables_get_the_scores():
    assert pick(resolve(lambda scores: scores.sum(1), SCORES), SCORES).tolist() == [8.0, 14.0]
    assert Contrast(1, -1)(SCORES).tolist() == [3.0, -1.0]
    assert repr(Contrast(1, -1)) == "Contrast(positive=1, negative=-1)"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, r"target is class 3, but the model has 3 classes \(0 to 2\)"),
        (-4, "target is class -4"),
        ([0, 3], "target is class 3"),
        ([0, 1, 2], r"shape \(3,\)"),
        ([], "accepted: one class index, or 2 of them"),
        (1.0, "float32"),
        ([0.5, 1.0], "float32"),
        ([True, False], "bool"),
        (True, "target is True; accepted"),
        ("cat", "accepted: a class index"),
        ({"class": 1}, "accepted: a class index"),
    ],
)
def test_wrong_targets(target, message):
    with pytest.raises(InputError, match=message):
        resolve(target, SCORES)


@pytest.mark.parametrize(
    "value", [SCORES, SCORES.sum(), 1.0, None], ids=["matrix", "one number", "float", "None"]
)
def test_callables_that_return_something_else(value):
    with pytest.raises(InputError, match="accepted: one score each"):
        pick(lambda scores: value, SCORES)


@pytest.mark.parametrize(
    "output",
    [
        SCORES,
        (SCORES, "hidden states"),
        [SCORES],
        {"logits": SCORES, "loss": None},
        SimpleNamespace(logits=SCORES),
    ],
    ids=["tensor", "tuple", "list", "mapping", "object"],
)
def test_scores_in_what_a_model_returns(output):
    assert scores_of(output, 2) is SCORES


def test_one_score_per_sample_is_one_class():
    assert scores_of(torch.ones(4), 4).shape == (4, 1)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("scores", "the model returned str"),
        (None, "the model returned NoneType"),
        ((), "the model returned tuple"),
        ({"scores": SCORES}, "the model returned dict"),
        (SCORES[:1], r"scores of shape \(1, 3\) for a batch of 2"),
        (SCORES[:, :, None], r"shape \(2, 3, 1\)"),
        (SCORES.sum(), r"one number for a batch of 2; accepted: one for each sample, \(2,\)"),
        (SCORES.long(), "int64 scores"),
        (SCORES[:, :0], "no classes"),
        (SCORES / 0, "NaN or infinite scores for sample \\[0, 1\\]"),
        (torch.tensor([[1.0], [float("nan")]]), "sample \\[1\\]"),
    ],
)
def test_outputs_without_scores(output, message):
    with pytest.raises(InputError, match=message):
        scores_of(output, 2)


def test_probabilities_of_a_model_that_gives_them_are_its_own():
    given = torch.tensor([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]])
    assert probabilities(given) is given
    torch.testing.assert_close(probabilities(SCORES), SCORES.softmax(1))
    torch.testing.assert_close(
        probabilities(torch.tensor([[1.5], [-0.5]])), torch.tensor([[1.5], [-0.5]]).sigmoid()
    )


def test_scores_that_look_like_probabilities_in_some_rows_only_are_scores():
    mixed = torch.tensor([[0.25, 0.75], [3.0, -2.0]])
    torch.testing.assert_close(probabilities(mixed), mixed.softmax(1))
