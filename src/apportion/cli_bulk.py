"""The commands for whole data sets: `apportion bulk`, `apportion cluster`, `apportion runs`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from apportion.one_line import one_line_errors

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="What `apportion bulk` wrote.")]
Html = Annotated[Path | None, typer.Option(help="Write one self-contained HTML page here.")]

runs = typer.Typer(
    no_args_is_help=True,
    help="Look at what `apportion bulk` wrote.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def add_to(app: typer.Typer) -> None:
    app.command()(bulk)
    app.add_typer(runs, name="runs")


def bulk(
    model: Annotated[str, typer.Option(help="As in `apportion explain`.")],
    data: Annotated[
        str,
        typer.Option(
            help="A folder of pictures or texts, or a .parquet, .arrow, .csv, .jsonl, .txt, .npy or .safetensors file."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write into, or to go on with.")],
    method: Annotated[str, typer.Option(help="A short name (see `apportion methods`) or a repr.")] = "lrp",
    target: Annotated[
        str | None, typer.Option(help="The class to explain. Default: the predicted one.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="The column of a table with the text or picture.")
    ] = None,
    id_column: Annotated[str | None, typer.Option("--id", help="The column of a table with the id.")] = None,
    pool: Annotated[
        int | None, typer.Option(min=1, help="Sum the cells of a map to at most so many a side.")
    ] = None,
    channels: Annotated[
        bool, typer.Option("--channels", help="Keep the channels of a picture apart.")
    ] = False,
    precision: Annotated[
        str, typer.Option(help="float16 (with a scale for each map) or float32.")
    ] = "float16",
    batch: Annotated[
        int | None, typer.Option(min=1, help="Inputs explained at once. Default: measured.")
    ] = None,
    shard: Annotated[
        int | None, typer.Option(min=1, help="Inputs written at once. Default: by their number.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first input that fails.")] = False,
    engine: Annotated[str, typer.Option(help="local or ray.")] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: one for each GPU, or for each core.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="The Ray cluster. Default: one that is started here.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where the model goes. Default: cuda if there is one.")
    ] = None,
    shard_index: Annotated[
        int, typer.Option(min=0, help="Make every N-th shard from this one on only …")
    ] = 0,
    num_shards: Annotated[int, typer.Option(min=1, help="… where this is N, the number of such jobs.")] = 1,
) -> None:
    """Explain a whole data set. Stopped or killed, the same command goes on where it was."""
    with one_line_errors():
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        from apportion.bulk.local import usual_workers
        from apportion.bulk.run import explain_dataset

        if workers is None and engine == "local":
            workers = usual_workers(device)
        try:
            run = explain_dataset(
                model, data, method, out,
                target=target, precision=precision, pool=pool, channels=channels, column=column,  # type: ignore[arg-type]
                id_column=id_column, batch=batch, shard=shard, strict=strict, engine=engine,  # type: ignore[arg-type]
                workers=workers, address=address, device=device, shard_index=shard_index, num_shards=num_shards,
            )  # fmt: skip
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt(
                f"{interrupt}"
                if str(interrupt)
                else f"what is finished is in {out}; the same command goes on from there"
            ) from None
        typer.echo(f"{len(run)} of {run.manifest.inputs} inputs explained in {run.folder}")
        if not run.complete:
            typer.echo(
                f"{len(run.shards)} of {run.manifest.shards} shards are there; the others belong to other jobs"
            )
        if run.failed:
            print(
                f"apportion: warning: {run.failed} inputs failed, see {run.folder}/errors.jsonl",
                file=sys.stderr,
            )
