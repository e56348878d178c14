"""The commands for tests of explanations: `apportion test`, `apportion tests`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apportion.cli._messages import (
    MaxRemainder,
    echo_json,
    hold_to,
    make_console,
    one_line_errors,
    warn_of_left_out,
)
from apportion.cli._prompts import (
    AnswerText,
    Chat,
    Context,
    Contrast,
    MaxNewTokens,
    Prompt,
    Score,
    Unit,
    read_asked,
)
from apportion.cli._tables import (
    Background,
    Decimal,
    Encoding,
    NoHeader,
    Sep,
    TrustCode,
    model_of,
    recognised,
)
from apportion.cli.lists import Json, show, split
from apportion.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from apportion.core.classifier import Classifier
    from apportion.pipeline.answers import Asked
    from apportion.pipeline.given import Given
    from apportion.results.result import Result
    from apportion.results.table import Table

METHODS = "auto,lrp,IntegratedGradients(nodes=24),inputxgradient"
OF_ANSWERS = "auto,deeplift,inputxgradient,occlusion"


def add_to(app: typer.Typer) -> None:
    app.command("test")(put_to_test)
    app.command("tests")(list_tests)


def put_to_test(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="As in `apportion explain`; the more, the surer."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help=f"Names or reprs, separated by commas.  [{METHODS}; with --prompt {OF_ANSWERS}]",
        ),
    ] = None,
    tests: Annotated[
        str | None,
        typer.Option(
            help="Names (see `apportion tests`) or reprs, separated by commas.  [pixel-flipping,deletion-rate,…]"
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="As in `apportion explain`.")] = None,
    target: Annotated[
        str | None, typer.Option(help="The class to explain. Default: the predicted one.")
    ] = None,
    background: Background = None,
    trust_code: TrustCode = False,
    sep: Sep = None,
    encoding: Encoding = None,
    decimal: Decimal = None,
    no_header: NoHeader = False,
    rows: Annotated[int, typer.Option(min=1, help="How many rows of a table, from its first.")] = 1,
    panel: Annotated[
        bool, typer.Option(help="Also with other replacements: does the winner change?")
    ] = False,
    as_json: Json = False,
    out: Annotated[Path | None, typer.Option(help="Write the table here, as JSON.")] = None,
    max_remainder: MaxRemainder = None,
    prompt: Prompt = None,
    answer: AnswerText = None,
    max_new_tokens: MaxNewTokens = 20,
    contrast: Contrast = None,
    context: Context = None,
    unit: Unit = None,
    score: Score = "log-probability",
    chat: Chat = False,
) -> None:
    """Test explanations: methods beside random, uniform and reversed maps, with intervals.

    Of an answer of a language model all of it is explained, or the part that --target names.

    \b
    apportion test "The plot is thin, but the acting is superb." "a dull and slow movie" --methods lrp,ig
    apportion test --model FOLDER --prompt "Where does Ben live?" --context a.txt --context b.txt
    """
    with one_line_errors(quiet=as_json):
        from apportion.core.registry import from_repr

        asked = read_asked(
            inputs, prompt, answer, context, target, contrast, score, unit, max_new_tokens, chat, each=False
        )
        if not inputs and asked is None:
            raise InputError("there is nothing to explain; accepted: an INPUT, or --prompt")
        names = None if tests is None else split(tests)
        for name in names or ():
            from_repr(name, "test")  # a wrong name is told before a model is loaded
        of = split((METHODS if asked is None else OF_ANSWERS) if methods is None else methods)
        given = [recognised(text, sep, encoding, decimal, no_header) for text in inputs or ()]
        found = model if asked is not None else model_of(model, background, trust_code, given[0].dialect)
        table, explained = (
            _table(given, of, names, found, target, rows, panel)
            if asked is None
            else _table_of_answer(asked, of, names, model, panel)
        )
        if out is not None:
            table.save(out)
        if as_json:
            echo_json({**table.to_dict(), "ties": list(table.ties)})
        else:
            make_console().print(table)
        hold_to(max_remainder, _remainders(explained))


def list_tests(as_json: Json = False) -> None:
    """List the tests: name, repr with its settings, direction, meaning."""
    with one_line_errors(quiet=as_json):
        from apportion.core.registry import class_named, description
        from apportion.names import TESTS

        arrows = {True: "higher is better", False: "lower is better", None: "neither end is better"}
        made = {name: class_named(name, "test") for name in TESTS}
        show(
            [
                description(name, test, direction=arrows[test().higher_is_better])
                for name, test in made.items()
            ],
            as_json,
        )


def _table(
    given: list[Given],
    methods: list[str],
    tests: list[str] | None,
    model: str | Classifier | None,
    target: str | None,
    rows: int,
    panel: bool,
) -> tuple[Table, list[Mapping[str, Result]]]:
    """The table, and the explanations of each input by method."""
    from apportion.evaluation.compare import QUICK_TESTS, compare
    from apportion.pipeline.prepared import explain_by_each
    from apportion.results.table import join_tables

    if len({what.kind for what in given}) > 1:
        raise InputError(
            "the inputs are of several kinds; accepted: sentences, pictures or tables, not mixed"
        )
    explained = [explain_by_each(what, model, methods, target, row) for what in given for row in range(rows)]
    why = {name: reason for _, _, left_out in explained for name, reason in left_out.items()}
    if set(methods) <= set(why):
        raise InputError("no method can explain all of the inputs: " + "; ".join(dict.fromkeys(why.values())))
    warn_of_left_out(why)
    table = join_tables(
        [
            compare(
                ready.classifier,
                ready.inputs,
                {name: explanation for name, explanation in made.items() if name not in why},
                QUICK_TESTS if tests is None else tests,
                features=ready.features or None,
                replacements=None if panel else (),
                seed=i,
            )
            for i, (ready, made, _) in enumerate(explained)
        ]
    )
    return table, [made for _, made, _ in explained]


def _table_of_answer(
    asked: Asked, methods: list[str], tests: list[str] | None, model: str | None, panel: bool
) -> tuple[Table, list[Mapping[str, Result]]]:
    """The same of what a language model is asked."""
    from apportion.evaluation.compare import compare
    from apportion.pipeline.answers import TESTS, explain_prompt_by_each

    lm, question, made, why = explain_prompt_by_each(asked, model, methods)
    warn_of_left_out(why)
    table = compare(lm, question, made, TESTS if tests is None else tests, replacements=None if panel else ())
    return table, [made]


def _remainders(explained: list[Mapping[str, Result]]) -> Iterator[tuple[str, float, float]]:
    """What `hold_to` asks for, of each input and method that claims to add up."""
    for made in explained:
        for name, result in made.items():
            if result.total is not None and result.remainder is not None:
                whose = f"{name} of {result.input_name}" if result.input_name else name
                yield whose, float(result.remainder[0]), float(result.total[0])
