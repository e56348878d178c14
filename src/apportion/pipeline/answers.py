"""Explain the answer of a language model that was named on a command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from apportion.core.target import is_class_number
from apportion.domains.answers import Answer
from apportion.domains.language import LanguageModel, Question
from apportion.errors import InputError
from apportion.methods.explain import explain
from apportion.models import load
from apportion.pipeline.prepared import by_each
from apportion.results.explanation import Explanation

TESTS = ("top-k-drop", "lds", "comprehensiveness", "sufficiency")
"""What explanations of answers are tested by if nothing else is said."""


@dataclass(frozen=True)
class Asked:
    """A prompt as it was given, what was asked with it, and what of the answer is explained: the part that `target`
    names, or why the answer and not the `contrast`; without these each of its tokens, or all of it together."""

    prompt: str
    answer: str | None = None
    context: Sequence[str] = ()
    target: str | int | None = None
    contrast: str | None = None
    score: Any = "log-probability"
    unit: Any = None
    max_new_tokens: int = 20
    each: bool = True
    chat: bool = False

    def question(self, lm: LanguageModel) -> Question:
        """The same, ready to be explained."""
        part = self.target
        if isinstance(part, str) and is_class_number(part):
            part = int(part)
        each = self.each and part is None and self.contrast is None
        wanted = Answer(part, self.score, self.contrast, each=each)
        prompt = [{"role": "user", "content": self.prompt}] if self.chat else self.prompt
        return lm.question(
            prompt, self.answer, wanted, self.unit, self.max_new_tokens, context=self.context or None
        )


def asked_of(given: Any, **more: Any) -> Asked:
    """What was asked, by the attributes of a command line or a request that have its names."""
    names = [each.name for each in fields(Asked) if hasattr(given, each.name)]
    return Asked(**{**{name: getattr(given, name) for name in names}, **more})


def language_model(model: str | None, device: str | None = None) -> LanguageModel:
    """The language model of that name. InputError if there is none, or it is another model."""
    if model is None:
        raise InputError("--prompt is for a language model; say with --model which one")
    lm = load(model, device=device)
    if not isinstance(lm, LanguageModel):
        raise InputError(
            f"--prompt is for a language model, and {model} is none; accepted: the text as INPUT"
        )
    return lm


def explain_prompt(
    asked: Asked, model: str | None, method: Any, device: str | None = None
) -> tuple[str, Explanation]:
    """The name of the model, and the explanation of its answer."""
    lm = language_model(model, device)
    return lm.name, explain_asked(lm, asked, asked.question(lm), method)


def explain_prompt_by_each(
    asked: Asked, model: str | None, methods: Mapping[str, Any], device: str | None = None
) -> tuple[LanguageModel, Question, dict[str, Explanation], dict[str, str]]:
    """The question, its explanations by those methods that can explain it, and why the others cannot. InputError if
    none can."""
    lm = language_model(model, device)
    question = asked.question(lm)
    return lm, question, *by_each(methods, lambda method: explain_asked(lm, asked, question, method))


def explain_asked(lm: LanguageModel, asked: Asked, question: Question, method: Any) -> Explanation:
    """The answer to what was asked, explained by a method."""
    found = explain(lm, question, method)
    return replace(found, notes={**found.notes, "model": lm.name, "input": asked.prompt})
