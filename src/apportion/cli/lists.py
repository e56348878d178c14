"""The commands that list what there is: `apportion methods`, `models`, `rules`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from apportion.cli._messages import echo_json, make_console, one_line_errors
from apportion.cli._options import Json


def add_to(app: typer.Typer) -> None:
    app.command()(methods)
    app.command()(models)
    app.command()(rules)


def split(names: str) -> list[str]:
    """Names or reprs at the commas outside brackets and quotes.

    >>> split("lrp, LRP(at='a,b'),SmoothGrad(samples=8, noise=0.1)")
    ['lrp', "LRP(at='a,b')", 'SmoothGrad(samples=8, noise=0.1)']
    """
    parts, depth, quote = [""], 0, ""
    for letter in names:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        depth += 0 if quote else (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def methods(as_json: Json = False) -> None:
    """List the methods by the question that they answer: name, repr with its settings, what each is.

    \b
    apportion methods
    apportion methods --json | jq '.[].name'
    """
    with one_line_errors(quiet=as_json):
        from apportion.core.registry import described_methods

        show(described_methods(), as_json)


def models(as_json: Json = False) -> None:
    """List the models that ship, and how to name your own."""
    from rich.table import Table

    from apportion.models import SHIPPED

    if as_json:
        found = [{"name": name, **shipped._asdict()} for name, shipped in SHIPPED.items()]
        echo_json(found)
        return
    table = Table(box=None, pad_edge=False)
    for title in ("model", "input", "task", "size"):
        table.add_column(title)
    for name, shipped in SHIPPED.items():
        table.add_row(name, shipped.domain, shipped.task, shipped.size)
    console = make_console()
    console.print(table)
    console.print(
        "\nyour own: --model pkg.module:factory, file.py:factory, a .pt2, .onnx or .skops file, a saved "
        "ProtoPNet or BagOfWords, a Hugging Face folder, or hf:owner/name (downloads)",
        soft_wrap=not console.is_terminal,
        markup=False,
    )


def rules(
    operations: Annotated[
        bool, typer.Option("--operations", help="Also every torch function that LRP has a rule for.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the rules of LRP, its composites, and the functions covered.

    A composite says which rule goes where.

    \b
    apportion rules
    apportion explain cat.png --method "LRP('epsilon-gamma-box')"
    apportion explain cat.png --method "LRP(Composite(convolution=Gamma(0.1)))"
    """
    with one_line_errors(quiet=as_json):
        from apportion.core.registry import description
        from apportion.methods.propagation import rules as module
        from apportion.methods.propagation.composites import COMPOSITES
        from apportion.methods.propagation.operations.table import TABLE

        known = [
            description(name, made)
            for name, made in vars(module).items()
            if isinstance(made, type) and hasattr(made, "direct")
        ]
        if as_json:
            told = {
                "rules": known,
                "composites": {name: repr(composite) for name, composite in COMPOSITES.items()},
                "operations": sorted(TABLE),
            }
            echo_json(told)
            return
        show(known, False)
        from rich.text import Text

        console = make_console()
        console.print("\ncomposites", style="bold")
        for name, composite in COMPOSITES.items():
            console.print(
                Text.assemble("  ", (name, "bold"), "  ", (repr(composite), "cyan")),
                soft_wrap=not console.is_terminal,
            )
        listed = f": {', '.join(sorted(TABLE))}" if operations else "; --operations lists them"
        console.print(
            f"\n{len(TABLE)} torch functions have a rule{listed}",
            markup=False,
            soft_wrap=not console.is_terminal,
        )


def show(entries: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print a list, as JSON or for a person, who gets what answers one `question` under it."""
    if as_json:
        echo_json(entries)
        return
    from rich.padding import Padding
    from rich.text import Text

    console, question = make_console(), ""
    piped = not console.is_terminal
    for entry in entries:
        if question != (question := entry.get("question", "")):
            console.print(Text(question, "bold underline"))
        more = f"  {entry['direction']}" if "direction" in entry else ""
        head = Text.assemble((entry["name"], "bold"), "  ", (entry["settings"], "cyan"), more)
        console.print(head, soft_wrap=piped)
        about = Text(entry["about"])
        console.print(Text("    ") + about if piped else Padding(about, (0, 0, 0, 4)), soft_wrap=piped)
