"""Explain a whole data set into a folder, in shards that are made exactly once."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from apportion.bulk import _manifest as manifest
from apportion.bulk import _shards as shards
from apportion.bulk import local
from apportion.bulk._folders import Files
from apportion.bulk._manifest import Manifest
from apportion.bulk._meter import Meter, interruptible
from apportion.bulk._probing import settle_by_trial
from apportion.bulk._shard_work import Job, load_model
from apportion.bulk._shards import PRECISIONS, TABLES
from apportion.bulk.sources import column_of, open_source, refuse_repeated_ids
from apportion.core.classifier import Classifier
from apportion.core.device import check_device
from apportion.core.files import path_of
from apportion.core.fingerprints import fingerprint, model_fingerprint
from apportion.core.registry import made_method
from apportion.core.target import class_indices, is_class_number
from apportion.domains.answers import Answer
from apportion.domains.language import LanguageModel, wanted_of
from apportion.errors import InputError, check, check_whole
from apportion.methods.explain import class_number

if TYPE_CHECKING:
    from apportion.bulk.reading import Run


def explain_dataset(
    model: Any,
    data: Any,
    method: Any = "auto",
    out: str | Path = "apportion-run",
    *,
    target: Any = None,
    precision: Literal["float16", "float32"] = "float16",
    pool: int | None = None,
    channels: bool = False,
    column: str | None = None,
    id_column: str | None = None,
    fingerprint: str | None = None,
    batch: int | None = None,
    shard: int | None = None,
    table: Literal["parquet", "jsonl"] | None = None,
    strict: bool = False,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    address: str | None = None,
    device: str | None = None,
    shard_index: int = 0,
    num_shards: int = 1,
    progress: bool = True,
    **asked: Any,
) -> Run:
    """Explain every input of a data set once and write maps and a table into a folder.

    Called again with the same settings it goes on where it was stopped or killed; with others it is refused. Ctrl-C
    finishes the shards in the making, then raises KeyboardInterrupt.

    Args:
        model (str or Classifier or callable): A name as in `apportion.load`, a `Classifier`, or any model that takes
            tensors; or a `LanguageModel`.
        data (path or Dataset or list or Tensor or DataFrame): A folder of pictures or texts, a Parquet, Arrow, CSV,
            JSON lines, .npy or .safetensors file, or any PyTorch dataset, list, tensor or pandas frame. For a language
            model prompts, or rows with a prompt and, where they are given, its answer, its context and a contrast.
        method (str or method, default "auto"): A method, its short name or repr.
        out (path, default "apportion-run"): Folder to write into.
        target (int or sequence of int or Answer, default None): A class, or one class for each input; what is
            explained of the answers of a language model, with `Answer(each=True)` each token of them, whose sums the
            table has; None: the predicted class, the whole answer.
        precision (str, default "float16"): "float16" with a scale for each map, or "float32".
        pool (int, default None): Cells a side that a map is summed to at most; None: maps stay as they are.
        channels (bool, default False): Keep the channels of a picture apart.
        column (str, default None): Column of a table with the text or picture, of a CSV file without a header its
            number from 0; None: it is found.
        id_column (str, default None): Column of a table with the id of each input, each of them once; None: the file
            name, the index of a frame where it has each once, or the number.
        fingerprint (str, default None): Your own name for this state of the data: for data too large to be looked at,
            or that never reads the same twice; None: its content is looked at.
        batch (int, default None, inputs): Inputs explained at once; None: measured.
        shard (int, default None, inputs): Inputs written at once; None: a 64th of them, from 32 to 1024, or two
            seconds of work, up to 8192, whichever is more; a whole number of batches.
        table (str, default None): "parquet" or "jsonl"; None: "parquet" where pyarrow is installed.
        strict (bool, default False): Raise the first failure; otherwise what cannot be read or explained is in
            `Run.errors()`.
        engine (str, default "local"): "local", or "ray" for a cluster.
        workers (int, default None): Processes, or actors of Ray; None: this process, or an actor for each GPU of the
            cluster, or for each CPU but one.
        address (str, default None): The Ray cluster; None: one that is started here.
        device (str, default None): Where a model given by name goes; None: CUDA if there is one.
        shard_index (int, default 0): Make only every `num_shards`-th shard from this one on, for jobs side by side.
        num_shards (int, default 1): The number of such jobs.
        progress (bool, default True): Show how far the run is.
        asked: Of a language model, what `explain` takes for all rows: `unit`, and of answers that are generated
            `max_new_tokens`, `stop` and `seed`.

    >>> import tempfile
    >>> run = explain_dataset(torch.nn.Linear(3, 2), torch.rand(5, 3), "inputxgradient", tempfile.mkdtemp())
    >>> len(run), run.complete, [row["id"] for row in run.rows()]
    (5, True, ['0', '1', '2', '3', '4'])
    """
    from apportion.bulk.reading import open_run

    check("engine", engine, lambda v: v in ("local", "ray"), "local, ray")
    check_whole(0, shard_index=shard_index)
    check_whole(1, num_shards=num_shards)
    if not 0 <= shard_index < num_shards:
        raise InputError(f"shard_index is {shard_index} of {num_shards}; accepted: 0 to {num_shards - 1}")
    counts = {"batch": batch, "shard": shard, "workers": workers, "pool": pool}
    check_whole(1, **{name: value for name, value in counts.items() if value is not None})
    folder = path_of("out", out)
    check("table", table, lambda v: v is None or v in TABLES, ", ".join(TABLES))
    switches = {"channels": channels, "strict": strict, "progress": progress}
    for name, value in switches.items():
        check(name, value, lambda v: isinstance(v, bool), "True or False")
    check_device(device)
    for name, text in {"column": column, "id_column": id_column}.items():
        check(name, text, lambda v: v is None or isinstance(v, str), "the name of a column")
    check("precision", precision, lambda v: v in PRECISIONS, ", ".join(PRECISIONS))
    job, made = plan(
        model, data, method, folder,
        target=target, precision=precision, pool=pool, channels=channels, column=column, id_column=id_column,
        fingerprint=fingerprint, batch=batch, shard=shard, table=table, strict=strict, device=device,
        workers=workers or 1, how=asked,
    )  # fmt: skip
    mine = range(shard_index, job.manifest.shards, num_shards)
    run = job.manifest.fingerprint
    there = {
        k: done for k in mine if (done := shards.find_finished(job.folder, k, run, whole=True)) is not None
    }
    todo = [k for k in mine if k not in there]
    total = sum(len(job.manifest.span(k)) for k in mine)
    meter = Meter(total, sum(done.rows + done.errors for done in there.values()), progress)
    try:
        with interruptible() as stop:
            if todo and engine == "ray":
                from apportion.bulk import _ray as ray

                del made
                results = ray.run(job, todo, workers, address, stop)
            else:
                results = local.run(job, made, todo, min(workers or 1, max(1, len(todo))), stop)
            for done in results:
                meter.add(done)
    finally:
        meter.close()
    found = open_run(job.folder)
    if found.complete:
        found.finish()
    if stop.asked:
        raise KeyboardInterrupt(
            f"{meter.finished + meter.now} of {total} inputs are in {job.folder}; the same call goes on from there"
        )
    return found


def plan(model: Any, data: Any, method: Any, folder: Path, **asked: Any) -> tuple[Job, Any]:
    """What is to be done, written into the folder or found there, and the model loaded for it."""
    method = made_method(method)
    made = load_model(model, asked["device"])
    classifier = made if isinstance(made, Classifier) else None
    domain: str | None = made.domain if isinstance(made, Classifier | LanguageModel) else None
    content, how = made, asked["how"]
    if isinstance(made, LanguageModel):
        content = made.content
        if asked["batch"] not in (None, 1):
            raise InputError(f"batch is {asked['batch']}; accepted for a language model: 1, or None")
        asked["batch"] = 1
        if of_rows := [name for name in ("answer", "context", "contrast") if name in how]:
            raise InputError(f"{', '.join(of_rows)} is of each prompt; accepted: rows that have it")
    elif how:
        raise InputError(
            f"{', '.join(how)} is not known, or for a LanguageModel; the model is {type(made).__name__}"
        )
    known = asked["fingerprint"]
    source = open_source(data, domain, asked["column"], asked["id_column"])
    target = _target(asked["target"], made, len(source))
    wanted = Manifest(
        method=repr(method),
        method_fingerprint=fingerprint(method),
        target=" ".join([_described(target), *(f"{name}={how[name]!r}" for name in sorted(how))]),
        model=str(model) if isinstance(model, str | Path) else "",
        model_fingerprint=model_fingerprint(content),
        domain=domain,
        labels=() if classifier is None else classifier.labels,
        data=str(Path(data).resolve()) if isinstance(data, str | Path) else "",
        data_fingerprint=source.fingerprint if known is None else fingerprint(known),
        column=column_of(source),
        inputs=len(source),
        **{name: asked[name] for name in _KEPT},
    )
    job = Job(folder, wanted, source, model, method, target, asked["device"], asked["strict"], how)
    found = manifest.read(folder)
    if found is None:
        refuse_repeated_ids(source)
        settled = settle_by_trial(job, made, asked["workers"])
    else:
        settled = found.resumed(wanted, folder)
    if isinstance(source, Files):
        source = source.listed(folder / f"inputs-{settled.data_fingerprint[:12]}.txt")
    if found is None:
        settled = manifest.write(folder, settled)
    return replace(job, folder=folder.resolve(), manifest=settled, source=source), made


_KEPT = ("id_column", "precision", "pool", "channels", "table", "batch", "shard")


def _target(target: Any, model: Any, inputs: int) -> Any:
    if isinstance(model, LanguageModel):
        wanted = Answer() if target is None else wanted_of(target)
        if isinstance(wanted.part, str) and is_class_number(wanted.part):
            wanted = replace(wanted, part=int(wanted.part))
        return wanted
    classifier = model if isinstance(model, Classifier) else None
    if isinstance(target, str):
        if classifier is None or not (classifier.labels or is_class_number(target)):
            raise InputError(
                f"target is {target!r}, but the model has no class names; accepted: a class index"
            )
        return class_number(target, classifier.labels)
    if (
        target is None
        or isinstance(target, int)
        or (callable(target) and not isinstance(target, torch.Tensor))
    ):
        return target
    return class_indices(target, inputs).expand(inputs).cpu()


def _described(target: Any) -> str:
    if target is None or isinstance(target, int):
        return repr(target)
    if isinstance(target, torch.Tensor):
        return shards.checksum(target.numpy().tobytes())
    name = repr(target) if is_dataclass(target) else getattr(target, "__qualname__", type(target).__name__)
    return f"{name} ({fingerprint(target)[:12]})"
