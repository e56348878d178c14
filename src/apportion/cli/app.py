"""The command line. Torch is imported inside the commands, so that `--help` is immediate."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apportion.cli import bulk as cli_bulk
from apportion.cli import evaluate as cli_faithfulness
from apportion.cli import lists as cli_lists
from apportion.cli import serve as cli_serve
from apportion.cli.lists import Json, complete_methods, complete_models, split
from apportion.cli.messages import one_line_errors, say, warn_of_left_out
from apportion.cli.study import app as study
from apportion.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from apportion.pipeline.given import Given
    from apportion.pipeline.prepared import Prepared
    from apportion.results.result import Result

OUT = Path("apportion-out")
# Nodes are fixed: to its tolerance the integral takes hundreds of passes on a photo.
COMPARED = "lrp,IntegratedGradients(nodes=24),inputxgradient,occlusion"

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a bug shows Python's own traceback
    rich_markup_mode=None,  # help in boxes takes half as long again, and breaks the lines of examples
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Explanations that add up: what a model decided, why, and what the explanation leaves out.",
    epilog="Exit status: 0 done, 1 a bug (with a traceback), 2 something to mend (in one line), 130 interrupted.",
)
app.add_typer(study, name="study")

Model = Annotated[
    str | None,
    typer.Option(
        help="A shipped model, pkg.module:factory, file.py:factory, a .pt2 file, a saved ProtoPNet or BagOfWords, "
        "a Hugging Face folder or hf:owner/name.",
        autocompletion=complete_models,
    ),
]
Target = Annotated[
    str | None, typer.Option(help="The class to explain, by number or name. Default: the predicted one.")
]
Layer = Annotated[str | None, typer.Option(help="Explain the output of this module instead of the input.")]
Row = Annotated[
    int, typer.Option(min=0, help="The row of a table, or the sample of a tensor, counted from 0.")
]
Html = Annotated[Path | None, typer.Option(help="Write one self-contained HTML page here.")]


def version(asked: bool) -> None:
    if asked:
        import apportion

        typer.echo(f"apportion {apportion.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def explain(
    given: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUT",
            help="A sentence, a picture, .csv, .txt, .npy, .pt or .safetensors file; - for a text on standard input.",
        ),
    ] = None,
    model: Model = None,
    method: Annotated[
        str,
        typer.Option(
            help="A short name (see `apportion methods`) or a repr.", autocompletion=complete_methods
        ),
    ] = "lrp",
    target: Target = None,
    layer: Layer = None,
    row: Row = 0,
    as_json: Json = False,
    html: Html = None,
    png: Annotated[Path | None, typer.Option(help="Write a picture here.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write page, picture and explanation into this folder.  [pictures: apportion-out]"),
    ] = None,
) -> None:
    """Explain one decision. Without INPUT: a sentence and a photo, by three methods.

    \b
    apportion explain "a painfully funny movie"
    apportion explain photo.jpg --method gradcam --target "tiger cat"
    apportion explain rows.csv --row 3 --method "IntegratedGradients(nodes=64)" --json
    apportion explain "not a bad film" --method ih --html pairs.html
    """
    with one_line_errors(quiet=as_json):
        if given is None:
            from apportion.cli import demo

            if as_json or png or layer or model or target:
                raise InputError("without an INPUT only --out and --html apply")
            return demo.run(_console(), (out or OUT) / "demo.html" if html is None else html)
        if len(several := split(method)) > 1:
            raise InputError(
                f"--method takes one method; accepted for several: apportion compare … --methods {','.join(several)}"
            )
        if png is not None and png.suffix.lower() != ".png":
            raise InputError(f"--png is {str(png)!r}; accepted: a name that ends in .png")
        what = _recognise(given)
        if out is None and what.kind == "image" and not (as_json or html or png):
            out = OUT
        ready, explanations = _explain(what, model, [method], target, layer, row)
        explanation = explanations[0]
        console = _console()
        if not as_json:
            from apportion.display import terminal

            terminal.show(explanation, console, ready.classifier.name)
        if out is not None:
            stem = _stem(what, explanation)
            html, png = html or out / f"{stem}.html", png or out / f"{stem}.png"
            explanation.save(out / f"{stem}.safetensors")
        if html is not None:
            explanation.to_html(html)
        if png is not None:
            from apportion.display.pictures.explanations import png as draw

            draw(explanation, png)
        if as_json:
            from apportion.display.page import summary

            typer.echo(json.dumps(summary(explanation), indent=2, ensure_ascii=False))
        else:
            _say_what_was_written(console, *(path for path in (html, png) if path is not None))
    return None


@app.command()
def compare(
    given: Annotated[str, typer.Argument(metavar="INPUT", help="As in `apportion explain`.")],
    methods: Annotated[
        str,
        typer.Option(help="Names or reprs, separated by commas.", autocompletion=complete_methods),
    ] = COMPARED,
    model: Model = None,
    target: Target = None,
    row: Row = 0,
    tests: Annotated[
        bool, typer.Option(help="Hide features, the most and the least relevant first: is it true?")
    ] = True,
    same_scale: Annotated[
        bool, typer.Option("--same-scale", help="One colour scale for all methods.")
    ] = False,
    as_json: Json = False,
    html: Html = None,
) -> None:
    """Explain one decision by several methods, side by side on a page.

    Each stands there with its tests. Methods that cannot explain this model are named and left out.

    \b
    apportion compare "a painfully funny movie" --methods lrp,ig,lime
    apportion compare photo.jpg --methods lrp,gradcam,occlusion --html cat.html
    """
    with one_line_errors(quiet=as_json):
        names = split(methods)
        if not names:
            raise InputError("--methods is empty; accepted: names such as lrp,ig")
        what = _recognise(given)
        with _status():
            from apportion.core.files import write_whole
            from apportion.pipeline.prepared import explain_by_each
            from apportion.pipeline.quick_tests import run_quick_tests

            ready, found, why = explain_by_each(what, model, names, target, row)
            explanations = list(found.values())
            scores = [run_quick_tests(ready, e) if tests else [] for e in explanations]
        warn_of_left_out(why)
        from apportion.display import page as report
        from apportion.display import terminal

        path = html if html is not None or as_json else OUT / "compare.html"
        if path is not None:
            write_whole(path, report.page(explanations, scores, same_scale).encode())
        if as_json:
            told = [
                {**report.summary(e), "tests": [s.to_dict() for s in of_it]}
                for e, of_it in zip(explanations, scores, strict=True)
            ]
            typer.echo(json.dumps({"explanations": told, "left_out": why}, indent=2, ensure_ascii=False))
            return
        console = _console()
        console.print(terminal.heading(explanations[0], ready.classifier.name))
        console.print(terminal.comparison(explanations, scores))
        if path is not None:
            _say_what_was_written(console, path)


# ---- from what was typed to explanations ----


def _recognise(given: str) -> Given:
    from apportion.pipeline.given import recognise

    return recognise(given)


def _explain(
    what: Given, model: str | None, methods: list[str], target: str | None, layer: str | None, row: int
) -> tuple[Prepared, list[Result]]:
    with _status():
        from apportion.pipeline.prepared import explain_given

        return explain_given(what, model, methods, target, layer, row)


@contextmanager
def _status() -> Iterator[None]:
    """That something is going on, on a terminal; on stderr, so that it is in no pipe."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from rich.console import Console
    from rich.status import Status

    from apportion.core.progress import watched

    def report(done: int, total: int | None, what: str) -> None:
        status.update(f"{done} of {total} {what}" if total else f"{done} {what}")

    with Status("explaining", console=Console(stderr=True)) as status, watched(report):
        yield


def _stem(what: Given, explanation: Result) -> str:
    method = type(explanation.method).__name__.lower()
    return f"{Path(what.name).stem if what.raw is not what.name else what.kind}-{method}"


# ---- what is said ----


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _say_what_was_written(console: Console, *paths: Path) -> None:
    for path in paths:
        console.print(f"wrote {path}", style="dim", markup=False, soft_wrap=True)


cli_serve.add_to(app)
cli_lists.add_to(app)
cli_bulk.add_to(app)
cli_faithfulness.add_to(app)


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
