"""What is explained, before any engine: what is refused, and how passes are counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.engines.subject import Subject
from apportion.errors import InputError
from apportion.results.cost import Cost


@pytest.mark.parametrize(
    ("model", "accepted"),
    [
        (SimpleNamespace(), "a module or any callable$"),
        (SimpleNamespace(predict=len), "a module or any callable, such as its predict$"),
        (
            SimpleNamespace(predict=len, predict_proba=len),
            "a module or any callable, such as its predict_proba$",
        ),
    ],
)
def test_what_cannot_be_called_is_refused_with_what_can(model: Any, accepted: str) -> None:
    with pytest.raises(InputError, match=f"model is SimpleNamespace; accepted: {accepted}"):
        Subject(model, torch.ones(1, 2))


def test_the_module_of_a_classifier_is_explained() -> None:
    classifier = ap.load("breast-cancer")
    assert Subject(classifier, torch.ones(1, 30)).model is classifier.model


def test_training_is_warned_about_in_every_result() -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.Dropout(0.5))
    with pytest.warns(UserWarning, match="training mode"):
        subject = Subject(model, torch.ones(1, 2))
    assert len(subject.warnings) == 1
    found = subject.result(ap.Explanation, "M", torch.ones(1, 2), None, torch.ones(1, 1), ["another"])
    assert found.warnings == (*subject.warnings, "another")


@pytest.mark.parametrize(("rows", "passes"), [(0, 0), (1, 1), (3, 1), (4, 2), (6, 2)])
def test_rows_are_passes_of_the_whole_batch(rows: int, passes: int) -> None:
    subject = Subject(nn.Linear(2, 1), torch.ones(3, 2))
    subject.ran(rows)
    assert (subject.cost.forwards, subject.cost.backwards) == (passes, 0)


def squares(x: Tensor) -> Tensor:
    return (x**2).sum(1)


def test_derivatives_are_counted_and_none_where_there_is_none() -> None:
    subject = Subject(squares, torch.ones(3, 2))
    x, other = torch.ones(3, 2, requires_grad=True), torch.ones(3, requires_grad=True)
    found, missing = subject.derivatives(squares(x), [x, other])
    assert found is not None
    assert torch.equal(found, torch.full((3, 2), 2.0))
    assert missing is None
    assert subject.cost.backwards == 1
    subject.derivatives(squares(x[:1]), [x], rows=1)  # a smaller one takes as long as it takes
    assert subject.cost.backwards == 2
    subject.derivatives(squares(x[:5]), [x], rows=5)
    assert subject.cost.backwards == 4


def test_derivatives_of_several_weights_are_as_many_passes() -> None:
    subject, x = Subject(squares, torch.ones(3, 2)), torch.ones(3, 2, requires_grad=True)
    weights = torch.eye(3)
    (found,) = subject.derivatives(squares(x), [x], weight=weights, is_grads_batched=True)
    assert found is not None
    assert torch.equal(found, 2 * weights[:, :, None].expand(3, 3, 2))
    assert subject.cost.backwards == 3


def test_what_another_method_took_is_included() -> None:
    subject = Subject(squares, torch.ones(3, 2), start=0.0)
    subject.ran(3)
    subject.include(Cost(2, 5, 1.0))
    cost = subject.cost
    assert (cost.forwards, cost.backwards) == (3, 5)
    assert str(cost) == f"3 forward and 5 backward passes, {cost.seconds:.2f} s"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_with_the_reason(bad: float) -> None:
    Subject.check_finite("M", torch.ones(2), "the model overflows")
    with pytest.raises(InputError, match="'M' gave NaN or infinite values; the model overflows"):
        Subject.check_finite("M", (torch.ones(2), torch.tensor([bad])), "the model overflows")


def test_other_containers_are_told_how_they_become_tensors():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0]})
    for given, words in (
        (frame, "frame.to_numpy"),
        (frame.iloc[0], r"to_numpy\(\)\[None\]"),
        ([[1.0]], "np.array"),
        (torch.eye(2).to_sparse(), "to_dense"),
    ):
        with pytest.raises(InputError, match=words):
            Subject(torch.nn.Linear(1, 1), given)
