"""`apportion study`: models × data × methods × tests, resumable, with tables."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.cli._messages import echo_json, make_console, name_files, one_line_errors
from apportion.cli._options import Json
from apportion.errors import InputError

if TYPE_CHECKING:
    from apportion.study.config import TextFaithfulness

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Run studies of explanations, which resume where they were, and show them.",
)


@app.command("text-faithfulness")
def text_faithfulness(
    data: Annotated[
        str,
        typer.Option(
            help="A folder with the corpora (see the documentation for the files), or `huggingface` to download."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Keep finished work and write the report here; the same folder resumes.")
    ] = Path("apportion-study"),
    fast: Annotated[bool, typer.Option("--fast", help="SST alone and less of it, in minutes.")] = False,
    corpora: Annotated[
        str | None, typer.Option(help="Some of 20news, sst, agnews, imdb, separated by commas.")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads of torch; the steps of an LSTM are too small to share.")
    ] = 1,
) -> None:
    """Does the evaluation of faithfulness depend on the data and on the test? Four corpora, six maps."""
    with one_line_errors():
        from apportion.study.config import TextFaithfulness

        names = None
        if corpora is not None:
            names = tuple(name.strip() for name in corpora.split(",") if name.strip())
        _run_text(TextFaithfulness("", data, names, fast), out, threads)


def _run_text(given: TextFaithfulness, out: Path, threads: int = 1) -> None:
    import torch

    from apportion.study.store import Store
    from apportion.study.text import faithfulness as study
    from apportion.study.text.corpora import load
    from apportion.study.text.report import write

    torch.set_num_threads(threads)
    console = make_console(stderr=True)
    begin = time.perf_counter()

    def say(line: str) -> None:
        console.print(f"{time.perf_counter() - begin:7.0f} s  {line}", markup=False, soft_wrap=True)

    settings = study.fast_settings() if given.fast else study.Settings()
    more: dict[str, Any] = {"models": given.models, "readings": given.readings, **given.extents}
    if given.corpora is not None:
        more["corpora"] = given.corpora
    if given.learners is not None:
        more["learner"] = dataclasses.replace(settings.learner, seeds=given.learners)
    settings = dataclasses.replace(settings, **more)
    found = []
    for name in settings.corpora:
        found.append(study.run(load(name, given.data), settings, Store(out, say)))
        written = write(found, out)
    show(out, None)
    name_files(console, written)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(metavar="STUDY.YAML", help="Models, data, methods and tests.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Keep finished work and write the report here.  [the file's name without its suffix]"
        ),
    ] = None,
    trust_code: Annotated[
        bool,
        typer.Option(
            "--trust-model-code", help="Load models that are programs, which the file names by a factory."
        ),
    ] = False,
) -> None:
    """Run the study that a file describes. Stopped or killed, the same command goes on where it was."""
    with one_line_errors():
        from apportion.models import is_program
        from apportion.study.config import TextFaithfulness, read_study

        study = read_study(file)
        folder = file.with_suffix("") if out is None else out
        if isinstance(study, TextFaithfulness):
            return _run_text(study, folder)
        programs = [name for name in study.models if is_program(name)]
        if programs and not trust_code:
            raise InputError(
                f"{file} names the model {programs[0]!r}, which is a program that would run here; accepted: with "
                "--trust-model-code, if you have read it"
            )
        from apportion.study import comparison, page
        from apportion.study.store import Store

        console = make_console(stderr=True)
        store = Store(folder, lambda line: console.print(line, markup=False, soft_wrap=True))
        outcomes = []
        for outcome in comparison.run(study, store):
            outcomes.append(outcome)
            written = page.write(study, outcomes, folder)
        show(folder, None)
        name_files(console, written)
    return None


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="The folder that a study wrote.")] = Path("apportion-study"),
    html: Annotated[
        Path | None, typer.Option(help="Write one self-contained HTML page here, with curves and agreement.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the tables of a study."""
    with one_line_errors(quiet=as_json):
        from apportion.study.tables import read_tables

        title, tables = read_tables(folder)
        if html is not None:
            from apportion.study.page import write_page

            write_page(folder, html)
        if as_json:
            data = {"title": title, "tables": [dataclasses.asdict(table) for table in tables]}
            echo_json(data)
            return
        console = make_console()
        console.print(title, style="bold", markup=False)
        for table in tables:
            console.print()
            console.print(table)
