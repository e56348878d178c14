"""The commands for tests of explanations: `apportion test`, `apportion tests`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.cli._messages import (
    amounts,
    echo_json,
    hold_to,
    make_console,
    one_line_errors,
    warn_of_left_out,
)
from apportion.cli._options import (
    Inputs,
    Json,
    MaxRemainder,
    Model,
    Prompts,
    Running,
    Tables,
    Target,
    complete_methods,
    grouped,
)
from apportion.cli.explain import OF_ANSWERS
from apportion.cli.lists import show, split
from apportion.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apportion.core.classifier import Classifier
    from apportion.pipeline.answers import Asked
    from apportion.pipeline.given import Given
    from apportion.pipeline.prepared import Prepared
    from apportion.results.result import Result
    from apportion.results.table import Table

METHODS = "auto, lrp, IntegratedGradients(nodes=24), inputxgradient"


def add_to(app: typer.Typer) -> None:
    app.command("test")(grouped(put_to_test))
    app.command("tests")(list_tests)


def put_to_test(
    inputs: Inputs = None,
    *,
    methods: Annotated[
        str | None,
        typer.Option(
            help=f"Names or reprs, separated by commas.  [{METHODS}; with --prompt {OF_ANSWERS}]",
            autocompletion=complete_methods,
        ),
    ] = None,
    tests: Annotated[
        str | None,
        typer.Option(
            help="Names (see `apportion tests`) or reprs, separated by commas.  [pixel-flipping,deletion-rate,…]"
        ),
    ] = None,
    model: Model = None,
    target: Target = None,
    tables: Tables,
    rows: Annotated[int, typer.Option(min=1, help="How many rows of a table, from its first.")] = 1,
    panel: Annotated[
        bool, typer.Option(help="Also with other replacements: does the winner change?")
    ] = False,
    as_json: Json = False,
    out: Annotated[Path | None, typer.Option(help="Write the table here, as JSON.")] = None,
    max_remainder: MaxRemainder = None,
    prompts: Prompts,
    running: Running,
) -> None:
    """Test explanations: methods beside random, uniform and reversed maps, with intervals.

    More inputs give surer results. Of the answer of a language model all is explained, or the part that --target names.

    \b
    apportion test "The plot is thin, but the acting is superb." "a dull and slow movie" --methods lrp,ig
    apportion test --model FOLDER --prompt "Where does Ben live?" --context a.txt --context b.txt
    """
    with running.one_line_errors(as_json):
        asked = prompts.asked(inputs, target, each=False)
        if not inputs and asked is None:
            raise InputError("there is nothing to explain; accepted: an INPUT, or --prompt")
        with running.status():
            # A wrong name is told before a model is loaded.
            chosen = None if tests is None else running.made(split(tests), "test")
            of = running.made(
                split((METHODS if asked is None else OF_ANSWERS) if methods is None else methods)
            )
            if asked is not None:
                table, explained = _table_of_answer(asked, of, chosen, model, panel, running)
            else:
                given = [(what, row) for what in tables.recognised(inputs or ()) for row in range(rows)]
                table, explained = _table(given, of, chosen, tables.model(model), target, panel, running)
        if out is not None:
            table.save(out)
        if as_json:
            echo_json({**table.to_dict(), "ties": list(table.ties)})
        else:
            make_console().print(table)
        hold_to(
            max_remainder,
            (
                each
                for made in explained
                for name, e in made.items()
                for each in amounts(f"{name} of {e.input_name}" if e.input_name else name, e)
            ),
        )


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
    given: list[tuple[Given, int]],
    methods: Mapping[str, Any],
    tests: Mapping[str, Any] | None,
    model: str | Classifier | None,
    target: str | None,
    panel: bool,
    running: Running,
) -> tuple[Table, list[Mapping[str, Result]]]:
    """The table, and the explanations of each input and row by method."""
    from apportion.evaluation.compare import QUICK_TESTS, compare
    from apportion.pipeline.prepared import explain_by_each
    from apportion.results.table import join_tables

    if len({what.kind for what, _ in given}) > 1:
        raise InputError(
            "the inputs are of several kinds; accepted: sentences, pictures or tables, not mixed"
        )
    explained: list[tuple[Prepared, dict[str, Result], dict[str, str]]] = []
    for what, row in given:
        of = explained[0][0].classifier if explained else model
        explained.append(explain_by_each(what, of, methods, target, row, running.device))
    tests = running.made(QUICK_TESTS, "test") if tests is None else tests
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
                tests,
                features=ready.features or None,
                replacements=None if panel else (),
                seed=(running.seed or 0) + i,
            )
            for i, (ready, made, _) in enumerate(explained)
        ]
    )
    return table, [made for _, made, _ in explained]


def _table_of_answer(
    asked: Asked,
    methods: Mapping[str, Any],
    tests: Mapping[str, Any] | None,
    model: str | None,
    panel: bool,
    running: Running,
) -> tuple[Table, list[Mapping[str, Result]]]:
    """The same of what a language model is asked."""
    from apportion.evaluation.compare import compare
    from apportion.pipeline.answers import TESTS, explain_prompt_by_each

    lm, question, made, why = explain_prompt_by_each(asked, model, methods, running.device)
    warn_of_left_out(why)
    table = compare(
        lm,
        question,
        made,
        running.made(TESTS, "test") if tests is None else tests,
        replacements=None if panel else (),
        seed=running.seed or 0,
    )
    return table, [made]
