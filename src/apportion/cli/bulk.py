"""The commands for whole data sets: `apportion bulk`, `apportion cluster`, `apportion runs`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from apportion.cli._messages import echo, echo_json, hold_to, make_console, one_line_errors, say
from apportion.cli._options import (
    Html,
    Json,
    MaxRemainder,
    Method,
    Reading,
    Running,
    Tables,
    Target,
    Unit,
    grouped,
    read_told,
)
from apportion.core.visible import visible

if TYPE_CHECKING:
    from rich.table import Table

    from apportion.bulk.reading import Run

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="What `apportion bulk` wrote.")]

runs = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look at what `apportion bulk` wrote.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def add_to(app: typer.Typer) -> None:
    app.command()(grouped(bulk))
    app.command()(cluster)
    app.add_typer(runs, name="runs")


def bulk(
    *,
    model: Annotated[str, typer.Option(help="As in `apportion explain`.")],
    data: Annotated[
        str,
        typer.Option(
            help="A folder of pictures or texts, or a .parquet, .arrow, .csv, .jsonl, .txt, .npy or .safetensors file."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write into, or to go on with.")],
    method: Method = "auto",
    target: Target = None,
    tables: Tables,
    column: Annotated[
        str | None,
        typer.Option(help="The column of a table with the text or picture; without a header its number."),
    ] = None,
    id_column: Annotated[str | None, typer.Option("--id", help="The column of a table with the id.")] = None,
    fingerprint: Annotated[
        str | None, typer.Option(help="Your name for this state of the data, in place of a look at it.")
    ] = None,
    pool: Annotated[
        int | None, typer.Option(min=1, help="Sum the cells of a map to at most so many a side.")
    ] = None,
    channels: Annotated[
        bool, typer.Option("--channels", help="Keep the channels of a picture apart.")
    ] = False,
    precision: Annotated[
        str, typer.Option(help="float16 (with a scale for each map) or float32.")
    ] = "float16",
    batch: Annotated[int | None, typer.Option(min=1, help="Inputs explained at once.  [measured]")] = None,
    shard: Annotated[
        int | None, typer.Option(min=1, help="Inputs written at once.  [by their number]")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first input that fails.")] = False,
    engine: Annotated[str, typer.Option(help="local or ray.")] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes.  [one for each GPU, or for each core]")
    ] = None,
    address: Annotated[str | None, typer.Option(help="The Ray cluster.  [one that is started here]")] = None,
    shard_index: Annotated[
        int, typer.Option(min=0, help="Make every N-th shard from this one on only …")
    ] = 0,
    num_shards: Annotated[int, typer.Option(min=1, help="… where this is N, the number of such jobs.")] = 1,
    max_remainder: MaxRemainder = None,
    unit: Unit = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of an answer that a language model writes.  [20]")
    ] = None,
    score: Annotated[
        str | None, typer.Option(help="What of an answer is explained, as in `apportion explain`.")
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Keep a map for each token of an answer, not only their sum.")
    ] = False,
    running: Running,
) -> None:
    """Explain a whole data set. Stopped or killed, the same command goes on where it was.

    For a language model the data are prompts, or rows with a "prompt" and, where they are given, its "answer", its
    "context" (a list of passages) and a "contrast".

    \b
    apportion bulk --model MODEL --data photos/ --out RUN
    apportion bulk --model FOLDER --data questions.jsonl --id id --out RUN
    """
    with running.one_line_errors():
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        from apportion.bulk.local import usual_workers
        from apportion.bulk.run import explain_dataset
        from apportion.domains.answers import Answer

        asked: dict[str, Any] = {"unit": unit, "max_new_tokens": max_new_tokens}
        if workers is None and engine == "local":
            workers = usual_workers(running.device)
        made = method if running.seed is None else running.made([method])[method]
        try:
            of = tables.model(model)
            run = explain_dataset(
                of, tables.data(data, of), made, out,
                target=Answer(target, score or Answer.score, each=each) if score or each else target,  # type: ignore[arg-type]
                precision=precision, pool=pool, channels=channels, column=column,  # type: ignore[arg-type]
                id_column=id_column, fingerprint=fingerprint, batch=batch, shard=shard, strict=strict,
                engine=engine,  # type: ignore[arg-type]
                workers=workers, address=address, device=running.device, shard_index=shard_index,
                num_shards=num_shards, progress=not running.quiet,
                **{name: value for name, value in asked.items() if value is not None},
            )  # fmt: skip
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt(
                f"{interrupt}"
                if str(interrupt)
                else f"what is finished is in {out}; the same command goes on from there"
            ) from None
        echo(f"{len(run)} of {run.manifest.inputs} inputs explained in {run.folder}")
        if not run.complete:
            echo(
                f"{len(run.shards)} of {run.manifest.shards} shards are there; the others belong to other jobs"
            )
        if run.failed and not running.quiet:
            failed = f"{_inputs(run.failed)} failed, such as {_failure(run)}"
            say("warning", f"{failed}; see {run.folder}/errors.jsonl")
        hold_to(
            max_remainder,
            ((row["id"], row["remainder"], row["total"]) for row in run.rows() if row["total"] is not None),
        )


def cluster(
    folder: Folder,
    classes: Annotated[str, typer.Option(help="Names or numbers of classes, by commas.  [all]")] = "",
    clusters: Annotated[
        int | None, typer.Option(min=1, help="How many a class.  [by the largest eigengap]")
    ] = None,
    least: Annotated[int, typer.Option(help="Leave out classes with fewer maps; at least 4.")] = 20,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model of the run, to show its pictures; one of your own may run code. Default: that of the run "
            "if it ships."
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="The page.  [default: DIR/clusters.html]")] = None,
    as_json: Json = False,
) -> None:
    """Group the maps of each class by spectral relevance analysis, to find what a model should not look at."""
    with one_line_errors(quiet=as_json):
        from apportion.bulk.clustering import cluster as clustered
        from apportion.bulk.pages import clusters_page
        from apportion.bulk.reading import open_run
        from apportion.core.files import write_whole
        from apportion.models import load_classifier

        run = open_run(folder)
        asked = [name.strip() for name in classes.split(",") if name.strip()]
        found = clustered(run, classes=asked, clusters=clusters, least=least)
        named = None if model is None else load_classifier(model)
        path = write_whole(html or folder / "clusters.html", clusters_page(run, found, named).encode())
        if as_json:
            kept = ("members", "agreement", "others")
            echo_json(
                [
                    {
                        "class": one.label,
                        "agreement": one.agreement,
                        "clusters": [{name: getattr(c, name) for name in kept} for c in one.clusters],
                    }
                    for one in found
                ]
            )
            return
        table = _table("class", "maps", "agreement of the class", "of its clusters (and their maps)")
        for one in found:
            parts = ", ".join(_minus(f"{c.agreement:.2f} ({len(c.members)})") for c in one.clusters)
            many = sum(len(c.members) for c in one.clusters)
            table.add_row(escape(one.label), str(many), _minus(f"{one.agreement:.2f}"), parts)
        make_console().print(table)
        echo(f"wrote {path}")


@runs.command()
@grouped
def summary(
    folder: Folder,
    *,
    least: Annotated[int, typer.Option(min=1, help="Leave out words in fewer inputs.")] = 3,
    top: Annotated[int, typer.Option(min=1, help="Features to show of each class.")] = 10,
    target: Annotated[str | None, typer.Option(help="Of a table: only this class.")] = None,
    by: Annotated[str | None, typer.Option(help="Of a table: a column whose values are compared.")] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            help="Of a table: the column with the right class, to compare right and wrong predictions."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The data of the run, where they were read with options as below.")
    ] = None,
    reading: Reading,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """What the explanations of a run have in common: words, columns, interactions, mean maps. Of a table: how much each
    column counts, with intervals; with --html also beeswarm, dependence and single rows."""
    with one_line_errors(quiet=as_json):
        from apportion.bulk.overviews import is_of_rows
        from apportion.bulk.reading import open_run

        run = open_run(folder)
        if target or by or truth or (is_of_rows(run) and not as_json):
            frame = None if data is None else read_told(data, reading.dialect)
            _sum_up_rows(run, html, as_json, target, by, truth, frame)
            return
        from apportion.bulk.pages import summary_page
        from apportion.bulk.summaries import summarise
        from apportion.core.files import write_whole
        from apportion.results.words import describe_left_over

        found = summarise(run, least)
        if html is not None:
            write_whole(html, summary_page(run, found, top).encode())
        if as_json:
            best = {
                what: {
                    label: [asdict(mean) for mean in found_in[:top]] for label, found_in in classes.items()
                }
                for what, classes in (("features", found.features), ("pairs", found.pairs))
            }
            echo_json({"counts": found.counts, "remainder": found.remainder, **best})
            return
        table = _table("class", "inputs", "on average")
        for label, many in found.counts.items():
            share = found.remainder[label]
            table.add_row(escape(label), str(many), "" if share is None else describe_left_over(share))
        make_console().print(table)
        for what, by_class in (("feature", found.features), ("pair", found.pairs)):
            for label, means in by_class.items():
                if not means:
                    echo(f"{label}: no {what} is in {least} inputs or more; --least 1 shows all")
                    continue
                table = _table(f"{label}: {what}", "inputs", "mean", "mean size")
                for mean in means[:top]:
                    table.add_row(
                        escape(mean.name), str(mean.count), _minus(f"{mean.mean:+.4f}"), f"{mean.size:.4f}"
                    )
                make_console().print(table)
        if run.failed:
            echo(f"{_inputs(run.failed)} failed")
        if html is not None:
            echo(f"wrote {html}")


def _sum_up_rows(
    run: Run,
    html: Path | None,
    as_json: bool,
    target: str | None,
    by: str | None,
    truth: str | None,
    data: Any,
) -> None:
    from apportion.bulk.overviews import overviews
    from apportion.core.files import write_whole
    from apportion.display import overview_page

    found = overviews(run, target, by, truth, data)
    if html is not None:
        write_whole(html, overview_page(found).encode())
    if as_json:
        said = [
            {
                "class": one.target,
                "rows": len(one),
                "unit": one.unit,
                "features": [asdict(column) for column in one.features],
                "cohorts": {
                    name: [asdict(column) for column in one.cohort(name)] for name in one.cohort_names
                },
                "differences": [asdict(difference) for difference in one.differences],
            }
            for one in found
        ]
        echo_json(said)
        return
    for one in found:
        echo(f"{one!r}\n")
    if run.failed:
        echo(f"{_inputs(run.failed)} failed")
    if html is not None:
        echo(f"wrote {html}")


@runs.command()
def drift(
    first: Folder,
    second: Folder,
    top: Annotated[int, typer.Option(min=1, help="Inputs to show.")] = 10,
    as_json: Json = False,
) -> None:
    """How the explanations of the same inputs differ between two runs."""
    with one_line_errors(quiet=as_json):
        from apportion.bulk.drift import drift as drifted
        from apportion.bulk.reading import open_run
        from apportion.results.statistics import interval_of_mean

        found = drifted(open_run(first), open_run(second))
        if as_json:
            whole = {
                "flipped": found.flipped,
                "only_first": found.only_first,
                "only_second": found.only_second,
            }
            inputs = [asdict(one) for one in found.inputs[:top]]
            echo_json({**whole, "settings": found.settings, "inputs": inputs})
            return
        for name, (before, after) in found.settings.items():
            echo(f"{name.replace('_', ' ')}: {before} → {after}")
        cosines = found.cosines
        low, high = interval_of_mean(cosines.numpy(), 0.95, 0, 2000) if len(cosines) else (0.0, 0.0)
        mean = _minus(f"{cosines.mean():.3f} [{low:.3f}, {high:.3f}]") if len(cosines) else "not comparable"
        echo(
            f"{len(found.inputs)} inputs in both ({found.only_first} and {found.only_second} in one only); cosine of "
            f"the maps {mean}; {found.flipped:.1%} of the predictions changed"
        )
        table = _table("least alike", "cosine", "score moved by", "prediction")
        for one in found.inputs[:top]:
            cosine = "" if one.cosine is None else _minus(f"{one.cosine:.3f}")
            table.add_row(
                escape(one.id), cosine, _minus(f"{one.moved:+.3f}"), "changed" if one.flipped else ""
            )
        make_console().print(table)


@runs.command()
def check(folder: Folder) -> None:
    """Read all that a run wrote and compare it with its checksums."""
    with one_line_errors():
        from apportion.bulk.reading import open_run

        run = open_run(folder)
        for path in (bad := run.check()):
            say("error", f"{path} is damaged")
        if bad:
            say("error", "run the same `apportion bulk` command again: it makes these shards anew")
            raise typer.Exit(1)
        echo(
            f"{len(run)} explained and {run.failed} failed of {run.manifest.inputs} inputs; "
            f"{len(run.shards)} of {run.manifest.shards} shards, all as they were written"
        )


def _failure(run: Run) -> str:
    first = next(run.errors())
    return f"{first['id']}: {visible(first['message']):.200}"


def _inputs(many: int) -> str:
    return "1 input" if many == 1 else f"{many} inputs"


def _minus(text: str) -> str:
    """Numbers with a true minus sign."""
    return text.replace("-", "−")


def _table(*titles: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(escape(title), overflow="fold")
    return table
