"""Fitted estimators of scikit-learn in files. A .skops file is compared with a list of types before anything in it is
made; a .joblib or pickle file runs whatever it says, and is read only where the user has said so."""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from apportion.core.calling import try_out
from apportion.core.extras import EXTRAS
from apportion.core.files import path_of
from apportion.domains.frames import Tabular
from apportion.domains.table_files import read_table
from apportion.errors import InputError, first_line

SUFFIXES = frozenset({".skops", ".joblib", ".pkl", ".pickle"})

# Types that hold numbers and do nothing, which skops 0.16 leaves out.
_DATA = frozenset({"numpy.dtype", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"})


def from_estimator_file(path: Path, background: Any, trust_code: bool) -> Tabular:
    """An estimator in a file as a model of frames; `background` is a frame, or the path of a table."""
    what = f"model {str(path)!r}"
    if not path.is_file():
        raise InputError(f"{what}: no such file")
    if background is None:
        raise InputError(
            f"{what} is an estimator, which needs rows to take the values of hidden columns from: --background "
            "train.csv, or background= in Python"
        )
    if path.suffix != ".skops" and not trust_code:
        raise InputError(
            f"{what} is a pickle, which can run any code when it is read; accepted: a .skops file, or "
            "--trust-model-code (trust_code=True in Python) if you know who made it"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator = _of_skops(path, trust_code) if path.suffix == ".skops" else _of_pickle(path)
    for warning in caught:
        if (fitted := getattr(warning.message, "original_sklearn_version", None)) is not None:
            here = getattr(warning.message, "current_sklearn_version", "another")
            raise InputError(
                f"{what} was fitted with scikit-learn {fitted}, and {here} is installed, which may read it wrongly; "
                f"accepted: pip install scikit-learn=={fitted}"
            )
    if isinstance(background, str | Path):
        background = read_table(path_of("background", background))[0]
    found = Tabular(estimator, background, name=path.name)
    try_out(found.model, found.mask, f"{what} does not run on the background")  # type: ignore[arg-type]
    return found


def _of_skops(path: Path, trust_code: bool) -> Any:
    skops: Any = _needed("skops", path, "skops.io")
    try:
        unknown = [name for name in skops.get_untrusted_types(file=path) if name not in _DATA]
        if unknown and not trust_code:
            named = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
            raise InputError(
                f"model {str(path)!r} makes {named}, which skops does not know to be harmless; accepted: "
                "--trust-model-code (trust_code=True in Python) if you know who made it"
            )
        return skops.load(path, trusted=[*unknown, *_DATA])
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes it raise
        raise InputError(f"model {str(path)!r}: {type(error).__name__}: {first_line(error):.200}") from None


def _of_pickle(path: Path) -> Any:
    joblib: Any = _needed("joblib", path)
    try:
        return joblib.load(path)
    except Exception as error:  # a class that is gone, or not there
        raise InputError(
            f"model {str(path)!r} cannot be read with the packages that are installed: {type(error).__name__}: "
            f"{first_line(error):.200}"
        ) from None


def _needed(package: str, path: Path, module: str = "") -> Any:
    try:
        return import_module(module or package)
    except ImportError:
        raise InputError(
            f"model {str(path)!r} needs {package}: pip install 'apportion[{EXTRAS[package]}]'"
        ) from None
