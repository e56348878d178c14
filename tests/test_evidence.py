"""The commands that the documentation's numbers come from stand on their pages, and a changed number is named."""

from __future__ import annotations

import importlib.util
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def script() -> Any:
    spec = importlib.util.spec_from_file_location("evidence", ROOT / "studies/evidence.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EVIDENCE = script()


@pytest.mark.parametrize("entry", EVIDENCE.EVIDENCE, ids=lambda entry: entry.command)
def test_each_command_is_there_with_a_table_behind_it(entry: Any) -> None:
    assert (ROOT / entry.command.split()[0]).is_file()
    assert EVIDENCE.tables_behind((ROOT / "docs" / entry.page).read_text(encoding="utf-8"), entry.command)


PAGE = """
Made by `python studies/one.py DATA`:

| name | a | seconds | b |
|---|---|---|---|
| x 9 | 0.50 | 3.2 | −1 (−2 to 4) |
| y | **55 %** | 4.1 | 7 |

Made by `python studies/other.py`:

| name | a |
|---|---|
| z | 3 |
"""


def test_the_tables_of_a_command_are_those_behind_it_without_times() -> None:
    rows = EVIDENCE.tables_behind(PAGE, "studies/one.py DATA")
    assert rows == [" x 9 | 0.50 | −1 (−2 to 4) ", " y | **55 %** | 7 "]
    assert EVIDENCE.tables_behind(PAGE, "studies/other.py") == [" z | 3 "]
    with pytest.raises(SystemExit, match="not on its page"):
        EVIDENCE.tables_behind(PAGE, "studies/none.py")


def test_a_number_is_as_it_was_if_one_that_is_printed_is_rounded_to_it() -> None:
    printed = set(EVIDENCE.numbers("0.4951 -1.0 -2.4 4 and 54.6 but 7.51"))
    rows = EVIDENCE.tables_behind(PAGE, "studies/one.py DATA")
    assert EVIDENCE.unlike(rows[0], printed) == []
    assert EVIDENCE.unlike(rows[1], printed) == [Decimal(7)]
    assert EVIDENCE.unlike("a | 0.500", {Decimal("0.5")}) == [
        Decimal("0.500")
    ]  # it was not printed as exactly
