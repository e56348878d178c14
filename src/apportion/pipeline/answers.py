"""Explain the answer of a language model that was named on a command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from apportion.core.registry import from_repr
from apportion.core.target import is_class_number
from apportion.domains.answers import Answer
from apportion.domains.language import LanguageModel
from apportion.errors import InputError
from apportion.methods.explain import explain
from apportion.models import load
from apportion.pipeline.prepared import at_layer
from apportion.results.result import Result


def explain_prompt(
    prompt: Any,
    model: str | None,
    method: str = "auto",
    target: str | None = None,
    layer: str | None = None,
    *,
    answer: str | None = None,
    unit: Any = None,
    context: Sequence[str] | None = None,
    score: Any = "log-probability",
    contrast: str | None = None,
    max_new_tokens: int = 20,
) -> tuple[str, Result]:
    """The name of the model, and the explanation of its answer to a prompt: of each token, of the part that a target
    names, or of why the answer and not another."""
    made = at_layer(from_repr(method), layer)
    if model is None:
        raise InputError("--prompt is for a language model; say with --model which one")
    part: Any = int(target) if target is not None and is_class_number(target) else target
    wanted = Answer(part, score, contrast, each=part is None and contrast is None)
    lm = load(model)
    if not isinstance(lm, LanguageModel):
        raise InputError(
            f"--prompt is for a language model, and {model} is none; accepted: the text as INPUT"
        )
    asked = {"answer": answer, "unit": unit, "context": context, "max_new_tokens": max_new_tokens}
    found = explain(lm, prompt, made, wanted, **asked)
    shown = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return lm.name, replace(found, notes={**found.notes, "model": lm.name, "input": shown})
