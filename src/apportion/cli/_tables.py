"""The options of the commands that read tables, and estimators in files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.errors import InputError

if TYPE_CHECKING:
    from apportion.core.classifier import Classifier
    from apportion.domains.table_files import Dialect
    from apportion.pipeline.given import Given

Background = Annotated[
    Path | None,
    typer.Option(
        help="A table whose rows say what stands for a hidden column of a model in a .skops or .joblib file."
    ),
]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-model-code",
        help="Read a model file that can run any code: a .joblib file, unknown types in .skops.",
    ),
]
Sep = Annotated[str | None, typer.Option(help="What separates the values of a table in text.  [guessed]")]
Encoding = Annotated[str | None, typer.Option(help="How a table in text is written.  [utf-8]")]
Decimal = Annotated[str | None, typer.Option(help="The decimal sign of a table in text.  [guessed]")]
NoHeader = Annotated[
    bool,
    typer.Option("--no-header", help="The first line of a table in text is a row; its columns are 0, 1, …."),
]


def recognised(
    given: str, sep: str | None, encoding: str | None, decimal: str | None, no_header: bool
) -> Given:
    from apportion.domains.table_files import Dialect
    from apportion.pipeline.given import recognise

    return recognise(given, Dialect(sep, encoding, decimal, not no_header))


def model_of(
    model: str | None, background: Path | None, trust_code: bool, dialect: Dialect
) -> str | Classifier | None:
    """The name of a model, or the model itself where it is an estimator in a file."""
    from apportion.models._estimators import SUFFIXES

    if model is None or (background is None and not trust_code and Path(model).suffix not in SUFFIXES):
        if background is not None:
            raise InputError("--background goes with --model, a .skops or .joblib file")
        return model
    from apportion.domains.table_files import AS_FOUND, TEXTS, kind_of
    from apportion.models import load_classifier

    frame = None
    if background is not None:  # which need not be text because the rows are
        frame = read_told(background, dialect if kind_of(background) in TEXTS else AS_FOUND)
    return load_classifier(model, frame, trust_code)


def table_of(data: str, dialect: Dialect, model: str | Classifier | None) -> Any:
    """The path of the data, or the frame in a table that is read whole: Excel, or text of which is said how, or whose
    decimal commas a model of frames would not know for numbers."""
    from apportion.domains.frames import FrameRows
    from apportion.domains.table_files import AS_FOUND, EXCEL, TEXTS, kind_of, read_table

    path, encode = Path(data), getattr(model, "encode", None)
    texts = encode.texts if isinstance(encode, FrameRows) else frozenset()
    if dialect == AS_FOUND and isinstance(encode, FrameRows) and kind_of(path) in TEXTS and path.is_file():
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
