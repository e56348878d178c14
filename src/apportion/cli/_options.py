"""The options that several commands take, each said once."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from apportion.cli._messages import make_console, one_line_errors
from apportion.errors import InputError, check_seed

if TYPE_CHECKING:
    from apportion.core.classifier import Classifier
    from apportion.domains.table_files import Dialect
    from apportion.pipeline.answers import Asked
    from apportion.pipeline.given import Given


def complete_methods(incomplete: str) -> list[str]:
    """Short names for the shell; the last of a list of names."""
    from apportion.names import INTERACTIONS, METHODS

    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in (*METHODS, *INTERACTIONS) if name.startswith(last)]


def complete_models(incomplete: str) -> list[str]:
    from apportion.models import SHIPPED

    return [name for name in SHIPPED if name.startswith(incomplete)]


Model = Annotated[
    str | None,
    typer.Option(
        help="A shipped model, pkg.module:factory, file.py:factory, a .pt2 or .onnx file, a saved ProtoPNet or "
        "BagOfWords, a .skops file, a Hugging Face folder or hf:owner/name.",
        autocompletion=complete_models,
    ),
]
Method = Annotated[
    str,
    typer.Option(
        help="A name (see `apportion methods`), with settings or without; auto: by the kind of model.",
        autocompletion=complete_methods,
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT…",
        help="A sentence, a picture, .csv, .parquet, .jsonl, .xlsx, .txt, .npy, .pt or .safetensors file; - for a "
        "text on standard input.",
    ),
]
Target = Annotated[
    str | None, typer.Option(help="The class to explain, by number or name.  [the predicted one]")
]
Row = Annotated[
    int, typer.Option(min=0, help="The row of a table, or the sample of a tensor, counted from 0.")
]
Top = Annotated[int | None, typer.Option(min=1, help="List so many features, the largest first.")]
Unit = Annotated[
    str | None,
    typer.Option(
        help="The features: token, word, sentence, passage or turn.  [word; with --context passage]"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Html = Annotated[Path | None, typer.Option(help="Write one self-contained HTML page here.")]
MaxRemainder = Annotated[
    float | None,
    typer.Option(
        min=0.0, help="Exit with status 3 if more than this share of a total is left over, such as 0.05."
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Where the model runs, such as cpu or cuda:0.  [where it was made; in bulk cuda if there is one]"
    ),
]


def grouped(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command, for Typer, with the fields of each dataclass that it takes as options of their own."""
    kinds = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in kinds.items() if is_dataclass(kind)}
    options: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in groups:
            options.append(parameter.replace(annotation=kinds[name], kind=parameter.KEYWORD_ONLY))
            continue
        of_fields = get_type_hints(groups[name], include_extras=True)
        for field in fields(groups[name]):
            asked = inspect.Parameter(field.name, parameter.KEYWORD_ONLY, default=field.default)
            options.append(asked.replace(annotation=of_fields[field.name]))

    @wraps(command)
    def called(**given: Any) -> Any:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        return command(**given)

    called.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return called


@dataclass(frozen=True)
class Running:
    """How models and methods run."""

    device: Device = None
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of all that is drawn, by methods and tests.  [theirs]")
    ] = None
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no warnings and no progress.")] = False

    def one_line_errors(self, as_json: bool = False) -> AbstractContextManager[None]:
        return one_line_errors(quiet=as_json or self.quiet)

    def made(self, names: Sequence[str], kind: Any = "method") -> dict[str, Any]:
        """Name → method or test, with the seed where it has one."""
        from apportion.core.registry import from_repr

        if self.seed is not None:
            check_seed(self.seed)
        found = {name: from_repr(name, kind) for name in names}
        return {name: each if self.seed is None else _seeded(each, self.seed) for name, each in found.items()}

    @contextmanager
    def status(self) -> Iterator[None]:
        """That something is going on, on a terminal; on stderr, so that it is in no pipe."""
        from rich.status import Status

        from apportion.core.progress import watched

        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

        if self.quiet:
            with watched(lambda done, total, what: None):
                yield
            return

        def report(done: int, total: int | None, what: str) -> None:
            status.update(f"{done} of {total} {what}" if total else f"{done} {what}")

        with Status("explaining", console=make_console(stderr=True)) as status, watched(report):
            yield


def _seeded(made: Any, seed: int) -> Any:
    has_one = is_dataclass(made) and any(field.name == "seed" for field in fields(made))
    return replace(made, seed=seed) if has_one else made


@dataclass(frozen=True)
class Reading:
    """How tables are read."""

    sep: Annotated[str | None, typer.Option(help="The separator of a CSV file.  [guessed]")] = None
    encoding: Annotated[str | None, typer.Option(help="The encoding of a CSV file.  [utf-8]")] = None
    decimal: Annotated[str | None, typer.Option(help="The decimal sign of a CSV file.  [guessed]")] = None
    no_header: Annotated[
        bool,
        typer.Option("--no-header", help="A CSV file begins with a row; its columns are 0, 1, …."),
    ] = False

    @property
    def dialect(self) -> Dialect:
        from apportion.domains.table_files import Dialect

        return Dialect(self.sep, self.encoding, self.decimal, not self.no_header)


@dataclass(frozen=True)
class Tables(Reading):
    """The same, and estimators in files."""

    background: Annotated[
        Path | None,
        typer.Option(
            help="A table whose rows stand in for hidden columns, for a model in a .skops or .joblib file."
        ),
    ] = None
    trust_code: Annotated[
        bool,
        typer.Option(
            "--trust-model-code",
            help="Read model files that can run any code: .joblib, and unknown types in .skops.",
        ),
    ] = False

    def recognised(self, given: Sequence[str]) -> list[Given]:
        from apportion.pipeline.given import recognise

        if list(given).count("-") > 1:
            raise InputError("standard input was given twice; accepted: - once")
        return [recognise(each, self.dialect) for each in given]

    def model(self, model: str | None) -> str | Classifier | None:
        """The name of a model, or the model itself where it is an estimator in a file."""
        from apportion.models._estimators import SUFFIXES

        if model is None or (
            self.background is None and not self.trust_code and Path(model).suffix not in SUFFIXES
        ):
            if self.background is not None:
                raise InputError("--background goes with --model, a .skops or .joblib file")
            return model
        from apportion.domains.table_files import AS_FOUND, TEXTS, kind_of
        from apportion.models import load_classifier

        frame = None
        if self.background is not None:  # which need not be text because the rows are
            as_text = kind_of(self.background) in TEXTS
            frame = read_told(self.background, self.dialect if as_text else AS_FOUND)
        return load_classifier(model, frame, self.trust_code)

    def data(self, data: str, model: str | Classifier | None) -> Any:
        """The path of the data, or the frame in a table that is read whole: Excel, or text of which is said how, or
        whose decimal commas a model of frames would not know for numbers."""
        from apportion.domains.frames import FrameRows
        from apportion.domains.table_files import AS_FOUND, EXCEL, TEXTS, kind_of, read_table

        path, encode, dialect = Path(data), getattr(model, "encode", None), self.dialect
        texts = encode.texts if isinstance(encode, FrameRows) else frozenset()
        if (
            dialect == AS_FOUND
            and isinstance(encode, FrameRows)
            and kind_of(path) in TEXTS
            and path.is_file()
        ):
            whole = "decimal" in read_table(path, dialect, texts)[1]
        else:
            whole = dialect != AS_FOUND or kind_of(path) in EXCEL
        return read_told(path, dialect, texts) if whole else data


def read_told(path: Path, dialect: Dialect, texts: frozenset[str] = frozenset()) -> Any:
    """The frame in a file, with a warning of what was guessed to read it."""
    from apportion.domains.table_files import read_table

    frame, told = read_table(path, dialect, texts)
    if told:
        warnings.warn(f"{path} was read with {told}, which was guessed", stacklevel=2)
    return frame


@dataclass(frozen=True)
class Prompts:
    """What a language model is asked."""

    prompt: Annotated[
        str | None,
        typer.Option(help="Explain the answer of a language model to this; - for a text on standard input."),
    ] = None
    answer: Annotated[str | None, typer.Option(help="The answer to explain.  [the model writes one]")] = None
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer that the model writes.")] = (
        20
    )
    contrast: Annotated[str | None, typer.Option(help="Explain why the answer rather than this.")] = None
    context: Annotated[
        list[Path] | None,
        typer.Option(help="A text file with a passage that stands before the prompt; may be repeated."),
    ] = None
    unit: Unit = None
    score: Annotated[
        str,
        typer.Option(
            help='"log-probability", "logit", "probability" or "logit of probability" of the answer.'
        ),
    ] = "log-probability"
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Give the prompt as the message of a user, through the chat template."),
    ] = False

    def asked(self, given: Any, target: str | None, each: bool = True) -> Asked | None:
        """What a language model is asked; None where it is none that is. InputError for options that do not go
        together."""
        if self.prompt is None:
            if self.answer is not None or self.contrast is not None or self.chat or self.context:
                raise InputError(
                    "--answer, --context, --contrast and --chat go with --prompt, for a language model"
                )
            return None
        if given:
            raise InputError("an INPUT and --prompt were given; accepted: one of them")
        from apportion.pipeline.answers import asked_of
        from apportion.pipeline.given import read_prompt, read_text

        context = [read_text(path) for path in self.context or ()]
        return asked_of(self, prompt=read_prompt(self.prompt), context=context, target=target, each=each)
