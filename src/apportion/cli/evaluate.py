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
from apportion.cli.lists import Json, show, split
from apportion.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from apportion.results.result import Result
    from apportion.results.table import Table

METHODS = "auto,lrp,IntegratedGradients(nodes=24),inputxgradient"


def add_to(app: typer.Typer) -> None:
    app.command("test")(put_to_test)
    app.command("tests")(list_tests)


def put_to_test(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT", help="As in `apportion explain`; the more, the surer.")
    ],
    methods: Annotated[str, typer.Option(help="Names or reprs, separated by commas.")] = METHODS,
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
    rows: Annotated[int, typer.Option(min=1, help="How many rows of a table, from its first.")] = 1,
    panel: Annotated[
        bool, typer.Option(help="Also with other replacements: does the winner change?")
    ] = False,
    as_json: Json = False,
    out: Annotated[Path | None, typer.Option(help="Write the table here, as JSON.")] = None,
    max_remainder: MaxRemainder = None,
) -> None:
    """Test explanations: methods beside random, uniform and reversed maps, with intervals."""
    with one_line_errors(quiet=as_json):
        names = None if tests is None else split(tests)
        table, explained = _table(inputs, split(methods), names, model, target, rows, panel)
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
    inputs: list[str],
    methods: list[str],
    tests: list[str] | None,
    model: str | None,
    target: str | None,
    rows: int,
    panel: bool,
) -> tuple[Table, list[Mapping[str, Result]]]:
    """The table, and the explanations of each input by method."""
    from apportion.core.registry import from_repr
    from apportion.evaluation.compare import QUICK_TESTS, compare
    from apportion.pipeline.given import recognise
    from apportion.pipeline.prepared import explain_by_each
    from apportion.results.table import join_tables

    for name in tests or ():
        from_repr(name, "test")  # a wrong name is told before a model is loaded
    given = [recognise(text) for text in inputs]
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


def _remainders(explained: list[Mapping[str, Result]]) -> Iterator[tuple[str, float, float]]:
    """What `hold_to` asks for, of each input and method that claims to add up."""
    for made in explained:
        for name, result in made.items():
            if result.total is not None and result.remainder is not None:
                whose = f"{name} of {result.input_name}" if result.input_name else name
                yield whose, float(result.remainder[0]), float(result.total[0])
