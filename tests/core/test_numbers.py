"""Numbers that come in other containers and formats than those of PyTorch."""

import numpy as np
import pandas
import pytest
import torch

import apportion as ap
from apportion.core.numbers import common_format, holds, tensor_of
from apportion.errors import InputError

ROWS = np.arange(6.0).reshape(2, 3)


def test_each_container_of_numbers_is_the_same_table():
    sparse = pytest.importorskip("scipy.sparse")
    whole = pandas.DataFrame(ROWS).astype("Int64")
    for given in (
        pandas.DataFrame(ROWS, columns=list("abc")),
        pandas.DataFrame(ROWS),
        whole,
        sparse.csr_matrix(ROWS),
        ROWS.tolist(),
        ROWS.astype(">f8"),
        ROWS.astype(np.longdouble),
        ROWS.astype(np.uint32),
        np.ma.masked_array(ROWS),
    ):
        assert tensor_of("data", given).double().tolist() == ROWS.tolist()
        assert ap.Background(given).data.double().tolist() == ROWS.tolist()


def test_fractions_of_python_stay_double_where_single_would_round():
    assert tensor_of("data", [[0.5]]).dtype == torch.float32
    assert tensor_of("data", [[20240121.0]]).item() == 20240121


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (pandas.DataFrame({"a": [1.0], "city": ["Rome"]}), "no numbers: 'city'"),
        (np.ma.masked_array(ROWS, ROWS > 4), "masked array"),
        (torch.eye(2).to_sparse(), "to_dense"),
        ([[1.0], [1.0, 2.0]], "no table of numbers"),
        (None, "NoneType; accepted"),
        ("rows.csv", "str; accepted"),
        (np.array([[2**64 - 1]], np.uint64), "does not hold"),
        (np.array([[1.0]], np.longdouble) / 3, "does not hold"),
    ],
)
def test_what_is_no_table_of_numbers_is_told(given, words):
    with pytest.raises(InputError, match=words):
        ap.Background(given)


def test_a_format_holds_numbers_or_not():
    assert holds(torch.uint8, torch.tensor([0, 255]), True)
    assert not holds(torch.uint8, torch.tensor([-1]), True)
    assert not holds(torch.int64, torch.tensor([torch.nan]), False)
    assert holds(torch.float32, torch.tensor([torch.nan, torch.inf]), True)
    assert not holds(torch.float16, torch.tensor([1e6]), False)
    assert not holds(torch.float64, torch.tensor([2**53 + 1]), False)
    assert common_format(torch.int64, torch.float32) == torch.float64
    assert common_format(torch.uint8, torch.int8) == torch.int16
