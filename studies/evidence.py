"""Run what the documentation's numbers come from, and say which of them are other numbers now.

    python studies/evidence.py [PAGE …] [--data DATA] [--longest 60]

Each entry is a page, and a command that stands on it; the tables behind the command, up to the next command or heading,
are what it printed. A number of a table is as it was if the command prints one that is rounded to it. Columns of times
are left out. Commands with DATA run where that is given; what takes longer than so many minutes is left out.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Evidence(NamedTuple):
    page: str
    command: str
    minutes: int  # on one core


EVIDENCE = (
    Evidence("interactions.md", "studies/interactions_xor.py", 1),
    Evidence("interactions.md", "studies/interactions_nodes.py", 2),
    Evidence("interactions.md", "studies/interactions_known.py", 5),
    Evidence(
        "interactions.md", "studies/interactions_removal.py --removed 2,5,10,15,20,30 --retrainings 25", 20
    ),
    Evidence(
        "interactions.md", "studies/interactions_removal.py --removed 5,20 --retrainings 5 --seeds 5", 18
    ),
    Evidence("faithfulness.md", "docs/make_faithfulness.py", 3),
    Evidence("faithfulness.md", "studies/coverage_of_errors.py", 30),
    Evidence("faithfulness.md", "studies/coverage_of_errors.py --only others --runs 800", 40),
    Evidence("faithfulness.md", "studies/coverage_of_errors.py --only flips --runs 2000", 10),
    Evidence("faithfulness.md", "studies/coverage_of_errors.py --only errors --seeds 100", 30),
    Evidence("faithfulness.md", "studies/single_deletion.py DATA --train 600 --test 60 --epochs 2", 2),
    Evidence("lrp.md", "studies/concepts.py DATA --photos 20", 5),
    Evidence("study-text.md", "studies/text_known.py --texts 60 --seeds 1", 2),
    Evidence("study-text.md", "studies/text_strength.py DATA OUT", 25),
)
NUMBER = re.compile(r"(?<![\w.])[-−+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.]*[a-z])", re.I)
TIME = re.compile(r"second|\btime|\bs a |\bms\b|minutes", re.I)


def numbers(text: str) -> Iterator[Decimal]:
    """The numbers in a text.

    >>> [str(number) for number in numbers("| −0.93 (−1.36 to 0.5) | 55 % | 1e-3 |")]
    ['-0.93', '-1.36', '0.5', '55', '0.001']
    """
    yield from (Decimal(found.replace("−", "-")) for found in NUMBER.findall(text))


def tables_behind(page: str, command: str) -> list[str]:
    """The rows of the tables that stand behind a command on a page, without their columns of times."""
    anchor = command if f"`python {command}" in page else f"`{command[command.find('--') :]}"
    if anchor not in page:
        raise SystemExit(f"this command is not on its page: {command}")
    behind = page.partition(anchor)[2]
    behind = re.split(r"^#|`(?:python|make|apportion|--only) ", behind, maxsplit=1, flags=re.M)[0]
    rows, kept = [], None
    for line in behind.splitlines():
        if not line.startswith("|"):
            kept = None
            continue
        cells = line.strip().strip("|").split("|")
        if kept is None:
            kept = [i for i, cell in enumerate(cells) if i and not TIME.search(cell)]
        elif set(line) - set("|-: "):
            rows.append("|".join([cells[0], *(cells[i] for i in kept if i < len(cells))]))
    return rows


def unlike(row: str, printed: Collection[Decimal]) -> list[Decimal]:
    """The numbers of a row, but for its name, to which no number that was printed is rounded.

    >>> unlike("a 7 | 0.50 | 0.34", {Decimal("0.4998"), Decimal("0.33")})
    [Decimal('0.34')]
    """
    found = []
    for number in numbers(row.partition("|")[2]):
        ways = (ROUND_HALF_EVEN, ROUND_HALF_UP)
        if not any(
            each.quantize(number, way) == number for each in printed for way in ways if _fits(each, number)
        ):
            found.append(number)
    return found


def _fits(each: Decimal, number: Decimal) -> bool:
    """Whether it has as many digits: fewer say less, and what is far larger cannot be rounded to so many."""
    return each.as_tuple().exponent <= number.as_tuple().exponent and abs(each) < 10**12


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*")
    parser.add_argument("--data")
    parser.add_argument("--out", default="build/evidence")
    parser.add_argument("--longest", type=int, default=60)
    given = parser.parse_args()
    differ = 0
    for page, command, minutes in EVIDENCE:
        name = f"{page}, python {command}"
        if given.pages and page not in given.pages:
            continue
        if minutes > given.longest or ("DATA" in command and given.data is None):
            print(f"{name}: left out ({minutes} minutes{', needs --data' if 'DATA' in command else ''})")
            continue
        words = [{"DATA": given.data, "OUT": given.out}.get(word, word) for word in command.split()]
        rows = tables_behind((ROOT / "docs" / page).read_text(encoding="utf-8"), command)
        ran = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True)
        if ran.returncode:
            print(f"{name}: failed\n{ran.stderr[-2000:]}")
            differ += 1
            continue
        printed = list({str(number): number for number in numbers(ran.stdout)}.values())
        changed = [(row, missing) for row in rows if (missing := unlike(row, printed))]
        many = sum(len(list(numbers(row.partition("|")[2]))) for row in rows)
        print(
            f"{name}: {many} numbers in {len(rows)} rows, {sum(len(m) for _, m in changed)} of them are others now"
        )
        for row, missing in changed:
            print(f"    {row.strip()}: {', '.join(map(str, missing))}")
        differ += bool(changed)
    sys.exit(differ > 0)


if __name__ == "__main__":
    main()
