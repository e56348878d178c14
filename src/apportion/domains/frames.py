"""From rows of a data frame to numbers and back: the input of an estimator or a function of frames.

Numbers are what they are. Whatever else a column holds (texts, categories, dates, missing values of several kinds) goes
by a code for its value, so that the model is given the values themselves, in columns of the user's own types, and a
hidden column takes its value from a row of the user's own data.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.core.classifier import Classifier
from apportion.core.features import TabularFeatures
from apportion.core.numbers import as_pandas, is_frame, is_series, tensor_of
from apportion.core.settings import later
from apportion.domains.estimators import answer_to, function_of, labels_of
from apportion.domains.tabular import MISSING, text_of
from apportion.domains.text import check_whole_signs
from apportion.errors import InputError, check_whole, first_line, nearest

_WHOLE = 2.0**53  # float64 holds all whole numbers up to here


class Tabular(Classifier):
    """A model of data frames with rows to take the values of hidden columns from.

    Explain it with rows of such a frame: `apportion.explain(Tabular(pipeline, background=train), test.iloc[[0]])`. Rows
    are a frame, a pandas row, or a dict, with the columns of the background in any order; others are left out. Hidden
    columns take their values *together* from each background row, and the scores are averaged: the values of
    `KernelSHAP` add up to the score less the mean score of the background.

    Args:
        model (callable or estimator): From a frame to scores (rows, classes) or (rows,); of an estimator of
            scikit-learn its `predict_proba`, or else its `decision_function` or `predict`.
        background (DataFrame): Rows of the user's own data, such as those that the model was fitted on. Of an estimator
            that knows its columns, these; else all of them.
        rows (int, default 100): Background rows that are used, drawn once if there are more; None: all.
        labels (sequence of str, default None): Names of the classes; None: those of the estimator.
        name (str, default None): What a person calls it; None: that of its class or function.

    Raises InputError for what is no frame, for columns named twice or missing, and for a value that a column cannot
    hold. A value that the background does not have is given to the model as it is, but for columns of type `category`.

    >>> import pandas
    >>> frame = pandas.DataFrame({"size": [1, 3], "colour": ["red", "blue"]})
    >>> model = Tabular(lambda rows: (rows["size"] + 10 * (rows.colour == "red")).to_numpy(), frame)
    >>> import apportion as ap
    >>> ap.explain(model, {"size": 5, "colour": "red"}, "kernelshap").top()
    [('colour = red', 5.0), ('size = 5', 3.0)]
    """

    def __init__(
        self,
        model: Any,
        background: Any,
        *,
        rows: int | None = 100,
        labels: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        if isinstance(model, Classifier):
            raise InputError("model is a Classifier already; accepted: an estimator or a function of frames")
        function = function_of(model, "a table", "a function from a frame to an array of scores")
        frame = _checked(background, "background")
        owner = getattr(function, "__self__", None)
        if (known := getattr(owner, "feature_names_in_", None)) is not None:
            frame = frame[_present(list(known), frame, "background")]
        if rows is not None:
            check_whole(1, rows=rows)
        fitted = getattr(owner, "n_features_in_", None)
        if known is None and isinstance(fitted, int) and fitted != frame.shape[1]:
            raise InputError(
                f"background has {frame.shape[1]} columns; accepted: the {fitted} that {type(owner).__name__} was "
                "fitted on, in their order"
            )
        given = len(frame)
        if rows is not None and given > rows:
            frame = frame.iloc[np.sort(np.random.default_rng(0).choice(given, rows, replace=False))]
        # One of scikit-learn that was fitted on arrays is given arrays, and warns of names.
        unnamed = known is None and type(owner).__module__.startswith("sklearn.")
        schema = background.select(frame.columns).schema if _is_of_polars(background) else None
        encode = FrameRows.of(frame, given, unnamed, schema)
        super().__init__(
            model=FrameModel(function, encode, function is not model),
            encode=encode,
            labels=labels_of(function) if labels is None else tuple(labels),
            domain="tabular",
            name=name or str(getattr(model, "__name__", type(model).__name__)),
            mask=encode.several(frame)[0],
        )


@dataclass(frozen=True)
class _Numbers:
    """A column of numbers (and missing ones), as they are."""

    name: str
    type: Any

    def from_file(self, value: Any) -> Any:
        return math.nan if isinstance(value, str) and value.strip().lower() in _ABSENT else value

    def read(self, value: Any) -> float:
        """The number of a cell; also of a text, as a file has it."""
        if _is_missing(value):
            return math.nan
        if isinstance(value, str) and getattr(self.type, "kind", "") == "b":
            value = {"true": True, "false": False}.get(value.strip().lower(), value)
        try:
            number = float(value)
            exact = not isinstance(value, int | np.integer) or int(number) == int(value)
        except (TypeError, ValueError, OverflowError):
            raise InputError(
                f"column {self.name!r}: {value!r:.60} is no number, but the background has numbers there"
            ) from None
        if not exact:
            raise InputError(f"column {self.name!r}: {value} is too large to be told from its neighbours")
        return number

    def written(self, numbers: np.ndarray) -> Any:
        """The column of these numbers, in its own type where that holds them."""
        pandas = _pandas()

        series = pandas.Series(numbers)
        if self.type == np.float64:
            return series
        kind = getattr(self.type, "kind", "O")
        if kind == "b" and not np.isin(numbers[~np.isnan(numbers)], (0, 1)).all():
            return series
        if kind in "iub" and not isinstance(self.type, np.dtype):  # with holes: Int64, boolean, of Arrow
            whole = np.isnan(numbers) | (numbers == np.floor(numbers))
            return series.astype("Float64").astype(self.type) if whole.all() else series
        if kind in "iub" and (np.isnan(numbers).any() or (numbers != np.floor(numbers)).any()):
            return series
        try:
            typed = series.astype(self.type)
            same = typed.to_numpy(np.float64, na_value=np.nan)
        except (TypeError, ValueError, OverflowError):
            return series
        return typed if np.array_equal(same, numbers, equal_nan=True) else series


@dataclass(frozen=True)
class _Values:
    """A column of whatever else, by codes. `known` has the value of each code of the background."""

    name: str
    type: Any
    categories: tuple[Any, ...] | None
    known: dict[float, Any] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def _met(self) -> dict[float, Any]:
        """Values that the background does not have, the latest last. No field: what was explained is no part of the
        model."""
        return {}

    def forget(self) -> None:
        """Keep the latest values only: over a run there may be as many as rows."""
        if len(self._met) > 2 * _MET:
            for code in list(self._met)[:-_MET]:
                self._met.pop(code, None)

    def learn(self, values: Iterable[Any]) -> None:
        for value in map(self._typed, values):
            self.known.setdefault(self._code(value), value)

    def read(self, value: Any) -> float:
        """The code of a value, which follows from the value alone."""
        value = self._typed(value)
        code = self._code(value)
        if code not in self.known:
            self._met.pop(code, None)
            self._met[code] = value
        return code

    def from_file(self, value: Any) -> Any:
        """A cell of a file as the background has it: what says that there is no value, and is none of the background,
        is that which the background has for it."""
        if not isinstance(value, str) or self._code(value) in self.known:
            return value
        if value.strip().lower() in _ABSENT:
            return next(filter(_is_missing, self.known.values()), value)
        return next((known for known in self.known.values() if str(known) == value), value)

    @staticmethod
    def _code(value: Any) -> float:
        kind = type(value)
        seal = hashlib.blake2b(
            f"{kind.__module__}.{kind.__qualname__}:{value!r}".encode("utf-8", "surrogatepass")
        )
        # From 1, so that zero, a method's own choice for what is hidden, is no value; whole in float64.
        return float(1 + int.from_bytes(seal.digest()[:6], "big"))

    def _typed(self, value: Any) -> Any:
        """The value as the column holds it: dates may come as texts, as files have them."""
        if self.categories is not None:
            if _is_missing(value) or value in self.categories:
                return value
            by_text = {str(each): each for each in self.categories}
            text = str(value).strip()
            if text in by_text:
                return by_text[text]
            if text.lower() in _ABSENT:
                return None
            raise InputError(
                f"column {self.name!r}: {value!r:.60} is no category of it; accepted: one of {len(by_text)}, such as "
                f"{_three_like(text, by_text)}"
            )
        kind = getattr(self.type, "kind", "O")
        if kind in "mM" and not _is_missing(value):
            pandas = _pandas()
            of, called = (pandas.Timedelta, "span") if kind == "m" else (pandas.Timestamp, "date")
            number = isinstance(value, int | float | np.integer | np.floating)  # of days, or of nanoseconds?
            try:
                if number:
                    raise ValueError
                says_none = isinstance(value, str) and value.strip().lower() in _ABSENT
                return pandas.NaT if says_none else of(value)
            except (TypeError, ValueError):
                raise InputError(
                    f"column {self.name!r}: {value!r:.60} is no {called}, or is out of range; accepted: a {called}, or "
                    f"a text that says one, such as {_example(called)}"
                ) from None
        return value

    def unlike_background(self, codes: np.ndarray) -> str:
        """In words, the first value among these codes that the background does not have; empty if it has all."""
        for code in codes:
            if isinstance(value := self._met.get(code), str):
                near = _three_like(value, [known for known in self.known.values() if isinstance(known, str)])
                return f"column {self.name!r} is {value!r:.60}, which no background row has; nearest: {near}"
        return ""

    def written(self, codes: np.ndarray) -> Any:
        pandas = _pandas()

        places, found = pandas.factorize(codes, use_na_sentinel=False)
        unknown = [code for code in found if code not in self.known and code not in self._met]
        if unknown:
            raise InputError(
                f"column {self.name!r} holds no numbers, but {unknown[0]:g} was put into it; accepted: methods and "
                "tests that hide columns and take their values from background rows, and rows encoded lately"
            )
        values = np.empty(len(found), object)
        values[:] = [self.known[code] if code in self.known else self._met[code] for code in found]
        try:
            typed = pandas.Series(values, dtype=self.type)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"column {self.name!r} is of type {self.type} in the background, which does not hold what was given: "
                f"{error}"
            ) from None
        return pandas.Series(typed.array.take(places))


def _three_like(text: str, known: Iterable[str]) -> str:
    """The three known texts that are most like this one."""
    return ", ".join(map(repr, list(dict.fromkeys([*nearest(text, known), *known]))[:3]))


def _example(called: str) -> str:
    return "'2024-01-31'" if called == "date" else "'2 days'"


def _pandas() -> Any:
    return import_module("pandas")  # whose types are not known here


_FEW = 60  # values that a person chooses from
_MET = 1 << 15  # values of a column that are kept from rows that were encoded, at least
_ABSENT = MISSING | {"nat", "none"}


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType") or value != value


@dataclass(frozen=True)
class FrameRows:
    """From rows to numbers (rows, columns) in float64, one for each column, and back.

    Attributes:
        columns (tuple of columns): How each column is read and written.
        about (str, default ""): Where values of hidden columns come from, in words, for the notes of a result.
        unnamed (bool, default False): Make arrays instead of frames.
        schema (Schema, default None): The types of a background of polars, whose frames are made then; None: pandas'.
    """

    columns: tuple[_Numbers | _Values, ...]
    about: str = ""
    unnamed: bool = later(False)
    schema: Any = later(None)

    @classmethod
    def of(cls, frame: Any, given: int, unnamed: bool = False, schema: Any = None) -> FrameRows:
        """Learn the columns of a frame, which has some of the `given` rows."""
        columns = tuple(_column(name, frame.iloc[:, i]) for i, name in enumerate(frame.columns))
        for i, column in enumerate(columns):
            if isinstance(column, _Values):
                column.learn(frame.iloc[:, i])
        many = f"{len(frame)} of {given} rows" if len(frame) < given else f"{given} rows"
        return cls(columns, many, unnamed, schema)

    @property
    def names(self) -> list[Any]:
        return [column.name for column in self.columns]

    @property
    def texts(self) -> frozenset[str]:
        """The columns that a file's texts are not read as numbers for."""
        return frozenset(str(column.name) for column in self.columns if isinstance(column, _Values))

    def __call__(self, row: Any) -> tuple[Tensor, TabularFeatures]:
        """The numbers (1, columns) of one row, and its features."""
        numbers, features = self.several(row)
        if len(features) != 1:
            raise InputError(f"one row is encoded at a time, and {len(features)} were given: frame.iloc[[0]]")
        return numbers, features[0]

    def several(self, rows: Any) -> tuple[Tensor, tuple[TabularFeatures, ...]]:
        """The numbers (rows, columns) of all rows of a frame, of a list of dicts, or of one row, and their features."""
        names = self.names
        for column in self.columns:
            if isinstance(column, _Values):
                column.forget()
        rows = as_pandas(rows)
        if is_frame(rows):
            frame = _checked(rows, "the frame of rows")
            values = [list(frame[name]) for name in _present(names, frame, "the frame")]
        else:
            cells = rows if are_dicts(rows) else [_as_dict(rows, names)]
            for each in cells:
                _present(names, each, "the row")
            values = [
                _of_each(column.from_file, [each[column.name] for each in cells]) for column in self.columns
            ]
        read = [_of_each(column.read, vs) for column, vs in zip(self.columns, values, strict=True)]
        groups, called = tuple(range(len(names))), tuple(map(str, names))
        texts = [_of_each(_text, vs) for vs in values]
        features = tuple(TabularFeatures(called, row, groups) for row in zip(*texts, strict=True))
        return torch.tensor(read, dtype=torch.float64).T.contiguous(), features

    def form(self, row: Tensor) -> list[tuple[str, str, list[str] | None]]:
        """Each column for a person to fill in: its name, its cell in a row, and the values to choose from where they
        are few; all as texts, which a row may have in their place."""
        found: list[tuple[str, str, list[str] | None]] = []
        for column, number in zip(self.columns, row.tolist(), strict=True):
            value, offered = number, None
            if isinstance(column, _Values):
                value, known = column.known[number], column.categories or column.known.values()
                offered = sorted({"" if _is_missing(each) else str(each) for each in known})
            cell = "" if _is_missing(value) else _text(value)
            few = offered is not None and len(offered) <= _FEW and cell in offered
            found.append((str(column.name), cell, offered if few else None))
        return found

    def unlike_background(self, numbers: Tensor) -> str:
        """What in these rows the background does not have, in words; empty if nothing."""
        told = (
            column.unlike_background(codes)
            for column, codes in zip(self.columns, numbers.T.double().numpy(), strict=True)
            if isinstance(column, _Values)
        )
        return next(filter(None, told), "")

    def frame(self, numbers: Tensor) -> Any:
        """The frame of these numbers, in columns of the types of the background."""
        pandas = _pandas()

        array = np.ascontiguousarray(numbers.detach().cpu().double().numpy().T)
        columns = [column.written(row) for column, row in zip(self.columns, array, strict=True)]
        made = pandas.concat(columns, axis=1)
        made.columns = self.names
        if self.schema is not None:
            return _of_polars(made, self.schema)
        return made.to_numpy() if self.unnamed else made


def are_dicts(rows: Any) -> bool:
    """True for a list of rows that are dicts."""
    return isinstance(rows, list) and bool(rows) and all(isinstance(each, dict) for each in rows)


def _of_each(does: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
    """What is made of each value; of equal texts once."""
    of_text = {value: does(value) for value in dict.fromkeys(v for v in values if type(v) is str)}
    return [of_text[value] if type(value) is str else does(value) for value in values]


def _is_of_polars(frame: Any) -> bool:
    return type(frame).__module__.partition(".")[0] == "polars"


def _of_polars(frame: Any, schema: Mapping[str, Any]) -> Any:
    """A frame of pandas in the types of one of polars, where these hold the numbers."""
    polars: Any = import_module("polars")
    found = []
    for column in polars.from_pandas(frame, nan_to_null=True):
        typed = column.cast(schema[column.name])
        numbers = column.dtype.is_float()
        found.append(column if numbers and not typed.cast(column.dtype).equals(column) else typed)
    return polars.DataFrame(found)


def _column(name: Any, series: Any) -> _Numbers | _Values:
    kind = getattr(series.dtype, "kind", "O")
    categories = getattr(series.dtype, "categories", None)
    if categories is not None:
        return _Values(name, series.dtype, tuple(categories))
    if kind == "c":
        raise InputError(
            f"column {name!r} holds complex numbers; accepted: real ones, texts, categories, dates"
        )
    numbers = kind in "biuf"
    if numbers and kind in "iu":
        present = series.dropna()
        numbers = present.empty or float(max(abs(int(present.min())), abs(int(present.max())))) < _WHOLE
    return _Numbers(name, series.dtype) if numbers else _Values(name, series.dtype, None)


@dataclass(frozen=True)
class FrameModel:
    """A function of frames as one of numbers; `of_estimator` if an estimator was given and this is its answer."""

    function: Callable[[Any], Any]
    rows: FrameRows
    of_estimator: bool = False

    def __call__(self, numbers: Tensor) -> Any:
        frame = self.rows.frame(numbers)
        rows = "one row" if len(frame) == 1 else f"{len(frame)} rows"
        try:
            output = answer_to(self.function, frame, f"a frame of {rows} and {frame.shape[1]} columns")
        except InputError:
            raise
        except Exception as error:
            if unlike := self.rows.unlike_background(numbers):
                raise InputError(f"{unlike}; the model does not take it: {first_line(error):.200}") from error
            raise
        _refuse_words(output)
        told = "what the model returned for a frame"
        scores = output if isinstance(output, Tensor) else tensor_of(told, output)
        return scores if scores.is_floating_point() else scores.double()


def _refuse_words(output: Any) -> None:
    """InputError for names of classes, and for the outputs of a model of several at once."""
    several = isinstance(output, list | tuple) and len(output) > 1
    if several and all(isinstance(each, np.ndarray) and each.ndim == 2 for each in output):
        raise InputError(
            f"the model returned {len(output)} arrays, as one of several outputs does; accepted: those of one output, "
            "such as lambda rows: model.predict_proba(rows)[0]"
        )
    first = output.to_numpy() if is_frame(output) or is_series(output) else output
    while (isinstance(first, list | tuple) or getattr(first, "dtype", None) == np.dtype(object)) and len(
        first
    ):
        first = first[0]
    if isinstance(first, np.ndarray) and first.dtype.kind in "US" and first.size:
        first = str(first.flat[0])
    if isinstance(first, str):
        raise InputError(
            f"the model returned words, such as {first!r:.60}; accepted: a score for each class, as of predict_proba"
        )


def read_frame(model: Any, inputs: Any) -> Any:
    """The model, or one of tables if it is no torch module and is given a frame: its rows are their own background."""
    if isinstance(model, Classifier | torch.nn.Module) or not is_frame(as_pandas(inputs)):
        return model
    if len(inputs) == 1:
        raise InputError(
            "one row of a frame was given, and no rows to take the values of hidden columns from; accepted: "
            "apportion.Tabular(model, background=frame)"
        )
    return Tabular(model, inputs)


def _checked(frame: Any, what: str) -> Any:
    """A pandas frame with rows, and with columns that differ in name."""
    frame = as_pandas(frame)
    if not is_frame(frame):
        raise InputError(
            f"{what} is {type(frame).__name__}; accepted: a data frame of pandas or polars"
            + (", such as its collect()" if hasattr(frame, "collect") else "")
        )
    if not len(frame) or not len(frame.columns):
        raise InputError(f"{what} has shape {tuple(frame.shape)}; accepted: at least one row and one column")
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise InputError(f"{what} names the column {twice[0]!r} twice")
    for name in frame.columns:
        if isinstance(name, str):
            check_whole_signs(name, f"a column of {what}")
    return frame


def _present(names: Sequence[Any], given: Any, what: str) -> list[Any]:
    """The names, if all are there."""
    absent = [name for name in names if name not in given]
    if absent:
        there = list(map(str, given))
        near = nearest(str(absent[0]), there, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        if len(absent) == len(names) and not near:
            hint = (
                f"; its columns are called {', '.join(map(repr, there[:4]))}: is that the header of a table?"
            )
        more = f" and {len(absent) - 4} more" if len(absent) > 4 else ""
        raise InputError(f"{what} has no column {', '.join(map(repr, absent[:4]))}{more}{hint}")
    return list(names)


def _as_dict(row: Any, names: Sequence[Any]) -> Mapping[Any, Any]:
    if is_series(row):
        if not row.index.is_unique:
            raise InputError(f"the row names the column {row.index[row.index.duplicated()][0]!r} twice")
        row = {name: row.iloc[i] for i, name in enumerate(row.index)}
    if isinstance(row, Mapping):
        return row
    if isinstance(row, list | tuple | np.ndarray) and np.ndim(row) == 1 and len(row) == len(names):
        return dict(zip(names, row, strict=True))
    raise InputError(
        f"a row is {type(row).__name__}; accepted: a frame, a pandas row, a dict, or {len(names)} values in order"
    )


def _text(value: Any) -> str:
    return "missing" if _is_missing(value) else text_of(value)
