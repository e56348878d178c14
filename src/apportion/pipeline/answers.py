"""Explain the answer of a language model that was named on a command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from apportion.core.registry import from_repr
from apportion.core.target import is_class_number
from apportion.domains.answers import Answer
from apportion.domains.language import LanguageModel, Question
from apportion.errors import InputError
from apportion.methods.explain import explain
from apportion.models import load
from apportion.pipeline.prepared import at_layer
from apportion.results.explanation import Explanation

TESTS = ("top-k-drop", "lds", "comprehensiveness", "sufficiency")
"""What explanations of answers are tested by if nothing else is said."""


@dataclass(frozen=True)
class Asked:
    """A prompt as it was given, what was asked with it, and what of the answer is explained: the part that `target`
    names, or why the answer and not the `contrast`; without these each of its tokens, or all of it together."""

    prompt: Any
    answer: str | None = None
    context: Sequence[str] | None = None
    target: str | None = None
    contrast: str | None = None
    score: Any = "log-probability"
    unit: Any = None
    max_new_tokens: int = 20
    each: bool = True

    @property
    def shown(self) -> str:
        """The prompt, or the last message."""
        text: str = self.prompt if isinstance(self.prompt, str) else self.prompt[-1]["content"]
        return text

    def question(self, lm: LanguageModel) -> Question:
        """The same, ready to be explained."""
        part: Any = self.target
        if self.target is not None and is_class_number(self.target):
            part = int(self.target)
        each = self.each and part is None and self.contrast is None
        wanted = Answer(part, self.score, self.contrast, each=each)
        return lm.question(
            self.prompt, self.answer, wanted, self.unit, self.max_new_tokens, context=self.context
        )


def language_model(model: str | None) -> LanguageModel:
    """The language model of that name. InputError if there is none, or it is another model."""
    if model is None:
        raise InputError("--prompt is for a language model; say with --model which one")
    lm = load(model)
    if not isinstance(lm, LanguageModel):
        raise InputError(
            f"--prompt is for a language model, and {model} is none; accepted: the text as INPUT"
        )
    return lm


def explain_prompt(
    asked: Asked, model: str | None, method: str = "auto", layer: str | None = None
) -> tuple[str, Explanation]:
    """The name of the model, and the explanation of its answer."""
    made = at_layer(from_repr(method), layer)  # a wrong name is told before a model is loaded
    lm = language_model(model)
    return lm.name, explain_asked(lm, asked, asked.question(lm), made)


def explain_prompt_by_each(
    asked: Asked, model: str | None, methods: Sequence[str]
) -> tuple[LanguageModel, Question, dict[str, Explanation], dict[str, str]]:
    """The question, its explanations by those methods that can explain it, and why the others cannot. InputError if
    none can."""
    made = {name: from_repr(name) for name in methods}
    lm = language_model(model)
    question = asked.question(lm)
    found, why = {}, {}
    for name, method in made.items():
        try:
            found[name] = explain_asked(lm, asked, question, method)
        except InputError as error:
            why[name] = str(error)
    if not found:
        raise InputError("; ".join(dict.fromkeys(why.values())))
    return lm, question, found, why


def explain_asked(lm: LanguageModel, asked: Asked, question: Question, method: Any) -> Explanation:
    """The answer to what was asked, explained by a method."""
    found = explain(lm, question, method)
    return replace(found, notes={**found.notes, "model": lm.name, "input": asked.shown})
