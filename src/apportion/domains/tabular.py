"""From a row as a person knows it (a dict, a pandas row, a line of a CSV file) to a model's input.

Pandas is never imported: its rows and frames are recognised by what they offer.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.core.features import TabularFeatures
from apportion.core.files import content_of, path_of
from apportion.core.numbers import as_pandas, is_frame
from apportion.errors import InputError, MissingFileError, nearest

# In a file these say that a value is missing. In a frame the first may as well be a category that was kept, such as
# Namibia, and the others are what missing values become as texts.
_MAYBE_MISSING = frozenset({"na", "n/a", "null"})
MISSING = _MAYBE_MISSING | {"", "nan", "<na>"}


@dataclass(frozen=True)
class Numeric:
    """A column that becomes one input, `(value - mean) / std`: 0 is the mean.

    Attributes:
        name (str): The column.
        mean (float, default 0.0): What is taken off.
        std (float, default 1.0): What is divided by.
    """

    name: str
    mean: float = 0.0
    std: float = 1.0

    size = 1

    def inputs(self, value: Any) -> tuple[float, ...]:
        number = _number(value)
        if number is None or not math.isfinite(number):
            raise InputError(f"column {self.name!r}: {value!r} is not a finite number")
        return ((number - self.mean) / self.std,)


@dataclass(frozen=True)
class Categorical:
    """A column that becomes one input for each category: 1 for the row's own, 0 for the others.

    Attributes:
        name (str): The column.
        categories (tuple of str): The categories, in the order of the inputs.
    """

    name: str
    categories: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.categories)

    def inputs(self, value: Any) -> tuple[float, ...]:
        text = _exact_text(value)
        text = text if text in self.categories else text_of(value)
        if text not in self.categories:
            near = nearest(text, self.categories) if len(self.categories) > 20 else self.categories
            accepted = ", ".join(map(repr, near or self.categories[:3]))
            if len(near) < len(self.categories):
                accepted = f"one of {len(self.categories)}, such as {accepted}"
            raise InputError(f"column {self.name!r}: {text!r} is not a known category; accepted: {accepted}")
        return tuple(float(text == category) for category in self.categories)


@dataclass(frozen=True)
class OrMissing:
    """A column that may have no value, which is a value like another: NaN for a number, or a category of its own.

    Attributes:
        column (Numeric or Categorical): The column.

    >>> OrMissing(Numeric("mass", 4000, 500)).inputs(None)
    (nan,)
    >>> OrMissing(Categorical("sex", ("female", "male"))).inputs("NA")
    (0.0, 0.0, 1.0)
    """

    column: Numeric | Categorical

    @property
    def name(self) -> str:
        return self.column.name

    @property
    def size(self) -> int:
        return self.column.size + isinstance(self.column, Categorical)

    def inputs(self, value: Any) -> tuple[float, ...]:
        absent = _is_absent(self.column, value)
        if isinstance(self.column, Numeric):
            return (math.nan,) if absent else self.column.inputs(value)
        known = (0.0,) * self.column.size if absent else self.column.inputs(value)
        return (*known, float(absent))


Column = Numeric | Categorical | OrMissing


@dataclass(frozen=True)
class TabularPreparation:
    """The columns of a table in order, and how each becomes model inputs.

    Calling it with one row gives the inputs (1, sum of column sizes) in float32 and the row's TabularFeatures. A row
    is a dict, a pandas row, a pandas frame of one row, or a sequence of values in the order of the columns; columns
    that are not known are ignored. InputError (a ValueError) names the column and the value of what cannot be used:
    missing columns or values, text in a numeric column, an unknown category.

    Attributes:
        columns (tuple of Numeric or Categorical): The columns.

    >>> columns = Numeric("age", mean=40, std=10), Categorical("sex", ("female", "male"))
    >>> preparation = TabularPreparation(columns)
    >>> inputs, features = preparation({"age": 45, "sex": "male"})
    >>> inputs, features.names, features.groups
    (tensor([[0.5000, 0.0000, 1.0000]]), ('age = 45', 'sex = male'), (0, 1, 1))
    """

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if not names or len(set(names)) < len(names):
            raise InputError(f"a preparation needs columns with different names, not {names}")
        for each in self.columns:
            column = each.column if isinstance(each, OrMissing) else each
            if isinstance(column, Numeric) and not (column.std > 0 and math.isfinite(column.mean)):
                raise InputError(
                    f"column {column.name!r}: mean {column.mean} and std {column.std} are no scale"
                )

    def __call__(self, row: Any) -> tuple[Tensor, TabularFeatures]:
        cells = self._cells(row)
        inputs = [column.inputs(cells[column.name]) for column in self.columns]
        features = TabularFeatures(
            columns=tuple(column.name for column in self.columns),
            cells=tuple(
                "missing" if _is_absent(column, cells[column.name]) else text_of(cells[column.name])
                for column in self.columns
            ),
            groups=tuple(index for index, block in enumerate(inputs) for _ in block),
        )
        single = torch.tensor([[value for block in inputs for value in block]], dtype=torch.float64).float()
        if bool(single.isinf().any()):
            place = features.groups[int(single.isinf().nonzero()[0, 1])]
            raise InputError(
                f"column {features.columns[place]!r}: {features.cells[place]} is too large for float32"
            )
        return single, features

    def in_double(self, row: Any) -> Tensor:
        """The same inputs in float64, for models that compute in it."""
        cells = self._cells(row)
        return torch.tensor(
            [[value for column in self.columns for value in column.inputs(cells[column.name])]],
            dtype=torch.float64,
        )

    def _cells(self, row: Any) -> Mapping[str, Any]:
        names = [column.name for column in self.columns]
        cells = _as_mapping(row, names)
        absent = [name for name in names if name not in cells]
        if absent:
            raise InputError(
                f"the row has no column {_join_names(absent)}; it has {_join_names(list(cells))}"
            )
        for column in self.columns:
            value = cells[column.name]
            if not isinstance(column, OrMissing) and _is_absent(column, value):
                raise InputError(
                    f"column {column.name!r}: the value is missing ({value!r}); for a model that takes missing values: "
                    "TabularPreparation.fit(table, missing=True)"
                )
        return cells

    @classmethod
    def fit(
        cls,
        table: Any,
        *,
        categorical: Iterable[str] = (),
        exclude: Iterable[str] = (),
        missing: bool = False,
    ) -> TabularPreparation:
        """Learn means, population standard deviations and categories (sorted) from a table.

        A column is numeric if all its values are numbers. A constant column keeps std 1. The texts "NA", "N/A" and
        "null" are missing values in a file, and categories beside other texts in a frame.

        Args:
            table (DataFrame or path): A pandas frame, or a CSV file.
            categorical (iterable of str, default ()): Columns that are categories though all their values are
                numbers.
            exclude (iterable of str, default ()): Columns to leave out (the label, an id).
            missing (bool, default False): Take missing values of the columns that have some here, for a model that
                is fitted with them (`OrMissing`). False: they are skipped here, and refused in a row.

        >>> import pandas
        >>> frame = pandas.DataFrame({"mass": [1.0, 3.0], "island": ["Dream", "Biscoe"]})
        >>> TabularPreparation.fit(frame).columns
        (Numeric(name='mass', mean=2.0, std=1.0), Categorical(name='island', categories=('Biscoe', 'Dream')))
        """
        data = _columns(table)
        forced, left_out = _names(categorical, "categorical"), _names(exclude, "exclude")
        unknown = [name for name in (*forced, *left_out) if name not in data]
        if unknown:
            raise InputError(
                f"the table has no column {_join_names(unknown)}; it has {_join_names(list(data))}"
            )
        return cls(
            tuple(
                _fit_column(name, data[name], name in forced, missing, isinstance(table, str | Path))
                for name in data
                if name not in left_out
            )
        )

    def to_json(self) -> str:
        """All of it as JSON; `from_json` gives an equal preparation."""
        return json.dumps([_fields(column) for column in self.columns])

    @classmethod
    def from_json(cls, text: str) -> TabularPreparation:
        """The preparation that `to_json` wrote; InputError for anything else.

        >>> preparation = TabularPreparation((Categorical("sex", ("female", "male")),))
        >>> TabularPreparation.from_json(preparation.to_json()) == preparation
        True
        """
        try:
            return cls(tuple(map(_column, json.loads(text))))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(f"this is not a tabular preparation written by to_json: {error!r}") from None


def read_row(path: str | Path, row: int = 0) -> dict[str, str]:
    """Row `row` (the first below the header is 0) of a CSV file as text by column; `.gz` is unpacked.

    The separator is a comma, or a semicolon, tab or | where the header has more of these, or what a first line `sep=;`
    says. Raises
    FileNotFoundError, or InputError for an empty or ragged file or a row that is not there.
    """
    header, rows = _read_csv(path_of("path", path))
    if not 0 <= row < len(rows):
        raise InputError(
            f"{path}: no row {row}; there are rows 0 to {len(rows) - 1}, counted below the header"
        )
    return dict(zip(header, rows[row], strict=True))


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    header, rows = parse_csv(path)
    for number, line in enumerate(rows):
        if len(line) != len(header):
            raise InputError(f"{path}: row {number} has {len(line)} values, the header {len(header)}")
    return header, rows


def parse_csv(path: Path, by_number: bool = False) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a CSV file, which may differ in length. With `by_number` the columns are called 0, 1,
    …, and the first line is a row, unless it calls them so itself."""
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a CSV file")
    if not path.exists():
        raise MissingFileError(f"{path}: no such file; a CSV file with a header line is needed")
    try:
        text = content_of(path).decode("utf-8-sig")
    except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}") from None
    if "\n" not in text:
        text = text.replace("\r", "\n")  # line ends of old
    told = re.match(r"sep=(.)\r?\n", text)  # as spreadsheets write it
    text = text[told.end() :] if told else text
    first = re.sub(r'"[^"]*"', "", text.partition("\n")[0])
    try:
        separator = told[1] if told else max(",;\t|", key=first.count)
        lines = [line for line in csv.reader(io.StringIO(text), delimiter=separator, strict=True) if line]
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file: {error}") from None
    numbers = [str(i) for i in range(len(lines[0]))] if lines else []
    if by_number and lines and [name.strip() for name in lines[0]] != numbers:
        lines = [numbers, *lines]
    if len(lines) < 2:
        raise InputError(f"{path} has {'no rows below its header' if lines else 'no content'}")
    header = [name.strip() for name in lines[0]]
    if len(set(header)) < len(header):
        raise InputError(f"{path}: the header names a column twice: {_join_names(header)}")
    return header, lines[1:]


def _as_mapping(row: Any, names: Sequence[str]) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return (
            row if all(name in row for name in names) else {str(name): value for name, value in row.items()}
        )
    if isinstance(row, str | Path):
        header, rows = _read_csv(path_of("the row", row))
        if len(rows) != 1:
            raise InputError(f"{row} has {len(rows)} rows; choose one: read_row(path, row)")
        return dict(zip(header, rows[0], strict=True))
    row = as_pandas(row)
    if is_frame(row):
        if len(row) != 1:
            raise InputError(
                f"one row is explained at a time, and this frame has {len(row)}: frame.iloc[[0]]"
            )
        return {name: values[0] for name, values in _columns(row).items()}
    if hasattr(row, "index") and hasattr(row, "to_dict"):  # a pandas row
        return {str(name): value for name, value in row.to_dict().items()}
    if isinstance(row, np.ndarray | Tensor):
        if row.ndim > 2 or (row.ndim == 2 and len(row) != 1):
            raise InputError(
                f"one row is explained at a time, and this array has the shape {tuple(row.shape)}; inputs that are "
                "encoded already are for the classifier's model"
            )
        row = row[0].tolist() if row.ndim == 2 and len(row) == 1 else row.tolist()
    if isinstance(row, Sequence):
        if len(row) != len(names):
            raise InputError(f"{len(row)} values for {len(names)} columns: {_join_names(names)}")
        return dict(zip(names, row, strict=True))
    raise InputError(
        f"a row is a dict, a pandas row, or {len(names)} values in order, not {type(row).__name__}"
    )


def _columns(table: Any) -> dict[str, list[Any]]:
    if isinstance(table, str | Path):
        header, rows = _read_csv(path_of("the table", table))
        return {name: [row[index] for row in rows] for index, name in enumerate(header)}
    table = as_pandas(table)
    if is_frame(table):
        if len(table) == 0:
            raise InputError("the frame has no rows")
        names = [str(name) for name in table.columns]
        if len(set(names)) < len(names):
            raise InputError(f"the frame names a column twice: {_join_names(names)}")
        return {name: list(table.iloc[:, index]) for index, name in enumerate(names)}
    raise InputError(f"a table is a pandas frame or the path of a CSV file, not {type(table).__name__}")


def _fit_column(name: str, values: list[Any], categorical: bool, missing: bool, of_file: bool) -> Column:
    present = [value for value in values if not _is_missing(value)]
    maybe = [value for value in values if isinstance(value, str) and value.strip().lower() in _MAYBE_MISSING]
    if maybe and (categorical or not present or any(_number(value) is None for value in present)):
        if of_file and present:
            warnings.warn(
                f"column {name!r}: {maybe[0]!r} is taken for a missing value; if it is a category (Namibia), give a "
                "frame: pandas.read_csv(path, keep_default_na=False)",
                stacklevel=4,
            )
        elif not of_file:
            present += maybe
    column = _column_of(name, present, categorical)
    return OrMissing(column) if missing and len(present) < len(values) else column


def _column_of(name: str, present: list[Any], categorical: bool) -> Numeric | Categorical:
    if not present:
        raise InputError(f"column {name!r} has no values; exclude it")
    numbers = [_number(value) for value in present]
    texts = [text_of(value) for value, number in zip(present, numbers, strict=True) if number is None]
    if texts and not categorical and 2 * len(texts) < len(present):
        # Rather a typing error than a column with a category for each number.
        raise InputError(
            f"column {name!r}: {texts[0]!r} is not a number, and most values are; correct it, or name "
            "the column in categorical"
        )
    if texts and not categorical:
        _refuse_disguised(name, present, texts)
    if categorical or texts:
        return Categorical(name, tuple(sorted({_exact_text(value) for value in present})))
    if not np.isfinite(np.array(numbers, dtype=np.float64)).all():
        raise InputError(f"column {name!r} has an infinite value")
    array = np.array(numbers, dtype=np.float64)
    # The standard deviation of equal numbers is not always 0, as that of seven times 0.1.
    scale = float(array.std()) if array.min() < array.max() else 0.0
    return Numeric(name, float(array.mean()), scale or 1.0)


def _refuse_disguised(name: str, present: list[Any], texts: list[str]) -> None:
    """Refuse numbers and dates that would each become a category."""
    commas = [text for text in texts if re.fullmatch(r"[-+]?\d+(?:[.,]\d+)*,\d+(?:\.\d+)?", text)]
    if 2 * len(commas) > len(texts):
        raise InputError(
            f"column {name!r}: {commas[0]!r} has a comma in a number; accepted: a decimal point and no separators of "
            "thousands; or name the column in categorical"
        )
    dates = [value for value in present if hasattr(value, "toordinal") or isinstance(value, np.datetime64)]
    if 2 * len(dates) > len(present):
        raise InputError(
            f"column {name!r}: {dates[0]} is a date, each of which would be a category of its own; accepted: numbers, "
            "such as days since the first; or name the column in categorical"
        )


def _fields(column: Column) -> dict[str, Any]:
    if isinstance(column, OrMissing):
        return {**_fields(column.column), "missing": True}
    return {"kind": "numeric" if isinstance(column, Numeric) else "categorical", **asdict(column)}


def _column(fields: dict[str, Any]) -> Column:
    column: Numeric | Categorical
    if fields["kind"] == "categorical":
        column = Categorical(str(fields["name"]), tuple(map(str, fields["categories"])))
    elif fields["kind"] == "numeric":
        column = Numeric(str(fields["name"]), float(fields["mean"]), float(fields["std"]))
    else:
        raise KeyError(fields["kind"])
    return OrMissing(column) if fields.get("missing") else column


def _names(names: Iterable[str], argument: str) -> tuple[str, ...]:
    if isinstance(names, str):
        raise InputError(f"{argument} takes a list of column names, not the text {names!r}")
    return tuple(names)


def _number(value: Any) -> float | None:
    if isinstance(value, bool | np.bool_):  # "True" in a CSV file is a category, so True is one too
        return None
    if isinstance(value, str) and "_" in value:  # Python reads "1_000" as a number, nobody else does
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ == "NaTType" or text_of(value).lower() in MISSING


def _is_absent(column: Column, value: Any) -> bool:
    """Whether a cell of this column has no value; a category may be called "NA"."""
    known = column.column if isinstance(column, OrMissing) else column
    named = isinstance(known, Categorical) and isinstance(value, str) and text_of(value) in known.categories
    return _is_missing(value) and not named


def text_of(value: Any) -> str:
    """As a person would write it; pandas turns whole numbers into floats where some are missing."""
    if isinstance(value, float | np.floating):
        # 7 digits: what a float32 holds.
        return str(int(value)) if float(value).is_integer() else f"{value:.7g}"
    return str(value).strip()


def _exact_text(value: Any) -> str:
    """The same with all digits of a number, of which a category may differ in the last."""
    if isinstance(value, float | np.floating) and not float(value).is_integer():
        return str(float(value)) if isinstance(value, np.float64) else str(value)
    return text_of(value)


def _join_names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
