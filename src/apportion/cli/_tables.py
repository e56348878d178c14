"""The options of the commands that read tables, and estimators in files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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


def recognised(given: str, sep: str | None, encoding: str | None, decimal: str | None) -> Given:
    from apportion.domains.table_files import Dialect
    from apportion.pipeline.given import recognise

    return recognise(given, Dialect(sep, encoding, decimal))


def model_of(
    model: str | None, background: Path | None, trust_code: bool, dialect: Dialect
) -> str | Classifier | None:
    """The name of a model, or the model itself where it is an estimator in a file."""
    from apportion.models._estimators import SUFFIXES

    if model is None or (background is None and not trust_code and Path(model).suffix not in SUFFIXES):
        if background is not None:
            raise InputError("--background goes with --model, a .skops or .joblib file")
        return model
    from apportion.domains.table_files import read_table
    from apportion.models import load_classifier

    frame = None
    if background is not None:
        frame, told = read_table(background, dialect)
        if told:
            warnings.warn(f"{background} was read with {told}, which was guessed", stacklevel=2)
    return load_classifier(model, frame, trust_code)
