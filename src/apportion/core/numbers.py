"""Numbers that a person gives in some container, as a tensor: none is rounded, cut or left out without a word."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.errors import InputError

TABLES = "a tensor, an array, a pandas frame of numbers, or a list of rows"


def tensor_of(what: str, given: Any, accepted: str = TABLES) -> Tensor:
    """A tensor of its own with these numbers. InputError for what holds none, or some that no tensor can hold.

    >>> tensor_of("data", [[1, 2.5]]), tensor_of("data", np.ones((1, 2), ">f8")).dtype
    (tensor([[1.0000, 2.5000]]), torch.float64)
    """
    if isinstance(given, Tensor):
        check_dense(what, given)
        return given.detach().clone()
    array = _array(what, given, accepted)
    if array.dtype.kind not in "biufc":
        kind = array.dtype if isinstance(given, np.ndarray) else type(given).__name__
        raise InputError(f"{what} has type {kind} and is no table of numbers; accepted: numbers")
    return torch.from_numpy(_in_known_format(what, array, isinstance(given, list | tuple)))


def check_dense(what: str, tensor: Tensor) -> None:
    """Raise InputError for a tensor whose numbers are not there one beside the other, or not at all.

    >>> check_dense("inputs", torch.ones(2, device="meta"))
    Traceback (most recent call last):
    apportion.errors.InputError: inputs: a tensor on the device 'meta' has no numbers; accepted: dense tensors
    """
    accepted = "accepted: dense tensors"
    if tensor.layout != torch.strided:
        raise InputError(f"{what}: this is a sparse tensor; {accepted}, such as its to_dense()")
    if tensor.is_meta:
        raise InputError(f"{what}: a tensor on the device 'meta' has no numbers; {accepted}")


def _array(what: str, given: Any, accepted: str) -> np.ndarray:
    given = as_pandas(given)
    if is_frame(given) or is_series(given):
        return _of_pandas(what, given)
    if hasattr(given, "toarray"):  # a sparse matrix of SciPy
        given = given.toarray()
    if isinstance(given, np.ma.MaskedArray):
        if bool(np.ma.getmaskarray(given).any()):
            raise InputError(
                f"{what} is a masked array with entries left out; accepted: one filled with numbers"
            )
        given = given.data
    if not isinstance(given, np.ndarray | list | tuple | float | np.generic):
        raise InputError(f"{what} is {type(given).__name__}; accepted: {accepted}")
    try:
        return np.array(given, order="C")
    except (TypeError, ValueError):  # rows of different length
        kind = type(given).__name__
        raise InputError(f"{what} has type {kind} and is no table of numbers; accepted: numbers") from None


def as_pandas(given: Any) -> Any:
    """A frame or column of another library, such as polars, as one of pandas; anything else as it is."""
    if not callable(convert := getattr(given, "to_pandas", None)):
        return given
    try:
        return convert()
    except ImportError as error:  # what polars converts by
        raise InputError(
            f"a {type(given).__name__} of {type(given).__module__.split('.')[0]} is read through pandas and pyarrow: "
            f"pip install {error.name or 'pandas pyarrow'}"
        ) from None


def is_frame(given: Any) -> bool:
    """True for a pandas frame, without importing pandas."""
    return hasattr(given, "iloc") and hasattr(given, "columns")


def is_series(given: Any) -> bool:
    """True for a pandas row or column."""
    return hasattr(given, "iloc") and hasattr(given, "to_numpy") and not is_frame(given)


def _of_pandas(what: str, table: Any) -> np.ndarray:
    kinds = dict(table.dtypes.items()) if is_frame(table) else {table.name: table.dtype}
    other = [name for name, kind in kinds.items() if getattr(kind, "kind", "O") not in "biuf"]
    if other:
        names = ", ".join(map(repr, other[:4])) + (f" and {len(other) - 4} more" if len(other) > 4 else "")
        raise InputError(f"{what} is a {type(table).__name__} with columns that are no numbers: {names}")
    array = table.to_numpy()
    if array.dtype == object:  # columns that may have holes
        array = table.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.array(array, order="C")


def _in_known_format(what: str, array: np.ndarray, of_python: bool) -> np.ndarray:
    """The same numbers in a format that PyTorch computes in."""
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        target: np.dtype = np.dtype(np.int64)
    elif array.dtype.kind == "f" and array.dtype.itemsize > 8:
        target = np.dtype(np.float64)
    elif of_python and array.dtype == np.float64 and _equal(array.astype(np.float32), array):
        return array.astype(np.float32)  # PyTorch's own format of Python's numbers
    else:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    found = array.astype(target)
    if not _equal(found.astype(array.dtype), array) or bool(((found < 0) != (array < 0)).any()):
        raise InputError(
            f"{what} has type {array.dtype} and numbers that {target} does not hold; accepted: float64 or int64, "
            f"rounded on purpose by astype({target.name!r})"
        )
    return found


def _equal(found: np.ndarray, given: np.ndarray) -> bool:
    return bool(np.array_equal(found, given, equal_nan=True))


def holds(dtype: torch.dtype, numbers: Tensor, exactly: bool) -> bool:
    """Whether a number format keeps these numbers: each one if `exactly` (or if the format is of whole numbers),
    otherwise whole numbers and finite ones, and fractions but for rounding.

    >>> holds(torch.int64, torch.tensor([0.5]), False), holds(torch.float32, torch.tensor(0.1).double() / 3, False)
    (False, True)
    >>> holds(torch.float32, torch.tensor([20240121]), False)
    False
    """
    kept = numbers.to(dtype).to(numbers.dtype)
    same = kept == numbers
    if dtype.is_floating_point:
        if numbers.is_floating_point():
            same |= numbers.isnan()
            if not exactly:
                same |= (numbers != numbers.round()) & ~kept.isinf()
        elif numbers.dtype == torch.int64:  # 2⁶³ comes back as 2⁶³ − 1 on some machines
            same &= numbers.to(dtype).double() < 2.0**63
    return bool(same.all())


def common_format(a: torch.dtype, b: torch.dtype) -> torch.dtype:
    """The number format that holds the numbers of both, as NumPy has it; float64 for whole numbers and fractions."""
    return torch.promote_types(a, b) if a.is_floating_point == b.is_floating_point else torch.float64
