"""The command line. Torch is imported inside the commands, so that `--help` is immediate."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from apportion.cli import bulk, evaluate, explain, lists, serve
from apportion.cli._messages import echo, say
from apportion.cli.study import app as study

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a bug shows Python's own traceback
    rich_markup_mode=None,  # help in boxes takes half as long again, and breaks the lines of examples
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Explanations that add up: what a model decided, why, and what the explanation leaves out.",
    epilog="Exit status: 0 done, 1 a bug (with a traceback), 2 something to mend (in one line), 3 more left over than "
    "--max-remainder, 130 interrupted.",
)
app.add_typer(study, name="study")


def version(asked: bool) -> None:
    if asked:
        import apportion

        echo(f"apportion {apportion.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


for commands in (explain, serve, lists, bulk, evaluate):
    commands.add_to(app)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a letter shows a question mark
    try:
        status = app(prog_name="apportion", standalone_mode=False)
    except Exception as error:
        # What is wrong with the command line itself is one line too. Typer says it with exceptions of its own.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        command = "apportion" if context is None else context.command_path
        text = error.format_message()
        if text.startswith("Usage: "):  # the help, for a command that was given nothing
            print(text)
        else:
            say("error", f"{text.rstrip('.')} (see {command} --help)")
        status = 2
    sys.exit(status)
