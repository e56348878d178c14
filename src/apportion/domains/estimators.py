"""Which function of an estimator answers, and for which classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from apportion.errors import InputError

_ANSWERS = ("predict_proba", "decision_function", "predict")


def function_of(model: Any, takes: str, function: str) -> Callable[..., Any]:
    """The model itself if it is a function, or of an estimator the first of its answers that it has. `takes` and
    `function` say in an error what it is for, and what else is accepted."""
    if callable(model) and not isinstance(model, type):
        owner = getattr(model, "__self__", None)
        if getattr(model, "__name__", "") == "predict" and len(getattr(owner, "classes_", ())):
            raise _of_classes(owner, takes, function)
        return model  # type: ignore[no-any-return]
    answer = next((name for name in _ANSWERS if hasattr(model, name)), None)
    if answer is None or isinstance(model, type):
        kind = model.__name__ if isinstance(model, type) else type(model).__name__
        raise InputError(
            f"model is {kind}; accepted for {takes}: a Classifier, {function}, or a fitted estimator of scikit-learn"
        )
    if answer == "predict" and len(getattr(model, "classes_", ())):  # a regressor of CatBoost has none
        raise _of_classes(model, takes, function)
    return getattr(model, answer)  # type: ignore[no-any-return]


def answering(model: Any) -> Any:
    """The model, or of an estimator its answer."""
    return (
        function_of(model, "a sum of trees", "a bound predict_proba")
        if hasattr(model, "get_params")
        else model
    )


def _of_classes(model: Any, takes: str, function: str) -> InputError:
    own = [name for name in _ANSWERS[:2] if hasattr(model, name)]
    has = "" if own else " and has no scores (neither predict_proba nor decision_function)"
    accepted = f"its {' or '.join(own)}" if own else function
    return InputError(
        f"model is {type(model).__name__}, which predicts classes{has}; accepted for {takes}: {accepted}"
    )


def labels_of(function: Any) -> tuple[str, ...]:
    """The classes of the estimator that this method is of, where it has a score for each."""
    classes = getattr(getattr(function, "__self__", None), "classes_", ())
    name = getattr(function, "__name__", "")
    scored = name == "predict_proba" or (name == "decision_function" and len(classes) > 2)
    return tuple(map(str, classes)) if scored else ()


def answer_to(function: Callable[[Any], Any], given: Any, what: str) -> Any:
    """What the function returns; an error of its own has a note of what it was called with."""
    try:
        return function(given)
    except InputError:
        raise
    except Exception as error:
        error.add_note(f"the model was called with {what}")
        raise
