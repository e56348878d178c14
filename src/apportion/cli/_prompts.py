"""The options of the commands that ask a language model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.errors import InputError

if TYPE_CHECKING:
    from apportion.pipeline.answers import Asked

Prompt = Annotated[
    str | None,
    typer.Option(help="Explain the answer of a language model to this; - for a text on standard input."),
]
AnswerText = Annotated[str | None, typer.Option(help="The answer to explain. Default: the model writes one.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Tokens of an answer that the model writes.")]
Contrast = Annotated[str | None, typer.Option(help="Explain why the answer rather than this.")]
Context = Annotated[
    list[Path] | None,
    typer.Option(
        help="A text file with a passage to stand before the prompt, and be explained; again for more."
    ),
]
Unit = Annotated[
    str | None,
    typer.Option(
        help="What is a feature: token, word, sentence, passage or turn.  [word; with --context passage]"
    ),
]
Score = Annotated[
    str,
    typer.Option(help='"log-probability", "logit", "probability" or "logit of probability" of the answer.'),
]
Chat = Annotated[
    bool,
    typer.Option("--chat", help="Give the prompt as the message of a user, through the chat template."),
]


def read_asked(
    given: Any,
    prompt: str | None,
    answer: str | None,
    context: list[Path] | None,
    target: str | None,
    contrast: str | None,
    score: str,
    unit: str | None,
    max_new_tokens: int,
    chat: bool,
    each: bool = True,
) -> Asked | None:
    """What a language model is asked; None where it is none that is. InputError for options that do not go together."""
    if prompt is None:
        if answer is not None or contrast is not None or chat or context:
            raise InputError(
                "--answer, --context, --contrast and --chat go with --prompt, for a language model"
            )
        return None
    if given:
        raise InputError("an INPUT and --prompt were given; accepted: one of them")
    from apportion.pipeline.answers import Asked
    from apportion.pipeline.given import read_prompt, read_text

    text = read_prompt(prompt)
    return Asked(
        [{"role": "user", "content": text}] if chat else text,
        answer,
        [read_text(path) for path in context] if context else None,
        target,
        contrast,
        score,
        unit,
        max_new_tokens,
        each,
    )
